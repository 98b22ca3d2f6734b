"""Smoothing thin-plate splines: solved from control points, and sampled quickly on grids."""

from __future__ import annotations

from retreg.splines.thin_plate import Kernel, Spline, fit_spline, fit_splines, kernel_matrix

__all__ = ["Kernel", "Spline", "fit_spline", "fit_splines", "kernel_matrix"]
