"""What a trained model is judged by: log-likelihood with log Z by enumeration, and the Fisher divergence."""

import copy
from typing import Any

import torch
from torch import Tensor

from bism.errors import InputError
from bism.objectives import sm, sum_per_example
from bism.variables import Bernoulli

ENUMERABLE = 20  # hidden units; 2^20 configurations take a second or two
_CHUNK = 1 << 14


def enumerate_hidden(size: int, start: int, stop: int, dtype: torch.dtype, device: Any = "cpu") -> Tensor:
    """Configurations ``start`` to ``stop`` of ``size`` binary units, [stop - start, size]: the bits of their index."""
    index = torch.arange(start, stop, device=device)
    return ((index.unsqueeze(1) >> torch.arange(size, device=device)) & 1).to(dtype)


def log_partition(model: Any, method: str = "auto") -> float:
    """log Z of a model with Bernoulli latents, exactly: logsumexp over all 2^m h of -hidden_free_energy(h).

    Computed in float64 whatever the model's own precision. ``method`` is "enumerate", or "auto", which picks it where
    it can.

    Raises:
        InputError: the model's latents cannot be enumerated.
    """
    reason = not_enumerable(model)
    if method not in ("auto", "enumerate"):
        raise InputError(f"log_partition: method must be 'auto' or 'enumerate', got {method!r}")
    if reason:
        raise InputError(f"log Z of {type(model).__name__} cannot be enumerated: {reason}")
    size = model.latent.size
    with torch.no_grad():
        exact = in_double(model)
        device = next(exact.parameters()).device
        chunks = [
            enumerate_hidden(size, start, min(start + _CHUNK, 1 << size), torch.float64, device)
            for start in range(0, 1 << size, _CHUNK)
        ]
        parts = [(-exact.hidden_free_energy(h)).logsumexp(0) for h in chunks]
    return float(torch.stack(parts).logsumexp(0))


def not_enumerable(model: Any) -> str | None:
    """Why log Z cannot be had by enumeration, or None."""
    if not isinstance(model.latent, Bernoulli):
        return "its latent variables are not binary"
    if not hasattr(model, "hidden_free_energy"):
        return "it has no hidden_free_energy(h)"
    if model.latent.size > ENUMERABLE:
        return f"2^{model.latent.size} configurations are too many (at most 2^{ENUMERABLE})"
    return None


def log_likelihood(model: Any, v: Tensor, log_z: float | None = None) -> Tensor:
    """log p(v) = -F(v) - log Z in nats, [batch], in float64; log Z by enumeration unless given."""
    constant = log_partition(model) if log_z is None else log_z
    with torch.no_grad():
        return -in_double(model).free_energy(v.double()) - constant


def fisher_divergence(model: Any, v: Tensor) -> Tensor:
    """The Fisher divergence up to a constant of the data, eq. (2) with its 1/2: 1/2 ||s||^2 + tr(Hessian), [batch].

    By the model's closed form where it has one, otherwise with the exact trace.
    """
    if hasattr(model, "score_and_laplacian"):
        with torch.no_grad():
            score, laplacian = model.score_and_laplacian(v)
        return 0.5 * sum_per_example(score.square()) + laplacian
    return sm(lambda x: -model.free_energy(x), v).detach()


def in_double(model: Any) -> Any:
    """A copy of the model in float64."""
    return copy.deepcopy(model).double()


def grid_density(model: Any, low: float, high: float, points: int) -> tuple[Tensor, Tensor]:
    """The normalised density of a model of two visible units on a square grid: axis [points], p [points, points].

    p[i, j] is at (v_1, v_2) = (axis[j], axis[i]), as an image with its origin at the lower left shows it.
    """
    axis = torch.linspace(low, high, points, dtype=torch.float64)
    second, first = torch.meshgrid(axis, axis, indexing="ij")
    v = torch.stack([first.flatten(), second.flatten()], dim=1)
    return axis, log_likelihood(model, v).exp().reshape(points, points)
