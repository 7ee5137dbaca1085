"""Figure 1: the bias of the bi-level gradient, and that of other methods' gradients beside it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any

import pandas as pd
from pydantic import Field
from scipy import special
from torch import Tensor

from benchmark.measures.decay import decay_rate
from benchmark.measures.pictures import draw_bias
from benchmark.measures.probes.base import Metrics, Probe, Subject
from bism import GRBM, BiDSM, Estimator
from bism.amortised import Amortised
from bism.bias import (
    GROUPS,
    INNER,
    UNROLL,
    Bias,
    Trained,
    expected_bias,
    practical,
    reference_states,
    theorem1,
    theorem2,
)
from bism.bias.of_methods import unsuitable


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


def _training_data(subject: Subject, like: Tensor) -> Tensor:
    """In the units of the training, whose gradient it is."""
    train, scaling = subject.data.train, subject.data.scaling
    return (scaling.scaled(train) if scaling else train).to(like)


class Theorem2(_OfBias):
    """Figure 1 under the assumptions of Theorem 2: the exact KL, gradient descent, nothing random.

    ``bias/theorem2_K5_N10`` is the norm of (gradient after 10 unrolled steps - true gradient), after 5 inner steps;
    ``bias/theorem2_distance_K5`` is ||phi^0 - phi*||; ``bias/theorem2_kappa_K5`` the factor per unrolled step that is
    fitted to N >= 1, with its 95% interval; ``bias/theorem2_alpha`` the rate of the gradient descent.
    ``bias/theorem1_error`` is how far the gradient at phi*(theta) is from the true one, by the norm of that: 0 as
    Theorem 1 says, but for rounding; ``bias/theorem1_frozen`` the same with phi* taken for a constant.

    Options:
        inner, unroll: the K and N.
        seed: of the noise, which is drawn once.
    """

    seed: int = 0

    def measure(self, subject: Subject) -> Metrics:
        trained = _trained(subject)
        data = _training_data(subject, trained.theta["W"])
        same = theorem1(trained, data, seed=self.seed)
        found = theorem2(trained, data, seed=self.seed, inner=self.inner, unroll=self.unroll)
        metrics = {"bias/theorem1_error": same.error, "bias/theorem1_frozen": same.frozen}
        metrics |= self._write(subject, "theorem2", found.rows) | {"bias/theorem2_alpha": found.alpha}
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
            _training_data(subject, trained.theta["W"]),
            seed=self.seed,
            draws=self.draws,
            inner=self.inner,
            unroll=self.unroll,
            batch_size=self.batch_size,
        )
        floors = {f"bias/practical_floor_K{r.inner_steps}_N{r.unroll_steps}": r.noise_floor for r in rows}
        return self._write(subject, "practical", rows) | floors


class GradientBias(Probe):
    """How far the gradient that a method trains with is from the true one, in expectation; of any method of two levels
    with DSM's objective. All are looked at where one and the same training has come to, which follows the true gradient
    (``bism.bias.of_methods``): the model that the cell has trained is not used.

    ``bias/gradient_after_300`` is the norm of (expected gradient - true gradient), after the method's own K inner steps
    at the model and the posterior of that training after 300 iterations; the share of the draws' noise is taken off its
    square, which is 0 where it then is below. ``..._low_...`` and ``..._high_...``: its 95% interval (jackknife,
    Student's t); ``..._spread_...``: how far one minibatch's gradient is from its mean by the method's own noise;
    ``..._true_...``: the norm of the true gradient.

    Options:
        after: iterations of that training, which has the method's learning rates, sigma and K.
        draws: of minibatch and noise, averaged.
        batch_size: of the minibatches, and of that training.
        seed: of the draws and of that training.
    """

    after: list[Annotated[int, Field(ge=0, le=10_000_000)]] = Field([300, 3000], min_length=1)
    draws: int = Field(1000, ge=20, le=1_000_000)
    batch_size: int = Field(100, gt=0, le=1_000_000)
    seed: int = Field(0, ge=0)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        return unsuitable(estimator, model)

    def measure(self, subject: Subject) -> Metrics:
        estimator, model = subject.fitted.estimator, subject.fitted.model(subject.seed)
        assert isinstance(estimator, Amortised)  # see unsuitable()
        data = _training_data(subject, next(model.parameters()))
        metrics = dict[str, float]()
        shared: dict[str, Any] = {"seed": self.seed, "batch_size": self.batch_size}
        for steps, at in reference_states(estimator, model, data, after=self.after, **shared):
            subject.alive("the gradient's bias", steps, max(self.after))
            found = expected_bias(estimator, model, at, data, draws=self.draws, **shared)
            half = float(special.stdtrit(GROUPS - 1, 0.975)) * found.error
            values = {
                "": _root(found.squared_bias),
                "_low": _root(found.squared_bias - half),
                "_high": _root(found.squared_bias + half),
                "_spread": found.spread,
                "_true": found.gradient,
            }
            metrics |= {f"bias/gradient{name}_after_{steps}": value for name, value in values.items()}
        return metrics


def _root(squared: float) -> float:
    return max(0.0, squared) ** 0.5 if math.isfinite(squared) else squared
