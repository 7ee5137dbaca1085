"""Intervals and comparisons over seeds that hold at the few seeds that people use.

All of them are Student's t, whose coverage is exact for normal values at any number of seeds. A bootstrap is not: its
resamples of 3, 5 and 10 values have too little spread, and the "95%" of BCa (Efron 1987) cover 70, 82 and 90%.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from benchmark.measures.statistics import LEVEL, Values, interval, paired
from benchmark.system import limits

__all__ = ["LEVEL", "bands", "counts", "improvement", "interval", "of_seeds", "paired"]


def bands(curves: pd.DataFrame, by: Sequence[str] = ("variant",)) -> pd.DataFrame:
    """Mean and half-width of its 95% interval (Student's t over seeds) at every step of each variant.

    NaN where a seed has no finite value: the mean of the others would be another curve.
    """
    grouped = curves.groupby([*by, "step"])["value"].agg(["mean", "std", "count", "size"]).reset_index()
    grouped.loc[grouped["count"] < grouped["size"], ["mean", "std"]] = np.nan
    quantile = stats.t.ppf(0.5 + LEVEL / 2, grouped["count"] - 1)
    grouped["half_width"] = quantile * grouped["std"] / np.sqrt(grouped["count"])
    return grouped.rename(columns={"count": "seeds"})[[*by, "step", "mean", "half_width", "seeds"]]


def of_seeds(cells: pd.DataFrame, heads: Mapping[str, str]) -> dict[str, object]:
    """The row of a table from the cells of one variant: its name, how many seeds, and of each metric, under its head,
    the mean with the half-width of its interval."""
    row: dict[str, object] = {"variant": cells["variant"].iloc[0], "seeds": len(cells)}
    for metric, head in heads.items():
        row[head], row[f"± {head}"] = interval(cells[metric].dropna())
    return row


def counts(texts: pd.Series) -> pd.Series:
    """A hyper-parameter that counts something (steps, examples, units) as numbers: stores and files have texts, of
    which anybody's may hold anything. NaN of what is no such number."""
    found = pd.to_numeric(texts, errors="coerce").astype(float)
    return found.where(found.between(0, limits.COUNT))


def improvement(ours: Values, theirs: Values) -> float:
    """The share of pairs in which a seed of ours is better (higher) than one of theirs, ties counted half: P(X > Y)."""
    x, y = np.asarray(ours, dtype=float)[:, None], np.asarray(theirs, dtype=float)[None, :]
    return float(((x > y) + 0.5 * (x == y)).mean()) if x.size and y.size else math.nan
