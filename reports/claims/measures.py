"""What a claim's test looks at: numbers of which each trained seed gives one.

All of them come from what a store offers to a report (``reports.sweep``): metrics by the task's rule, and histories.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from benchmark.measures import ranking
from benchmark.records.metrics import metric_of
from reports import terms
from reports.claims.curves import fall, iterations, rise
from reports.sweep import Sweep, better_is_high, selected

_CONDITIONS = ("device", "host", "machine", "compiled", "threads")
_TIME = "time/train_seconds"
_POINTS = 11  # of a curve of which numbers are taken, at least: of fewer its way is not known


@dataclasses.dataclass(frozen=True)
class Measure(ABC):
    """One number for each seed of a variant.

    Those with ``log`` are compared as logarithms, so that differences are ratios; people see the ratios.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """For people: "test log-likelihood"."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """What has to be in the store."""

    @abstractmethod
    def values(self, sweep: Sweep, task: str, variants: Sequence[str]) -> pd.DataFrame:
        """Of the cells that are done: a row for each seed, a column for each variant; NaN where it was not measured."""

    @property
    def unit(self) -> str:
        """Empty where it has none."""
        return ""

    @property
    def log(self) -> bool:
        """Whether the numbers are natural logarithms."""
        return False

    @property
    def higher(self) -> bool:
        """Whether large is good. A seed that diverged has the worst number that there is."""
        return False

    @property
    def error(self) -> float:
        """Half-width of the interval of a comparison where that is no matter of seeds: 0 where it is."""
        return 0.0

    def problem(self, sweep: Sweep, task: str, variants: Sequence[str]) -> str:
        """Why the variants cannot be compared by it, or nothing."""
        return ""


@dataclasses.dataclass(frozen=True)
class Selected(Measure):
    """A metric where the task's rule takes it, as in rankings.

    said: its name, of one that is known by none.
    up: whether large is good, of one of which that is not known.
    """

    metric: str
    log: bool = False
    said: str = ""
    up: bool = False

    @property
    def name(self) -> str:
        return self.said or terms.measure(self.metric, unit=False)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    @property
    def unit(self) -> str:
        unit = metric_of(self.metric).unit
        return unit if unit == "nats" and not self.log else ""

    @property
    def higher(self) -> bool:
        return self.up or better_is_high(self.metric)

    def values(self, sweep: Sweep, task: str, variants: Sequence[str]) -> pd.DataFrame:
        done = sweep.of(task)
        return _table(done.assign(value=_logarithm(selected(done, self.metric), self.log)), variants)

    def problem(self, sweep: Sweep, task: str, variants: Sequence[str]) -> str:
        done = sweep.of(task)
        rules = sorted({rule or "one not known" for rule in done.loc[done["variant"].isin(variants), "select"]})
        if rules == ["one not known"]:
            return "it is not known by which rule seeds are represented"
        return f"seeds are represented by different rules: {' and '.join(rules)}" if len(rules) > 1 else ""


@dataclasses.dataclass(frozen=True)
class Iterations(Measure):
    """Iterations until a seed's curve has first come a share of the way from its value at step 0 to its last.

    The last value is the mean over the last tenth of the iterations; between evaluations the curve is a straight line.
    One that is no better at its end never comes there; of one with a value that is not finite it is not known.
    """

    metric: str
    share: float = 0.95
    log: bool = True

    @property
    def name(self) -> str:
        return f"iterations to {self.share:.0%} of the way in {terms.measure(self.metric, unit=False)}"

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    def values(self, sweep: Sweep, task: str, variants: Sequence[str]) -> pd.DataFrame:
        high = better_is_high(self.metric)
        return _by_curve(sweep, task, self.metric, variants, lambda c: math.log(iterations(c, self.share, high)))


@dataclasses.dataclass(frozen=True)
class EqualTime(Measure):
    """The best value of a metric up to the time at which the fastest of the variants' trainings ends, seed by seed."""

    metric: str

    @property
    def name(self) -> str:
        return f"best {terms.measure(self.metric, unit=False)} in equal training time"

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric, _TIME)

    @property
    def higher(self) -> bool:
        return better_is_high(self.metric)

    def values(self, sweep: Sweep, task: str, variants: Sequence[str]) -> pd.DataFrame:
        timed = sweep.curves(task, _TIME).rename(columns={"value": "seconds"})
        timed = timed[timed["variant"].isin(variants)]
        # a training that runs away ends when it ends, and not with its last finite value
        ends = timed.groupby(["seed", "variant"])["seconds"].max().groupby("seed").min()
        curves = sweep.curves(task, self.metric).merge(timed[["run", "step", "seconds"]], on=["run", "step"]).dropna()
        within = curves[curves["seconds"] <= curves["seed"].map(ends) * (1 + 1e-9)]
        best = within.groupby(["seed", "variant"])["value"].agg("max" if self.higher else "min").reset_index()
        return _table(best, variants)

    def problem(self, sweep: Sweep, task: str, variants: Sequence[str]) -> str:
        return _not_alike(sweep, task, variants)


