"""An app of MONAI Label whose tasks are the models of a running `retreg serve`.

    monailabel start_server --app server/monailabel_app --studies DIR --conf server http://HOST:8600

It needs nothing but MONAI Label itself: images go to that server, and what comes back is what the
server answers MONAI Label's clients, the transform as an ITK file and the result as parameters. The
token of the server, where it needs one, is in the variable RETREG_TOKEN.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import requests
from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask
from requests_toolbelt import MultipartDecoder, MultipartEncoder

CONNECT_S, ANSWER_S = 10.0, 900.0
WORDS = {
    "model", "image", "fixed", "moving_session", "label", "session", "session_id", "description",
    "device", "client_id", "timeout", "save_label", "label_tag", "label_info", "result_dtype",
    "result_compress", "result_write_to_file",
}  # fmt: skip
"""Of MONAI Label's protocol and of this app; all other parameters are options of a model."""


class RetRegApp(MONAILabelApp):
    """Offers what the server of `--conf server URL` offers, in MONAI Label's studies."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.server = str((conf or {}).get("server", "")).rstrip("/")
        if not self.server.startswith(("http://", "https://")):
            raise _not_started("no server is named; add --conf server http://127.0.0.1:8600")
        super().__init__(
            app_dir, studies, conf, name="RetReg", description="Image registration by RetReg"
        )

    def init_infers(self) -> dict[str, InferTask]:
        """A task for each model of the server. Raises MONAILabelException when it is not there."""
        try:
            answer = requests.get(f"{self.server}/info/", headers=_headers(), timeout=CONNECT_S)
            answer.raise_for_status()
            models = answer.json()["models"]
        except requests.HTTPError as error:
            raise _not_started(f"{self.server} answers {error.response.status_code}") from None
        except (requests.RequestException, ValueError, KeyError, TypeError):
            raise _not_started(f"{self.server} is no RetReg server that runs") from None
        return {name: RegistrationTask(self, name, model) for name, model in models.items()}

    def image_of(self, request: dict[str, Any], name: str) -> Path:
        """The image that a parameter names: of the studies, else the one of a session.

        Never a path: requests come from strangers. Raises HTTPException.
        """
        wanted = str(request[name])
        if name == "moving_session":
            session = self.sessions().get_session(Path(wanted).name)
            path = session.image if session else ""
        else:
            known = wanted in self.datastore().list_images()
            path = self.datastore().get_image_uri(wanted) if known else ""
        if not path:
            raise HTTPException(404, f"There is no image for {name}; send or choose it again.")
        return Path(path)


class RegistrationTask(InferTask):
    """One model: the image moves onto the one that the parameter fixed names by its id.

    As on the server itself, two images may also be sent as file (fixed) and label (moving), or lie
    in two sessions, of which moving_session names the moving one.
    """

    def __init__(self, app: RetRegApp, name: str, model: dict[str, Any]) -> None:
        super().__init__(
            model["type"], model["labels"], model["dimension"], model["description"],
            {"fixed": "", **model["config"]},
        )  # fmt: skip
        self._app, self._name = app, name

    def is_valid(self) -> bool:
        """Always: the server has said so."""
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """(path of the transform, the result). Raises HTTPException with the server's sentence."""
        fixed, moving = self._pair(request)
        options = {name: value for name, value in request.items() if name not in WORDS}
        with ExitStack() as stack:
            parts: dict[str, Any] = {"params": json.dumps(options)}
            for field, path in (("file", fixed), ("label", moving)):
                parts[field] = (f"image{_ending(path)}", stack.enter_context(_opened(path)))
            body = MultipartEncoder(parts)
            try:
                answer = requests.post(
                    f"{self._app.server}/infer/{self._name}",
                    data=body,
                    headers={**_headers(), "Content-Type": body.content_type},
                    timeout=(CONNECT_S, ANSWER_S),
                )
            except requests.RequestException:
                raise HTTPException(
                    502, "The RetReg server cannot be reached or does not answer; is it running?"
                ) from None
        return _result(answer)

    def _pair(self, request: dict[str, Any]) -> tuple[Path, Path]:
        """(fixed, moving)."""
        if not request.get("image"):
            raise HTTPException(404, "There is no such image; choose one of the studies.")
        image = Path(request["image"])
        if request.get("fixed"):
            return self._app.image_of(request, "fixed"), image
        if request.get("label"):
            return image, Path(request["label"])
        if request.get("moving_session"):
            return image, self._app.image_of(request, "moving_session")
        raise HTTPException(
            422, "One image is not enough; name the other one by its id, as the parameter fixed."
        )


def _result(answer: requests.Response) -> tuple[str, dict[str, Any]]:
    """What a server has answered, with the transform in a file that MONAI Label deletes."""
    if not answer.ok:
        try:
            sentence = str(answer.json()["message"])
        except (ValueError, KeyError, TypeError):
            sentence = "The RetReg server has failed."
        raise HTTPException(answer.status_code, sentence)
    params, file = MultipartDecoder.from_response(answer).parts
    named = file.headers[b"Content-Disposition"].decode("ascii").rstrip('"')
    ending = named.partition("filename=")[2].partition(".")[2]
    with tempfile.NamedTemporaryFile(
        prefix="transform-", suffix=f".{ending}", delete=False
    ) as kept:
        kept.write(file.content)
    return kept.name, json.loads(params.content)


def _headers() -> dict[str, str]:
    token = os.environ.get("RETREG_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _ending(path: Path) -> str:
    """Of the file that is sent: its name may be that of a patient."""
    if path.is_dir():
        return ".zip"
    return "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:])


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file, or the files of a series in a zip."""
    if path.is_file():
        with path.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as packed:
        with zipfile.ZipFile(packed, "w") as members:
            for number, each in enumerate(sorted(path.iterdir())):
                if each.is_file():
                    members.write(each, f"{number:05}{each.suffix}")
        packed.seek(0)
        yield packed


def _not_started(why: str) -> MONAILabelException:
    return MONAILabelException(MONAILabelError.APP_INIT_ERROR, f"The app cannot start: {why}.")
