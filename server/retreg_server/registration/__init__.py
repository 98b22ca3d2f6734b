"""The engine room: models, networks and everything that uses torch or OpenCV."""

from __future__ import annotations
