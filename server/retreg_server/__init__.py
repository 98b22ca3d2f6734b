"""Inference server of SlicerRetReg: registration models, HTTP service, evaluation, training."""

from __future__ import annotations