@dataclasses.dataclass(frozen=True)
class Cost(Measure):
    """Time of an iteration, by the processor's clock where it was kept: other work disturbs that less.

    Seeds that train side by side share one measurement, and no spread over seeds says how good it is. It is taken to
    be known within ``factor``: an assumption, and no statistics.
    """

    factor: float = 1.25

    @property
    def name(self) -> str:
        return "time of an iteration"

    @property
    def metrics(self) -> tuple[str, ...]:
        return (ranking.WALL, ranking.PROCESSOR)

    @property
    def log(self) -> bool:
        return True

    @property
    def error(self) -> float:
        return math.log(self.factor)

    def values(self, sweep: Sweep, task: str, variants: Sequence[str]) -> pd.DataFrame:
        cells = sweep.of(task, None)
        cells = cells[cells["state"].isin(("done", "diverged")) & cells["variant"].isin(variants)]
        return _table(cells.assign(value=_logarithm(_times(cells), True)), variants)

    def problem(self, sweep: Sweep, task: str, variants: Sequence[str]) -> str:
        return _not_alike(sweep, task, variants)


@dataclasses.dataclass(frozen=True)
class Ratio(Measure):
    """One metric by another of the same cell, at the end of the training."""

    top: str
    bottom: str
    said: str

    @property
    def name(self) -> str:
        return self.said

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.top, self.bottom)

    @property
    def log(self) -> bool:
        return True

    def values(self, sweep: Sweep, task: str, variants: Sequence[str]) -> pd.DataFrame:
        done = _with(sweep.of(task), self.metrics)
        return _table(
            done.assign(value=_logarithm(done[self.top], True) - _logarithm(done[self.bottom], True)), variants
        )


@dataclasses.dataclass(frozen=True)
class Straight(Measure):
    """How straight log bias is against N: R² of the line that least squares fit to it, of the cell's last values.

    An exponential decay is a straight line there (``benchmark.measures.decay``).

    pattern: the metric's name with {N} in the place of the number.
    """

    pattern: str
    counts: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"R² of log bias against N = {self.counts[0]} to {self.counts[-1]}"

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.pattern.format(N=n) for n in self.counts)

    @property
    def higher(self) -> bool:
        return True

    def values(self, sweep: Sweep, task: str, variants: Sequence[str]) -> pd.DataFrame:
        done = _with(sweep.of(task), self.metrics)
        bias = np.stack([_logarithm(done[name], True).to_numpy(float) for name in self.metrics], axis=1)
        return _table(done.assign(value=[_squared_correlation(self.counts, row) for row in bias]), variants)


@dataclasses.dataclass(frozen=True)
class OfCurve(Measure):
    """A ratio of values of one curve."""

    metric: str

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    @property
    def log(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True)
