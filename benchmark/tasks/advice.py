"""What is worth saying of the data that a plan trains on, before it and beside its results: a line for each."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from benchmark.data.datasets import DataSet

_FAR, _NARROW = 10.0, 0.01  # models start at about mean 0 and standard deviation 1
_NAMED = 5  # columns


def advice(data: Mapping[str, DataSet]) -> Iterator[str]:
    """Yields what users should know of the scale of their data, by task."""
    for task, found in data.items():
        if found.scaling is not None:
            if found.scaling.kind == "standard" and (text := _constant(found.train)):
                yield f"task {task}: {text}: scale: standard shifts them to 0 and leaves their unit as it is"
        elif text := far(found):
            yield f"task {task}: {text}"
        if text := best(found):
            yield f"task {task}: {text}"


def far(data: DataSet) -> str | None:
    """That data which are not scaled are far from where models start; None where they are not."""
    if data.scaling is not None:
        return None
    train, spread = data.train, data.train.std(0, correction=0)
    if float((train.mean(0).abs() + spread).max()) <= _FAR and float(spread.max()) >= _NARROW:
        return None
    low, high = float(train.min()), float(train.max())
    return (
        f"the values lie between {low:.4g} and {high:.4g} (standard deviation up to {float(spread.max()):.2g}), far "
        f"from the mean of 0 and the standard deviation of 1 that models, learning rates and noise levels are for: "
        f"data: {{scale: standard}} in the suite file trains on scaled data and reports in the data's own units"
    )


def best(data: DataSet) -> str | None:
    """The highest log-likelihood that there can be, where it is known."""
    if data.entropy is None:
        return None
    return f"at best a log-likelihood of {-data.entropy:.4f} nats, minus the entropy of what made the data"


def noted(data: DataSet) -> str:
    """What is to be thought of with the results."""
    return "; ".join(text for text in (far(data), best(data)) if text)


def _constant(train: Tensor) -> str | None:
    columns = (train == train[0]).all(0).flatten().nonzero().flatten().tolist()
    if not columns:
        return None
    named = ", ".join(map(str, columns[:_NAMED])) + (", ..." if len(columns) > _NAMED else "")
    return f"{len(columns)} columns are constant in the training data ({named})"
