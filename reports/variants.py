"""Cells that have one name and are not the same: a suite file may have changed between two runs into one store."""

from collections.abc import Iterable

import pandas as pd

OF_A_SEED = ("param.seed", "param.steps")
_WHAT = ["task", "variant"]


def apart(cells: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The cells, with a name of its own for each configuration: "CD-1" of two minibatch sizes is
    "CD-1 [batch_size=50]" and "CD-1 [batch_size=100]". The number of iterations of what was run last is the preset's,
    and others say theirs.

    Where nothing that is recorded tells two cells of a name and a seed apart, the one that was begun last stands for
    them.

    Returns:
        The cells, and how many were left out.
    """
    cells = cells.copy()  # in one piece: of many metrics it was put together column by column, of which pandas warns
    begun = cells[cells["run"] != ""].sort_values(["started", "run"])
    names = cells["variant"].copy()
    params = [str(name) for name in cells if str(name).startswith("param.") and name not in OF_A_SEED]
    columns = ["method", *params]
    groups = begun.groupby(_WHAT, sort=False)
    counts = groups[[*columns, "steps"]].nunique()
    for key in counts.index[(counts > 1).any(axis=1)]:
        names.update(_names(groups.get_group(key), columns))
    cells = cells.assign(variant=names)
    order = cells.assign(_begun=cells["run"] != "").sort_values(["_begun", "started", "run"], kind="stable")
    kept = order.drop_duplicates([*_WHAT, "seed"], keep="last").index
    found = cells[cells.index.isin(kept)]
    return by_task(found, cells["task"]), len(cells) - len(found)


def by_task(cells: pd.DataFrame, tasks: Iterable[str]) -> pd.DataFrame:
    """The cells of each task together, in this order of tasks; those of a task by variant and seed."""
    place = {task: count for count, task in enumerate(dict.fromkeys(tasks))}
    return cells.sort_values(
        ["task", "variant", "seed"], key=lambda of: of.map(place) if of.name == "task" else of, ignore_index=True
    )


def called(variant: str, whose: str) -> str:
    """The name of somebody's variant beside one's own."""
    return f"{variant} ({whose})"


def own_name(variant: str, whose: str) -> str:
    """The name that a variant has with whom it is from."""
    return variant.removesuffix(f" ({whose})")


def _names(group: pd.DataFrame, columns: list[str]) -> pd.Series:
    """New names for cells of one name that differ in these columns; a cell without a value is not said to differ."""
    differing = [name for name in columns if group[name].nunique() > 1]
    last = group["steps"].iloc[-1]

    def name(cell: pd.Series) -> str:
        own = {column.removeprefix("param."): cell[column] for column in differing if pd.notna(cell[column])}
        own |= {"steps": cell["steps"]} if cell["steps"] != last else {}
        own = {key: value for key, value in own.items() if f"{key}={value}" not in cell["variant"]}
        if not own:
            return str(cell["variant"])
        text, said = str(cell["variant"]), ", ".join(f"{key}={value}" for key, value in own.items())
        return f"{text.removesuffix(']')}, {said}]" if text.endswith("]") else f"{text} [{said}]"

    return group.apply(name, axis=1)
