"""Where tuning looks: a range or a few values for each hyper-parameter, declared with the methods, changed by users."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from benchmark.system.limits import COUNT, NAME, decimal
from bism import Estimator
from bism.errors import InputError, shortened, shown
from bism.hyperparameters import Range, resolve, specs

Space = dict[str, BaseDistribution]  # by spelled-out name
_RANGE = re.compile(r"\s*(\S+?)\s*\.\.\s*(\S+?)(\s+log)?\s*")
_FORMS = "1e-4..1e-1 log, 0..20, [0, 1, 5], {low: 0.1, high: 1, log: true}, or one value, which is then not searched"


def declared(method: type[Estimator]) -> Space:
    """The space that a method declares."""
    return {name: _distribution(method, name, where) for name, where in method.search_space().items()}


def changed(
    method: type[Estimator], space: Space, changes: Mapping[str, Any], hyper: Mapping[str, Any] | None = None
) -> tuple[Space, dict[str, Any]]:
    """A space with a user's changes, and the hyper-parameters that these fix at one value.

    With ``hyper`` those named choices are left out that a method refuses beside what is not searched, as VaGES's
    control variate where samples of h take Langevin steps: each of their trials would fail.

    Args:
        changes: by name or symbol, what a suite file or the command line says: see ``_FORMS``.
        hyper: the values of hyper-parameters where they are not searched.

    Raises:
        InputError: an unknown hyper-parameter, an empty range, or values that the method refuses.
    """
    found, fixed = dict(space), dict[str, Any]()
    for key, said in changes.items():
        name = resolve(method, key)
        where = _parse(method, name, said)
        if isinstance(where, (Range, list)):
            found[name] = _distribution(method, name, where)
        else:
            _check(method, name, where)
            found.pop(name, None)
            fixed[name] = where
    if hyper is not None:
        given = {name: value for name, value in {**hyper, **fixed}.items() if name not in found}
        fixed |= _left_out(method, found, given, {resolve(method, key) for key in changes})
    return found, fixed


def _left_out(
    method: type[Estimator], space: Space, given: Mapping[str, Any], asked: Collection[str]
) -> dict[str, Any]:
    """Takes the named choices out of a space that a method refuses beside what is given, those that are ``asked`` for
    excepted, which are an error. What then has one value is not searched: those."""
    alone = dict[str, Any]()
    for name, where in list(space.items()):
        if not isinstance(where, CategoricalDistribution) or not specs(method)[name].choices:
            continue
        left = [value for value in where.choices if _goes_with(method, given, name, value)]
        if not left or len(left) == len(where.choices):
            continue
        if name in asked:
            method(**{**given, name: next(value for value in where.choices if value not in left)})  # which says why
        space[name] = CategoricalDistribution(left)
        if len(left) == 1:
            alone[name] = left[0]
            del space[name]
    return alone


def _goes_with(method: type[Estimator], given: Mapping[str, Any], name: str, value: Any) -> bool:
    try:
        method(**{**given, name: value})
    except InputError:
        return False
    return True


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value is in a range, or among a few."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    bounds: Any = distribution
    return bool(bounds.low <= value <= bounds.high)


def described(distribution: BaseDistribution) -> str:
    """For people: "0.0001 to 0.1, logarithmic", "0, 1, 2, 5, 10"."""
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    bounds: Any = distribution
    return f"{bounds.low:g} to {bounds.high:g}{', logarithmic' if bounds.log else ''}"


def _parse(method: type[Estimator], name: str, said: Any) -> Any:
    """A ``Range``, a list, or a single value."""
    if isinstance(said, dict):
        unknown, lacking = set(said) - {"low", "high", "log"}, {"low", "high"} - set(said)
        if unknown or lacking:
            raise _bad(
                method, name, said, f"has low, high and log, not {', '.join(sorted(map(str, unknown | lacking)))}"
            )
        return Range(said["low"], said["high"], said.get("log", False))
    text = _RANGE.fullmatch(said) if isinstance(said, str) and len(said) < NAME else None
    if text:
        return Range(_number(method, name, said, text[1]), _number(method, name, said, text[2]), bool(text[3]))
    return said


def _number(method: type[Estimator], name: str, said: str, text: str) -> float:
    try:
        value = decimal(name, text)
    except InputError:
        raise _bad(method, name, said, f"{text} is not a number") from None
    return int(value) if value.is_integer() and re.fullmatch("[-+]?[0-9]+", text) else value


def _distribution(method: type[Estimator], name: str, where: Any) -> BaseDistribution:
    if not isinstance(where, Range):
        if not where or len(set(map(str, where))) < len(where):
            raise _bad(method, name, where, "needs one or more different values")
        for value in where:
            _check(method, name, value)
        return CategoricalDistribution(list(where))
    numbers = [where.low, where.high]
    if any(isinstance(n, bool) or not isinstance(n, (int, float)) or not math.isfinite(n) for n in numbers):
        raise _bad(method, name, f"{where.low}..{where.high}", "a range goes from a number to a number")
    if where.low >= where.high:
        raise _bad(method, name, f"{where.low:g}..{where.high:g}", "a range goes from a lower number to a higher one")
    if not isinstance(where.log, bool) or (where.log and where.low <= 0):
        raise _bad(method, name, f"{where.low:g}..{where.high:g} log", "a logarithmic range begins above 0")
    if specs(method)[name].choices:
        raise _bad(method, name, f"{where.low:g}..{where.high:g}", "is one of a few names, not a number")
    for value in numbers:
        _check(method, name, value)
    if specs(method)[name].continuous:
        return FloatDistribution(float(where.low), float(where.high), log=where.log)
    if where.high > COUNT:
        raise _bad(method, name, f"{where.low:g}..{where.high:g}", f"whole numbers go up to {COUNT:,}")
    return IntDistribution(int(where.low), int(where.high), log=where.log)


def _check(method: type[Estimator], name: str, value: Any) -> None:
    """Raises where a method refuses a value of a hyper-parameter, whatever the others are."""
    default = next(field.default for field in vars(method)["__dataclass_fields__"].values() if field.name == name)
    problem = specs(method)[name].problem(value, type(default))
    if problem:
        raise InputError(
            f"search space of {method.id}: {name} {problem}, got {shown(value)}; a space looks like {_FORMS}"
        )


def _bad(method: type[Estimator], name: str, said: Any, what: str) -> InputError:
    return InputError(
        f"search space of {method.id}: {name}: {shortened(str(said))}: {what}; a space looks like {_FORMS}"
    )
