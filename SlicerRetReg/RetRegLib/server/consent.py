"""Nothing leaves this machine before the user has agreed, once for each server."""

from __future__ import annotations

from collections.abc import MutableMapping

from RetRegLib.server.connection import Connection

CONSENT_KEY = "uploadConsent"


class Consent:
    """Which servers volumes may be sent to; remembered in the settings."""

    def __init__(self, settings: MutableMapping[str, str]) -> None:
        self._settings = settings

    def is_needed(self, connection: Connection) -> bool:
        """Whether the user must be asked before a volume is sent."""
        return not connection.is_local and _origin(connection) not in self._given()

    def question(self, connection: Connection) -> str:
        """What is sent where, for a person to agree to."""
        way = (
            "The connection is encrypted."
            if connection.is_encrypted
            else "The connection is NOT encrypted: others on the network could read what is sent."
        )
        return (
            f"Registration sends the voxels and the geometry of both volumes to the server "
            f"{connection.host}. No DICOM header, patient name, file name or node name is sent, "
            "but the images themselves may show a face or writing that identifies the patient. "
            f"{way} Send volumes to {connection.host} from now on?"
        )

    def give(self, connection: Connection) -> None:
        """Remember that the user agrees."""
        self._keep({*self._given(), _origin(connection)})

    def withdraw(self, connection: Connection) -> None:
        """Forget it; the user will be asked again."""
        self._keep(set(self._given()) - {_origin(connection)})

    def _given(self) -> list[str]:
        return self._settings.get(CONSENT_KEY, "").split()

    def _keep(self, origins: set[str]) -> None:
        self._settings[CONSENT_KEY] = " ".join(sorted(origins))


def _origin(connection: Connection) -> str:
    """Scheme, host and port: a server that stops encrypting is another one."""
    return "/".join(connection.url.split("/")[:3]).lower()
