"""Models of images of which everything is known, and what a probe makes of them."""

import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.data.datasets import DataSet
from benchmark.measures.probes import Subject
from bism import BiMDSM
from tests.maths.exact import LinearGaussian
from tests.maths.test_density_bound import TruePosterior

SHAPE = (1, 2, 2)
PIXELS, HIDDEN = 4, 3


class Pictures(LinearGaussian):
    """A LinearGaussian of images: v | h ~ N(W h + b, s^2 I)."""

    def __init__(self) -> None:
        super().__init__(PIXELS, HIDDEN)
        self.visible_shape = SHAPE

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        return super().energy(v.flatten(-3), h)

    def posterior(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return super().posterior(v.flatten(-3))

    def of(self, h: Tensor) -> Tensor:
        """E[v|h], as images."""
        return (h @ self.W.T + self.b).reshape(*h.shape[:-1], *SHAPE)


class Known(TruePosterior):
    """Its posterior."""

    def mean(self, v: Tensor) -> Tensor:
        return self.model.posterior(v)[0]


def subject(folder: Path, model: Any, posterior: Any, data: DataSet, **changes: Any) -> Subject:
    """A model and a posterior that nobody had to train."""
    fitted: Any = types.SimpleNamespace(
        model=lambda seed: model, posterior=lambda seed: posterior, estimator=BiMDSM(sigma0=0.3), step=7
    )
    return Subject(fitted, 5, data, folder, **changes)


def data_of(test: Tensor, labels: Tensor | None = None, train: Tensor | None = None) -> DataSet:
    """Images with classes; one training example of each kind unless given."""
    train = test if train is None else train
    return DataSet("made", train, test, test, tuple(test.shape[1:]), None if labels is None else (labels,) * 3)


def arrays(folder: Path, what: str) -> dict[str, Tensor]:
    """What a probe has written beside an image."""
    assert (folder / f"{what}_step_00000007.png").stat().st_size > 1000
    return {name: torch.from_numpy(x) for name, x in np.load(folder / f"{what}_step_00000007.npz").items()}


def images(count: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Uniform pixels."""
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))
