"""How fast the gradient's bias decays in N: a straight line on a logarithmic axis, Theorem 2."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special


@dataclasses.dataclass(frozen=True)
class Decay:
    """A fitted rate: bias ~ exp(slope N), with the 95% interval (low, high) of the slope, over N in [first, last]."""

    slope: float
    low: float
    high: float
    first: int
    last: int
    points: int

    @property
    def kappa(self) -> float:
        """The factor per unrolled step, exp(slope)."""
        return math.exp(self.slope)


def decay_rate(unroll: Sequence[int], bias: Sequence[float], *, first: int = 1, last: int = 40) -> Decay:
    """Least-squares slope of log bias against N over first <= N <= last, with its 95% interval (Student's t).

    The interval takes the points' distances from the line for independent errors. Where nothing is random they are
    the curve's own bend, and the interval says how straight the line is and no more.

    Raises:
        ValueError: fewer than three points in the range, or a bias that is not positive and finite.
    """
    n, values = np.asarray(unroll, dtype=float), np.asarray(bias, dtype=float)
    chosen = (first <= n) & (n <= last)
    n, values = n[chosen], values[chosen]
    if len(n) < 3:
        raise ValueError(f"a rate needs at least 3 points with {first} <= N <= {last}, got {len(n)}")
    if not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"bias must be positive and finite to have a logarithm, got {values.tolist()}")
    from scipy import stats  # takes a second, and most commands fit no line

    line = stats.linregress(n, np.log(values))
    half = float(special.stdtrit(len(n) - 2, 0.975)) * float(line.stderr)
    slope = float(line.slope)
    return Decay(slope, slope - half, slope + half, int(n.min()), int(n.max()), len(n))
