"""What a model's variables are, h and v: their kind, their number, and the noise that samples them."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bism.rng import Rng


@dataclass(frozen=True)
class Bernoulli:
    """``size`` binary units, each 0 or 1."""

    size: int

    def noise(self, rng: Rng, batch: tuple[int, ...]) -> Tensor:
        """Logistic noise [*batch, size]: a unit is 1 where logit + noise > 0."""
        return rng.logistic((*batch, self.size))


@dataclass(frozen=True)
class Gaussian:
    """``size`` real units."""

    size: int

    def noise(self, rng: Rng, batch: tuple[int, ...]) -> Tensor:
        """Standard normal noise [*batch, size]."""
        return rng.normal((*batch, self.size))


Units = Bernoulli | Gaussian


def flat_size(shape: tuple[int, ...]) -> int:
    """Number of elements of one visible vector."""
    return math.prod(shape)


def visible_units(model: Any) -> Units:
    """What v is: as the model says in ``visible_units``, and real where it does not."""
    units: Units = getattr(model, "visible_units", None) or Gaussian(flat_size(model.visible_shape))
    return units


def has_binary_v(model: Any) -> bool:
    """Whether v is in {0, 1}^D, so that nothing can be differentiated in it."""
    return isinstance(visible_units(model), Bernoulli)


def visible_noise(model: Any, batch: tuple[int, ...], rng: Rng) -> Tensor:
    """The noise of ``sample_visible``, [*batch, *visible_shape]: standard normal, and logistic for binary v."""
    shape = (*batch, *model.visible_shape)
    return rng.logistic(shape) if has_binary_v(model) else rng.normal(shape)


def log_odds(data: Tensor) -> Tensor:
    """log p_i / (1 - p_i) of each unit of binary data [n, *shape], in their type.

    p_i = (ones + 1) / (n + 2), Laplace's rule: finite for a unit that never changes.
    """
    ones = data.double().sum(0)
    return ((ones + 1) / (len(data) - ones + 1)).log().to(data)
