"""Which of a cell's measurements stand for it: named rules, so that nobody selects on the test set by accident.

No rule looks at the test data. The default, ``last_tenth``, makes no choice at all, and no single noisy evaluation
decides: it is what a method gives on average to those who stop about there.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from benchmark.records.metrics import metric_of
from benchmark.records.rundir import Measurement

Rule = Callable[[Sequence[Measurement], str], list[int]]  # the iterations that stand for a cell by their mean


def better(metric: str, value: float) -> float:
    """``value`` signed so that higher is better; NaN is worst."""
    if math.isnan(value):
        return -math.inf
    return value if metric_of(metric).higher else -value


def last(journal: Sequence[Measurement], metric: str) -> list[int]:
    """The last iteration that was measured."""
    return sorted({line.step for line in journal})[-1:]


def last_tenth(journal: Sequence[Measurement], metric: str) -> list[int]:
    """Those that were measured in the last tenth of the iterations."""
    steps = sorted({line.step for line in journal})
    return [step for step in steps if 10 * step >= 9 * steps[-1]]


def best_validation(journal: Sequence[Measurement], metric: str) -> list[int]:
    """The iteration with the best value of ``metric`` on the validation data; the earliest of equals."""
    values = [(better(metric, line.metrics[metric]), -line.step) for line in journal if metric in line.metrics]
    value, step = max(values, default=(-math.inf, 0))
    return [-step] if value > -math.inf else []


RULES: dict[str, Rule] = {"last_tenth": last_tenth, "last": last, "best_validation": best_validation}
_SAID = {
    "last_tenth": "the mean of the evaluations in the last tenth of the iterations",
    "last": "the last iteration",
    "best_validation": "the iteration with the best {}",
}
_ONCE = "its last measurement, the only one in the last tenth of the iterations"


def said(rule: str, metric: str, once: bool = False) -> str:
    """What a rule takes, in words, with a name of the metric that it looks at in its place.

    once: of something that was not measured at each evaluation, and so is no mean.
    """
    return _ONCE if once and rule == "last_tenth" else _SAID[rule].format(metric)


def averaged(journal: Sequence[Measurement], rule: str, metric: str) -> set[str]:
    """The metrics whose values are means of several measurements under this rule; of all others there is one."""
    steps = RULES[rule](journal, metric)
    taken = {(name, line.step) for line in journal if line.step in steps for name in line.metrics}
    return {name for name, count in Counter(name for name, _ in taken).items() if count == len(steps) > 1}


def selected(journal: Sequence[Measurement], rule: str, metric: str) -> tuple[int, dict[str, float]] | None:
    """The (last) iteration that the rule picks, everything measured there, and the cost of the whole training.

    Of several iterations the mean; what was not measured at each of them has its last value there. The last iteration
    where the metric was never measured (FID without its network's weights); None where there is nothing to pick from.
    """
    steps = RULES[rule](journal, metric)
    if not steps and not any(metric in line.metrics for line in journal):
        steps = last(journal, metric)
    if not steps:
        return None
    found = dict[str, dict[int, float]]()
    for line in journal:
        for name, value in line.metrics.items():
            if line.step in steps:
                found.setdefault(name, {})[line.step] = value
    end = [line.metrics for line in journal if [line.step] == last(journal, metric)]
    cost = {name: value for metrics in end for name, value in metrics.items() if name.startswith(("time/", "memory/"))}
    return steps[-1], {name: _mean(values, steps) for name, values in found.items()} | cost


def _mean(values: Mapping[int, float], steps: Sequence[int]) -> float:
    """Of the values at these steps; the last of them where some are missing."""
    return sum(values.values()) / len(steps) if len(values) == len(steps) else values[max(values)]
