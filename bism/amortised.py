"""What methods have in common that train a posterior q(h|v; phi) beside the model."""

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from bism.bilevel import DIVERGENCES
from bism.estimator import Estimator, Hyper
from bism.hyperparameters import LOOP, Range, choice, count, number
from bism.optimisers import OPTIMISERS
from bism.phases import Phase
from bism.posteriors import default_posterior
from bism.rng import Rng
from bism.score_matching import Criterion
from bism.state import State
from bism.variables import Bernoulli


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithPosterior(Estimator):
    """Estimators that train a variational posterior q(h|v; phi) beside the model, by some steps of its own."""

    trains: ClassVar[tuple[str, ...]] = ("model", "posterior")

    inner_steps: int = count(
        5,
        "steps on the posterior before each step on the model",
        symbol="K",
        minimum=0,
        maximum=LOOP,
        tune=Range(0, 20),
    )
    lr_posterior: float = number(
        1e-3,
        "learning rate of the posterior",
        symbol="α",
        tune=Range(1e-4, 1e-1, log=True),
        rate_of="posterior",
    )
    lower_optimiser: str = choice(
        "adam",
        tuple(OPTIMISERS),
        "optimiser of the posterior: Adam as in the experiments, or plain gradient descent, eq. (12)-(13)",
    )
    temperature: float = number(0.1, "of the relaxed Bernoulli samples", tune=Range(0.05, 1.0, log=True))

    def unsupported(self, model: Any) -> str | None:
        if model.latent is None:
            return "it learns latent-variable models, and this model has no latent variables"
        return super().unsupported(model)

    def modules(self, model: nn.Module, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        return {"model": model, "posterior": given["posterior"] if "posterior" in given else default_posterior(model)}

    @property
    def passes(self) -> float:
        return 1.0 + self.inner_steps

    def optimiser_of(self, part: str) -> str:
        return self.lower_optimiser if part == "posterior" else "adam"

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The K steps on the posterior."""
        inner = Phase("posterior", self.inner_steps, self.inner_step, self.inner_noise, count_by="inner_steps")
        return (inner,)

    @abstractmethod
    def inner_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        """Everything random in one step on the posterior."""

    @abstractmethod
    def inner_step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> State:
        """One step on the posterior."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Amortised(Criterion, WithPosterior):
    """Score matching with two levels, eq. (8)-(9): each step first moves the posterior K times towards p(h|v), where
    the criterion looks at v, and then the model once, along the gradient of ``loss``, at that posterior."""

    moves: ClassVar[tuple[str, ...]] = ("model",)
    lower: str = choice("kl", tuple(DIVERGENCES), "divergence of the lower level: KL, eq. (10), or Fisher, eq. (11)")

    def unsupported(self, model: Any) -> str | None:
        if self.lower == "fisher" and isinstance(model.latent, Bernoulli):
            return "lower='fisher' differentiates in h, eq. (11), and this model's h is discrete: use lower='kl'"
        return super().unsupported(model)

    def unshardable(self) -> str | None:
        return None

    @property
    def lower_particles(self) -> int:
        """Samples of h per example in the lower level."""
        return 1

    def criterion_noise(self, noise: Any) -> Any:
        """The criterion's own noise eps, eq. (7), of what ``noise`` gives for a step on the model."""
        return noise["visible"]

    def inner_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        particles = (self.lower_particles, batch_shape[0])
        return {"visible": self.draw_points(batch_shape, rng), "hidden": model.latent.noise(rng, particles)}

    def lower_loss(self, params: Any, batch: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        """G of eq. (9) on a minibatch: the mean divergence at the points that q(v) makes of it."""
        points, divergence = self.points(batch, noise["visible"], hyper), DIVERGENCES[self.lower]
        values = divergence(params.model, params.posterior, points, noise["hidden"], hyper["temperature"])
        return (self.lower_weight(batch, noise["visible"], hyper) * values).mean()

    def inner_step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> State:
        """One step on the posterior, eq. (12): line 5 of Algorithm 1."""
        loss = partial(self.lower_loss, hyper=hyper)
        return self.move_part(state, "posterior", loss, batches, noise, hyper)[0]
