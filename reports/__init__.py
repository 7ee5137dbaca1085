"""Figures redrawn from what MLflow holds, and results as a pandas frame (``frame``). Needs no torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame"]


def frame(
    suite: str | None = None,
    preset: str | Sequence[str] | None = None,
    *,
    metric: str | None = None,
    tracking_uri: str | None = None,
) -> "pd.DataFrame":
    """Results as a tidy pandas frame: one row per cell, or the whole curve of a metric.

    Args:
        suite: by default all that the store has.
        preset: one or several; by default all.
        metric: such as "val/log_likelihood": then a row per cell and iteration, with ``step`` and ``value``.
        tracking_uri: the MLflow store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working directory.

    Returns:
        The columns ``suite``, ``preset``, ``task``, ``method``, ``variant``, ``seed``, ``steps`` and ``state``, ``run``
        (MLflow's id) and other tags of the run, a ``param.*`` for every hyper-parameter, the last value of every metric
        by its name, and by ``selected/test/...`` the test metrics as the task's rule takes them: what rankings, tables
        and figures average. Cells that were planned and have not been begun have no ``run``.

    Raises:
        InputError: there is no such store, suite or preset.
    """
    from benchmark.tracking.store import named

    uri = named(tracking_uri)
    from reports.frames import frame as made  # MLflow, which takes seconds to import

    return made(uri, suite, [preset] if isinstance(preset, str) else preset, metric)
