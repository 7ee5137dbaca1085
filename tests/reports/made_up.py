"""Runs made up from a claim's own description, that support it, contradict it, or leave it open.

Values of its variants are chosen by a linear programme, so that all of its comparisons hold at once, or fail, with room
to spare; metrics and curves are then made of which the claim's measures give these values. A claim whose measures are
known here needs no test of its own.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linprog

from reports.claims.claim import Claim, Comparison, Place, method_of
from reports.claims.measures import Cost, EqualTime, Fall, Iterations, Measure, Ratio, Rise, Selected, Straight
from reports.claims.verdict import CONTRADICTED, SUPPORTED, UNDECIDED
from reports.sweep import better_is_high
from tests.reports.stores import Held

SEEDS = 3
_BOUNDS: dict[type[Measure], tuple[float, float]] = {Straight: (0.02, 0.9999), Rise: (0.0, 10.0)}
_FAR = 20.0  # of a value, in ends of regions
Row = dict[str, Any]  # of a cell: its metrics
Curves = dict[str, dict[int, float]]


def store(claim: Claim, wanted: str, seeds: int = SEEDS, without: Sequence[str] = ()) -> Held:
    """Runs that give a claim this verdict, without those of some variants."""
    rng, held = np.random.default_rng(0), Held()
    cells = dict[tuple[Place, str, int], tuple[Row, Curves]]()
    for at, measure, comparisons in _groups(claim):
        values, room = _values(claim, measure, comparisons, wanted)
        for variant, value in values.items():
            wide = wanted == UNDECIDED and not measure.error
            low, high = _BOUNDS.get(type(measure), (-math.inf, math.inf))
            for seed in range(seeds):
                spread = (1.0 if wide else 1e-3) * room * rng.normal()
                cell = cells.setdefault((at, variant, seed), ({}, {}))
                _MADE[type(measure)](measure, float(np.clip(value + spread, low, high)), *cell)
    for (at, variant, seed), (row, curves) in cells.items():
        if variant not in without:
            _add(held, at, variant, seed, row, curves)
    return held


def _groups(claim: Claim) -> list[tuple[Place, Measure, list[Comparison]]]:
    """Comparisons of one measure in one place; of straightness first, since ratios then go on from its curves."""
    found = dict[tuple[Place, Measure], list[Comparison]]()
    for one in claim.comparisons:
        found.setdefault((one.at, one.measure), []).append(one)
    return sorted(((*key, group) for key, group in found.items()), key=lambda one: not isinstance(one[1], Straight))


def _values(
    claim: Claim, measure: Measure, comparisons: Sequence[Comparison], wanted: str
) -> tuple[dict[str, float], float]:
    """A value for each variant, and how much room there is to the ends of the regions."""
    variants = list(dict.fromkeys(name for one in comparisons for name in one.variants))
    first = comparisons[0] is claim.comparisons[0]
    rows, limits, scale = list[np.ndarray](), list[float](), min(one.margin for one in comparisons)
    at_edge = wanted == UNDECIDED and bool(measure.error)
    for number, one in enumerate(comparisons):
        weights = np.array([one.weights.get(name, 0.0) for name in variants])
        fails = wanted == CONTRADICTED and (claim.some or (first and number == 0))
        low, high = one.low, one.high
        if fails:
            low, high = (high, math.inf) if math.isfinite(high) else (-math.inf, low)
        elif wanted == CONTRADICTED:
            continue  # one that fails is enough
        if at_edge:
            low = high = high if math.isfinite(high) else low
        window = max(2 * one.margin, 4 * measure.error)  # not far from where it turns
        low = low if math.isfinite(low) else high - window
        high = high if math.isfinite(high) else low + window
        for sign, end in ((1.0, high), (-1.0, -low)):
            rows.append(np.append(sign * weights, 0.0 if at_edge else 1.0))
            limits.append(end)
    far = _FAR * max(abs(end) for one in comparisons for end in (one.low, one.high) if math.isfinite(end))
    bounds = [_BOUNDS.get(type(measure), (-far, far))] * len(variants)
    found = linprog(
        np.append(np.zeros(len(variants)), -1.0),
        np.array(rows) if rows else None,
        limits or None,
        bounds=[*bounds, (0, max(scale, 2 * measure.error))],
    )
    assert found.success, (claim.id, found.message)
    return dict(zip(variants, found.x[:-1], strict=True)), float(found.x[-1])


def _add(held: Held, at: Place, variant: str, seed: int, row: Row, curves: Curves) -> None:
    """A cell that is done."""
    last = {name: points[max(points)] for name, points in curves.items()}
    alike = {"host": "here", "compiled": "true", "threads": "1", "steps": at.steps}
    run = held.add(variant, method_of(variant), seed, suite=at.suite, preset=at.preset, task=at.task,
                   **{"time/ms_per_step": 1.0, **alike, **last, **row})  # fmt: skip
    held.values |= {(run, name): sorted(points.items()) for name, points in curves.items()}


# --- of which metrics and curves a measure gives a value --------------------------------------------------------------


def _selected(measure: Selected, value: float, row: Row, curves: Curves) -> None:
    row[measure.metric] = math.exp(value) if measure.log else value


def _iterations(measure: Iterations, value: float, row: Row, curves: Curves) -> None:
    """A straight line to its end."""
    sign, there = 1.0 if better_is_high(measure.metric) else -1.0, round(1e10 * math.exp(value) / measure.share)
    curves[measure.metric] = _lines({0: -2.0 * sign, there: 0.5 * sign, 50 * there: 0.5 * sign})


def _equal_time(measure: EqualTime, value: float, row: Row, curves: Curves) -> None:
    """Best after ten seconds, and far better after twenty, which the fastest do not take."""
    better = 1.0 if measure.higher else -1.0
    longer = {200: value + 1e6 * better} if curves else {}  # every second variant
    curves[measure.metric] = {0: value - better, 100: value, 150: value - better} | longer
    curves["time/train_seconds"] = {step: step / 10 for step in curves[measure.metric]}


def _cost(measure: Cost, value: float, row: Row, curves: Curves) -> None:
    row["time/ms_per_step"] = math.exp(value)


def _ratio(measure: Ratio, value: float, row: Row, curves: Curves) -> None:
    row.setdefault(measure.top, 1.0)
    row[measure.bottom] = row[measure.top] / math.exp(value)


def _straight(measure: Straight, value: float, row: Row, curves: Curves) -> None:
    """A falling line, and beside it as much of a zigzag as this R² leaves."""
    n = np.array(measure.counts, float)
    line = -0.05 * (n - n.mean())
    basis = np.stack([np.ones_like(n), n], axis=1)
    zigzag = (-1.0) ** np.arange(len(n))
    zigzag -= basis @ np.linalg.lstsq(basis, zigzag)[0]
    size = math.sqrt((line @ line) * (1 - value) / value / (zigzag @ zigzag))
    row |= dict(zip(measure.metrics, np.exp(line + size * zigzag).tolist(), strict=True))


def _fall(measure: Fall, value: float, row: Row, curves: Curves) -> None:
    curves[measure.metric] = _lines({0: math.exp(value), 500: 1.0, 1000: 1.0})


def _rise(measure: Rise, value: float, row: Row, curves: Curves) -> None:
    curves[measure.metric] = _lines({0: 9.0, 500: 1.0, 700: math.exp(value), 1000: 0.5})


def _lines(points: dict[int, float]) -> dict[int, float]:
    """Straight lines between these points, as often looked at as trainings are."""
    steps = np.union1d(list(points), np.linspace(0, max(points), 21).astype(int))
    return dict(zip(steps.tolist(), np.interp(steps, list(points), list(points.values())).tolist(), strict=True))


_MADE: dict[type[Measure], Callable[..., None]] = {
    Selected: _selected, Iterations: _iterations, EqualTime: _equal_time, Cost: _cost, Ratio: _ratio,
    Straight: _straight, Fall: _fall, Rise: _rise,
}  # fmt: skip
WANTED = (SUPPORTED, CONTRADICTED, UNDECIDED)
