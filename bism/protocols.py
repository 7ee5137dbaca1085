"""What is asked of models, posteriors and samplers, as types."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from bism.rng import Rng


@runtime_checkable
class Sampler(Protocol):
    """What draws v.

    Required:
        ``draw(count, rng)``: v [count, *visible_shape], of random numbers from ``rng`` alone.

    Optional:
        ``how``: a few words for people, "independent draws, exact".
    """

    def draw(self, count: int, rng: Rng) -> Tensor:
        """v [count, *visible_shape]."""
        ...
