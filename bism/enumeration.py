"""Sums over all configurations of binary variables, h or v, where they are few enough.

The other side is summed or integrated out in closed form, by ``hidden_free_energy(h)`` or ``free_energy(v)``; where
both can be, the smaller side is enumerated.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from bism.rng import Rng
from bism.variables import Bernoulli, visible_noise, visible_units

ENUMERABLE = 20  # units; 2^20 configurations take a second or two
SUMMED = 10  # binary h that are summed over at each of many v
_CHUNK = 1 << 14
_TABLE = 1 << 17  # pairs of v and h at once, which fit the cache


def enumerate_hidden(size: int, start: int, stop: int, dtype: torch.dtype, device: Any = "cpu") -> Tensor:
    """Configurations ``start`` to ``stop`` of ``size`` binary units, [stop - start, size]: the bits of their index."""
    return _bits(torch.arange(start, stop, device=device), size, dtype)


def _bits(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    return ((index.unsqueeze(1) >> torch.arange(size, device=index.device)) & 1).to(dtype)


def _sides(model: Any) -> list[tuple[int, bool]]:
    """What can be enumerated, fewest units first: how many they are, and whether it is v."""
    found, units = list[tuple[int, bool]](), visible_units(model)
    if isinstance(model.latent, Bernoulli) and hasattr(model, "hidden_free_energy"):
        found.append((model.latent.size, False))
    if isinstance(units, Bernoulli) and hasattr(model, "free_energy"):
        found.append((units.size, True))
    return sorted(found)


def not_enumerable(model: Any) -> str | None:
    """Why log Z cannot be had by enumeration, or None."""
    sides = _sides(model)
    if not sides:
        if model.latent is None:
            return "it has no latent variables, and its v is not binary"
        binary = isinstance(model.latent, Bernoulli)
        return "it has no hidden_free_energy(h)" if binary else "its latent variables are not binary"
    if sides[0][0] > ENUMERABLE:
        return f"2^{sides[0][0]} configurations are too many (at most 2^{ENUMERABLE})"
    return None


def log_weights(model: Any) -> Tensor:
    """The unnormalised log-probability of every configuration of the enumerated side, the other summed or integrated
    out: [2^units] in float64, whatever the model's precision. log Z is their logsumexp."""
    (size, of_v), *_ = _sides(model)
    with torch.no_grad():
        exact = in_double(model)
        device = next(exact.parameters()).device
        chunks = [
            enumerate_hidden(size, start, min(start + _CHUNK, 1 << size), torch.float64, device)
            for start in range(0, 1 << size, _CHUNK)
        ]
        if of_v:
            return torch.cat([-exact.free_energy(v.reshape(-1, *model.visible_shape)) for v in chunks])
        return torch.cat([-exact.hidden_free_energy(h) for h in chunks])


def free_energy(model: Any, v: Tensor) -> Tensor:
    """F(v) [batch]: the model's own, or where it has none by the sum over all h, of binary h that are few enough.

    ``energies(v, h)``, of every v with every h, is used where a model has it, and else ``energy(v, h)``. Can be
    differentiated; who needs no derivatives calls it under ``torch.no_grad``.
    """
    if hasattr(model, "free_energy"):
        return model.free_energy(v)
    size, parts = model.latent.size, list[Tensor]()
    step = max(1, _TABLE // max(1, len(v)))
    for start in range(0, 1 << size, step):
        h = enumerate_hidden(size, start, min(start + step, 1 << size), v.dtype, v.device)
        parts.append((-energies(model, v, h)).logsumexp(1))
    return -torch.stack(parts).logsumexp(0)


def has_free_energy(model: Any) -> bool:
    """Whether F(v) can be had at many v: by the model's own, or by a sum over few enough binary h."""
    few = isinstance(model.latent, Bernoulli) and model.latent.size <= SUMMED
    return hasattr(model, "free_energy") or few


def energies(model: Any, v: Tensor, h: Tensor) -> Tensor:
    """E(v, h) of every v [batch, ...] with every h [n, m]: [batch, n]."""
    if hasattr(model, "energies"):
        return model.energies(v, h)
    pairs = model.energy(v.repeat_interleave(len(h), 0), h.repeat(len(v), 1))
    return pairs.reshape(len(v), len(h))


def exactly_sampled(model: Any) -> bool:
    """Whether a model has what ``exact_samples`` needs."""
    return not_enumerable(model) is None and (_sides(model)[0][1] or hasattr(model, "sample_visible"))


def exact_samples(model: Any, count: int, rng: Rng) -> Tensor:
    """Independent samples v [count, *visible_shape]: h by its probability among all, then v given h; or v itself.

    Not numbers, where the model's parameters are none or so large that its probabilities are none.
    """
    (size, of_v), *_ = _sides(model)
    weights = log_weights(model).softmax(0)
    if not weights.isfinite().all():
        return torch.full((count, *model.visible_shape), torch.nan, dtype=rng.dtype, device=rng.device)
    index = torch.multinomial(weights, count, replacement=True, generator=rng.source)
    with torch.no_grad():
        units = _bits(index, size, rng.dtype)
        if of_v:
            return units.reshape(count, *model.visible_shape)
        return model.sample_visible(units, visible_noise(model, (count,), rng))


def in_double(model: Any) -> Any:
    """A copy of the model in float64."""
    return copy.deepcopy(model).double()