class Fall(OfCurve):
    """How often the last value of a curve (the mean over the last tenth of the iterations) is in the first."""

    @property
    def name(self) -> str:
        return f"first by last {terms.measure(self.metric, unit=False)}"

    @property
    def higher(self) -> bool:
        return True

    def values(self, sweep: Sweep, task: str, variants: Sequence[str]) -> pd.DataFrame:
        return _by_curve(sweep, task, self.metric, variants, fall)


@dataclasses.dataclass(frozen=True)
class Rise(OfCurve):
    """How far a curve ever is above the lowest value that it had before, as a ratio: 1 of a curve that only falls,
    infinite of one that was not finite for a while."""

    @property
    def name(self) -> str:
        return f"largest rise of {terms.measure(self.metric, unit=False)} above its lowest so far"

    def values(self, sweep: Sweep, task: str, variants: Sequence[str]) -> pd.DataFrame:
        return _by_curve(sweep, task, self.metric, variants, rise)


def _squared_correlation(counts: Sequence[int], values: np.ndarray) -> float:
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        return math.nan
    return float(stats.linregress(np.asarray(counts, float), values).rvalue ** 2)


# --- of many cells ----------------------------------------------------------------------------------------------------


def _with(cells: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The cells with a column for each metric."""
    return cells.assign(**{name: math.nan for name in metrics if name not in cells})


def _logarithm(values: pd.Series, log: bool) -> pd.Series:
    """NaN of what has none."""
    numbers = values.astype(float)
    return pd.Series(np.log(numbers.where(numbers > 0)), numbers.index) if log else numbers


def _table(rows: pd.DataFrame, variants: Sequence[str]) -> pd.DataFrame:
    """``value`` of these variants by seed."""
    rows = rows.loc[rows["variant"].isin(variants), ["seed", "variant", "value"]]
    table = rows.drop_duplicates(["seed", "variant"], keep="last").pivot(index="seed", columns="variant")
    return table.droplevel(0, axis="columns").reindex(columns=list(variants)).astype(float)


def _by_curve(
    sweep: Sweep, task: str, metric: str, variants: Sequence[str], of: Callable[[pd.Series], float]
) -> pd.DataFrame:
    """A number of each cell's curve of a metric, NaN where it is not finite; nothing of curves of few points."""
    curves = sweep.curves(task, metric)
    rows = [
        {"variant": variant, "seed": seed, "value": of(curve.set_index("step")["value"].sort_index())}
        for (variant, seed), curve in curves[curves["variant"].isin(variants)].groupby(["variant", "seed"])
        if len(curve) >= _POINTS
    ]
    return _table(pd.DataFrame(rows, columns=["variant", "seed", "value"]), variants)


def _times(cells: pd.DataFrame) -> pd.Series:
    """Of an iteration, by the processor's clock where all have it."""
    clock = ranking.clock(cells)
    return cells[clock] if clock in cells else pd.Series(math.nan, cells.index)


def _not_alike(sweep: Sweep, task: str, variants: Sequence[str]) -> str:
    """What the trainings differ in that their times are of: machines, threads, or which seeds side by side.

    Seeds that trained side by side share one measurement, to its last digit, and are known by that.
    """
    cells = sweep.of(task, None)
    cells = cells[cells["state"].isin(("done", "diverged")) & cells["variant"].isin(variants)]
    for name in _CONDITIONS:
        said = sorted({str(text) or "not known" for text in cells[name]}) if name in cells else []
        if len(said) > 1:
            return f"times were not taken alike: {name} {' and '.join(said)}"
    together = cells.groupby([cells["variant"], _times(cells)], dropna=False)["seed"].agg(frozenset)
    beside = [{seed: group for group in together[variant] for seed in group} for variant in cells["variant"].unique()]
    common = set.intersection(*map(set, beside)) if beside else set()
    alike = all(group[seed] == beside[0][seed] for group in beside for seed in common)
    return "" if alike else "times were not taken alike: other seeds side by side"


LIKELIHOOD, FISHER = Selected("test/log_likelihood"), Selected("test/fisher_divergence")
