"""The HTTP service: routes, jobs, stores and limits. It knows models, but no networks."""

from __future__ import annotations
