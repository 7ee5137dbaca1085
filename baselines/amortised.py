"""Two levels of which the lower one trains a posterior, and the upper one needs it as it is."""

import dataclasses
from typing import Any

from torch import Tensor

from bism.bilevel import DIVERGENCES
from bism.estimator import Hyper
from bism.gradients import part_of
from bism.hyperparameters import choice
from bism.methods import WithPosterior
from bism.optimisers import Tree
from bism.rng import Rng
from bism.score_matching import Criterion
from bism.state import Info, State
from bism.variables import Bernoulli


@dataclasses.dataclass(frozen=True, kw_only=True)
class Amortised(Criterion, WithPosterior):
    """Each step first moves q(h|v) K times towards p(h|v), where the criterion looks at v, and then the model once,
    along the gradient of ``loss`` at that q."""

    lower: str = choice("kl", tuple(DIVERGENCES), "divergence of the lower level: KL, or Fisher where h is real")

    def unsupported(self, model: Any) -> str | None:
        if self.lower == "fisher" and isinstance(model.latent, Bernoulli):
            return "lower='fisher' differentiates in h, and this model's h is discrete: use lower='kl'"
        return super().unsupported(model)

    def unshardable(self) -> str | None:
        return None

    @property
    def repeats(self) -> int:
        return self.inner_steps

    def inner_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return {"visible": self.draw_points(batch_shape, rng), "hidden": model.latent.noise(rng, (1, batch_shape[0]))}

    def lower_loss(self, params: Any, batch: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        """The mean divergence of q from p(h|v) at the points that q(v) makes of a minibatch."""
        points, divergence = self.points(batch, noise["visible"], hyper), DIVERGENCES[self.lower]
        values = divergence(params.model, params.posterior, points, noise["hidden"], hyper["temperature"])
        return (self.lower_weight(batch, noise["visible"], hyper) * values).mean()

    def lower_objective(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        drawn = {"visible": noise["visible"], "hidden": noise["hidden"][:1]}
        return self.lower_loss(state.bind(), batches[0], drawn, hyper)

    def step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        """K steps on the posterior, then one on the model."""
        for i in range(self.inner_steps):
            state = self.inner_step(state, batches, part_of(noise, "inner", i), hyper)

        def objective(params: Tree, of: Tensor, drawn: Any) -> Tensor:
            return self.loss(state.bind(params), of[0], drawn, state.carry, hyper)[0]

        state, value, _ = self.move(state, ("model",), objective, batches, noise, hyper)
        return state, {"objective": value}

    def inner_step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> State:
        def objective(params: Tree, of: Tensor, drawn: Any) -> Tensor:
            return self.lower_loss(state.bind(params), of[0], drawn, hyper)

        return self.move(state, ("posterior",), objective, batches, noise, hyper)[0]
