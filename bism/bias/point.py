"""A point of a training, at which a gradient's bias is measured, and what is measured there."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from bism.bias.closed_forms import exact_posterior
from bism.checks import check_count, check_model
from bism.errors import InputError
from bism.estimator import Hyper
from bism.functional import Methods
from bism.methods import BiDSM
from bism.models import GRBM
from bism.optimisers import Tree
from bism.rng import Rng
from bism.state import State

INNER = (0, 5, 10, 20)  # K
UNROLL = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 40)  # N


@dataclasses.dataclass(frozen=True)
class Trained:
    """BiDSM on a GRBM after some steps of training.

    Args:
        estimator: with the hyper-parameters it trains with; its K and N are not used here.
        model: a GRBM; only its structure is used.
        params: {"model": theta, "posterior": phi}, phi of ``RelaxedBernoulli``'s one linear layer.
        optimiser: running state of the lower level's optimiser; ``theorem2`` does not use it.
    """

    estimator: BiDSM
    model: GRBM
    params: Tree
    optimiser: Tree

    def __post_init__(self) -> None:
        check_model(self.estimator, self.model)
        if not isinstance(self.model, GRBM):
            raise InputError(f"model must be a GRBM, whose posterior is known; got {type(self.model).__name__}")
        wanted = {name: tuple(x.shape) for name, x in exact_posterior(self.theta).items()}
        given = {name: tuple(x.shape) for name, x in self.phi.items()}
        if given != wanted:
            raise InputError(f"the posterior must be RelaxedBernoulli's one linear layer, {wanted}; got {given}")

    @property
    def theta(self) -> Tree:
        """The model's parameters."""
        return self.params["model"]

    @property
    def phi(self) -> Tree:
        """The posterior's."""
        return self.params["posterior"]

    @property
    def hyper(self) -> Hyper:
        """The continuous hyper-parameters as tensors."""
        like = self.theta["W"]
        return {name: torch.tensor(x, dtype=like.dtype, device=like.device) for name, x in self.estimator.hyper.items()}

    @cached_property
    def _structure(self) -> State:
        with torch.device("meta"):  # the posterior's own numbers are never used: none are drawn
            modules = self.estimator.modules(self.model, {})
        return State({name: Methods(module) for name, module in modules.items()}, {}, {}, {})

    def bind(self, theta: Tree, phi: Tree) -> Any:
        """Model and posterior at given parameters."""
        return self._structure.bind({"model": theta, "posterior": phi})

    def upper(self, batch: Tensor, noise: Any, theta: Tree, phi: Tree) -> Tensor:
        """J_Bi of eq. (8) on a minibatch.

        Args:
            noise: {"visible": eps [batch, D], "hidden": logistic noise [batch, m]}.
        """
        return self.estimator.loss(self.bind(theta, phi), batch, {"upper": noise}, {}, self.hyper)[0]

    def true_gradient(self, batch: Tensor, eps: Tensor) -> Tree:
        """Gradient in theta of the marginal objective, DSM of eq. (4) on the free energy, at the same noise."""

        def objective(at: Tree) -> Tensor:
            model = self.bind(at, self.phi).model
            return self.estimator.objective(lambda v: -model.free_energy(v), batch, eps, self.hyper).mean()

        return grad(objective)(self.theta)

    def draw(self, data: Tensor, rng: Rng, inner: int, unroll: int, batch_size: int) -> tuple[Tensor, Any]:
        """Minibatches [minibatches, batch, D], drawn with replacement, and what ``Stage.draw`` gives for one step with
        K and N."""
        (stage,) = dataclasses.replace(self.estimator, inner_steps=inner, unroll_steps=unroll).stages
        chosen = rng.integers(len(data), (stage.all_minibatches, batch_size))
        return data[chosen], stage.draw(self.model, (batch_size, *data.shape[1:]), rng)


@dataclasses.dataclass(frozen=True)
class Bias:
    """One point of Figure 1.

    Attributes:
        inner_steps, unroll_steps: K and N.
        bias: norm of the (mean) difference of eq. (14) from the true gradient.
        noise_floor: what ``bias`` would be about, had the draws no bias at all; 0 where nothing is random.
        gradient: norm of the (mean) true gradient, to read the bias against.
        start: ||phi^0 - phi*||, phi^0 after K steps; a mean over the draws, as are the next two.
        moved: ||phi^N - phi^0||.
        left: ||phi^N - phi*||.
    """

    inner_steps: int
    unroll_steps: int
    bias: float
    noise_floor: float
    gradient: float
    start: float
    moved: float
    left: float


def check_grids(inner: Sequence[int], unroll: Sequence[int]) -> None:
    for name, grid in (("inner", inner), ("unroll", unroll)):
        if not grid:
            raise InputError(f"{name} must name at least one number of steps")
        for steps in grid:
            check_count(name, steps, 0)
