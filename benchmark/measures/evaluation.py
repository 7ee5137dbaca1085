"""What a task measures on the models as they are, and when."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from benchmark.data.datasets import DataSet
from bism.bilevel import posterior_fisher_divergence
from bism.fitted import Fitted
from bism.latent_quadrature import not_summable
from bism.likelihood import fisher_divergence, log_likelihood, log_partition_if_any
from bism.rng import Rng, generator
from bism.scaling import Scaling


def evaluate(
    fitted: Fitted, data: DataSet, metrics: Sequence[str], splits: Sequence[str] = ("val", "test")
) -> list[dict[str, float]]:
    """For each seed the task's metrics on the validation and the test data, means per example, in the data's own
    units."""
    trained = fitted
    fitted, data = in_own_units(fitted, data)
    chosen = {name: getattr(data, name) for name in splits}
    found = [_of_model(_model(trained, fitted, seed, data.scaling), chosen, metrics) for seed in fitted.seeds]
    if "posterior_fisher_divergence" in metrics and "posterior" in fitted.estimator.trains:
        for seed, values in zip(fitted.seeds, found, strict=True):
            values |= _of_posterior(fitted, seed, chosen)
    return found


def _model(trained: Fitted, fitted: Fitted, seed: int, scaling: Scaling | None) -> Any:
    """One seed's model in the data's own units; of one that goes from few codes to v with the prior that the method has
    for it in the end."""
    model = fitted.model(seed)
    if not_summable(model):
        return model
    joint, _ = trained.joint(seed)
    return scaling.model(joint) if scaling else joint


def in_own_units(fitted: Fitted, data: DataSet) -> tuple[Fitted, DataSet]:
    """Models and data as they are to be looked at: in the units that the data came in."""
    return (data.scaling.fitted(fitted), data.in_own_units) if data.scaling else (fitted, data)


def _of_model(model: Any, splits: Mapping[str, Tensor], metrics: Sequence[str]) -> dict[str, float]:
    parameter = next(model.parameters())
    moved = {name: split.to(parameter) for name, split in splits.items()}
    values: dict[str, float] = {}
    if "log_likelihood" in metrics:
        sound, some = all(p.isfinite().all() for p in model.parameters()), next(iter(moved.values()))[:_LOOKED_AT]
        log_z = log_partition_if_any(model, data=some) if sound else math.nan
        values |= {f"{name}/log_likelihood": float(log_likelihood(model, v, log_z).mean()) for name, v in moved.items()}
    if "fisher_divergence" in metrics:
        values |= {f"{name}/fisher_divergence": float(fisher_divergence(model, v).mean()) for name, v in moved.items()}
    return values


_LOOKED_AT = 1000  # of the data, by quadrature
_EXAMPLES, _PARTICLES = 1000, 5  # for the posterior's divergence


def _of_posterior(fitted: Fitted, seed: int, splits: Mapping[str, Tensor]) -> dict[str, float]:
    """Eq. (11) on clean data, the mean over up to 1,000 examples and 5 samples of h for each."""
    model, posterior = fitted.model(seed), fitted.posterior(seed)
    parameter = next(model.parameters())
    values = {}
    for name, split in splits.items():
        v = split[:_EXAMPLES].to(parameter)
        rng = Rng(generator(seed, 0, "posterior divergence", parameter.device), parameter.dtype)
        noise = model.latent.noise(rng, (_PARTICLES, len(v)))
        found = posterior_fisher_divergence(model, posterior, v, noise, 1.0)
        values[f"{name}/posterior_fisher_divergence"] = float(found.mean())
    return values


def evaluation_steps(steps: int, evaluations: int) -> list[int]:
    """Evenly spaced steps from 0 to the last, both included."""
    return sorted({round(i * steps / evaluations) for i in range(evaluations + 1)})


def picture_steps(steps: int, evaluations: int) -> set[int]:
    """Evaluation steps, evenly spaced from step 0 on, and the last: six for 40 evaluations or more, and else fewer,
    so that pictures do not take longer than a short training."""
    at, parts = evaluation_steps(steps, evaluations), min(5, max(2, evaluations // 8))
    return {at[round(i * (len(at) - 1) / parts)] for i in range(parts + 1)}
