"""Score matching as estimators: the parts that the marginal methods and their bilevel counterparts share.

A *criterion* (``Exact``, ``Sliced``, ``Denoising``, ``Multiscale``, ``Stein``) is a set of hyper-parameters with the
noise it needs, the points where it looks at the score, and its objective F, eq. (7). ``ScoreMatching`` puts the free
energy under it; ``BiSM`` puts log p(v, h) - log q(h|v) there.
"""

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from bism.errors import InputError
from bism.estimator import Estimator, Hyper
from bism.hyperparameters import Range, choice, number
from bism.objectives import LogDensity, dsm, ksd, mdsm, perturb, sm, ssm, typical_distance
from bism.rng import Rng
from bism.state import Info


@dataclasses.dataclass(frozen=True, kw_only=True)
class Criterion(ABC):
    """A score-matching objective with its hyper-parameters."""

    @abstractmethod
    def draw(self, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        """The noise eps of eq. (7) for one minibatch."""

    @abstractmethod
    def objective(self, log_density: LogDensity, v: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        """F per example, [batch]."""

    def draw_points(self, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        """The noise that ``points`` and ``lower_weight`` need: none unless the data is perturbed."""
        return ()

    def points(self, v: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        """Where the objective looks at the score: draws of q(v), eq. (7). The data itself unless it is perturbed."""
        return v

    def lower_weight(self, v: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        """The weight of each example in the lower level, [batch]."""
        return v.new_ones(len(v))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exact(Criterion):
    """SM with the exact trace, eq. (2)."""

    def draw(self, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return ()

    def objective(self, log_density: LogDensity, v: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        return sm(log_density, v)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sliced(Criterion):
    """SSM, eq. (3), with one random direction per example."""

    directions: str = choice("rademacher", ("rademacher", "gaussian"), "distribution of the random directions u")

    def draw(self, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return rng.rademacher(batch_shape) if self.directions == "rademacher" else rng.normal(batch_shape)

    def objective(self, log_density: LogDensity, v: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        return ssm(log_density, v, noise)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Denoising(Criterion):
    """DSM, eq. (4)."""

    sigma: float = number(
        0.05, "standard deviation of the noise added to the data", symbol="σ", tune=Range(0.01, 1.0, log=True)
    )

    def draw(self, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return rng.normal(batch_shape)

    def draw_points(self, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return self.draw(batch_shape, rng)

    def points(self, v: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        return perturb(v, noise, hyper["sigma"])

    def objective(self, log_density: LogDensity, v: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        return dsm(log_density, v, noise, hyper["sigma"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Multiscale(Criterion):
    """MDSM, eq. (5), with a noise level per example between sigma_min and sigma_max."""

    sigma_min: float = number(0.05, "lowest noise level", tune=Range(0.01, 0.1, log=True))
    sigma_max: float = number(1.0, "highest noise level", tune=Range(0.1, 3.0, log=True))
    sigma0: float = number(0.05, "the fixed noise level of eq. (5)", symbol="σ0", tune=Range(0.01, 0.5, log=True))
    spacing: str = choice("geometric", ("geometric", "linear"), "how the levels are distributed in their interval")
    levels: str = choice(
        "spaced", ("spaced", "drawn"), "levels evenly over the minibatch, or one at random for each example"
    )
    weighting: str = choice(
        "inverse_variance", ("inverse_variance", "none"), "1/sigma^2 as in the authors' code, or eq. (5) as printed"
    )

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # the estimator's, next in line
        if self.sigma_min > self.sigma_max:
            raise InputError(f"sigma_min must be at most sigma_max = {self.sigma_max}, got {self.sigma_min}")

    def draw(self, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        size = batch_shape[0]
        spaced = torch.linspace(0.0, 1.0, size, dtype=rng.dtype, device=rng.device)
        return {"normal": rng.normal(batch_shape), "level": rng.uniform((size,)) if self.levels == "drawn" else spaced}

    def sigma(self, noise: Any, hyper: Hyper) -> Tensor:
        """The noise level of each example, [batch]."""
        low, high, u = hyper["sigma_min"], hyper["sigma_max"], noise["level"]
        if self.spacing == "geometric":
            return low * (u * (high / low).log()).exp()  # a power would be computed anew wherever it is used
        return low + (high - low) * u

    def draw_points(self, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return self.draw(batch_shape, rng)

    def points(self, v: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        return perturb(v, noise["normal"], self.sigma(noise, hyper))

    def objective(self, log_density: LogDensity, v: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        return mdsm(log_density, v, noise["normal"], self.sigma(noise, hyper), hyper["sigma0"], self.weighting)

    def lower_weight(self, v: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        return 1 / self.sigma(noise, hyper)  # as the authors' code weights BiMDSM's lower level


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stein(Criterion):
    """The kernelised Stein discrepancy, over all pairs of a minibatch."""

    bandwidth: float = number(
        1.0, "of the kernel exp(-||v - v'||^2 / (2 b^2))", symbol="b", tune=Range(0.1, 10.0, log=True)
    )
    bandwidth_unit: str = choice(
        "distance",
        ("distance", "data"),
        "of b: the distance between examples of a minibatch of n over sqrt(2 log n), or the data's own unit",
    )

    def draw(self, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        if batch_shape[0] < 2:
            raise InputError(f"batch_size must be at least 2, got {batch_shape[0]}: the criterion compares examples")
        return ()

    def objective(self, log_density: LogDensity, v: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        unit = typical_distance(v) if self.bandwidth_unit == "distance" else 1.0
        return ksd(log_density, v, hyper["bandwidth"] * unit)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreMatching(Criterion, Estimator):
    """Score matching on the marginal log p~(v) = -free_energy(v), for models where that is tractable."""

    family: ClassVar[str] = "Score matching"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return self.draw(batch_shape, rng)

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        values = self.objective(lambda v: -params.model.free_energy(v), batch, noise, hyper)
        return values.mean(), carry, {}
