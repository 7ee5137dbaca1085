"""How many threads of the CPU a training uses."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_PAYS = 10_000_000  # multiplications in one pass of a minibatch through the parameters, all seeds together


def suitable_threads(model: nn.Module, seeds: int, batch_size: int) -> int:
    """One where a step is so little work that threads would mostly wait for each other; else those that torch has."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return 1 if seeds * batch_size * parameters < _PAYS else torch.get_num_threads()


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Inside, torch uses so many threads; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
