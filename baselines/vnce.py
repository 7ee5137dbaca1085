"""Variational noise-contrastive estimation."""

import dataclasses
import math
from functools import partial
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
from bism.amortised import WithPosterior
from bism.bilevel import log_ratio
from bism.estimator import Hyper
from bism.hyperparameters import LOOP, choice, count
from bism.optimisers import Tree
from bism.rng import Rng
from bism.state import Info, State
from bism.variables import Bernoulli, Gaussian, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class VNCE(WithPosterior):
    """Variational NCE: a lower bound of the NCE objective for models known by their energy alone.

    With w(v, h) = p~(v, h) e^-c / (nu p_noise(v) q(h|v)), maximised is (Rhodes and Gutmann 2019, eq. 9)

        E_data E_q [-log(1 + 1 / w(v, h))]  -  nu E_noise [log(1 + E_q w(v, h))],

    the inner expectation of the second term over several particles (being inside the logarithm, with finitely many it
    makes the estimate optimistic). The posterior climbs the first term by K steps
    with relaxed samples; then the model and c take one step with the posterior and its binary samples held fixed.
    """

    id: ClassVar[str] = "vnce"
    label: ClassVar[str] = "VNCE"
    reference: ClassVar[str] = "Rhodes and Gutmann 2019"
    family: ClassVar[str] = "Noise contrast"
    colour: ClassVar[str] = "#9a5200"
    marker: ClassVar[str] = "d"
    trains: ClassVar[tuple[str, ...]] = ("model", "posterior", "normaliser")
    part_needs: ClassVar[dict[str, tuple[str, ...]]] = {"posterior": ("sample_hard",)}
    moves: ClassVar[tuple[str, ...]] = ("model", "normaliser")
    visible_units: ClassVar[tuple[type[Units], ...]] = (Gaussian, Bernoulli)

    nu: int = count(1, "noise vectors per example", symbol="ν", maximum=LOOP, tune=(1, 2, 5, 10))
    noise_particles: int = count(5, "samples of h per noise vector", maximum=LOOP, tune=(1, 2, 5, 10))
    noise_distribution: str = choice("standard_normal", NOISES, NOISES_HELP)

    def unsupported(self, model: Any) -> str | None:
        return super().unsupported(model) or unsuited_noise(self.noise_distribution, model)

    def extra_parameters(self, model: Any, rng: Rng) -> Tree:
        return {"normaliser": {"c": torch.zeros((), dtype=rng.dtype, device=rng.device)}}

    def fit_to(self, data: Tensor, data_noise: float) -> dict[str, Tensor]:
        return fit_noise(self.noise_distribution, data, data_noise)

    def unshardable(self) -> str | None:
        return None

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        size, latent = batch_shape[0], model.latent
        return {
            "visible": draw_noise(self.noise_distribution, (self.nu * size, *batch_shape[1:]), rng),
            "data": latent.noise(rng, (size,)),
            "particles": latent.noise(rng, (self.noise_particles, self.nu * size)),
        }

    def inner_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return model.latent.noise(rng, (batch_shape[0],))

    def log_weight(self, params: Any, v: Tensor, h: Tensor, carry: dict[str, Tensor]) -> Tensor:
        """log w(v, h), [batch]."""
        return (
            log_ratio(params.model, params.posterior, v, h)
            - params.normaliser["c"]
            - noise_log_prob(carry, v)
            - math.log(self.nu)
        )

    def lower_loss(self, params: Any, v: Tensor, noise: Tensor, carry: dict[str, Tensor], hyper: Hyper) -> Tensor:
        """The negative of the bound's first term on a minibatch, with relaxed samples."""
        h = params.posterior.sample(v, noise, hyper["temperature"])
        return softplus(-self.log_weight(params, v, h, carry)).mean()

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        """The negative of the bound on a minibatch, at the given posterior."""
        h = params.posterior.sample_hard(batch, noise["data"])
        data_term = softplus(-self.log_weight(params, batch, h, carry)).mean()
        contrast = sample_noise(carry, noise["visible"])
        weights = torch.stack(
            [
                self.log_weight(params, contrast, params.posterior.sample_hard(contrast, particle), carry)
                for particle in noise["particles"]
            ]
        )
        mean_weight = weights.logsumexp(0) - math.log(self.noise_particles)
        return data_term + self.nu * softplus(mean_weight).mean(), carry, {}

    def inner_step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> State:
        loss = partial(self.lower_loss, carry=state.carry, hyper=hyper)
        return self.move_part(state, "posterior", loss, batches, noise, hyper)[0]
