"""Axes that leave out what is far from the best, and mark it at their edge."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

_REACH = 6  # times the distance from the best to the upper quartile
_PAD, _LEAST = 0.07, 0.004  # of what is shown, and of the best
Values = Sequence[float] | np.ndarray | pd.Series


@dataclasses.dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
        low, high: its ends.
        bound: the worst value that stands at its own place.
        at: where all worse ones stand.
        sign: 1 where more is better, else -1.
    """

    low: float
    high: float
    bound: float
    at: float
    sign: float

    def beyond(self, values: Values) -> np.ndarray:
        """Which values stand at the edge: those far off, infinite or unknown."""
        signed = self.sign * np.asarray(values, dtype=float)
        return ~((signed >= self.sign * self.bound) & np.isfinite(signed))

    def places(self, values: Values) -> np.ndarray:
        """Where values stand."""
        return np.where(self.beyond(values), self.at, np.asarray(values, dtype=float))


def axis(values: Values, others: Values, high: bool) -> Axis | None:
    """The axis for these values; None where none is finite.

    Args:
        values: the range is chosen for these.
        others: drawn on it too.
        high: whether more is better.
    """
    sign = 1.0 if high else -1.0
    signed = sign * np.asarray(values, dtype=float)
    drawn = np.concatenate([signed, sign * np.asarray(others, dtype=float)])
    signed, finite = signed[np.isfinite(signed)], drawn[np.isfinite(drawn)]
    if not len(finite):
        return None
    signed = signed if len(signed) else finite
    best = finite.max()
    bound = best - _REACH * (best - np.quantile(signed, 0.75)) - _LEAST * abs(best)
    while True:
        inside = finite[finite >= bound]
        pad = max(_PAD * (best - inside.min()), _LEAST * abs(best), 1e-9)
        worst, at = inside.min(), inside.min() - 2 * pad
        near = finite[(finite < bound) & (finite >= at - pad)]  # they fit between the ends, and stand at their places
        if not len(near):
            break
        bound = near.min()
    off = len(inside) < len(drawn)
    ends = sign * (at - pad if off else worst - pad), sign * (best + pad)
    return Axis(min(ends), max(ends), sign * bound, sign * at, sign)


def arrow(axis: Axis, vertical: bool = True) -> Any:
    """The marker that points out of the axes."""
    return {(1.0, True): "v", (-1.0, True): "^", (1.0, False): "<", (-1.0, False): ">"}[axis.sign, vertical]
