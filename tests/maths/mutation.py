"""A check of the mathematics, and what is broken to see it fail."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from baselines.chains import slope
from baselines.revision import revised

Patch = pytest.MonkeyPatch
UPHILL = {
    "slope": lambda model, v: -slope(model, v),
    "revised": lambda energy, *of: revised(lambda x: -energy(x), *of),
}


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A check, what is broken, and the bounds between which its residual has to jump."""

    estimator: str
    what: str
    check: Callable[[], float]
    apply: Callable[[Patch], None]
    small: float = 1e-6
    large: float = 1e-2


def replace(target: Any, name: str, value: Any) -> Callable[[Patch], None]:
    """Puts ``value`` in the place of ``target.name``."""
    return lambda patch: patch.setattr(target, name, value)


def kl_without_log_q(model: Any, posterior: Any, v: Tensor, noise: Tensor, temperature: Any) -> Tensor:
    return model.energy(v, posterior.sample(v, noise[0], temperature))
