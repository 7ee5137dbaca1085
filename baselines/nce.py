"""Noise-contrastive estimation."""

import dataclasses
import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from baselines.noise import (
    NOISES,
    NOISES_HELP,
    draw_noise,
    fit_noise,
    noise_log_prob,
    sample_noise,
    unsuited_noise,
)
from bism.estimator import Estimator, Hyper
from bism.hyperparameters import LOOP, choice, count
from bism.optimisers import Tree
from bism.rng import Rng
from bism.state import Info
from bism.variables import Bernoulli, Gaussian, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class NCE(Estimator):
    """Noise-contrastive estimation: logistic regression between data and nu noise vectors for each.

    log p(v) = -F(v) - c with the log normaliser c learnt; with G(v) = log p(v) - log(nu p_noise(v)) the loss is
    mean softplus(-G(data)) + nu mean softplus(G(noise)) (Gutmann and Hyvärinen 2010, eq. 8-10).
    """

    id: ClassVar[str] = "nce"
    label: ClassVar[str] = "NCE"
    reference: ClassVar[str] = "Gutmann and Hyvärinen 2010"
    family: ClassVar[str] = "Noise contrast"
    colour: ClassVar[str] = "#e07414"
    marker: ClassVar[str] = "D"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    visible_units: ClassVar[tuple[type[Units], ...]] = (Gaussian, Bernoulli)
    trains: ClassVar[tuple[str, ...]] = ("model", "normaliser")

    nu: int = count(1, "noise vectors per example", symbol="ν", maximum=LOOP, tune=(1, 2, 5, 10))
    noise_distribution: str = choice("standard_normal", NOISES, NOISES_HELP)

    def unsupported(self, model: Any) -> str | None:
        return super().unsupported(model) or unsuited_noise(self.noise_distribution, model)

    def extra_parameters(self, model: Any, rng: Rng) -> Tree:
        return {"normaliser": {"c": torch.zeros((), dtype=rng.dtype, device=rng.device)}}

    def fit_to(self, data: Tensor, data_noise: float) -> dict[str, Tensor]:
        return fit_noise(self.noise_distribution, data, data_noise)

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return draw_noise(self.noise_distribution, (self.nu * batch_shape[0], *batch_shape[1:]), rng)

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        def log_odds(v: Tensor) -> Tensor:
            log_p = -params.model.free_energy(v) - params.normaliser["c"]
            return log_p - noise_log_prob(carry, v) - math.log(self.nu)

        contrast = sample_noise(carry, noise)
        value = softplus(-log_odds(batch)).mean() + self.nu * softplus(log_odds(contrast)).mean()
        return value, carry, {}
