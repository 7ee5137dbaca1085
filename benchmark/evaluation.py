"""What a task measures on the models as they are, and when."""

import math
from typing import Any

from benchmark.datasets import DataSet
from bism.fitted import Fitted
from bism.likelihood import fisher_divergence, log_likelihood, log_partition


def evaluate(fitted: Fitted, data: DataSet, metrics: list[str]) -> list[dict[str, float]]:
    """For each seed the task's metrics on the validation and the test data, means per example."""
    return [_of_model(fitted.model(seed), data, metrics) for seed in fitted.seeds]


def _of_model(model: Any, data: DataSet, metrics: list[str]) -> dict[str, float]:
    splits = {"val": data.val, "test": data.test}
    parameter = next(model.parameters())
    moved = {name: split.to(parameter) for name, split in splits.items()}
    values: dict[str, float] = {}
    if "log_likelihood" in metrics:
        log_z = log_partition(model) if all(p.isfinite().all() for p in model.parameters()) else math.nan
        values |= {f"{name}/log_likelihood": float(log_likelihood(model, v, log_z).mean()) for name, v in moved.items()}
    if "fisher_divergence" in metrics:
        values |= {f"{name}/fisher_divergence": float(fisher_divergence(model, v).mean()) for name, v in moved.items()}
    return values


def evaluation_steps(steps: int, evaluations: int) -> list[int]:
    """Evenly spaced steps from 0 to the last, both included."""
    return sorted({round(i * steps / evaluations) for i in range(evaluations + 1)})


def picture_steps(steps: int, evaluations: int) -> set[int]:
    """Five of the evaluation steps, evenly spaced from step 0 on, and the last."""
    at = evaluation_steps(steps, evaluations)
    return {at[round(i * (len(at) - 1) / 5)] for i in range(6)}
