"""Samples of a generator that a few steps of Langevin dynamics on an energy revise."""

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from bism.objectives import score
from bism.rng import Rng


def revised(energy: Callable[[Tensor], Tensor], x: Tensor, noise: Tensor, step_size: Tensor | float) -> Tensor:
    """x - a^2/2 dE/dx + a eps, one step on an energy [n] of x [n, ...], which no gradient flows through."""
    downhill = score(lambda at: -energy(at), x)
    return (x + 0.5 * step_size**2 * downhill + step_size * noise).detach()


def distance(made: Tensor, v: Tensor, spread: Tensor | float) -> Tensor:
    """|v - made|^2 / (2 spread^2), [n]: -log N(v; made, spread^2 I) up to a constant."""
    return 0.5 * (v - made).flatten(1).square().sum(1) / spread**2


@dataclasses.dataclass(frozen=True)
class Revised:
    """A generator's samples after ``steps`` steps of Langevin dynamics on the model's free energy."""

    model: Any
    generator: Any
    codes: int
    steps: int
    step_size: float

    @property
    def how(self) -> str:
        """For people."""
        drawn = "independent draws of the generator"
        return f"{drawn}, after {self.steps:,} steps of Langevin dynamics each" if self.steps else drawn

    def draw(self, count: int, rng: Rng) -> Tensor:
        """v [count, *visible_shape]."""
        v: Tensor = self.generator(rng.normal((count, self.codes))).detach()
        for _ in range(self.steps):
            v = revised(self.model.free_energy, v, rng.normal(v.shape), self.step_size)
        return v
