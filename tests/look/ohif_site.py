"""A site with the unmodified OHIF: its files, a configuration, and an archive at one origin."""

from __future__ import annotations

import json
import mimetypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests

from retreg_server.dicom.archives import Archive

DIST = Path(__file__).parents[2] / "build/ohif/package/dist"  # of make test-viewers
PANEL = "@retreg/extension.panelModule.registration"


def configuration(module: str) -> str:
    """app-config.js of the site; extensions and customizationService are the two lines of ours."""
    root = "/dicom-web"
    archive = {
        "friendlyName": "archive", "name": "archive", "qidoRoot": root, "wadoRoot": root,
        "wadoUriRoot": root, "imageRendering": "wadors", "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True, "supportsWildcard": True,
        "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
    }  # fmt: skip
    settings = {
        "routerBasename": None, "modes": [], "showStudyList": True, "maxNumberOfWebWorkers": 1,
        "investigationalUseDialog": {"option": "never"}, "extensions": [module],
        "customizationService": {"mode": {"*": {"rightPanels": {"$push": [PANEL]}}}},
        "defaultDataSourceName": "archive",
        "dataSources": [{
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "archive", "configuration": archive,
        }],
    }  # fmt: skip
    return f"window.config = {json.dumps(settings)};"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    archive: Archive
    module: str

    def log_message(self, *_) -> None:
        """Silent."""

    def do_GET(self) -> None:
        name = self.path.split("?")[0].strip("/")
        file = DIST / name
        if name.startswith("dicom-web/"):
            self._forward()
        elif name == "app-config.js":
            self._answer(200, "text/javascript", configuration(self.module).encode())
        else:
            file = file if file.is_file() else DIST / "index.html"
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            self._answer(200, kind, file.read_bytes())

    def _forward(self) -> None:
        address = self.archive.url + self.path.removeprefix("/dicom-web")
        accept = {"Accept": self.headers.get("Accept", "*/*")}
        login = (self.archive.user, self.archive.password)
        try:
            found = requests.get(address, headers=accept, auth=login, timeout=20)
        except requests.ConnectionError:  # the archive has gone: the test has ended
            self.close_connection = True
            return
        # Orthanc names itself in the metadata; what is asked there has to come here.
        here = f"http://{self.headers['Host']}/dicom-web".encode()
        body = found.content
        if "json" in found.headers["Content-Type"]:
            body = body.replace(self.archive.url.encode(), here)
        self._answer(found.status_code, found.headers["Content-Type"], body)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def ohif_site(archive: Archive) -> Iterator[tuple[str, type[_Handler]]]:
    """Its origin while it runs, and where the address of the module is to be set."""
    handler = type("Site", (_Handler,), {"archive": archive, "module": ""})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
