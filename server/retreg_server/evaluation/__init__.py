"""Benchmarks: how accurate, how robust and how fast the registration models are."""

from __future__ import annotations
