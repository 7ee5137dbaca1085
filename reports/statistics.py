"""Intervals and comparisons over seeds."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
Values = Sequence[float] | np.ndarray | pd.Series
_RESAMPLES = 9999
_SEED = 20200


def interval(values: Values) -> tuple[float, float]:
    """Mean and the half-width of its 95% interval (Student's t over seeds); NaN for fewer than two."""
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return (float(sample.mean()) if len(sample) else math.nan), math.nan
    quantile = float(stats.t.ppf(0.5 + LEVEL / 2, len(sample) - 1))
    return float(sample.mean()), quantile * float(sample.std(ddof=1)) / math.sqrt(len(sample))


def bands(curves: pd.DataFrame, by: Sequence[str] = ("variant",)) -> pd.DataFrame:
    """Mean and half-width of its 95% interval (Student's t over seeds) at every step of each variant."""
    grouped = curves.groupby([*by, "step"])["value"].agg(["mean", "std", "count"]).reset_index()
    quantile = stats.t.ppf(0.5 + LEVEL / 2, grouped["count"] - 1)
    grouped["half_width"] = quantile * grouped["std"] / np.sqrt(grouped["count"])
    return grouped.rename(columns={"count": "seeds"})[[*by, "step", "mean", "half_width", "seeds"]]


def bootstrap(values: Values) -> tuple[float, float]:
    """The 95% interval of a mean by the bias-corrected accelerated bootstrap (Efron 1987); NaN for fewer than three."""
    sample = np.asarray(values, dtype=float)
    if len(sample) < 3:
        return math.nan, math.nan
    if np.ptp(sample) == 0:
        return float(sample[0]), float(sample[0])
    found = stats.bootstrap((sample,), np.mean, n_resamples=_RESAMPLES, confidence_level=LEVEL,
                            rng=np.random.default_rng(_SEED))  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def improvement(ours: Values, theirs: Values) -> float:
    """The probability that a seed of ours is better (higher) than one of theirs, ties counted half: P(X > Y)."""
    x, y = np.asarray(ours, dtype=float)[:, None], np.asarray(theirs, dtype=float)[None, :]
    return float(((x > y) + 0.5 * (x == y)).mean()) if x.size and y.size else math.nan


def paired_p(differences: Values) -> float:
    """Two-sided p-value of differences between equal seeds, by flipping signs (all flips up to 13 seeds, else many)."""
    sample = np.asarray(differences, dtype=float)
    if len(sample) < 2:
        return math.nan
    found = stats.permutation_test((sample,), np.mean, permutation_type="samples", n_resamples=_RESAMPLES,
                                   rng=np.random.default_rng(_SEED))  # fmt: skip
    return float(found.pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number so that the chance of any false one is bounded (Holm 1979); NaN stays."""
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    corrected, worst = [math.nan] * len(p), 0.0
    for rank, (value, i) in enumerate(known):
        worst = max(worst, min(1.0, (len(known) - rank) * value))
        corrected[i] = worst
    return corrected
