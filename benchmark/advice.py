"""What is worth saying of a plan before it trains: a line for each."""

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from benchmark.datasets import DataSet
from benchmark.plan import Cell

_FAR, _NARROW = 10.0, 0.01  # models start at about mean 0 and standard deviation 1
_NAMED = 5  # columns


def advice(cells: Iterable[Cell], data: Mapping[str, DataSet]) -> Iterator[str]:
    """Yields what users should know of the scale of their data."""
    for task in dict.fromkeys(cell.config["task"] for cell in cells):
        found = data[task]
        if found.scaling is not None:
            if found.scaling.kind == "standard" and (text := _constant(found.train)):
                yield f"task {task}: {text}: scale: standard shifts them to 0 and leaves their unit as it is"
        elif text := _far(found.train):
            yield (
                f"task {task}: {text}, far from the mean of 0 and the standard deviation of 1 that models, learning "
                f"rates and noise levels are for: data: {{scale: standard}} in the suite file trains on scaled data "
                f"and reports in the data's own units"
            )


def _constant(train: Tensor) -> str | None:
    columns = (train == train[0]).all(0).flatten().nonzero().flatten().tolist()
    if not columns:
        return None
    named = ", ".join(map(str, columns[:_NAMED])) + (", ..." if len(columns) > _NAMED else "")
    return f"{len(columns)} columns are constant in the training data ({named})"


def _far(train: Tensor) -> str | None:
    spread = train.std(0, correction=0)
    if float((train.mean(0).abs() + spread).max()) <= _FAR and float(spread.max()) >= _NARROW:
        return None
    low, high = float(train.min()), float(train.max())
    return f"the values lie between {low:.4g} and {high:.4g} (standard deviation up to {float(spread.max()):.2g})"
