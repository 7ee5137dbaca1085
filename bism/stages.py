"""Stages: a method may train in several, one after the other, each by a step of its own."""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from bism.contract import check_asked, check_state
from bism.errors import InputError, shown
from bism.gradients import Shards, part_of
from bism.phases import Phase, check_phases
from bism.rng import LONGEST, Rng
from bism.state import Hyper, Info, State

_MOST, _LONGEST, _LARGEST = 100, 60, 1_000_000  # stages, letters of a name, a share


@dataclasses.dataclass(frozen=True)
class Stage:
    """What is done in a share of the iterations.

    name: as it is shown; "" where a method has but one.
    share: of the iterations, beside the shares of the other stages.
    step, noise, minibatches, phases, lower_objective: what ``Estimator`` has under these names, for this stage.
    begin: makes the state that the stage starts from, once, of the one that the stage before it ended with: (state,
        hyper) to a state of the same shapes and types. Of what it puts in place of a parameter, the running mean
        (``ema``) starts anew.
    """

    name: str
    share: float
    step: Callable[[State, Tensor, Any, Hyper], tuple[State, Info]]
    noise: Callable[[Any, tuple[int, ...], Rng], Any]
    minibatches: int = 1
    begin: Callable[[State, Hyper], State] | None = None
    lower_objective: Callable[[State, Tensor, Any, Hyper], Tensor | None] | None = None
    phases: tuple[Phase, ...] = ()

    @property
    def all_minibatches(self) -> int:
        """Those of the step and of all calls of its phases, in this order."""
        return self.minibatches + sum(phase.count * phase.minibatches for phase in self.phases)

    def draw(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> tuple[Any, Any]:
        """Everything random in a whole step: the step's own, and that of each call of each phase."""
        own = self.noise(model, batch_shape, rng)
        return own, [[phase.noise(model, batch_shape, rng) for _ in range(phase.count)] for phase in self.phases]

    def whole(self, state: State, batches: Tensor, drawn: Any, hyper: Hyper) -> tuple[State, Info]:
        """A step with its phases before it.

        Args:
            batches: [all_minibatches, batch, *visible_shape], or with an axis of shards in front.
            drawn: what ``draw`` gives, or ``gradients.Shards`` of that.
        """
        axis, examples, at = int(isinstance(drawn, Shards)), state.examples, self.minibatches

        def seen(first: int, count: int) -> tuple[State, Tensor]:
            mine = None if examples is None else examples.narrow(0, first, count)
            return state.replace(examples=mine), batches.narrow(axis, first, count)

        for index, phase in enumerate(self.phases):
            for call in range(phase.count):
                place = (at, phase.minibatches) if phase.minibatches else (0, self.minibatches)
                given = phase.step(*seen(*place), part_of(drawn, 1, index, call), hyper)
                called = getattr(phase.step, "__name__", "step")
                state = check_state(f"phase '{phase.name}'", called, state, given)
                at += phase.minibatches
        return self.step(*seen(0, self.minibatches), part_of(drawn, 0), hyper)


def check_stages(method: str, stages: Any, batch_size: int) -> tuple[Stage, ...]:
    """What ``Estimator.stages`` gives, to be trained on minibatches of this size.

    Raises:
        InputError: naming the method, the stage and what is wrong with it.
    """
    if not isinstance(stages, tuple) or not stages or not all(isinstance(one, Stage) for one in stages):
        raise InputError(f"{method}: stages must be a tuple of one or more Stage, got {shown(stages)}")
    if len(stages) > _MOST:
        raise InputError(f"{method}: there can be {_MOST} stages, got {len(stages):,}")
    names = [stage.name for stage in stages]
    if not all(isinstance(name, str) and name.isprintable() and len(name) <= _LONGEST for name in names):
        raise InputError(
            f"{method}: a stage's name must be a text of {_LONGEST} characters at most, got {shown(names)}"
        )
    if len(stages) > 1 and not (all(names) and len(set(names)) == len(names)):
        raise InputError(f"{method}: each stage needs a name of its own, got {', '.join(map(repr, names))}")
    for stage in stages:
        share = stage.share
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= _LARGEST:
            raise InputError(
                f"{method}: the share of stage '{stage.name}' must be a number above 0, {_LARGEST:,} at most, "
                f"got {shown(share)}"
            )
        for part, optional in (("step", False), ("noise", False), ("begin", True), ("lower_objective", True)):
            function = getattr(stage, part)
            if not callable(function) and not (optional and function is None):
                raise InputError(f"{method}: {part} of stage '{stage.name}' must be a function, got {shown(function)}")
        whose = f"{method}: stage '{stage.name}'" if stage.name else method
        check_asked(whose, "minibatches", stage.minibatches, 1, LONGEST // batch_size)
        check_phases(whose, stage.phases)
        check_asked(whose, "all_minibatches", stage.all_minibatches, 1, LONGEST // batch_size)
    if stages[0].begin is not None:
        raise InputError(f"{method}: the first stage, '{names[0]}', cannot have a ``begin``: it starts from ``init``")
    return stages


def stage_ends(stages: Sequence[Stage], iterations: int) -> list[int]:
    """The iteration at which each stage ends, by the shares; the last goes on for as long as training does."""
    shares = list(itertools.accumulate(stage.share for stage in stages))
    return [*(round(iterations * share / shares[-1]) for share in shares[:-1]), sys.maxsize]
