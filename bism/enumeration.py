"""Sums over all configurations of binary latent variables, where they are few enough."""

import copy
from typing import Any

import torch
from torch import Tensor

from bism.rng import Rng
from bism.variables import Bernoulli

ENUMERABLE = 20  # hidden units; 2^20 configurations take a second or two
_CHUNK = 1 << 14


def enumerate_hidden(size: int, start: int, stop: int, dtype: torch.dtype, device: Any = "cpu") -> Tensor:
    """Configurations ``start`` to ``stop`` of ``size`` binary units, [stop - start, size]: the bits of their index."""
    return _bits(torch.arange(start, stop, device=device), size, dtype)


def _bits(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    return ((index.unsqueeze(1) >> torch.arange(size, device=index.device)) & 1).to(dtype)


def not_enumerable(model: Any) -> str | None:
    """Why log Z cannot be had by enumeration, or None."""
    if not isinstance(model.latent, Bernoulli):
        return "its latent variables are not binary"
    if not hasattr(model, "hidden_free_energy"):
        return "it has no hidden_free_energy(h)"
    if model.latent.size > ENUMERABLE:
        return f"2^{model.latent.size} configurations are too many (at most 2^{ENUMERABLE})"
    return None


def hidden_log_weights(model: Any) -> Tensor:
    """log of the integral of exp(-E(v, h)) over v for every h, [2^m] in float64, whatever the model's precision."""
    size = model.latent.size
    with torch.no_grad():
        exact = in_double(model)
        device = next(exact.parameters()).device
        chunks = [
            enumerate_hidden(size, start, min(start + _CHUNK, 1 << size), torch.float64, device)
            for start in range(0, 1 << size, _CHUNK)
        ]
        return torch.cat([-exact.hidden_free_energy(h) for h in chunks])


def exact_samples(model: Any, count: int, rng: Rng) -> Tensor:
    """Independent samples v [count, *visible_shape]: h by its probability among all, then v given h."""
    index = torch.multinomial(hidden_log_weights(model).softmax(0), count, replacement=True, generator=rng.source)
    with torch.no_grad():
        h = _bits(index, model.latent.size, rng.dtype)
        return model.sample_visible(h, rng.normal((count, *model.visible_shape)))


def in_double(model: Any) -> Any:
    """A copy of the model in float64."""
    return copy.deepcopy(model).double()
