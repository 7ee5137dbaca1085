"""Which of a cell's measurements stand for it: named rules, so that nobody selects on the test set by accident."""

import math
from collections.abc import Callable, Sequence

from benchmark.rundir import Measurement

SAMPLED = ("fid", "frechet_resnet56")  # what is measured where a probe samples, and a training can be stopped early by
Rule = Callable[[Sequence[Measurement], str], int | None]


def better(metric: str, value: float) -> float:
    """``value`` signed so that higher is better: likelihoods are to be high, divergences low; NaN is worst."""
    if math.isnan(value):
        return -math.inf
    return value if metric.endswith("log_likelihood") else -value


def last(journal: Sequence[Measurement], metric: str) -> int | None:
    """The last iteration that was measured."""
    return max((line.step for line in journal), default=None)


def best_validation(journal: Sequence[Measurement], metric: str) -> int | None:
    """The iteration with the best value of ``metric`` on the validation data; the earliest of equals."""
    values = [(better(metric, line.metrics[metric]), -line.step) for line in journal if metric in line.metrics]
    value, step = max(values, default=(-math.inf, 0))
    return -step if value > -math.inf else None


RULES: dict[str, Rule] = {"last": last, "best_validation": best_validation}


def selected(journal: Sequence[Measurement], rule: str, metric: str) -> tuple[int, dict[str, float]] | None:
    """The iteration that the rule picks and everything measured there, with the cost of the whole training.

    The last one where the metric was never measured (FID without its network's weights); None where there is nothing
    to pick from.
    """
    measured = any(metric in line.metrics for line in journal)
    step = RULES[rule](journal, metric) if measured else last(journal, metric)
    if step is None:
        return None
    there = [line.metrics for line in journal if line.step == step]
    end = [line.metrics for line in journal if line.step == last(journal, metric)]
    cost = {name: value for metrics in end for name, value in metrics.items() if name.startswith(("time/", "memory/"))}
    return step, {name: value for metrics in there for name, value in metrics.items()} | cost
