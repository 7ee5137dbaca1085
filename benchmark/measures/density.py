"""On what range and scale densities of one or two coordinates are drawn: those of the data. Needs no torch."""

import numpy as np

_MARGIN = 0.25  # of the data's range, on either side
_TAIL = 0.0005  # of the data, on either side, that may lie outside the range: single outliers
_IN_A_BIN = 10  # points, on average


def limits(values: np.ndarray) -> tuple[float, float]:
    """Where one coordinate is drawn, from and to: the range of its values [n], with a quarter of it on either side."""
    low, high = np.quantile(values, (_TAIL, 1 - _TAIL))
    span = float(high - low) or max(1.0, abs(float(high)))
    return float(low) - _MARGIN * span, float(high) + _MARGIN * span


def usual(points: np.ndarray) -> float:
    """The density that half of the points [n, D] (D 1 or 2) lie above, by a histogram: some 10% too high."""
    bins = max(5, round((len(points) / _IN_A_BIN) ** (1 / points.shape[1])))
    counts, edges = np.histogramdd(points, bins=bins)
    sizes = np.prod([edge[1] - edge[0] for edge in edges])
    return median(counts / (len(points) * sizes))


def median(density: np.ndarray) -> float:
    """The density that half of the mass lies above, of densities on a grid."""
    ordered = np.sort(density[np.isfinite(density)], axis=None)
    mass = ordered.cumsum()
    return float(ordered[np.searchsorted(mass, mass[-1] / 2)]) if len(ordered) and mass[-1] > 0 else 1.0
