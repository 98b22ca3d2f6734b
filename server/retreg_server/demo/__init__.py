"""The demonstration: simulated pairs, registered through a real server, shown on a page."""

from __future__ import annotations
