"""Means over seeds with their intervals, and with how many digits they are written."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
_DECIMALS, _LARGE = 6, 1e9  # at most; what is smaller or larger has an exponent
Values = Sequence[float] | np.ndarray | pd.Series


def interval(values: Values) -> tuple[float, float]:
    """Mean and the half-width of its 95% interval (Student's t over seeds).

    The half-width of one value is not known, and nothing of none: NaN.
    """
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return (float(sample.mean()) if len(sample) else math.nan), math.nan
    quantile = float(stats.t.ppf(0.5 + LEVEL / 2, len(sample) - 1))
    with np.errstate(invalid="ignore"):  # of infinities: their mean is known, and no interval
        return float(sample.mean()), quantile * float(sample.std(ddof=1)) / math.sqrt(len(sample))


def written(value: float, half_width: float, sign: str = "") -> str:
    """A value to the second digit of the half-width of its interval; to four digits where that is not known, or 0.

    So "0.3412" of ± 0.0021, "-7.1" of ± 2.3, "-357,417" of ± 1,234, and "-1.2340e-07" of ± 2.1e-10: nothing is written
    as 0 because its unit is large, and no digit stands that another seed would change.

    Args:
        sign: "+" to write that of positive values.
    """
    if math.isnan(value):
        return "-"
    if not math.isfinite(value):
        return f"{value:{sign}}"
    known = math.isfinite(half_width) and half_width > 0
    return _to(value, math.floor(math.log10(half_width)) - 1 if known else _first(value) - 3, sign)


def number(value: float, digits: int = 3) -> str:
    """So many digits, or all before the point: "-64.8", "1,600", "0.00664", "1.23e-08"."""
    return _to(value, _first(value) - digits + 1) if math.isfinite(value) else str(value)


def _first(value: float) -> int:
    """The place of the first digit: 0 of 5.0, -2 of 0.05."""
    return math.floor(math.log10(abs(value))) if value else 0


def _to(value: float, place: int, sign: str = "") -> str:
    """A number to this place."""
    if value and (-place > _DECIMALS or abs(value) >= _LARGE):
        return f"{value:{sign}.{min(max(0, _first(value) - place), _DECIMALS)}e}"
    text = f"{value:{sign},.{max(0, -place)}f}" if value else "0"
    return text if text.strip("-+0.") else text.lstrip("-+")  # no "-0.00"
