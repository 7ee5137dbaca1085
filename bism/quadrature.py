"""log Z of models of one or two real visible units, by sums over lattices.

Z is the integral of exp(-F(v)). For smooth densities that fall off on all sides, h^D times the sum over a lattice of
spacing h converges faster than any power of h (Trefethen and Weideman 2014): of a Gaussian with standard deviation s
it is off by a factor of 1 + 2D exp(-2 (pi s / h)^2), 5e-9 at h = s. So the spacing is halved until the 2^D lattices of
spacing 2h that one of spacing h consists of agree. Where there is mass is found from coarse to fine:

1. Rays from the origin say how far out -F still rises or is not negligible; the first lattice covers that.
2. A point is kept if -F is within ``depth`` of the largest found, or would be if it rose once more by as much as it
   differs from a neighbour's: narrow peaks between the points of a coarse lattice are seen by their flanks.
3. The neighbours of what is kept are looked at until no more is kept, so that the region grows to wherever there is
   mass. At half the spacing it goes on from there, from a block around the origin, and from the data.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bism.enumeration import free_energy, has_free_energy, in_double
from bism.variables import Bernoulli, has_binary_v

TOLERANCE = 1e-4
_BATCH = 1 << 9  # points at once: what they need stays near the processor
_FINEST, _MOST = 60, 1 << 18  # halvings of the spacing; points of a lattice
_ROUNDS = 50  # in which a region grows, before finer lattices go on
_RADII = 2.0 ** torch.arange(-6, 41, dtype=torch.float64)
_RAYS = 32
_ACROSS = {1: 200, 2: 20}  # points of the first lattice, from the origin to its border
_BLOCK = {1: 50, 2: 10}  # of the block around the origin that all lattices have
_BORDER = 3.0  # nats that the density falls by at the border of what is looked at
_PLACES = 2000  # of the data, at most about twice as many
_FAR = 1 << 30  # in units of the spacing, so that a point's indices fit one integer


@dataclasses.dataclass(frozen=True)
class Quadrature:
    """An integral: its logarithm, how well that is known, in nats, and how many points it took.

    ``error`` is by how much the furthest of the lattices of spacing 2h differs from their mean, which is the result,
    and the share of the points where the density falls through its last 3 nats; or, if that is more, how far the result
    at spacing 2h was away, whose lattice is another. The mean is nearer to the truth than they are wherever h is below
    the density's features; what has been missed altogether no error shows.
    """

    log_z: float
    error: float
    points: int


def not_integrable(model: Any) -> str | None:
    """Why log Z cannot be had by quadrature, or None."""
    if has_binary_v(model) or tuple(model.visible_shape) not in ((1,), (2,)):
        return "v is not one or two real units"
    if has_free_energy(model):
        return None
    many = isinstance(model.latent, Bernoulli)
    return f"2^{model.latent.size} h are too many to sum over at each v" if many else "it has no free_energy(v)"


def quadrature(model: Any, *, tolerance: float = TOLERANCE, data: Tensor | None = None) -> Quadrature:
    """log Z of a model of which ``not_integrable`` says nothing, in float64 whatever the model's precision; arguments
    as of ``log_integral``."""
    exact = in_double(model)
    like = next(exact.parameters())

    def log_density(v: Tensor) -> Tensor:
        with torch.no_grad():
            return -free_energy(exact, v.to(like.device)).cpu()

    return log_integral(log_density, *model.visible_shape, tolerance=tolerance, data=data)


def log_integral(
    log_density: Callable[[Tensor], Tensor],
    dimensions: int,
    *,
    tolerance: float = TOLERANCE,
    data: Tensor | None = None,
) -> Quadrature:
    """log of the integral of exp(log_density(v)) over all v in R^D, D = 1 or 2.

    Args:
        log_density: of float64 [n, D] to [n]; falls off in all directions.
        tolerance: in nats; finer lattices are tried until ``error`` is below it, or too many points are needed.
        data: points [n, D], n > 1, whose mean and standard deviations are the lattices' origin and units. There may be
            narrow peaks at them beside wider ones elsewhere: all lattices look around them, at up to 2,000 of them, and
            are fine enough only once they have met densities as high as the highest there, as of those on the rays.

    Returns:
        The integral; log_z is NaN where log_density gives NaN, and infinite where it does not fall off.
    """
    if data is None:
        nowhere = torch.empty(0, dimensions, dtype=torch.float64)
        return _log_integral(log_density, dimensions, tolerance, nowhere, -math.inf)
    data = data.double().cpu()
    centre, unit = data.mean(0), data.std(0)
    unit = unit.where(unit > 0, 1)
    values = log_density(data)
    places = ((data - centre) / unit)[values >= values.max() - depth(tolerance)]
    places = places[:: max(1, len(places) // _PLACES)]
    found = _log_integral(lambda x: log_density(centre + unit * x), dimensions, tolerance, places, float(values.max()))
    return dataclasses.replace(found, log_z=found.log_z + float(unit.log().sum()))


def depth(tolerance: float) -> float:
    """How far below its highest value log_density is negligible."""
    return 12 - math.log(tolerance)


def _log_integral(
    log_density: Callable[[Tensor], Tensor], dimensions: int, tolerance: float, places: Tensor, highest: float
) -> Quadrature:
    """The integral, in the lattices' units; ``places`` [n, D] are looked around at every spacing."""
    lattice = Lattice(log_density, dimensions, depth(tolerance))
    border = lattice.border()
    if not math.isfinite(border):
        return Quadrature(border, math.inf, 0)
    lattice.h = border / _ACROSS[dimensions]
    k, points, before = square(_ACROSS[dimensions], dimensions), 0, math.nan
    for _ in range(_FINEST):
        k = torch.cat([k, lattice.around(places)])
        k, values = lattice.grown(k)
        kept, points = lattice.significant(k, values), points + len(k)
        found = lattice.sum(k, values, points)
        if float(values.max()) < max(highest, lattice.highest) - 1:
            found = dataclasses.replace(found, error=math.inf)  # a peak lies between the points
        elif abs(found.log_z - before) > found.error:
            found = dataclasses.replace(found, error=abs(found.log_z - before))
        before = found.log_z
        if found.error <= tolerance or math.isnan(found.log_z) or int(kept.sum()) << dimensions > _MOST:
            break
        k = torch.cat([lattice.halved(k[kept]), square(_BLOCK[dimensions], dimensions)])
    return found


