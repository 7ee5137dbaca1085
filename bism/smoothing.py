"""Smoothings r(zeta|z) of binary z, by which gradients reach q(z = 1|v): zeta in [0, 1] is near z, or is z.

With q = q(z = 1|v) and rho uniform on [0, 1] zeta(rho, q) is the inverse of the distribution function of

    q(zeta|v) = (1 - q) r(zeta|0) + q r(zeta|1),

continuous in q. At q = 0 and q = 1 it is a draw of r(zeta|z).
"""

import dataclasses
import math

import torch
from torch import Tensor

from bism.checks import check_positive
from bism.errors import InputError

_BLUNTEST, _SHARPEST = 0.01, 80.0  # beyond, float32 does not hold exp(b), or what of 1 - exp(-b) there is left


def _check_sharpness(value: float) -> None:
    if not _BLUNTEST <= check_positive("smoothing: sharpness", value) <= _SHARPEST:
        raise InputError(f"smoothing: sharpness must be from {_BLUNTEST} to {_SHARPEST:g}, got {value!r}")


@dataclasses.dataclass(frozen=True)
class SpikeExponential:
    """Rolfe 2017: zeta = 0 at z = 0, and r(zeta|1) = b exp(b zeta) / (exp(b) - 1) on [0, 1].

    sharpness: b; the larger, the nearer is zeta to z, and the fewer examples have a gradient.
    """

    sharpness: float

    def __post_init__(self) -> None:
        _check_sharpness(self.sharpness)

    def inverse(self, rho: Tensor, q: Tensor) -> Tensor:
        """zeta: 0 for rho <= 1 - q, and else log(1 + (exp(b) - 1) (rho + q - 1) / q) / b."""
        above = (rho + q - 1).clamp(min=0) / q.clamp(min=torch.finfo(q.dtype).eps)  # below it is 0 at every rho < 1
        return (above.clamp(max=1) * math.expm1(self.sharpness)).log1p() / self.sharpness

    def cdf(self, zeta: Tensor, q: Tensor) -> Tensor:
        """(1 - q) + q (exp(b zeta) - 1) / (exp(b) - 1)."""
        return 1 - q + q * torch.expm1(self.sharpness * zeta) / math.expm1(self.sharpness)

    def mean(self, q: Tensor) -> Tensor:
        """E[zeta|v] = q (1 / (1 - exp(-b)) - 1 / b)."""
        return q * _mean_of_one(self.sharpness)


@dataclasses.dataclass(frozen=True)
class OverlappingExponential:
    """Vahdat et al. 2018 (DVAE++): r(zeta|0) = b exp(-b zeta) / (1 - exp(-b)) on [0, 1], and r(zeta|1)
    its mirror image.

    sharpness: b.
    """

    sharpness: float

    def __post_init__(self) -> None:
        _check_sharpness(self.sharpness)

    def inverse(self, rho: Tensor, q: Tensor) -> Tensor:
        """zeta = -log(x) / b with the root x in [e, 1], e = exp(-b), of

        (1 - q) x^2 + (rho (1 - e) - (1 - q) + q e) x - q e = 0,

        which is the distribution function times x = exp(-b zeta). Of the root's two forms the one without a difference.
        """
        e = math.exp(-self.sharpness)
        a, c = 1 - q, q * e
        b = -math.expm1(-self.sharpness) * rho - a + c
        root = (b.square() + 4 * a * c).sqrt()
        falls = b < 0  # then a > 0, and else b + root > 0
        small = (root - b) / (2 * torch.where(falls, a, 1.0))
        large = 2 * c / torch.where(falls, 1.0, b + root)
        return -torch.where(falls, small, large).log() / self.sharpness

    def cdf(self, zeta: Tensor, q: Tensor) -> Tensor:
        """((1 - q) (1 - x) + q e (1 / x - 1)) / (1 - e) with x = exp(-b zeta)."""
        b, scale = self.sharpness, -math.expm1(-self.sharpness)
        return ((q - 1) * torch.expm1(-b * zeta) + q * math.exp(-b) * torch.expm1(b * zeta)) / scale

    def mean(self, q: Tensor) -> Tensor:
        """E[zeta|v]: of z = 1 as for ``SpikeExponential``, and one minus that of z = 0."""
        of_one = _mean_of_one(self.sharpness)
        return (1 - q) * (1 - of_one) + q * of_one


def _mean_of_one(b: float) -> float:
    return -1 / math.expm1(-b) - 1 / b


Smoothing = SpikeExponential | OverlappingExponential
SMOOTHINGS: dict[str, type[Smoothing]] = {
    "spike_exponential": SpikeExponential,
    "overlapping_exponential": OverlappingExponential,
}
