"""Series from archives and objects back to them, by DICOMweb (PS3.18)."""

from __future__ import annotations

import secrets
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from retreg.dicom.encoding import Encoder
from retreg.dicom.new_object import with_file_header
from retreg.dicom.source import Source, image_with_source
from retreg.errors import FileError, RetRegError, ServerError
from retreg.files.dicom_series import slices_of
from retreg.files.limits import MAX_SERIES_FILES
from retreg.image import Image
from retreg.progress import Progress, no_progress
from retreg_server.dicom.archives import Archive, SeriesName
from retreg_server.dicom.careful_session import Bounds, careful_session

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient
    from requests import Session

_INSTANCE, _SERIES, _COUNT = "00080018", "0020000E", "00201209"


def fetch_series(
    archive: Archive, wanted: SeriesName, bounds: Bounds, progress: Progress = no_progress
) -> Iterator[Any]:
    """The pydicom data sets, with pixels, of all instances of a series, as they arrive.

    Raises ServerError when the archive does not let one in, has no such series, or sends what is
    not allowed, and FileError for what is no DICOM.
    """
    count = 0
    with _sentences(archive):
        client = _client(archive, careful_session(archive, bounds))
        every = client.iter_series(
            wanted.study, wanted.series, media_types=(("application/dicom", "*"),)
        )
        for data in every:
            progress("receiving from the archive", 0.0)
            if count == MAX_SERIES_FILES:
                raise FileError(f"The series has more than {MAX_SERIES_FILES} instances.")
            data.buffer = None  # what was sent has been parsed
            count += 1
            yield data
    if not count:
        raise ServerError(f"The archive {archive.name} has no such series; check both UIDs.")


def fetched_image(
    archive: Archive, wanted: SeriesName, bounds: Bounds, progress: Progress = no_progress
) -> tuple[Image, Source]:
    """The image of a series, and what new objects refer to.

    Raises as fetch_series, and FileError or GeometryError for what is no single image.
    """
    return image_with_source(slices_of(fetch_series(archive, wanted, bounds, progress)))


def store_objects(
    archive: Archive, objects: Iterable[Any], bounds: Bounds
) -> dict[str, list[str]]:
    """Store pydicom data sets of one study, each as it is made; the instance UIDs by series.

    What the archive has afterwards is read back: its own word on that is not enough. Raises
    ServerError when something is missing, and what making the objects raises.
    """
    by_series: dict[str, list[str]] = defaultdict(list)
    study = ""

    def files() -> Iterator[bytes]:
        nonlocal study
        encoder = Encoder()
        for data in objects:
            study = str(data.StudyInstanceUID)
            by_series[str(data.SeriesInstanceUID)].append(str(data.SOPInstanceUID))
            yield encoder.file(with_file_header(data))

    with _sentences(archive):
        every = files()
        if (first := next(every, None)) is None:
            return {}
        session = careful_session(archive, bounds)
        _post(session, f"{archive.url}/studies", chain([first], every))
        client = _client(archive, session)
        kept = sum(_kept(client, study, series, uids) for series, uids in by_series.items())
    count = sum(map(len, by_series.values()))
    if kept < count:
        raise ServerError(
            f"The archive {archive.name} has kept only {kept} of {count} objects; ask its "
            "administrator, and register again."
        )
    return dict(by_series)


def _post(session: Session, url: str, files: Iterator[bytes]) -> None:
    """Store Instances (PS3.18, 10.5) in one request that grows while files are made."""
    boundary = secrets.token_hex(16)
    head = f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()

    def body() -> Iterator[bytes]:
        for file in files:
            yield head + file
        yield f"\r\n--{boundary}--".encode()

    kind = f'multipart/related; type="application/dicom"; boundary="{boundary}"'
    headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
    session.post(url, data=body(), headers=headers).raise_for_status()


def _kept(client: DICOMwebClient, study: str, series: str, uids: Sequence[str]) -> int:
    """How many of the instances of a new series are there; archives that do not count are asked on.

    Some answer in parts.
    """
    named = {"SeriesInstanceUID": series}
    found = client.search_for_series(study, fields=[_COUNT], search_filters=named)
    described = found[0] if len(found) == 1 else {}
    count = described.get(_COUNT, {}).get("Value")
    if count and described.get(_SERIES, {}).get("Value") == [series]:
        return min(int(count[0]), len(uids))
    known: set[str] = set()
    while True:
        found = client.search_for_instances(study, series, offset=len(known))
        new = {str(item[_INSTANCE]["Value"][0]) for item in found} - known
        if not new:
            return len(known & set(uids))
        known |= new


def _client(archive: Archive, session: Session) -> DICOMwebClient:
    from dicomweb_client import DICOMwebClient

    client = DICOMwebClient(archive.url, session=session, permissive_uid=True)
    client.set_http_retry_params(retry=False)
    return client


@contextmanager
def _sentences(archive: Archive) -> Iterator[None]:
    """Turn what the libraries raise into one sentence, without addresses or UIDs."""
    import requests

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except RetRegError:
        raise
    except requests.HTTPError as error:
        raise ServerError(_refusal(archive.name, error.response.status_code)) from None
    except requests.Timeout:
        raise ServerError(
            f"The archive {archive.name} does not answer in time; try again later."
        ) from None
    except requests.RequestException:
        raise ServerError(
            f"The archive {archive.name} cannot be reached, or broke off; check that it runs and "
            "its url in the settings."
        ) from None
    except MemoryError:
        raise FileError(
            "What the archive sends does not fit into memory; choose a smaller series."
        ) from None
    except Exception:
        raise ServerError(
            f"The archive {archive.name} sent what is no DICOM, or damaged; check the series there."
        ) from None


def _refusal(name: str, status: int) -> str:
    if status in (401, 403):
        return f"The archive {name} refuses the credentials in the settings; check them."
    if status == 404:
        return f"The archive {name} has no such series; check both UIDs."
    if status == 409:
        return f"The archive {name} has not kept all objects; ask its administrator."
    return f"The archive {name} answered with the error {status}; try again later."
