"""Results as a tidy frame, for whoever does their own statistics."""

from collections.abc import Sequence

import pandas as pd

from bism.errors import InputError, nearest
from reports.store import Store
from reports.sweep import selected, variants

_FIRST = ["suite", "preset", "task", "method", "variant", "seed", "steps", "state", "run"]


def frame(uri: str, suite: str | None, presets: Sequence[str] | None, metric: str | None) -> pd.DataFrame:
    """See ``reports.frame``."""
    store = Store(uri)
    with store.reading():
        parts = [
            store.cells(one, preset).assign(suite=one, preset=preset)
            for one in ([suite] if suite is not None else store.suites)
            for preset in store.presets(one)
            if presets is None or preset in presets
        ]
        if not parts:
            known = sorted(
                {name for one in ([suite] if suite is not None else store.suites) for name in store.presets(one)}
            )
            asked = next((name for name in presets or () if name not in known), None)
            said = f"no preset '{asked}': {nearest(asked, known)}" if asked else "no cells"
            raise InputError(f"tracking store {store.uri} has {said}")
        cells = pd.concat([_in_order(part) for part in parts], ignore_index=True)
        tested = [str(name) for name in cells if str(name).startswith("test/")]
        cells = cells.assign(**{f"selected/{name}": selected(cells, name) for name in tested})
        cells = cells[[*_FIRST, *(name for name in cells if name not in _FIRST)]]
        if metric is None:
            return cells
        begun = cells.loc[cells["run"] != "", _FIRST]
        curves = store.histories(list(begun["run"]), metric)
    if curves.empty:
        known = sorted(str(name) for name in cells if "/" in str(name))
        raise InputError(f"no cell has the metric '{metric}': {nearest(metric, known)}")
    return begun.merge(curves, on="run")  # in the order of both


def _in_order(cells: pd.DataFrame) -> pd.DataFrame:
    """Tasks as they stand, in the suite's order; their variants as in the report."""
    place = {name: count for count, name in enumerate([*dict.fromkeys(cells["task"]), *variants(cells)])}
    return cells.sort_values(
        ["task", "variant", "seed"], key=lambda of: of if of.name == "seed" else of.map(place), kind="stable"
    )