def square(radius: int, dimensions: int) -> Tensor:
    """All indices from -radius to radius, [n, D]."""
    side = torch.arange(-radius, radius + 1)
    return torch.cartesian_prod(*[side] * dimensions).reshape(-1, dimensions)


class Lattice:
    """v = h (k + offset) turned by an angle, with integer k [n, D].

    Neither offset nor angle is a simple fraction: densities that people think of are symmetric, and lattices that share
    their symmetry can agree before they are fine enough.
    """

    rounds = _ROUNDS

    def __init__(self, log_density: Callable[[Tensor], Tensor], dimensions: int, depth: float) -> None:
        self.log_density, self.dimensions, self.depth, self.h = log_density, dimensions, depth, 1.0
        self.highest = -math.inf  # on the rays
        self.offset = torch.tensor([0.3819660113, 0.2360679775], dtype=torch.float64)[:dimensions]
        cosine, sine = math.cos(0.5), math.sin(0.5)
        turned = [[cosine, sine], [-sine, cosine]] if dimensions == 2 else [[1.0]]
        self.axes = torch.tensor(turned, dtype=torch.float64)
        around = square(1, dimensions)
        self.moves = around[around.any(1)]

    def border(self) -> float:
        """A radius beyond which the density falls on all rays from the origin, and is negligible; infinite where there
        is none."""
        values = self.rays()[1].reshape(len(_RADII), -1)
        if values.isnan().any():
            return math.nan
        self.highest = float(values.max())
        high = values >= self.highest - self.depth
        high[:-1] |= values.diff(dim=0) > 0
        last = int(high.any(1).nonzero().max())
        return float(_RADII[last + 2]) if last + 2 < len(_RADII) else math.inf

    def rays(self) -> tuple[Tensor, Tensor]:
        """Distances [n] of points on rays from the origin, and the log-density there, [n, ...]."""
        angles = torch.arange(_RAYS, dtype=torch.float64) * (2 * torch.pi / _RAYS)
        rays = torch.stack([angles.cos(), angles.sin()], 1) if self.dimensions == 2 else torch.tensor([[1.0], [-1.0]])
        # each distance by itself: of points together the furthest says how far a product of matrices is rounded
        values = torch.cat([self.log_density(radius * rays.double()) for radius in _RADII])
        return _RADII.repeat_interleave(len(rays)), values

    def grown(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """Indices and log-densities: those given, and of the neighbours of significant ones all, in order of key."""
        keys = torch.unique(keys_of(k))
        values, new = torch.empty(0, dtype=torch.float64), keys
        known = keys[:0]
        for _ in range(self.rounds):
            known, order = torch.cat([known, new]).sort()
            values = torch.cat([values, self._values(_indices(new, self.dimensions))])[order]
            k = _indices(known, self.dimensions)
            around = k[self.significant(k, values)].unsqueeze(1) + self.moves
            new = torch.unique(keys_of(around.reshape(-1, self.dimensions)))
            new = new[~among(new, known)[1]]
            if not len(new):
                break
        return k, values

    def halved(self, k: Tensor) -> Tensor:
        """Halves the spacing; the new indices of the points around those given."""
        self.h /= 2
        nearest = (2 * k + self.offset).round().long()
        return (nearest.unsqueeze(1) + square(1, self.dimensions)).reshape(-1, self.dimensions)

    def around(self, places: Tensor) -> Tensor:
        """Indices of the points next to some places [n, D], each once."""
        return torch.unique((places @ self.axes.T / self.h - self.offset).round().long(), dim=0)

    def sum(self, k: Tensor, values: Tensor, points: int) -> Quadrature:
        """The integral; of so many ``points`` in all."""
        total = values.logsumexp(0)
        part = ((k & 1) << torch.arange(self.dimensions)).sum(1)
        parts = torch.stack([values[part == one].logsumexp(0) for one in range(1 << self.dimensions)])
        apart = parts + self.dimensions * math.log(2) - total
        border = values[values < values.max() - self.depth + _BORDER]
        beyond = (
            border.logsumexp(0) - total
        ).exp()  # there is less beyond them, where the density falls as e^-|v| does
        log_z = float(total) + self.dimensions * math.log(self.h)
        return Quadrature(log_z, float(apart.abs().max() + beyond), points)

    def _values(self, k: Tensor) -> Tensor:
        at = [self.h * (part + self.offset) @ self.axes for part in torch.split(k, _BATCH)]
        return torch.cat([self.log_density(v) for v in at])

    def significant(self, k: Tensor, values: Tensor) -> Tensor:
        """Which of these points, in order of key, are to be kept: see the module, 2."""
        keys = keys_of(k)
        rise = torch.zeros_like(values)
        for move in self.moves:
            place, there = among(keys_of(k + move), keys)
            difference = (values[place] - values).abs().where(there, 0)
            rise = torch.maximum(rise, difference)
        return values + rise >= values.max() - self.depth


def keys_of(k: Tensor) -> Tensor:
    """One integer for each row of indices."""
    shifted = k.clamp(-_FAR, _FAR - 1) + _FAR
    return shifted[:, 0] if k.shape[1] == 1 else (shifted[:, 0] << 31) | shifted[:, 1]


def _indices(keys: Tensor, dimensions: int) -> Tensor:
    """The inverse of ``keys_of``."""
    found = keys[:, None] if dimensions == 1 else torch.stack([keys >> 31, keys & ((1 << 31) - 1)], 1)
    return found - _FAR


def among(keys: Tensor, ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Where keys stand in an ordered list, and whether they do."""
    place = torch.searchsorted(ordered, keys).clamp(max=len(ordered) - 1)
    return place, ordered[place] == keys
