"""The checks of VAEs and of what all latent-space methods are made of can fail: models, priors, Hamiltonian chains."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import relu

import baselines.vae
import bism.hmc
import bism.latent
import bism.priors
from baselines.vae import VAE
from bism.hmc import adapted, leapfrog
from bism.latent import LatentModel
from bism.objectives import score
from bism.posteriors import DiagonalGaussian
from bism.priors import StandardNormal, Tilted
from bism.rng import Rng
from tests.maths.mutation import Mutation, replace
from tests.maths.test_latent import (
    density_error,
    drawn_error,
    elbo_error,
    importance_weighted_error,
    invariance_error,
    leapfrog_error,
    normaliser_error,
    samples_error,
    step_size_error,
    warmed_up_error,
)

KL, LOSS, SCHEDULED = DiagonalGaussian.kl_to_standard_normal, VAE.loss, VAE.scheduled
LOG_PROB, SAMPLE = DiagonalGaussian.log_prob, DiagonalGaussian.sample
ENERGY, VISIBLE, DRAW = LatentModel.energy, LatentModel.sample_visible, StandardNormal.draw
NEGATIVE_ELBO = baselines.vae.negative_elbo


def mean_of_logs(self: VAE, params: Any, batch: Tensor, noise: Tensor, *given: Any) -> Any:
    """The ELBO by several draws."""
    each = [LOSS(VAE(), params, batch, one[None], *given)[0] for one in noise]
    return torch.stack(each).mean(), {}, {}


def sum_of_weights(self: VAE, *given: Any) -> Any:
    value, *rest = LOSS(self, *given)
    return value - math.log(self.particles), *rest


def no_log_q(self: DiagonalGaussian, h: Tensor, v: Tensor) -> Tensor:
    return 0 * LOG_PROB(self, h, v)


def half_log_q(self: DiagonalGaussian, h: Tensor, v: Tensor) -> Tensor:
    return 0.5 * LOG_PROB(self, h, v)


def without_gradient(self: DiagonalGaussian, v: Tensor, noise: Tensor, temperature: Any = 1.0) -> Tensor:
    return SAMPLE(self, v, noise).detach()


def always_risen(self: VAE, hyper: Any, step: Tensor) -> Any:
    return {**SCHEDULED(self, hyper, step), "kl_weight": hyper["kl_weight"]}


def without_weight(model: Any, posterior: Any, v: Tensor, noise: Tensor, weight: Any) -> Tensor:
    return NEGATIVE_ELBO(model, posterior, v, noise)


def euler(energy: Any, x: Tensor, momentum: Tensor, step_size: Any, steps: int) -> tuple[Tensor, Tensor]:
    """Preserves volume, but is not reversible: whole steps of x and of p by turns."""
    for _ in range(steps):
        x = x + step_size * momentum
        momentum = momentum + step_size * score(lambda y: -energy(y), x)
    return x, momentum


def of_the_first_momentum(energy: Any, x: Tensor, momentum: Tensor, *how: Any) -> tuple[Tensor, Tensor]:
    """What the Metropolis test then takes for the change is that of E(x) alone."""
    return leapfrog(energy, x, momentum, *how)[0], momentum


def upwards(self: Tilted, h: Tensor) -> Tensor:
    return self.normal.energy(h) + self.tilt(h)


def of_the_normal(self: Tilted, count: int, rng: Rng) -> Tensor:
    return self.normal.draw(count, rng)


def without_normaliser(self: StandardNormal, h: Tensor) -> Tensor:
    return 0.5 * h.square().sum(-1)


MUTATIONS = [
    Mutation("vae", "half the KL", elbo_error,
             replace(DiagonalGaussian, "kl_to_standard_normal", lambda self, v: 0.5 * KL(self, v))),
    Mutation("vae", "the KL's sign", elbo_error,
             replace(baselines.vae, "negative_elbo", lambda *given: NEGATIVE_ELBO(*given[:-1], -1.0))),
    Mutation("vae", "no warm-up", warmed_up_error, replace(VAE, "scheduled", always_risen)),
    Mutation("vae", "a weight that rises for ever", warmed_up_error,
             replace(baselines.vae, "risen", lambda steps, warmup, weight: weight * steps / warmup)),
    Mutation("vae", "a weight that rises to 1", warmed_up_error,
             replace(baselines.vae, "risen", lambda steps, warmup, weight: (steps / warmup).clamp(max=1.0))),
    Mutation("vae", "no weight", warmed_up_error, replace(baselines.vae, "negative_elbo", without_weight)),
    Mutation("vae", "IWAE: a mean of logarithms", importance_weighted_error, replace(VAE, "loss", mean_of_logs)),
    Mutation("vae", "IWAE: a sum of weights", importance_weighted_error, replace(VAE, "loss", sum_of_weights)),
    Mutation("vae", "IWAE: no log q", importance_weighted_error, replace(DiagonalGaussian, "log_prob", no_log_q)),
    Mutation("vae", "IWAE: half log q", importance_weighted_error, replace(DiagonalGaussian, "log_prob", half_log_q)),
    Mutation("vae", "IWAE: no gradient through h", importance_weighted_error,
             replace(DiagonalGaussian, "sample", without_gradient)),
    Mutation("vae", "a prior without its normaliser", density_error,
             replace(StandardNormal, "energy", without_normaliser)),
    Mutation("vae", "p(v|h) without 2 pi", density_error, replace(bism.latent, "LOG_2PI", 0.0)),
    Mutation("vae", "p(v|h) of binary v without its normaliser", density_error, replace(bism.latent, "softplus", relu)),
    Mutation("vae", "log p(v|h) with the wrong sign in E", density_error,
             replace(LatentModel, "energy", lambda self, v, h: 2 * self.prior_energy(h) - ENERGY(self, v, h))),
    Mutation("vae", "v without noise", samples_error,
             replace(LatentModel, "sample_visible", lambda self, h, noise: VISIBLE(self, h, 0 * noise)), 0.03, 0.1),
    Mutation("vae", "v with noise of another scale", samples_error,
             replace(LatentModel, "sample_visible", lambda self, h, noise: VISIBLE(self, h, 1.3 * noise)), 0.03, 0.1),
    Mutation("vae", "h of half the scale", samples_error,
             replace(StandardNormal, "draw", lambda self, *of: 0.5 * DRAW(self, *of)), 0.03, 0.1),
    Mutation("lebm", "the tilt's sign", normaliser_error, replace(Tilted, "energy", upwards), 4.0, 10.0),
    Mutation("lebm", "draws of N(0, I)", drawn_error, replace(Tilted, "draw", of_the_normal), 4.0, 10.0),
    Mutation("hoffman", "uphill", leapfrog_error, replace(bism.hmc, "score", lambda energy, x: -score(energy, x))),
    Mutation("hoffman", "half the force", leapfrog_error,
             replace(bism.hmc, "score", lambda energy, x: 0.5 * score(energy, x))),
    Mutation("hoffman", "not reversible", invariance_error, replace(bism.hmc, "leapfrog", euler), 4.0, 8.0),
    Mutation("hoffman", "a test without the kinetic energy", invariance_error,
             replace(bism.hmc, "leapfrog", of_the_first_momentum), 4.0, 8.0),
    Mutation("hoffman", "a step size that goes the wrong way", step_size_error,
             replace(bism.hmc, "adapted", lambda size, share: adapted(size, share, -0.05)), 0.1, 0.3),
    Mutation("hoffman", "a step size that stays", step_size_error,
             replace(bism.hmc, "adapted", lambda size, share: size), 0.1, 0.3),
]  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: f"{one.estimator}: {one.what}")
def test_a_mutation_is_noticed(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mutation.check() < mutation.small
    mutation.apply(monkeypatch)
    assert not mutation.check() < mutation.large
