"""What a model's latent variables are: their kind, their number, and the noise that samples them."""

import math
from dataclasses import dataclass

from torch import Tensor

from bism.rng import Rng


@dataclass(frozen=True)
class Bernoulli:
    """``size`` binary units h in {0, 1}."""

    size: int

    def noise(self, rng: Rng, batch: tuple[int, ...]) -> Tensor:
        """Logistic noise [*batch, size]: h = 1 where logit + noise > 0."""
        return rng.logistic((*batch, self.size))


@dataclass(frozen=True)
class Gaussian:
    """``size`` real units."""

    size: int

    def noise(self, rng: Rng, batch: tuple[int, ...]) -> Tensor:
        """Standard normal noise [*batch, size]."""
        return rng.normal((*batch, self.size))


Latent = Bernoulli | Gaussian


def flat_size(shape: tuple[int, ...]) -> int:
    """Number of elements of one visible vector."""
    return math.prod(shape)
