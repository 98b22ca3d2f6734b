"""What the app folder uses of MONAI Label 0.8.5, for runs where that is not installed."""

from __future__ import annotations

import sys
from enum import Enum
from types import ModuleType, SimpleNamespace


class MONAILabelError(Enum):
    APP_INIT_ERROR = "APP_INIT_ERROR"


class MONAILabelException(Exception):
    def __init__(self, error, msg):
        super().__init__(error, msg)
        self.error, self.msg = error, msg


class InferTask:
    def __init__(self, type, labels, dimension, description, config=None):
        self.type, self.labels, self.dimension = type, labels, dimension
        self.description, self._config = description, dict(config or {})

    def config(self):
        return self._config


class MONAILabelApp:
    """studies: here the images by id. A session is one whose id begins with its path."""

    def __init__(self, app_dir, studies, conf, name="", description=""):
        self.app_dir, self.studies, self.conf = app_dir, studies, conf
        self.name, self.description = name, description
        self.infers = self.init_infers()

    def datastore(self):
        return SimpleNamespace(
            list_images=lambda: list(self.studies), get_image_uri=self.studies.__getitem__
        )

    def sessions(self):
        known = {f"session-{key}": SimpleNamespace(image=p) for key, p in self.studies.items()}
        return SimpleNamespace(get_session=known.get)

    def infer(self, request):
        """As theirs: an image that is no path is one of the studies."""
        request = dict(request, description=self.infers[request["model"]].description)
        if request["image"] not in self.studies.values():
            request["image"] = self.studies.get(request["image"], "")
        return self.infers[request["model"]](request)


def install(monkeypatch):
    """Let the app folder import this instead."""
    here = sys.modules[__name__]
    for name in ("app", "exception", "tasks.infer_v2"):
        module = ModuleType(f"monailabel.interfaces.{name}")
        for each in ("MONAILabelApp", "MONAILabelError", "MONAILabelException", "InferTask"):
            setattr(module, each, getattr(here, each))
        monkeypatch.setitem(sys.modules, module.__name__, module)
