"""Hyper-parameters as dataclass fields that say what they are.

One declaration serves the constructor, validation, ``--set`` and suite files, ``benchmark list``, MLflow's parameters
and the search space of tuning.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from bism.errors import InputError, nearest, shown

# A count's largest value: beyond what research uses (at most 20 in the paper, some hundreds of Langevin steps
# elsewhere), so that a slip of the hand is refused and is no program that never ends. A step's loops are written out in
# its program, whose compilation takes the longer.
MOST = 2**31 - 1  # where the method says nothing: as many as there can be iterations
LOOP = 1_000  # of a step's loops
UNROLLED = 100  # of loops that are differentiated through, whose bias decays exponentially in their length


@dataclasses.dataclass(frozen=True)
class Range:
    """Where tuning looks for a number; ``log`` for a logarithmic scale."""

    low: float
    high: float
    log: bool = False


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a hyper-parameter means and which values it can have.

    ``continuous`` ones may vary along the mapped axis of one compiled program; the others fix its structure.
    ``rate_of`` names the part of which it is the learning rate.
    """

    help: str
    symbol: str | None = None
    continuous: bool = False
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Sequence[Any] | None = None
    tune: Range | Sequence[Any] | None = None
    rate_of: str | None = None

    def problem(self, value: Any, kind: type) -> str | None:
        """Why ``value`` is not acceptable, or None."""
        if self.choices is not None and value not in self.choices:
            return f"must be one of {', '.join(map(str, self.choices))}"
        if kind in (int, float) and (isinstance(value, bool) or not isinstance(value, (int, float))):
            return f"must be {'an integer' if kind is int else 'a number'}"
        if kind is int and not isinstance(value, int):
            return "must be an integer"
        if kind in (bool, str) and not isinstance(value, kind):
            return "must be true or false" if kind is bool else "must be a text"
        if kind is float and not abs(value) <= sys.float_info.max:  # nor an integer beyond all of them
            return "must be finite"
        if self.maximum is not None and not (self.minimum or 0) <= value <= self.maximum:
            return f"must be from {self.minimum or 0} to {self.maximum:,}"
        if self.minimum is not None and value < self.minimum:
            return f"must be at least {self.minimum}"
        if self.above is not None and value <= self.above:
            return f"must be greater than {self.above}"
        if self.below is not None and value >= self.below:
            return f"must be less than {self.below}"
        return None


def number(
    default: float,
    help: str,
    *,
    symbol: str | None = None,
    above: float | None = 0.0,
    minimum: float | None = None,
    below: float | None = None,
    tune: Range | None = None,
    rate_of: str | None = None,
) -> Any:
    """A continuous hyper-parameter, positive unless told otherwise; ``rate_of`` a part, where it is the learning rate
    of one."""
    above = None if minimum is not None else above
    spec = Spec(help, symbol, continuous=True, minimum=minimum, above=above, below=below, tune=tune, rate_of=rate_of)
    return dataclasses.field(default=default, metadata={"spec": spec})


def count(
    default: int,
    help: str,
    *,
    symbol: str | None = None,
    minimum: int = 1,
    maximum: int = MOST,
    tune: Range | Sequence[int] | None = None,
) -> Any:
    """An integer that fixes the structure of the computation, from ``minimum`` to ``maximum``."""
    spec = Spec(help, symbol, minimum=minimum, maximum=maximum, tune=tune)
    return dataclasses.field(default=default, metadata={"spec": spec})


def choice(default: str, choices: Sequence[str], help: str, *, tune: bool = False) -> Any:
    """One of a few named variants."""
    spec = Spec(help, choices=tuple(choices), tune=tuple(choices) if tune else None)
    return dataclasses.field(default=default, metadata={"spec": spec})


def specs(estimator: Any) -> dict[str, Spec]:
    """The declared hyper-parameters of an estimator or its class, by name."""
    return {f.name: f.metadata["spec"] for f in dataclasses.fields(estimator) if "spec" in f.metadata}


def symbols(estimator: Any) -> dict[str, str]:
    """The symbols of those hyper-parameters that have one, by name."""
    return {name: spec.symbol for name, spec in specs(estimator).items() if spec.symbol}


def rates(estimator: Any) -> dict[str, str]:
    """The hyper-parameters that are learning rates, by the part that they are declared for."""
    return {spec.rate_of: name for name, spec in specs(estimator).items() if spec.rate_of}


def resolve(estimator: Any, name: str) -> str:
    """The spelled-out name of a hyper-parameter given by its name or its symbol (``K`` is ``inner_steps``).

    Raises:
        InputError: there is no such hyper-parameter.
    """
    known = specs(estimator)
    by_symbol = {spec.symbol: key for key, spec in known.items() if spec.symbol}
    if name in known or name in by_symbol:
        return by_symbol.get(name, name)
    raise InputError(f"{estimator.id} has no hyper-parameter '{name}': {nearest(name, known)}")


def validate(estimator: Any) -> None:
    """Checks every field against its declaration; integers given for floats become floats.

    Raises:
        InputError: naming the estimator, the hyper-parameter, what it got and what it needs.
    """
    for field in dataclasses.fields(estimator):
        if "spec" not in field.metadata:
            continue
        value, spec, kind = getattr(estimator, field.name), field.metadata["spec"], type(field.default)
        problem = spec.problem(value, kind)
        if problem:
            raise InputError(f"{estimator.id}: {field.name} {problem}, got {shown(value)}")
        if kind is float:
            object.__setattr__(estimator, field.name, float(value))
