"""Figure 1: the bias of the bi-level gradient."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from pydantic import Field
from torch import Tensor

from benchmark.measures.decay import decay_rate
from benchmark.measures.pictures import draw_bias
from benchmark.measures.probes.base import Metrics, Probe, Subject
from bism import GRBM, BiDSM, Estimator
from bism.bias import INNER, UNROLL, Bias, Trained, practical, theorem2


class _OfBias(Probe):
    """What the two studies of the gradient's bias share; see ``bism.bias``.

    Every (K, N) is a row of a CSV file, and a curve of an image.
    """

    inner: list[int] = Field(list(INNER))
    unroll: list[int] = Field(list(UNROLL))

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
    return Trained(estimator, model, state["params"], state["optimiser"]["posterior"])


def _training_data(subject: Subject, trained: Trained) -> Tensor:
    """In the units of the training, whose gradient it is."""
    train, scaling = subject.data.train, subject.data.scaling
    return (scaling.scaled(train) if scaling else train).to(trained.theta["W"])


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
        data = _training_data(subject, trained)
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
            _training_data(subject, trained),
            seed=self.seed,
            draws=self.draws,
            inner=self.inner,
            unroll=self.unroll,
            batch_size=self.batch_size,
        )
        floors = {f"bias/practical_floor_K{r.inner_steps}_N{r.unroll_steps}": r.noise_floor for r in rows}
        return self._write(subject, "practical", rows) | floors
