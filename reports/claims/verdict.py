"""From runs to verdicts: one rule for all claims.

Let m be the number of claims in the ledger and c that of a claim's comparisons. A comparison has one number d per seed
that all of its variants have, and with n seeds, their mean and their standard deviation s the interval

    mean(d) ± t_(1 - 0.05 / (2 m c), n - 1) s / sqrt(n).

It *holds* where the interval is inside the region, *fails* where they have nothing in common, and is *open* else. A
claim is supported where all its comparisons hold (of one with ``some``: where one does), contradicted where one fails
(where all do), not measured where none of them has runs, and undecided else.

By Bonferroni's inequality all intervals of the ledger cover what they are of at once with a probability of at least
95% (the d being normal), since their errors 0.05 / (m c) add up to 0.05; and a verdict is wrong only where one of them
does not. m is that of the whole ledger, whatever else was run or is shown: no verdict changes with it.

A seed that diverged is no missing value: it has the worst number that there is, so that the mean is infinite and no
more seeds can undo it. Where variants on both sides diverged the comparison is open. A seed that is done may have the
worst number too (it never came there; its energy ran away); one with an infinite number that is good has none, for no
model is infinitely good. Seeds that all give one number d, to its last digit, and not 0, are copies of one, or do not
depend on their seed: there the comparison is open.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from reports import statistics
from reports.claims.claim import Claim, Comparison, Place, method_of
from reports.claims.measures import LIKELIHOOD
from reports.results import NoCellsError, Results
from reports.sweep import ENDED, Sweep, below_start

HOLDS, FAILS, OPEN, NOT_MEASURED = "holds", "fails", "open", "not measured"
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
VERDICTS = (SUPPORTED, CONTRADICTED, UNDECIDED, NOT_MEASURED)
MOST_SEEDS = 1000  # beyond which nobody is told how many


@dataclasses.dataclass(frozen=True)
class Finding:
    """What runs say of a comparison.

    Attributes:
        state: holds, fails, open or not measured.
        effect, low, high: mean over seeds and its interval, in logarithms where the measure is one; NaN where unknown.
        seeds: those in common.
        diverged: how many seeds did, by variant.
        fallen: of a comparison by test log-likelihood, how many seeds are finite and below their untrained model, by
            variant. They are counted as they are, and whoever reads the mean has to know.
        missing: cells that were planned and have no result.
        valueless: cells that are done, and of which the measure has no value.
        lacking: variants without any value.
        total: seeds with which the interval would fit, at the spread seen; 0 where that is not known or not asked.
        reason: why it is open, where that is no matter of seeds.
        values: by seed, what the interval is of.
    """

    comparison: Comparison
    state: str
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seeds: Sequence[int] = ()
    diverged: Mapping[str, int] = dataclasses.field(default_factory=dict)
    fallen: Mapping[str, int] = dataclasses.field(default_factory=dict)
    missing: int = 0
    valueless: int = 0
    lacking: Sequence[str] = ()
    total: int = 0
    reason: str = ""
    runs: Sequence[str] = ()
    values: Sequence[float] = ()

    @property
    def inside(self) -> int:
        """How many seeds have a value in the region, each by itself."""
        return sum(self.comparison.low <= value <= self.comparison.high for value in self.values)

    @property
    def slack(self) -> float:
        """How far inside the region the effect is, in units of the margin; negative outside."""
        one = self.comparison
        found = min(self.effect - one.low, one.high - self.effect) / one.margin
        return -math.inf if math.isnan(found) else found


@dataclasses.dataclass(frozen=True)
class Judged:
    """A claim with its verdict."""

    claim: Claim
    verdict: str
    findings: Sequence[Finding]

    @property
    def deciding(self) -> Finding:
        """The comparison that the verdict hangs on: of those that fail, else of those that are open, else of all the
        one whose effect is least far inside its region, in margins; of a claim with ``some`` the strongest."""
        rank = {FAILS: 0, OPEN: 1, NOT_MEASURED: 2, HOLDS: 3}
        if self.claim.some:
            rank[NOT_MEASURED] = -1
        chosen = max if self.claim.some else min
        return chosen(self.findings, key=lambda one: (rank[one.state], one.slack))


def judge(claims: Iterable[Claim], store: Results, size: int) -> list[Judged]:
    """The verdicts of these claims.

    Args:
        store: whose runs are judged.
        size: how many claims the whole ledger has.
    """
    chosen = list(claims)
    sweeps, found = _Sweeps(store, chosen), []
    for claim in chosen:
        family = size * len(claim.comparisons)
        findings = [examine(one, sweeps.of(one.at), family) for one in claim.comparisons]
        found.append(Judged(claim, verdict([one.state for one in findings], claim.some), findings))
    return found


def verdict(states: Sequence[str], some: bool = False) -> str:
    """Of a claim by the states of its comparisons."""
    decided, against = (HOLDS, FAILS) if some else (FAILS, HOLDS)  # one of these settles it; all of those do
    if decided in states:
        return SUPPORTED if some else CONTRADICTED
    if all(state == against for state in states):
        return CONTRADICTED if some else SUPPORTED
    return NOT_MEASURED if all(state == NOT_MEASURED for state in states) else UNDECIDED


class _Sweeps:
    """What the store has of a preset, read once: runs of as many iterations as comparisons ask for."""

    def __init__(self, store: Results, claims: Sequence[Claim]) -> None:
        self._store, self._found = store, dict[tuple[str, str], Sweep | None]()
        self._presets = {suite: store.presets(suite) for suite in store.suites}
        places = {one.at for claim in claims for one in claim.comparisons}
        self._steps = {(at.suite, at.preset, at.task): at.steps for at in places}

    def of(self, at: Place) -> Sweep | None:
        """None where there is nothing of it."""
        key = at.suite, at.preset
        if key not in self._found:
            self._found[key] = self._read(*key) if at.preset in self._presets.get(at.suite, ()) else None
        return self._found[key]

    def _read(self, suite: str, preset: str) -> Sweep | None:
        try:
            sweep = Sweep(self._store, suite, preset, Path())
        except NoCellsError:
            return None
        asked = [self._steps.get((suite, preset, task)) for task in sweep.cells["task"]]
        cells = sweep.cells
        named = [
            method == (method_of(variant) or method)
            for variant, method in zip(cells["variant"], cells["method"], strict=True)
        ]  # a method of one's own may be called as one of the ledger's
        sweep.cells = cells[np.array(named, bool) & (cells["steps"] == asked)].reset_index(drop=True)
        return sweep


def examine(one: Comparison, sweep: Sweep | None, family: int) -> Finding:
    """What the runs of a preset say of a comparison that is one of a family."""
    if sweep is None or one.at.task not in sweep.tasks:
        return Finding(one, NOT_MEASURED, lacking=one.variants)
    cells = sweep.of(one.at.task, None)
    cells = cells.loc[cells["variant"].isin(one.variants), ["variant", "seed", "state", "run", "data_hash"]]
    worst = -math.inf if one.measure.higher else math.inf
    values = one.measure.values(sweep, one.at.task, one.variants).replace(-worst, math.nan)
    values = _with_diverged(values, cells, worst) if not one.measure.error else values
    gone = cells[cells["state"] == "diverged"].groupby("variant").size().to_dict()
    about: dict[str, Any] = {
        "diverged": {str(name): int(count) for name, count in gone.items()},
        "fallen": _fallen(sweep, cells, one),
        "missing": int((~cells["state"].isin(ENDED)).sum()),
        "valueless": _valueless(values, cells),
        "runs": [run for run in cells[cells["state"].isin(ENDED)]["run"] if run],
    }
    lacking = [variant for variant in one.variants if not values[variant].notna().any()]
    if lacking:
        return Finding(one, NOT_MEASURED, lacking=lacking, **about | {"runs": ()})
    if mixed := _other_data(cells):
        return Finding(one, OPEN, reason=mixed, **about)
    weights = np.array([one.weights[variant] for variant in one.variants])
    found = _found(one, values, weights, family, one.measure.problem(sweep, one.at.task, one.variants), about)
    used = cells["state"].eq("diverged") | (cells["state"].eq("done") & cells["seed"].isin(found.seeds))
    return dataclasses.replace(found, runs=[run for run in cells[used]["run"] if run]) if found.seeds else found


def _with_diverged(values: pd.DataFrame, cells: pd.DataFrame, worst: float) -> pd.DataFrame:
    """The values with the worst that there is for seeds that diverged."""
    gone = cells[cells["state"] == "diverged"]
    if gone.empty:
        return values
    values = values.reindex(sorted({*values.index, *gone["seed"]}))
    for variant, seed in zip(gone["variant"], gone["seed"], strict=True):
        values.loc[seed, variant] = worst
    return values


def _fallen(sweep: Sweep, cells: pd.DataFrame, one: Comparison) -> dict[str, int]:
    """By variant, the seeds whose test log-likelihood ended below that of the untrained model."""
    if LIKELIHOOD.metric not in one.measure.metrics:
        return {}
    low = cells[cells["run"].isin(below_start(sweep, one.at.task))]
    return {str(name): int(count) for name, count in low.groupby("variant").size().items()}


def _valueless(values: pd.DataFrame, cells: pd.DataFrame) -> int:
    """How many cells are done and have no value: never measured, not a number, or without a logarithm."""
    done = cells[cells["state"] == "done"]
    there = values.reindex(done["seed"].unique()).notna()
    return sum(not there.at[seed, variant] for seed, variant in zip(done["seed"], done["variant"], strict=True))


def _other_data(cells: pd.DataFrame) -> str:
    """That the cells are of data that differ, by their hashes, or of some that are not known; or nothing."""
    ended = cells[cells["state"].isin(ENDED)]
    whose = ended.groupby(ended["data_hash"].fillna(""), sort=False)["variant"].unique()
    if "" in whose and len(whose) == 1:
        return "it is not known of which data they are"
    if len(whose) < 2:
        return ""
    said = "; ".join(f"{', '.join(names)} on {str(data)[:12] or 'data not known'}" for data, names in whose.items())
    return f"they were trained on different data ({said}), and nothing is compared"


def _found(
    one: Comparison, values: pd.DataFrame, weights: np.ndarray, family: int, problem: str, about: dict[str, Any]
) -> Finding:
    """The finding from a table of values by seed and variant."""
    parts = values.to_numpy(float) * weights
    common = values[~np.isnan(parts).any(axis=1)]
    seeds = [int(seed) for seed in common.index]
    if np.isinf(parts).any():
        if problem:
            return Finding(one, OPEN, reason=problem, **about)
        signs = set(np.sign(parts[np.isinf(parts)]))
        if len(signs) == 2:
            what = "seeds diverged" if about["diverged"] else "values are infinite"
            return Finding(one, OPEN, reason=f"{what} on both sides", **about)
        effect = float(signs.pop() * math.inf)
        state = HOLDS if one.low <= effect <= one.high else FAILS
        return Finding(one, state, effect, effect, effect, seeds=seeds, **about)
    d = common.to_numpy(float) @ weights
    if not len(d):
        return Finding(one, OPEN, reason="no seed in common", **about)
    mean, half = (float(found) for found in interval(d, family))
    half = one.measure.error or half
    about |= {"seeds": seeds, "values": d.tolist()}
    if len(d) > 1 and not one.measure.error and (_copies(d) or any(map(_copies, common.to_numpy(float).T))):
        problem = problem or f"all {len(d)} seeds gave one number to its last digit, as copies of one do"
    if problem:
        return Finding(one, OPEN, mean, reason=problem, **about)
    if math.isnan(half):
        return Finding(one, OPEN, mean, total=2, **about)
    state = str(states(np.array(mean), np.array(half), one.low, one.high))
    if state == OPEN and one.measure.error:
        about["reason"] = f"nearer to the margin than times are known (×{math.exp(one.measure.error):g})"
    elif state == OPEN:
        about["total"] = seeds_needed(mean, float(d.std(ddof=1)), len(d), one.low, one.high, family)
    return Finding(one, state, mean, mean - half, mean + half, **about)


def _copies(values: np.ndarray) -> bool:
    return bool(values[0] != 0 and np.ptp(values) == 0)


def interval(values: np.ndarray, family: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over seeds and half-widths of intervals that are some of a family; NaN of fewer than two seeds.

    Args:
        values: [..., seeds].
    """
    mean, half, _ = statistics.paired(np.asarray(values, float), family)
    return np.asarray(values, float).mean(-1), np.where(np.isnan(mean), np.nan, half)


def states(mean: np.ndarray, half: np.ndarray, low: float, high: float) -> np.ndarray:
    """Whether mean ± half is inside [low, high], outside, or neither; open of what is not known."""
    inside = (low <= mean - half) & (mean + half <= high)
    outside = (mean + half < low) | (mean - half > high)
    return np.select([inside, outside], [HOLDS, FAILS], OPEN)


def seeds_needed(mean: float, deviation: float, seeds: int, low: float, high: float, family: int) -> int:
    """With how many seeds mean ± half would be inside or outside, were mean and deviation to stay what they are; 0
    where that takes more than ``MOST_SEEDS``."""
    counts = np.arange(seeds + 1, MOST_SEEDS + 1)
    halves = stats.t.isf((1 - statistics.LEVEL) / (2 * family), counts - 1) * deviation / np.sqrt(counts)
    room = min(abs(mean - end) for end in (low, high) if math.isfinite(end))
    fits = halves < room
    return int(counts[np.argmax(fits)]) if fits.any() else 0
