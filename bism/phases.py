"""Phases: what a step does over and over before its own work."""

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from bism.contract import check_asked
from bism.errors import InputError, shown
from bism.hyperparameters import LOOP
from bism.rng import LONGEST, Rng
from bism.state import Hyper, State

_MOST, _LONGEST = 100, 60  # phases, letters of a name


@dataclasses.dataclass(frozen=True)
class Phase:
    """What a step does a number of times before its own work, such as the K steps on a posterior or those of a chain:
    written and compiled once, however often it is called.

    name: as messages have it.
    count: how many calls a step makes.
    step: one call, (state, batches, noise, hyper) to the next state.
    noise: everything random in one call, (model, batch_shape, rng) to what ``step`` is given.
    minibatches: that each call has to itself; 0: all calls see those of the step.
    count_by: the hyper-parameter that says the count and decides nothing else; configurations that differ in it can
        be trained side by side (``bism.cohort``). "" where there is none.
    """

    name: str
    count: int
    step: Callable[[State, Tensor, Any, Hyper], State]
    noise: Callable[[Any, tuple[int, ...], Rng], Any]
    minibatches: int = 0
    count_by: str = ""


def check_phases(whose: str, phases: Any) -> tuple[Phase, ...]:
    """What ``Stage.phases`` is.

    Raises:
        InputError: naming the phase and what is wrong with it.
    """
    if not isinstance(phases, tuple) or not all(isinstance(one, Phase) for one in phases):
        raise InputError(f"{whose}: phases must be a tuple of Phase, got {shown(phases)}")
    names = [phase.name for phase in phases]
    if len(phases) > _MOST or len(set(map(str, names))) < len(names):
        raise InputError(f"{whose}: there can be {_MOST} phases, each of a name of its own, got {shown(names)}")
    for phase in phases:
        if not isinstance(phase.name, str) or not 0 < len(phase.name) <= _LONGEST or not phase.name.isprintable():
            raise InputError(
                f"{whose}: a phase's name must be a text of 1 to {_LONGEST} characters, got {shown(names)}"
            )
        for part in ("step", "noise"):
            if not callable(getattr(phase, part)):
                raise InputError(
                    f"{whose}: {part} of phase '{phase.name}' must be a function, got {shown(getattr(phase, part))}"
                )
        check_asked(f"{whose}: phase '{phase.name}'", "count", phase.count, 0, LOOP)
        check_asked(f"{whose}: phase '{phase.name}'", "minibatches", phase.minibatches, 0, LONGEST)
    return phases
