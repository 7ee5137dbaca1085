"""What a probe is."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from benchmark.data.datasets import DataSet
from bism import Estimator
from bism.fitted import Fitted

Metrics = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Judges:
    """Checkpoints of networks that judge images, where the user has given them."""

    inception: Path | None = None
    resnet56: Path | None = None


NO_JUDGES = Judges()


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is measured: one seed's model as it is, the task's data, and a folder for arrays and images.

    data_dir: folder of the data sets, where the user has named one.
    alive: to be called now and then by a probe that takes long, with nothing or with how far it is, as in
        ("sampling", 300, 2700); raises where the job is asked to stop, and what the
        probe has written to ``folder`` is there when it is called again.
    kept: what takes long and several probes of this model need; by name.
    """

    fitted: Fitted
    seed: int
    data: DataSet
    folder: Path
    judges: Judges = NO_JUDGES
    data_dir: Path | None = None
    alive: Callable[..., None] = lambda *how_far: None
    kept: dict[str, Tensor] = dataclasses.field(default_factory=dict)


class Probe(BaseModel, ABC):
    """A measurement; its fields are its options."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @staticmethod
    @abstractmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        """Why it cannot be taken of this model, trained by this estimator, or None."""

    @staticmethod
    def lacking(data: DataSet) -> str | None:
        """What it needs of the data and these have not, or None."""
        return None

    @staticmethod
    def of_two(data: DataSet) -> str | None:
        """``lacking`` of a probe that compares test data with each other."""
        count = len(data.test)
        return None if count > 1 else f"it compares test data with each other, and {data.name} has {count} of them"

    @abstractmethod
    def measure(self, subject: Subject) -> Metrics:
        """Takes it."""
