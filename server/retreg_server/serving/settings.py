"""What the server may be told at start, with defaults that are safe on a laptop.

Each field is a setting, with its meaning beside it; flags, environment variables, the TOML file
and the table in docs/deployment.md are made from this one list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from retreg.addresses import is_loopback
from retreg.errors import InputError
from retreg_server.dicom.archives import Archive
from retreg_server.dicom.peers import Peers, is_title
from retreg_server.serving.access.addresses import networks

MIN_TOKEN_LENGTH = 16
GIB = 2**30
Names = tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """Addresses, limits and secrets of one server. Raises InputError for what is not safe.

    archives: DICOMweb archives by name. peers: who sends and gets objects by C-STORE. token: what
    clients send as bearer token; None lets in the programs of this machine only.
    """

    host: Annotated[str, "address to listen on; any but this machine's needs a token"] = "127.0.0.1"
    port: Annotated[int, "port to listen on; 0 takes a free one"] = 8600
    archives: Mapping[str, Archive] = field(default_factory=dict)
    peers: Peers = field(default_factory=Peers)
    token: str | None = field(default=None, repr=False)
    tokens_file: Annotated[
        Path | None, "file with a token for each client, their names and rights"
    ] = None
    trusted_proxies: Annotated[
        Names, "addresses of proxies whose X-Forwarded-For is believed"
    ] = ()
    tls_cert: Annotated[Path | None, "file with the certificate chain, for HTTPS"] = None
    tls_key: Annotated[Path | None, "file with the private key of the certificate"] = None
    cors_origins: Annotated[Names, "origins whose pages may use this server"] = ()
    state_dir: Annotated[
        Path | None, "folder for results that outlive a restart; by default one for each port"
    ] = None
    devices: Annotated[
        Names, "one worker for each: cpu, or numbers of CUDA devices; auto: all of those, or cpu"
    ] = ("auto",)
    executor: Annotated[str, "local, or ray to run registrations on a Ray cluster"] = "local"
    ray_address: Annotated[
        str | None, "address of the Ray cluster; by default one is started on this machine"
    ] = None
    ray_replicas: Annotated[int, "largest number of workers on the Ray cluster"] = 4
    queue_size: Annotated[int, "registrations that may wait; more are refused with 429"] = 16
    queue_guests: Annotated[
        int, "clients with nothing in the queue that may still join it when it is full"
    ] = 64
    priority_clients: Annotated[
        Names, "addresses, or names of tokens, whose registrations get four times the share"
    ] = ()
    job_deadline_s: Annotated[float, "seconds that a registration may run"] = 600.0
    abandoned_s: Annotated[
        float, "seconds after which a registration ends whose watching client has gone"
    ] = 30.0
    reuse_results: Annotated[bool, "answer a request that was answered before at once"] = True
    max_image_bytes: Annotated[int, "size of one image, decoded"] = GIB
    upload_idle_s: Annotated[float, "seconds without a byte after which an upload ends"] = 30.0
    upload_total_s: Annotated[float, "seconds that one upload may take"] = 900.0
    head_deadline_s: Annotated[float, "seconds in which the head of a request must come"] = 10.0
    reader_idle_s: Annotated[float, "seconds for which a client may not read its answer"] = 30.0
    max_waiting_connections: Annotated[
        int, "connections without a request; as many may be slow to read; the longest one is closed"
    ] = 1000
    worker_memory_bytes: Annotated[
        int, "memory that a registration may take in a worker, apart from the models"
    ] = 8 * GIB
    file_memory_bytes: Annotated[int, "memory of the process that reads files"] = 6 * GIB
    file_deadline_s: Annotated[float, "seconds that reading or writing a file may take"] = 120.0
    archive_idle_s: Annotated[float, "seconds that an archive may be silent"] = 30.0
    archive_total_s: Annotated[float, "seconds that a series may take from an archive"] = 600.0
    dicom_port: Annotated[
        int | None, "port for images by C-STORE; 0 takes a free one; none is open by default"
    ] = None
    dicom_host: Annotated[str, "address to listen on for C-STORE"] = "127.0.0.1"
    dicom_title: Annotated[str, "title of our own application entity"] = "RETREG"
    dicom_settle_s: Annotated[
        float, "seconds without a new object after which a study is taken as complete"
    ] = 30.0
    dicom_keep_s: Annotated[
        float, "seconds after which a study is dropped that is not complete, or not registered"
    ] = 3600.0
    dicom_retry_s: Annotated[
        float, "seconds before results are sent again; the second pause is four times as long"
    ] = 30.0
    image_store_bytes: Annotated[
        int, "size of all images in memory: arriving, being decoded, in use and kept"
    ] = 4 * GIB
    result_store_bytes: Annotated[int, "size of all results that are kept, on disk"] = GIB // 2
    keep_s: Annotated[float, "seconds for which unused images and results are kept"] = 3600.0
    stop_grace_s: Annotated[float, "seconds that running registrations get at shutdown"] = 10.0
    log_format: Annotated[str, "text, or json: one object per line"] = "text"

    @property
    def image_limit(self) -> int:
        """Bytes of one image, decoded: no more than lets a pair of them be there."""
        return min(self.max_image_bytes, self.image_store_bytes // 2)

    def __post_init__(self) -> None:
        has_tokens = self.token is not None or self.tokens_file is not None
        if not has_tokens and not is_loopback(self.host):
            raise InputError(
                f"The address {self.host} can be reached from other machines, so a token is "
                "needed; give --token-file or --tokens-file, set RETREG_TOKEN, or listen on "
                "127.0.0.1."
            )
        if self.token is not None and not _is_usable(self.token):
            raise InputError(
                f"The token is not usable; it needs at least {MIN_TOKEN_LENGTH} characters, none "
                "of which is a blank or outside ASCII."
            )
        try:
            networks(self.trusted_proxies)
        except ValueError:
            raise InputError(
                f"The proxies {', '.join(self.trusted_proxies)!r} are not usable; give addresses "
                "or ranges such as 10.0.0.0/8."
            ) from None
        self._refuse_peers()
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("TLS needs both files; give --tls-cert and --tls-key, or neither.")
        if "*" in self.cors_origins:
            raise InputError("The origin * would let in every page; list the origins you trust.")
        if self.log_format not in ("text", "json"):
            raise InputError(f"The log format {self.log_format!r} is not known; use text or json.")
        if self.executor not in ("local", "ray") or self.ray_replicas < 1:
            raise InputError(
                f"The executor {self.executor!r} with {self.ray_replicas} workers is not known; "
                "use local, or ray with one worker or more."
            )
        if not self.devices or not all(map(_is_device, self.devices)):
            raise InputError(
                f"The devices {', '.join(self.devices)!r} are not usable; use auto, cpu, or "
                "numbers of CUDA devices such as 0,1."
            )

    def _refuse_peers(self) -> None:
        """Raise InputError for what is not enough to receive images by C-STORE."""
        if self.dicom_port is not None:
            self.peers.refuse_incomplete()
        if not is_title(self.dicom_title):
            raise InputError(
                f"The title {self.dicom_title!r} is not usable; 1 to 16 letters and digits were "
                "expected."
            )


def _is_usable(token: str) -> bool:
    return len(token) >= MIN_TOKEN_LENGTH and all("!" <= letter <= "~" for letter in token)


def _is_device(name: str) -> bool:
    return name in ("auto", "cpu") or (name.isascii() and name.isdigit())
