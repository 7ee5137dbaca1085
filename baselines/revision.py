"""Samples of a generator that a few steps of Langevin dynamics on an energy revise."""

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from bism.objectives import score
from bism.rng import Rng


def downhill(energy: Callable[[Tensor], Tensor], x: Tensor, step_size: Tensor | float) -> Tensor:
    """x - a^2/2 dE/dx, one step without its noise on an energy [n] of x [n, ...]."""
    return x + 0.5 * step_size**2 * score(lambda at: -energy(at), x)


def revised(energy: Callable[[Tensor], Tensor], x: Tensor, noise: Tensor, step_size: Tensor | float) -> Tensor:
    """x - a^2/2 dE/dx + a eps, which no gradient flows through."""
    return (downhill(energy, x, step_size) + step_size * noise).detach()


def distance(made: Tensor, v: Tensor, spread: Tensor | float) -> Tensor:
    """|v - made|^2 / (2 spread^2), [n]: -log N(v; made, spread^2 I) up to a constant."""
    return 0.5 * (v - made).flatten(1).square().sum(1) / spread**2


@dataclasses.dataclass(frozen=True)
class Revised:
    """A generator's samples after ``steps`` steps of Langevin dynamics on the model's free energy."""

    model: Any
    generator: Any
    size: int  # of codes
    steps: int
    step_size: float

    @property
    def how(self) -> str:
        """For people."""
        drawn = "independent draws of the generator"
        return f"{drawn}, after {self.steps:,} steps of Langevin dynamics each" if self.steps else drawn

    def codes(self, count: int, rng: Rng) -> Tensor:
        """z [count, size], standard normal."""
        return rng.normal((count, self.size))

    def decode(self, z: Tensor) -> Tensor:
        """v [n, *visible_shape]: g(z), revised without noise."""
        v: Tensor = self.generator(z)
        for _ in range(self.steps):
            v = downhill(self.model.free_energy, v, self.step_size)
        return v

    def draw(self, count: int, rng: Rng) -> Tensor:
        """v [count, *visible_shape]."""
        v: Tensor = self.generator(self.codes(count, rng)).detach()
        for _ in range(self.steps):
            v = revised(self.model.free_energy, v, rng.normal(v.shape), self.step_size)
        return v
