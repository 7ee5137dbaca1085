"""Measurements that are too expensive for every evaluation: taken at given iterations, or of the best and the last
checkpoint. A suite asks for them by name, with options; an option's default and limits are the field's."""

import dataclasses
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field

from benchmark.datasets import DataSet
from benchmark.decay import decay_rate
from benchmark.pictures import draw_bias
from bism import GRBM, BiDSM, Estimator
from bism.annealing import Bracket, bracket, not_annealable, raise_log_likelihood
from bism.bias import INNER, UNROLL, Bias, Trained, practical, theorem2
from bism.fitted import Fitted

Metrics = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is measured: one seed's model as it is, the task's data, and a folder for arrays and images."""

    fitted: Fitted
    seed: int
    data: DataSet
    folder: Path


class Probe(BaseModel, ABC):
    """A measurement; its fields are its options."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @staticmethod
    @abstractmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        """Why it cannot be taken of this model, trained by this estimator, or None."""

    @abstractmethod
    def measure(self, subject: Subject) -> Metrics:
        """Takes it."""


class Annealing(Probe):
    """Log-likelihoods of a GRBM by AIS, with what is known about their error.

    ``val/log_likelihood`` and ``test/log_likelihood`` use AIS's log Z, which is low on average, so that they are
    optimistic: they are their own ``_upper``. ``_lower`` uses the highest reverse AIS, and ``_stderr`` is the standard
    error of AIS's log Z. ``test/raise_log_likelihood`` is RAISE's, of the annealed model.

    Options:
        chains: AIS runs.
        steps: numbers of temperatures, tried in this order until AIS and reverse AIS differ by at most
        tolerance: in nats.
        sweeps: of Gibbs sampling before a chain counts as a sample for reverse AIS.
        raise_chains: RAISE runs for each test example; 0 leaves RAISE out.
        raise_steps: temperatures of RAISE.
    """

    chains: int = Field(1000, gt=1)
    steps: list[int] = Field([1000, 2000, 4000, 8000], min_length=1)
    tolerance: float = Field(1.0, gt=0)
    sweeps: int = Field(1000, ge=0)
    raise_chains: int = Field(10, ge=0)
    raise_steps: int = Field(1000, gt=0)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        return not_annealable(model)

    def measure(self, subject: Subject) -> Metrics:
        model = subject.fitted.model(subject.seed)
        train = subject.data.train.to(model.b)
        found = bracket(
            model,
            train,
            chains=self.chains,
            steps=self.steps,
            tolerance=self.tolerance,
            sweeps=self.sweeps,
            seed=subject.seed,
        )
        if not found.reached:
            warnings.warn(
                f"seed {subject.seed}, step {subject.fitted.step:,}: AIS and reverse AIS differ by {found.gap:.1f} "
                f"nats with {found.lower.temperatures:,} temperatures, and the tolerance is {self.tolerance:g}: the "
                f"log-likelihood is that uncertain; the probe's option 'steps' takes more temperatures",
                stacklevel=2,
            )
        metrics = _of_log_z(found)
        for split in ("val", "test"):
            v = getattr(subject.data, split).to(model.b)
            with torch.no_grad():
                unnormalised = -float(model.free_energy(v).double().mean())
            metrics |= {
                f"{split}/log_likelihood": unnormalised - found.lower.log_z,
                f"{split}/log_likelihood_stderr": found.lower.standard_error,
                f"{split}/log_likelihood_upper": unnormalised - found.lower.log_z,
                f"{split}/log_likelihood_lower": unnormalised - found.log_z_upper,
            }
        if self.raise_chains:
            v, runs = subject.data.test.to(model.b), self.raise_chains
            bound = raise_log_likelihood(model, v, train, chains=runs, steps=self.raise_steps, seed=subject.seed)
            metrics["test/raise_log_likelihood"] = float(bound.mean())
        return metrics


def _of_log_z(found: Bracket) -> Metrics:
    lower = found.lower
    return {
        "ais/log_z": lower.log_z,
        "ais/standard_error": lower.standard_error,
        "ais/effective_sample_size": lower.effective_sample_size,
        "ais/chains": float(lower.chains),
        "ais/temperatures": float(lower.temperatures),
        "ais/gap": found.gap,
        "ais/within_tolerance": float(found.reached),
        **{f"ais/reverse_log_z_from_{name}": estimate.log_z for name, estimate in found.upper.items()},
        **{f"ais/reverse_standard_error_from_{name}": x.standard_error for name, x in found.upper.items()},
    }


