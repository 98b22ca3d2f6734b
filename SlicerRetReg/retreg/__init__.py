"""Shared library of SlicerRetReg: geometry, transforms, closed-form fits, files, client."""

from __future__ import annotations
