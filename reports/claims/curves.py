"""What is seen of one curve, a series of values by iteration: how soon it ends, how far it falls and rises."""

import math

import numpy as np
import pandas as pd


def _end(curve: pd.Series) -> float:
    """The mean over the last tenth of the iterations."""
    return float(curve[10 * curve.index >= 9 * curve.index.max()].mean())


def iterations(curve: pd.Series, share: float, high: bool) -> float:
    """When a curve (values by iteration) has first come this share of the way to its end; infinite where its end is no
    better than its beginning, NaN where it does not begin at 0 or has gaps."""
    if curve.index[0] != 0 or curve.isna().any():
        return math.nan
    values = (curve if high else -curve).astype(float)
    first, last = float(values.iloc[0]), _end(values)
    if not last > first:
        return math.inf
    level = first + share * (last - first)
    after = int(np.argmax(values.to_numpy() >= level))
    x, y = values.index.to_numpy(float), values.to_numpy()
    return float(x[after - 1] + (x[after] - x[after - 1]) * (level - y[after - 1]) / (y[after] - y[after - 1]))


def fall(curve: pd.Series) -> float:
    """log(value at 0 / end); NaN where it does not begin at 0 or has gaps."""
    if curve.index[0] != 0 or curve.isna().any():
        return math.nan
    first, last = float(curve.iloc[0]), _end(curve)
    return math.log(first / last) if first > 0 and last > 0 else math.nan


def rise(curve: pd.Series) -> float:
    """The largest log(value / lowest value so far); infinite where a value is not finite."""
    if curve.isna().any():
        return math.inf
    return float((np.log(curve) - np.log(curve.cummin())).max()) if (curve > 0).all() else math.nan
