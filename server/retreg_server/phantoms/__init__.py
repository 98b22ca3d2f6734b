"""Made-up image pairs whose true transform is known, for the demo and for tests."""

from __future__ import annotations
