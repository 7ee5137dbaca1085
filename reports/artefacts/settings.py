"""What was run: the hyper-parameters of every variant."""

from collections.abc import Iterator

import pandas as pd

from reports import terms
from reports.artefact import Artefact, Table
from reports.methods import agreed, symbols
from reports.sweep import Sweep, variants

_SIZES = (
    "model",
    "batch_size",
    "data_noise",
    "precision",
    "accumulate",
)  # of all methods, after what is a method's own
_NOT = ("seed", "steps", "data")
_ALL = "hyper-parameters"


def build(sweep: Sweep) -> Iterator[Artefact]:
    """One table for each task whose runs have parameters."""
    for task in sweep.tasks:
        cells = sweep.of(task, None)
        cells = cells[cells["run"] != ""]
        frame = settings(cells)
        if frame.shape[1] <= 3:
            continue
        same = [name for name in frame if frame[name].nunique() == 1 and name not in ("variant", "seeds")]
        same = same if len(frame) > 1 else []
        yield Artefact(
            name=f"settings-{task}",
            title=f"Hyper-parameters ({task})",
            caption="Of every variant, those that its method has; the CSV file has a column for each."
            + (" The same for all: " + "; ".join(f"{name} {frame[name].iloc[0]}" for name in same) + "."
               if same else ""),
            numbers=frame,
            runs=list(cells["run"]),
            table=Table(_short(frame.drop(columns=same)), long=_ALL),
        )  # fmt: skip


def _short(frame: pd.DataFrame) -> pd.DataFrame:
    """A column for all parameters: one for each makes a table that no page is wide enough for."""
    first = [name for name in ("variant", "seeds", "iterations") if name in frame]
    values = [
        ", ".join(f"{name} = {value}" for name, value in row.items() if value)
        for row in frame.drop(columns=first).to_dict("records")
    ]
    return frame[first].assign(**{_ALL: values})


def settings(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per variant: its seeds, iterations and parameters, as texts."""
    columns = [str(name) for name in cells if str(name).startswith("param.") and str(name)[6:] not in _NOT]
    own = [name for name in columns if not name[6:].startswith(_SIZES)]
    declared, rows = agreed(map(symbols, set(cells["symbols"]))), []
    for variant in variants(cells):
        of = cells[cells["variant"] == variant]
        row = {"variant": variant, "seeds": terms.ranges(sorted(of["seed"])),
               "iterations": ", ".join(f"{steps:,}" for steps in sorted(of["steps"].unique()))}  # fmt: skip
        for column in [*own, *(name for name in columns if name not in own)]:
            values = list(dict.fromkeys(str(value) for value in of[column].dropna()))
            row[terms.hyperparameter(column[6:], declared)] = ", ".join(values)
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.drop(columns=[name for name in frame if (frame[name] == "").all()])
