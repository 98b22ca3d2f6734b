"""The kernels of thin-plate splines with their peak taken off.

Within a radius rho of its centre, U(r) is replaced by its Taylor polynomial in the squared
distance about rho^2. What remains is smooth: it can be interpolated from a coarse lattice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.polynomial import Polynomial

from retreg.splines.thin_plate import Kernel

ORDER = 6  # of the Taylor polynomial


@dataclass(frozen=True)
class Softened:
    """The kernel with its peak taken off within radius_mm.

    Its functions take t = (r / radius)^2 and return values in units of scale.
    """

    kernel: Kernel
    radius_mm: float

    @property
    def scale(self) -> float:
        """U(r) is this times what the functions return."""
        return -self.radius_mm if self.kernel == "r" else self.radius_mm**2

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """The softened kernel, for contiguous t of any shape from 0 upwards."""
        values = self.exact(t)
        near = np.flatnonzero(t < 1)
        values.reshape(-1)[near] = self.smooth(t.reshape(-1)[near])
        return values

    def peak(self, t: np.ndarray) -> np.ndarray:
        """What was taken off, for t from 0 to 1."""
        return self.exact(t) - self.smooth(t)

    def exact(self, t: np.ndarray) -> np.ndarray:
        """U itself; see retreg.splines."""
        if self.kernel == "r":
            return np.sqrt(t)
        logs = np.log(t * self.radius_mm**2, out=np.zeros_like(t), where=t > 0)
        return 0.5 * t * logs

    def smooth(self, t: np.ndarray) -> np.ndarray:
        """Its Taylor polynomial about t = 1."""
        polynomial = _taylor(self.kernel)
        if self.kernel == "r2logr":
            polynomial = polynomial + np.log(self.radius_mm) * Polynomial([0, 1])
        values = np.full_like(t, polynomial.coef[-1])
        for coefficient in polynomial.coef[-2::-1]:
            values *= t
            values += values.dtype.type(coefficient)
        return values

    def sixth_derivative(self, distance: np.ndarray) -> np.ndarray:
        """A bound in mm^-5 (r2logr: mm^-4) on the sixth derivative along any line.

        It falls with the distance (mm). Beyond the radius it is 45 / r^5, or 60 / r^4.
        """
        power, outside = (5, 45.0) if self.kernel == "r" else (4, 60.0)
        bound = outside / np.maximum(distance, self.radius_mm) ** power
        inside = max(outside, _largest_sixth_derivative(self.kernel)) / self.radius_mm**power
        return np.where(distance <= self.radius_mm, inside, bound)


@cache
def _taylor(kernel: Kernel) -> Polynomial:
    """About t = 1, of the square root of t, or of t log(t) / 2."""
    terms = [1.0] if kernel == "r" else [0.0, 0.5]
    for n in range(len(terms), ORDER + 1):
        terms.append(terms[-1] * (1.5 - n) / n if kernel == "r" else (-1) ** n / (2 * n * (n - 1)))
    return Polynomial(terms)(Polynomial([-1, 1]))


@cache
def _largest_sixth_derivative(kernel: Kernel) -> float:
    """Of the Taylor polynomial f(t), t = u^2 + const, along u, where t <= 1.

    The derivative is 64 u^6 f^(6) + 480 u^4 f^(5) + 720 u^2 f^(4) + 120 f^(3).
    """
    third, fourth, fifth, sixth = (_taylor(kernel).deriv(n) for n in (3, 4, 5, 6))
    t = np.linspace(0, 1, 401)[:, None]
    u2 = t * np.linspace(0, 1, 101)
    total = 64 * u2**3 * sixth(t) + 480 * u2**2 * fifth(t) + 720 * u2 * fourth(t) + 120 * third(t)
    return float(np.abs(total).max())
