"""Bi-level score matching: Algorithm 1 of the paper, and BiSSM, BiDSM and BiMDSM."""

import dataclasses
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from bism.bilevel import DIVERGENCES, descend, hypergradient, log_ratio
from bism.estimator import Estimator, Hyper
from bism.gradients import average, mean_grad, shards
from bism.hyperparameters import LOOP, UNROLLED, Range, choice, count, number
from bism.optimisers import Tree, Update, adam_init, adam_update, sgd_init, sgd_update
from bism.posteriors import default_posterior
from bism.rng import Rng
from bism.score_matching import Criterion, Denoising, Multiscale, Sliced
from bism.state import Info, State
from bism.variables import Bernoulli

Shard = tuple[Tensor, Any]  # batches, noise


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithPosterior(Estimator):
    """Estimators that train a variational posterior q(h|v; phi) beside the model, by some steps of its own."""

    inner_steps: int = count(
        5,
        "steps on the posterior before each step on the model",
        symbol="K",
        minimum=0,
        maximum=LOOP,
        tune=Range(0, 20),
    )
    lr_posterior: float = number(1e-3, "learning rate of the posterior", symbol="α", tune=Range(1e-4, 1e-1, log=True))
    lower_optimiser: str = choice(
        "adam",
        ("adam", "sgd"),
        "optimiser of the posterior: Adam as in the experiments, or plain gradient descent, eq. (12)-(13)",
    )
    temperature: float = number(0.1, "of the relaxed Bernoulli samples", tune=Range(0.05, 1.0, log=True))

    def unsupported(self, model: Any) -> str | None:
        if model.latent is None:
            return "it learns latent-variable models, and this model has no latent variables"
        return super().unsupported(model)

    def modules(self, model: nn.Module, posterior: nn.Module | None) -> dict[str, nn.Module]:
        return {"model": model, "posterior": posterior or default_posterior(model)}

    def init_optimiser(self, params: Tree) -> Tree:
        upper = {part: tensors for part, tensors in params.items() if part != "posterior"}
        lower = adam_init if self.lower_optimiser == "adam" else sgd_init
        return {"upper": adam_init(upper), "lower": lower(params["posterior"])}

    def lower_update(self, hyper: Hyper) -> Update:
        """One step of the lower level's optimiser."""
        if self.lower_optimiser == "sgd":
            return partial(sgd_update, lr=hyper["lr_posterior"])
        return partial(adam_update, lr=hyper["lr_posterior"], betas=(hyper["beta1"], hyper["beta2"]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiSM(Criterion, WithPosterior):
    """Bi-level score matching (Bao et al. 2020, eq. 8-15 and Algorithm 1), for models known by their energy alone.

    Each step first moves the posterior K times on the lower level, eq. (12), then the model once along the gradient
    of the score-matching objective through N unrolled steps, eq. (13)-(15). The unrolled steps leave the posterior
    where it is. Every inner and unrolled step draws its own noise, of v where the criterion perturbs it and of h.
    """

    unroll_steps: int = count(
        5,
        "unrolled steps on the posterior that the gradient goes through",
        symbol="N",
        minimum=0,
        maximum=UNROLLED,
        tune=(0, 1, 2, 5, 10),
    )
    lower: str = choice("kl", tuple(DIVERGENCES), "divergence of the lower level: KL, eq. (10), or Fisher, eq. (11)")
    particles: int = count(
        1,
        "samples of h per example in the lower level (with KL, the importance-weighted bound)",
        symbol="k",
        maximum=LOOP,
    )
    inner_batches: str = choice(
        "same",
        ("same", "fresh"),
        "minibatch of the K inner steps: the upper level's, as in the paper, or a fresh one for each",
    )

    def unsupported(self, model: Any) -> str | None:
        if self.lower == "fisher" and isinstance(model.latent, Bernoulli):
            return "lower='fisher' differentiates in h, eq. (11), and this model's h is discrete: use lower='kl'"
        return super().unsupported(model)

    @property
    def minibatches(self) -> int:
        return 1 + self.inner_steps if self.inner_batches == "fresh" else 1

    @property
    def repeats(self) -> int:
        return 0 if self.inner_batches == "fresh" else self.inner_steps

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        upper = {"visible": self.draw(batch_shape, rng), "hidden": model.latent.noise(rng, (batch_shape[0],))}
        unroll = [self.inner_noise(model, batch_shape, rng) for _ in range(self.unroll_steps)]
        inner = [self.inner_noise(model, batch_shape, rng) for _ in range(self.inner_steps)]
        return {"upper": upper, "unroll": unroll, "inner": inner}

    def inner_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        particles = (self.particles, batch_shape[0])
        return {"visible": self.draw_points(batch_shape, rng), "hidden": model.latent.noise(rng, particles)}

    def lower_loss(self, params: Any, batch: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        """G of eq. (9) on a minibatch: the mean divergence at the points that q(v) makes of it."""
        points = self.points(batch, noise["visible"], hyper)
        divergence = DIVERGENCES[self.lower](
            params.model, params.posterior, points, noise["hidden"], hyper["temperature"]
        )
        return (self.lower_weight(batch, noise["visible"], hyper) * divergence).mean()

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        """J_Bi of eq. (8) on a minibatch, at the given posterior."""
        drawn = noise["upper"]

        def log_density(v: Tensor) -> Tensor:
            h = params.posterior.sample(v.detach(), drawn["hidden"], hyper["temperature"])  # fixed for the score in v
            return log_ratio(params.model, params.posterior, v, h)

        return self.objective(log_density, batch, drawn["visible"], hyper).mean(), carry, {}

    def unshardable(self) -> str | None:
        return None

    def lower_objective(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        """G of eq. (9) on a minibatch, at the noise of the upper level."""
        drawn = {"visible": noise["upper"]["visible"], "hidden": noise["upper"]["hidden"][None]}
        return self.lower_loss(state.bind(), batches[0], drawn, hyper)

    def step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        """Lines 3 to 11 of Algorithm 1. Of a minibatch in shards, each unrolls its own lower level in lines 7 to 9."""
        parts, fresh = shards(batches, noise), self.inner_batches == "fresh"
        for i in range(self.inner_steps):
            given = [(of_batches[1 + i if fresh else 0], drawn["inner"][i]) for of_batches, drawn in parts]
            state = self._descended(state, given, hyper)
        return self._ascended(state, parts, hyper)

    def inner_step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> State:
        return self._descended(state, [(of_batches[0], drawn) for of_batches, drawn in shards(batches, noise)], hyper)

    def _descended(self, state: State, given: list[tuple[Tensor, Any]], hyper: Hyper) -> State:
        """One step on the posterior, eq. (12), on minibatches with their noise, one for each shard."""
        lower = partial(self._lower, state, hyper, {"model": state.params["model"]})
        update, phi, moments = self.lower_update(hyper), state.params["posterior"], state.optimiser["lower"]
        phi, moments = descend(lower, phi, moments, [given], update, mean_grad)
        return state.replace(params={**state.params, "posterior": phi}, optimiser={**state.optimiser, "lower": moments})

    def _lower(self, state: State, hyper: Hyper, theta: Tree, phi: Tree, given: tuple[Tensor, Any]) -> Tensor:
        """G of eq. (9) at (theta, phi) on a minibatch with its noise."""
        return self.lower_loss(state.bind({**theta, "posterior": phi}), *given, hyper)

    def _ascended(self, state: State, parts: list[Shard], hyper: Hyper) -> tuple[State, Info]:
        """The unrolled steps, eq. (13), and the step on the model, eq. (14)-(15)."""
        theta, phi = {"model": state.params["model"]}, state.params["posterior"]

        def upper(at: Tree, posterior: Tree, of: Shard) -> Tensor:
            params = state.bind({**at, "posterior": posterior})
            return self.loss(params, of[0][0], of[1], state.carry, hyper)[0]

        def unrolled(of: Shard) -> tuple[Tree, Tensor]:
            steps = [(of[0][0], drawn) for drawn in of[1]["unroll"]]
            lower, update = partial(self._lower, state, hyper), self.lower_update(hyper)
            return hypergradient(partial(upper, of=of), lower, theta, phi, state.optimiser["lower"], steps, update)

        gradient, value = average([unrolled(part) for part in parts])
        theta, moments = self.update_adam(gradient, theta, state.optimiser["upper"], hyper)
        return (
            state.replace(params={**theta, "posterior": phi}, optimiser={**state.optimiser, "upper": moments}),
            {"objective": value},
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiSSM(Sliced, BiSM):
    """Bi-level sliced score matching: eq. (3) under eq. (8)."""

    id: ClassVar[str] = "bissm"
    label: ClassVar[str] = "BiSSM-{unroll_steps}"
    reference: ClassVar[str] = "Bao et al. 2020, eq. 3 and 8-15"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiDSM(Denoising, BiSM):
    """Bi-level denoising score matching: eq. (4) under eq. (8)."""

    id: ClassVar[str] = "bidsm"
    label: ClassVar[str] = "BiDSM-{unroll_steps}"
    reference: ClassVar[str] = "Bao et al. 2020, eq. 4 and 8-15"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiMDSM(Multiscale, BiSM):
    """Bi-level multiscale denoising score matching: eq. (5) under eq. (8)."""

    id: ClassVar[str] = "bimdsm"
    label: ClassVar[str] = "BiMDSM-{unroll_steps}"
    reference: ClassVar[str] = "Bao et al. 2020, eq. 5 and 8-15"