class _OfBias(Probe):
    """What the two studies of the gradient's bias share; see ``bism.bias``.

    Every (K, N) is a row of a CSV file, and a curve of an image.
    """

    inner: list[int] = list(INNER)
    unroll: list[int] = list(UNROLL)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        if not isinstance(estimator, BiDSM) or not isinstance(model, GRBM):
            return "the bias is known for bidsm on a GRBM, whose posterior and marginal gradient have closed forms"
        return None

    def _write(self, subject: Subject, study: str, rows: Sequence[Bias]) -> Metrics:
        """Writes the files; returns the metrics, by K and N."""
        subject.folder.mkdir(parents=True, exist_ok=True)
        file = subject.folder / f"bias_{study}_step_{subject.fitted.step:08d}"
        table = pd.DataFrame([dataclasses.asdict(row) for row in rows])
        table.to_csv(file.with_suffix(".csv"), index=False)
        draw_bias(table, file.with_suffix(".png"), f"{study}, step {subject.fitted.step:,}")
        metrics = {f"bias/{study}_K{row.inner_steps}_N{row.unroll_steps}": row.bias for row in rows}
        metrics |= {f"bias/{study}_distance_K{row.inner_steps}": row.start for row in rows}
        return metrics | {f"bias/{study}_gradient": rows[0].gradient}


def _trained(subject: Subject) -> Trained:
    """The point of the training that is looked at."""
    estimator, state = subject.fitted.estimator, subject.fitted.state(subject.seed)
    assert isinstance(estimator, BiDSM)  # see unsuitable()
    model = subject.fitted.model(subject.seed)
    return Trained(estimator, model, state["params"], state["optimiser"]["lower"])


class Theorem2(_OfBias):
    """Figure 1 under the assumptions of Theorem 2: the exact KL, gradient descent, nothing random.

    ``bias/theorem2_K5_N10`` is the norm of (gradient after 10 unrolled steps - true gradient), after 5 inner steps;
    ``bias/theorem2_distance_K5`` is ||phi^0 - phi*||; ``bias/theorem2_kappa_K5`` the factor per unrolled step that is
    fitted to N >= 1, with its 95% interval; ``bias/theorem2_alpha`` the rate of the gradient descent.

    Options:
        inner, unroll: the K and N.
        seed: of the noise, which is drawn once.
    """

    seed: int = 0

    def measure(self, subject: Subject) -> Metrics:
        trained = _trained(subject)
        data = subject.data.train.to(trained.theta["W"])
        found = theorem2(trained, data, seed=self.seed, inner=self.inner, unroll=self.unroll)
        metrics = self._write(subject, "theorem2", found.rows) | {"bias/theorem2_alpha": found.alpha}
        for k in self.inner:
            curve = [row for row in found.rows if row.inner_steps == k]
            if sum(row.unroll_steps >= 1 for row in curve) >= 3:
                rate = decay_rate([row.unroll_steps for row in curve], [row.bias for row in curve])
                name = f"bias/theorem2_kappa_K{k}"
                metrics |= {name: rate.kappa, f"{name}_low": math.exp(rate.low), f"{name}_high": math.exp(rate.high)}
        return metrics


class PracticalBias(_OfBias):
    """Figure 1 as the algorithm trains: Adam, relaxed samples, minibatches; averaged over draws before the norm.

    As ``theorem2``, without a fit, and with ``bias/practical_floor_K5_N10``, what the norm would be without any bias.

    Options:
        inner, unroll: the K and N.
        draws: of minibatch and noise, averaged.
        batch_size: of the minibatches.
        seed: of the draws.
    """

    draws: int = Field(200, ge=2)
    batch_size: int = Field(100, gt=0)
    seed: int = 0

    def measure(self, subject: Subject) -> Metrics:
        trained = _trained(subject)
        rows = practical(
            trained,
            subject.data.train.to(trained.theta["W"]),
            seed=self.seed,
            draws=self.draws,
            inner=self.inner,
            unroll=self.unroll,
            batch_size=self.batch_size,
        )
        floors = {f"bias/practical_floor_K{r.inner_steps}_N{r.unroll_steps}": r.noise_floor for r in rows}
        return self._write(subject, "practical", rows) | floors


PROBES: dict[str, type[Probe]] = {
    "annealing": Annealing,
    "theorem2": Theorem2,
    "practical_bias": PracticalBias,
}
