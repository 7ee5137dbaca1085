"""What methods share that train a model on the ends of Langevin chains."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from bism.estimator import Estimator, Hyper
from bism.functional import frozen
from bism.objectives import score
from bism.phases import Phase
from bism.rng import Rng
from bism.state import Info, State


def slope(model: Any, v: Tensor) -> Tensor:
    """Where Langevin dynamics go from v: -dF/dv."""
    return score(lambda x: -model.free_energy(x), v)


def contrast(model: Any, batch: Tensor, fantasies: Tensor, regulariser: Tensor | float = 0.0) -> Tensor:
    """mean F(v) - mean F(v') + regulariser (mean F(v)^2 + mean F(v')^2) of data v and fantasies v'."""
    positive, negative = model.free_energy(batch), model.free_energy(fantasies)
    squares = positive.square().mean() + negative.square().mean()
    return positive.mean() - negative.mean() + regulariser * squares


def data_range(data: Tensor) -> dict[str, Tensor]:
    """The least and the largest value of the data [n, *visible_shape], "low" and "high": of images one for all pixels,
    of other vectors one for each unit."""
    return {
        name: (extreme(data) if data.ndim > 2 else extreme(data, 0)).expand(data.shape[1:]).clone()
        for name, extreme in (("low", torch.amin), ("high", torch.amax))
    }


def within(low: Tensor, high: Tensor, uniform: Tensor) -> Tensor:
    """Uniform numbers on [0, 1) as points of a range."""
    return low + (high - low) * uniform


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByChains(Estimator, ABC):
    """Each step starts chains, makes k moves of them on the energy as it is, and lowers the energy of the data against
    that of the chains' ends. Starts and moves are phases, so that programs do not grow with k.

    A method has ``k``, begins its chains (``begin``) and says what a move is (``moved``).
    """

    family: ClassVar[str] = "Contrastive divergence"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)

    @property
    def passes(self) -> float:
        return 1 + 0.5 * self.k  # type: ignore[attr-defined]  # which methods declare, with their ranges

    @property
    def phases(self) -> tuple[Phase, ...]:
        k: int = self.k  # type: ignore[attr-defined]  # as above
        return (
            Phase("start", 1, self.start, self.start_noise),
            Phase("chain", k, self.chain_step, self.chain_noise, count_by="k"),
        )

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        return {**data_range(data), "x": data.new_zeros((batch_size, *data.shape[1:]))}

    @abstractmethod
    def start_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        """Everything random in ``begin``."""

    @abstractmethod
    def begin(self, carry: dict[str, Tensor], noise: Any, hyper: Hyper) -> dict[str, Tensor]:
        """What the chains start from, "x", and whatever else of ``carry`` it changes."""

    @abstractmethod
    def moved(self, model: Any, x: Tensor, eps: Tensor, carry: dict[str, Tensor], hyper: Any) -> Tensor:
        """One move of chains x [chains, *visible_shape] with normal noise eps."""

    def start(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> State:
        return state.replace(carry={**state.carry, **self.begin(state.carry, noise, hyper)})

    def chain_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return rng.normal(batch_shape)

    def chain_step(self, state: State, batches: Tensor, noise: Tensor, hyper: Hyper) -> State:
        model = frozen(state.bind().model)
        return state.replace(carry={**state.carry, "x": self.moved(model, state.carry["x"], noise, state.carry, hyper)})

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        return contrast(params.model, batch, carry["x"].detach()), carry, {}


@dataclasses.dataclass(frozen=True)
class Runs:
    """A method's own sampler: where its chains end.

    begin: where they start, (count, rng) to v [count, *visible_shape].
    move: one move, (v, eps) to v.
    k: moves.
    """

    begin: Callable[[int, Rng], Tensor]
    move: Callable[[Tensor, Tensor], Tensor]
    k: int
    where: str

    @property
    def how(self) -> str:
        """For people."""
        return f"ends of {self.k:,} steps of the method's own Langevin dynamics, from {self.where}"

    def from_start(self, v: Tensor, rng: Rng) -> Tensor:
        """Where chains from v [n, *visible_shape] end: of a short run, what a generator makes of its codes v."""
        for _ in range(self.k):
            v = self.move(v, rng.normal(v.shape)).detach()
        return v

    def draw(self, count: int, rng: Rng) -> Tensor:
        """v [count, *visible_shape]."""
        return self.from_start(self.begin(count, rng), rng)


def from_pool(pool: Tensor, count: int, rng: Rng) -> Tensor:
    """``count`` of the chains in a pool [n, *visible_shape], in a random order, each as often as any other but one."""
    order = torch.cat([rng.uniform((len(pool),)).argsort() for _ in range(-(-count // len(pool)))])
    return pool[order[:count]]
