"""Samplers."""

from typing import Any

from torch import Tensor

from bism.rng import Rng
from bism.variables import visible_noise


def gibbs_noise(model: Any, batch: int, steps: int, rng: Rng) -> dict[str, Tensor]:
    """The noise of ``steps`` sweeps of block Gibbs sampling over ``batch`` chains."""
    return {
        "hidden": model.latent.noise(rng, (steps, batch)),
        "visible": visible_noise(model, (steps, batch), rng),
    }


def gibbs(model: Any, v: Tensor, noise: dict[str, Tensor]) -> Tensor:
    """Block Gibbs sampling: as many sweeps h ~ p(h|v), v ~ p(v|h) as the noise has, from v [batch, *visible_shape]."""
    for hidden, visible in zip(noise["hidden"], noise["visible"], strict=True):
        v = model.sample_visible(model.sample_hidden(v, hidden), visible)
    return v
