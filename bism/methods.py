"""Bi-level score matching: Algorithm 1 of the paper, and BiSSM, BiDSM and BiMDSM."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor

from bism.amortised import Amortised
from bism.bilevel import LowerLevel, log_ratio, unrolled
from bism.estimator import Hyper
from bism.hyperparameters import LOOP, UNROLLED, choice, count, number
from bism.implicit import Upper, implicit, neumann
from bism.optimisers import Tree
from bism.phases import Phase
from bism.rng import Rng
from bism.score_matching import Denoising, Multiscale, Sliced
from bism.state import Info, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiSM(Amortised):
    """Bi-level score matching (Bao et al. 2020, eq. 8-15 and Algorithm 1), for models known by their energy alone.

    Each step first moves the posterior K times on the lower level, eq. (12), then the model once along the gradient
    of the score-matching objective through N unrolled steps, eq. (13)-(15). The unrolled steps leave the posterior
    where it is. Every inner and unrolled step draws its own noise, of v where the criterion perturbs it and of h.
    """

    family: ClassVar[str] = "Bi-level score matching"

    unroll_steps: int = count(
        5,
        "unrolled steps on the posterior that the gradient goes through; with other hypergradients iterations or terms",
        symbol="N",
        minimum=0,
        maximum=UNROLLED,
        tune=(0, 1, 2, 5, 10),
    )
    hypergradient: str = choice(
        "unroll",
        ("unroll", "implicit", "neumann"),
        "through N unrolled steps; or implicitly, by N conjugate gradients or the first N terms of a Neumann series",
    )
    damping: float = number(
        1.0, "added to the lower level's Hessian in conjugate gradients: sampled h make it noisy", minimum=0.0
    )
    neumann_rate: float = number(0.1, "rate of the Neumann series: at most 2 / (the lower level's largest curvature)")
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

    @property
    def passes(self) -> float:
        return super().passes + 1.5 * self.unroll_steps

    @property
    def unrolled(self) -> int:
        return self.unroll_steps if self.hypergradient == "unroll" else 0

    @property
    def phases(self) -> tuple[Phase, ...]:
        (inner,) = super().phases
        return (dataclasses.replace(inner, minibatches=1 if self.inner_batches == "fresh" else 0),)

    @property
    def lower_particles(self) -> int:
        return self.particles

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        upper = {"visible": self.draw(batch_shape, rng), "hidden": model.latent.noise(rng, (batch_shape[0],))}
        unroll = [self.inner_noise(model, batch_shape, rng) for _ in range(self.unroll_steps)]
        return {"upper": upper, "unroll": unroll}

    def criterion_noise(self, noise: Any) -> Any:
        return noise["upper"]["visible"]

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        """J_Bi of eq. (8) on a minibatch, at the given posterior."""
        drawn = noise["upper"]

        def log_density(v: Tensor) -> Tensor:
            h = params.posterior.sample(v.detach(), drawn["hidden"], hyper["temperature"])  # fixed for the score in v
            return log_ratio(params.model, params.posterior, v, h)

        return self.objective(log_density, batch, drawn["visible"], hyper).mean(), carry, {}

    def lower_objective(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        """G of eq. (9) on a minibatch, at the noise of the upper level."""
        drawn = {"visible": noise["upper"]["visible"], "hidden": noise["upper"]["hidden"][None]}
        return self.lower_loss(state.bind(), batches[0], drawn, hyper)

    def step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        """The unrolled steps, eq. (13), and the step on the model, eq. (14)-(15): lines 7 to 11 of Algorithm 1. Of a
        minibatch in shards, each unrolls its own lower level."""
        start = state.params["posterior"], state.optimiser["posterior"]

        def objective(params: Tree, of: Tensor, drawn: Any) -> Tensor:
            def at(theta: Tree, phi: Tree) -> Any:
                return state.bind({**params, "model": theta, "posterior": phi})

            def lower(theta: Tree, phi: Tree, given: Any) -> Tensor:
                return self.lower_loss(at(theta, phi), of[0], given, hyper)

            def upper(theta: Tree, phi: Tree) -> Tensor:
                return self.loss(at(theta, phi), of[0], drawn, state.carry, hyper)[0]

            return self.surrogate(upper, lower, *start, drawn["unroll"], hyper)(params["model"])

        state, value, _ = self.move(state, ("model",), objective, batches, noise, hyper)
        return state, {"objective": value}

    def surrogate(
        self, upper: Upper, lower: LowerLevel, phi: Tree, optimiser: Tree, noises: Sequence[Any], hyper: Hyper
    ) -> Callable[[Tree], Tensor]:
        """The function of theta of which the hypergradient is the gradient: through unrolled steps, or implicit."""
        if self.hypergradient == "implicit":
            return implicit(upper, lower, phi, noises, hyper["damping"])
        if self.hypergradient == "neumann":
            return neumann(upper, lower, phi, noises, hyper["neumann_rate"])
        return unrolled(upper, lower, phi, optimiser, noises, self.update("posterior", hyper))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiSSM(Sliced, BiSM):
    """Bi-level sliced score matching: eq. (3) under eq. (8)."""

    id: ClassVar[str] = "bissm"
    label: ClassVar[str] = "BiSSM-{unroll_steps}"
    reference: ClassVar[str] = "Bao et al. 2020, eq. 3 and 8-15"
    colour: ClassVar[str] = "#9a559f"
    marker: ClassVar[str] = "P"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiDSM(Denoising, BiSM):
    """Bi-level denoising score matching: eq. (4) under eq. (8)."""

    id: ClassVar[str] = "bidsm"
    label: ClassVar[str] = "BiDSM-{unroll_steps}"
    reference: ClassVar[str] = "Bao et al. 2020, eq. 4 and 8-15"
    colour: ClassVar[str] = "#e1223c"
    marker: ClassVar[str] = "X"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiMDSM(Multiscale, BiSM):
    """Bi-level multiscale denoising score matching: eq. (5) under eq. (8)."""

    id: ClassVar[str] = "bimdsm"
    label: ClassVar[str] = "BiMDSM-{unroll_steps}"
    reference: ClassVar[str] = "Bao et al. 2020, eq. 5 and 8-15"
    colour: ClassVar[str] = "#6d43f0"
    marker: ClassVar[str] = "*"
