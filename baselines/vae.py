"""Variational autoencoders, by the evidence lower bound and by importance-weighted ones."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn, vmap

from bism.estimator import Estimator, Hyper
from bism.hyperparameters import Range, count, number
from bism.posteriors import default_posterior
from bism.priors import no_prior
from bism.rng import Rng
from bism.state import Info
from bism.variables import Bernoulli, Gaussian, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class Directed(Estimator):
    """Methods that train a ``LatentModel`` with an encoder q(h|v) beside it."""

    family: ClassVar[str] = "Latent space"
    needs: ClassVar[tuple[str, ...]] = ("log_visible", "prior_energy")
    trains: ClassVar[tuple[str, ...]] = ("model", "posterior")
    visible_units: ClassVar[tuple[type[Units], ...]] = (Gaussian, Bernoulli)
    maps_codes: ClassVar[bool] = True
    any_prior: ClassVar[bool] = False  # whether its prior may have an unknown normaliser
    binary_prior: ClassVar[bool] = False  # whether it is for priors of binary variables

    lr_posterior: float = number(
        1e-3, "learning rate of the encoder", symbol="α", tune=Range(1e-4, 1e-2, log=True), rate_of="posterior"
    )

    def unsupported(self, model: Any) -> str | None:
        reason = super().unsupported(model) or no_prior(model)
        if reason is None and model.prior.binary != self.binary_prior:
            return (
                "it is for binary latent variables, prior: rbm of latent_mlp and latent_conv"
                if self.binary_prior
                else f"its latent variables ({type(model.prior).__name__}) are binary; dvae trains such models"
            )
        if reason is None and not self.any_prior and not model.prior.normalised:
            return f"its prior ({type(model.prior).__name__}) has an unknown normaliser; lebm trains such models"
        return reason

    def modules(self, model: nn.Module, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        return {"model": model, "posterior": given["posterior"] if "posterior" in given else default_posterior(model)}


def negative_elbo(model: Any, posterior: Any, v: Tensor, noise: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """``weight`` KL(q(h|v) || p(h)) - log p(v|h) with one h ~ q(h|v), [batch].

    The KL is in closed form of a q that has one (``kl_to_standard_normal``) and a standard normal prior, and else
    log q(h|v) - log p(h) of that h.
    """
    h = posterior.sample(v, noise, 1.0)
    closed = model.prior.standard and hasattr(posterior, "kl_to_standard_normal")
    kl = posterior.kl_to_standard_normal(v) if closed else posterior.log_prob(h, v) + model.prior_energy(h)
    return weight * kl - model.log_visible(v, h)


def risen(steps: Tensor, warmup: int, weight: Tensor) -> Tensor:
    """A weight that rises from 0 along a line, over the first ``warmup`` steps."""
    return weight * (steps / warmup).clamp(max=1.0).to(weight) if warmup else weight


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weighted(Directed):
    """Those whose KL has a weight."""

    kl_weight: float = number(
        1.0, "of the KL, the beta of beta-VAEs; 1 for a bound", minimum=0.0, tune=Range(0.1, 10.0, log=True)
    )
    kl_warmup: int = count(0, "iterations over which that weight rises from 0", minimum=0)

    def scheduled(self, hyper: Hyper, step: Tensor) -> Hyper:
        hyper = super().scheduled(hyper, step)
        return {**hyper, "kl_weight": risen(step, self.kl_warmup, hyper["kl_weight"])}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAE(Weighted):
    """A LatentModel and its encoder along the evidence lower bound

        E_q [log p(v|h)] - KL(q(h|v) || p(h)),

    or with several particles along the importance-weighted bound log 1/k sum_i p(v, h_i) / q(h_i|v) (Burda et al. 2016,
    eq. 8), which lies above it, both with reparametrised h. The weight of the KL is then that of log q(h_i|v) / p(h_i).
    """

    id: ClassVar[str] = "vae"
    label: ClassVar[str] = "VAE"
    reference: ClassVar[str] = "Kingma and Welling 2014"
    colour: ClassVar[str] = "#3d5a80"
    marker: ClassVar[str] = "o"

    particles: int = count(1, "h per example; more than one: the importance-weighted bound", symbol="k", maximum=1000)

    @property
    def name(self) -> str:
        return f"IWAE-{self.particles}" if self.particles > 1 else super().name

    @property
    def passes(self) -> float:
        return 2.0 * self.particles

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return model.latent.noise(rng, (self.particles, batch_shape[0]))

    def loss(
        self, params: Any, batch: Tensor, noise: Tensor, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        model, posterior, weight = params.model, params.posterior, hyper["kl_weight"]
        if self.particles == 1:
            return negative_elbo(model, posterior, batch, noise[0], weight).mean(), carry, {}

        def cost(one: Tensor) -> Tensor:
            h = posterior.sample(batch, one, 1.0)
            return weight * (posterior.log_prob(h, batch) + model.prior_energy(h)) - model.log_visible(batch, h)

        return (math.log(self.particles) - (-vmap(cost)(noise)).logsumexp(0)).mean(), carry, {}
