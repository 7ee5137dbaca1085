"""log p(v) of models with one or two real latent variables, by sums over lattices of h (``bism.quadrature``).

    p~(v) = integral of exp(-E(v, h)) dh,   Z = integral of exp(-F(h)) dh,   F(h) = -log integral exp(-E(v, h)) dv.

One lattice serves a block of examples: what a decoder makes of its points is computed once, and a point is kept where
it matters to any of them. It grows and is halved as one of a single density is, until for each example the lattices
that it consists of, and the one before it, agree.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bism.enumeration import energies, in_double
from bism.quadrature import TOLERANCE, Lattice, Quadrature, among, depth, keys_of, log_integral, square
from bism.variables import Gaussian

_BLOCK = 64  # examples that share a lattice
_SPACING, _RADIUS = {1: 0.1, 2: 0.4}, {1: 100, 2: 20}  # of the first lattice: as far as a standard normal prior matters
_FINEST, _MOST = 20, 1 << 17  # halvings of the spacing; points of a lattice


@dataclasses.dataclass(frozen=True)
class Marginals:
    """log p~(v) of examples [batch] in float64, and how well each is known, in nats (as ``Quadrature.error``)."""

    values: Tensor
    errors: Tensor


def not_summable(model: Any) -> str | None:
    """Why log p(v) cannot be had by sums over h, or None."""
    if not isinstance(model.latent, Gaussian) or not hasattr(model, "hidden_free_energy"):
        return "h is not real, with an energy of its own (hidden_free_energy)"
    return f"h has {model.latent.size} codes, and lattices are for one or two" if model.latent.size > 2 else None


def log_z_of_codes(model: Any) -> Quadrature:
    """log Z of a model of which ``not_summable`` says nothing; without an error where the model knows it."""
    known = model.known_log_z() if hasattr(model, "known_log_z") else None
    if known is not None:
        return Quadrature(known, 0.0, 0)
    exact = in_double(model)
    device = next(exact.parameters()).device

    def log_density(h: Tensor) -> Tensor:
        with torch.no_grad():
            return -exact.hidden_free_energy(h.to(device)).cpu()

    return log_integral(log_density, model.latent.size)


def log_marginals(model: Any, v: Tensor, *, tolerance: float = TOLERANCE, places: Tensor | None = None) -> Marginals:
    """log p~(v) of a model of which ``not_summable`` says nothing, in float64 whatever the model's precision.

    Args:
        v: [batch, *visible_shape].
        tolerance: in nats; lattices are refined until every example's ``errors`` is below it, or points are too many.
        places: points h [batch, m] near which each p(h|v) may have its mass, such as a posterior's means.
    """
    exact = in_double(model)
    parts, blocks = list[Marginals](), _alike(v.double().flatten(1).cpu(), torch.arange(len(v)))
    for block in blocks:
        rows = v[block.to(v.device)].to(next(exact.parameters()))
        near = torch.empty(0, model.latent.size) if places is None else places[block.to(places.device)]

        def log_density(h: Tensor, which: Tensor, rows: Tensor = rows) -> Tensor:
            with torch.no_grad():
                return -energies(exact, rows[which.to(rows.device)], h.to(rows.device)).T.cpu()

        parts.append(_of_block(log_density, model.latent.size, len(rows), tolerance, near.double().cpu()))
    back = torch.cat(blocks).argsort()
    return Marginals(torch.cat([part.values for part in parts])[back], torch.cat([part.errors for part in parts])[back])


def _alike(v: Tensor, rows: Tensor) -> list[Tensor]:
    """``rows`` of v [n, D] in blocks of neighbours, whose p(h|v) need the same part of a lattice: halved at the median
    of what varies most."""
    if len(rows) <= _BLOCK:
        return [rows]
    widest = int(v[rows].var(0).nan_to_num(-1.0).argmax())
    order = rows[v[rows, widest].argsort()]
    middle = len(order) // 2
    return _alike(v, order[:middle]) + _alike(v, order[middle:])


def _of_block(
    log_density: Callable[[Tensor, Tensor], Tensor], dimensions: int, count: int, tolerance: float, places: Tensor
) -> Marginals:
    """Of log_density(h [n, m], examples [open]) to [n, open]: its integrals over h."""
    values = torch.full((count,), math.nan, dtype=torch.float64)
    errors, highest = torch.full_like(values, math.inf), torch.full_like(values, -math.inf)
    still = torch.arange(count)  # those that are not known well enough
    if len(places):
        highest = log_density(places, still).diagonal().clone()
    lattice = _Lattice(lambda h: log_density(h, still), dimensions, depth(tolerance))
    lattice.h, k = _SPACING[dimensions], square(_RADIUS[dimensions], dimensions)
    radii, on_rays = lattice.rays()  # where a prior has run away the mass is further than any lattice gets
    reached = radii[on_rays.argmax(0)] <= lattice.rounds * lattice.h
    values[~reached], still = on_rays.max(0).values[~reached], still[reached]
    if not len(still):
        return Marginals(values, errors)
    for _ in range(_FINEST):
        near = [lattice.around(places[still])] if len(places) else []
        k, at = lattice.grown(torch.cat([k, *near]))
        found, apart = lattice.sums(k, at)
        change = (found - values[still]).abs()
        error = torch.maximum(apart, torch.where(change.isnan(), math.inf, change))
        missed = (at.max(0).values < highest[still] - 1) | lattice.cut(k, at)
        values[still], errors[still] = found, torch.where(missed, math.inf, error)
        rough = ~(errors[still] <= tolerance) & ~found.isnan()
        kept = lattice.significant(k, at[:, rough])
        still = still[rough]
        if not len(still) or int(kept.sum()) << dimensions > _MOST:
            break
        k = lattice.halved(k[kept])
    return Marginals(values, errors)


class _Lattice(Lattice):
    """A lattice on which several densities have values, [n, examples]."""

    rounds = 300  # outliers' h may be far

    def significant(self, k: Tensor, values: Tensor) -> Tensor:
        """Which points, in order of key, matter to any of the densities."""
        keys, rise = keys_of(k), torch.zeros_like(values)
        for move in self.moves:
            place, there = among(keys_of(k + move), keys)
            rise = torch.maximum(rise, (values[place] - values).abs_().where(there.unsqueeze(1), 0))
        return (values + rise >= values.max(0).values - self.depth).any(1)

    def cut(self, k: Tensor, values: Tensor) -> Tensor:
        """Of which densities there is some beyond these points, [examples]."""
        inside = torch.ones(len(k), dtype=torch.bool)
        for move in self.moves:
            inside &= among(keys_of(k + move), keys_of(k))[1]
        return (values[~inside] >= values.max(0).values - self.depth).any(0)

    def sums(self, k: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The integrals, and how far those on lattices of twice the spacing are from them, each [examples]."""
        total = values.logsumexp(0)
        part = ((k & 1) << torch.arange(self.dimensions)).sum(1)
        parts = torch.stack([values[part == one].logsumexp(0) for one in range(1 << self.dimensions)])
        apart = (parts + self.dimensions * math.log(2) - total).abs().max(0).values
        return total + self.dimensions * math.log(self.h), apart
