"""Whether what a plan asks for can be trained: by the method, on the data, in this machine's memory."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from benchmark.data.datasets import DataSet
from benchmark.records.metrics import metric_of
from benchmark.system.memory import check_fits, machine_bytes
from benchmark.tasks.models import build_model, parameter_count
from benchmark.tasks.suite import Variant
from bism import Estimator
from bism.checks import check_model, check_noise, not_binary
from bism.errors import InputError, of_a_user
from bism.rng import LONGEST, CountingRng
from bism.stages import check_stages
from bism.variables import has_binary_v


def check_trainable(
    task: str,
    variant: str,
    estimator: Estimator,
    config: dict[str, Any],
    metrics: Iterable[str],
    seeds: int,
    examples: int,
    placed: Callable[[str], str] = str,
) -> nn.Module:
    """The model of a configuration, once it is known that the method can train it and that the metrics suit it.

    Args:
        config: the model's, as ``build_model`` takes it.
        examples: of a minibatch, or of a shard of it.
        placed: puts before a message where in a file the method is given this model.

    Raises:
        InputError: naming the task, the method or the metric.
    """
    where, stages = f"task {task}: {variant}", check_stages(estimator.id, estimator.stages, max(1, examples))
    check_size(where, config, seeds, examples, max(stage.all_minibatches for stage in stages))
    model = build_model(config)
    try:
        check_model(estimator, model)
    except InputError as error:
        raise InputError(placed(str(error))) from None
    for name in metrics:
        reason = metric_of(name).unsuited(model)
        if reason:
            raise InputError(f"task {task}: the metric {name} {reason}")
    _check_random_numbers(where, estimator, model, seeds, examples)
    return model


def check_visible(model: nn.Module, entry: Variant, task: str, data: DataSet) -> None:
    """Models of binary v take data of zeros and ones, as they are."""
    if not has_binary_v(model):
        return
    name = type(model).__name__
    if data.scaling:
        raise InputError(f"task {task}: data: v of {name} is binary, and scale: {data.scaling.kind} leaves no 0 and 1")
    for split, rows in (("training", data.train), ("validation", data.val), ("test", data.test)):
        if where := not_binary(rows):
            raise InputError(
                f"task {task}: data: v of {name} is binary, and of the {split} data {where}: "
                f"data: {{binarize: 0.5}} makes all that is above 0.5 a 1, and the rest 0"
            )
    try:
        check_noise(entry.data_noise, model)
    except InputError as error:
        raise InputError(f"task {task}: {entry.method}: {error}") from None


def check_size(what: str, model: dict[str, Any], seeds: int, examples: int, minibatches: int = 1) -> None:
    """Refuses what no machine like this one can train: the parameters of all seeds, their gradients and both averages
    of Adam are held at once, and the minibatches of a step."""
    parameters, visible = (
        parameter_count(model),
        math.prod(model["visible"] if isinstance(model["visible"], list) else [model["visible"]]),
    )
    check_fits(
        4.0 * seeds * (4 * (parameters or 0) + minibatches * examples * visible),
        f"{what}, {parameters or 0:,} parameters for each of {seeds:,} seeds, "
        f"{f'{minibatches:,} ' if minibatches > 1 else ''}minibatches of {examples:,},",
        "a smaller model, smaller minibatches, or fewer seeds at a time",
    )


def _check_random_numbers(what: str, estimator: Estimator, model: nn.Module, seeds: int, examples: int) -> None:
    """Refuses a method whose step asks for more random numbers than this machine can hold for all seeds. One whose
    ``noise`` raises is known by its cells, and the others are trained."""
    visible: Any = model.visible_shape
    count, most = 0, min(LONGEST, machine_bytes() // 4)
    for stage in estimator.stages:
        counting = CountingRng(torch.float32, torch.device("cpu"), estimator.id, most)
        try:
            with of_a_user(estimator.id), torch.no_grad():
                stage.draw(model, (examples, *visible), counting)
        except InputError as error:
            if error.__cause__ is None:
                raise
            return
        count = max(count, counting.uniform_count + counting.normal_count)
    check_fits(
        4.0 * seeds * count,
        f"{what}, {count:,} random numbers in a step of each of {seeds:,} seeds,",
        "smaller minibatches, or fewer seeds at a time",
    )
