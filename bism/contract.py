"""What a method declares about itself and what its functions give, checked where it is first seen: its class, the
networks that it trains, what it asks for, and its first step."""

import dataclasses
import functools
import inspect
import string
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bism.errors import InputError, shown
from bism.holding import check_containers
from bism.hyperparameters import LOOP, specs
from bism.state import State
from bism.variables import Bernoulli, Gaussian

_LONGEST_TEXT, _MOST_PASSES = 200, 1_000_000
_HOOKS = (
    "modules", "extra_parameters", "init_carry", "fit_to", "init_optimiser", "noise", "loss", "step",
    "lower_objective", "unsupported", "unshardable", "optimiser_of",
    "sampler",
)  # fmt: skip


def check_method(kind: type, base: type) -> None:
    """A method's class, against ``Estimator`` as ``base``.

    Raises:
        InputError: naming the class, what it declares and what is expected.
    """
    problem = _problem(kind, base)
    if problem:
        raise InputError(f"{kind.__name__}: {problem}")


@functools.cache
def _problem(kind: Any, base: Any) -> str | None:
    for name, wanted in (("trains", "the names of its parts"), ("needs", "names of methods of the model")):
        value = getattr(kind, name)
        if not isinstance(value, tuple) or not all(isinstance(one, str) and one.isidentifier() for one in value):
            return f"``{name}`` must be a tuple of {wanted}, got {shown(value)}"
    given = kind.part_needs
    if not isinstance(given, Mapping) or not all(isinstance(names, tuple) for names in given.values()):
        return f"``part_needs`` must have a tuple of names of methods for each part, got {shown(given)}"
    if "model" not in kind.trains or len(set(kind.trains)) < len(kind.trains):
        return f"``trains`` must name 'model' and each part once, got {shown(kind.trains)}"
    known = isinstance(kind.moves, tuple) and all(part in kind.trains for part in kind.moves)
    if not known or len(set(kind.moves)) < len(kind.moves):
        return f"``moves`` must be a tuple of parts that ``trains`` names, each once, got {shown(kind.moves)}"
    units = kind.visible_units
    if not isinstance(units, tuple) or not units or not all(one in (Gaussian, Bernoulli) for one in units):
        return f"``visible_units`` must be a tuple of Gaussian (real v) and Bernoulli (binary v), got {shown(units)}"
    for name in ("uses_examples", "maps_codes"):
        if not isinstance(getattr(kind, name), bool):
            return f"``{name}`` must be True or False, got {shown(getattr(kind, name))}"
    for name, least in (("label", 0), ("reference", 0), ("family", 1), ("colour", 0), ("marker", 0)):
        value = getattr(kind, name)
        if not isinstance(value, str) or not value.isprintable() or not least <= len(value) <= _LONGEST_TEXT:
            return f"``{name}`` must be a text of {least} to {_LONGEST_TEXT} printable characters, got {shown(value)}"
    if "$" in kind.label:
        return f"``label`` must be without '$', which figures take for a formula, got {shown(kind.label)}"
    declared = specs(kind)
    rates = [(spec.rate_of, name) for name, spec in declared.items() if spec.rate_of is not None]
    for part, name in rates:
        if part not in kind.trains:
            return f"{name} is declared the learning rate of {shown(part)}: its parts are {', '.join(kind.trains)}"
    of_parts = [part for part, _ in rates]
    for part in kind.trains:
        if of_parts.count(part) > 1 or (part == "model" and not of_parts.count(part)):
            return f"one hyper-parameter must be declared with rate_of={part!r}, and {of_parts.count(part)} are"
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(kind.label) if field is not None]
    except ValueError as error:
        return f"``label`` {shown(kind.label)} cannot be read: {error}"
    unknown = [field for field in fields if field not in declared]
    if unknown:
        return f"``label`` {shown(kind.label)} names {{{unknown[0]}}}, which is no hyper-parameter of it"
    try:
        kind.label.format(**{field.name: field.default for field in dataclasses.fields(kind)})
    except (ValueError, TypeError) as error:
        return f"``label`` {shown(kind.label)} cannot be filled in: {error}"
    for name in ("name", "hyper", "minibatches", "phases", "stages", "passes", "unrolled"):
        if inspect.isfunction(inspect.getattr_static(kind, name)):
            return f"``{name}`` must be a property: it lacks @property"
    return next((said for said in (_signature(kind, base, hook) for hook in _HOOKS) if said), None)


def _signature(kind: type, base: type, hook: str) -> str | None:
    """Whether a method of the class can be called as the engine does."""
    ours, theirs = getattr(kind, hook), getattr(base, hook)
    parameters = [one for one in inspect.signature(theirs).parameters.values() if one.default is one.empty]
    if ours is theirs:
        return None
    if not callable(ours):
        return f"{hook} must be a function, got {shown(ours)}"
    try:
        inspect.signature(ours).bind(*parameters)
    except TypeError:
        return f"{hook} must take ({', '.join(one.name for one in parameters)})"
    except ValueError:  # it has no signature
        return None
    return None


def check_networks(method: str, modules: Any) -> Mapping[str, nn.Module]:
    """What ``Estimator.modules`` gives: modules with parameters, by the names of their parts.

    Raises:
        InputError: naming the method, the part, and what it is.
    """
    if not isinstance(modules, Mapping):
        raise InputError(f"{method}: modules() must give a dictionary of modules by part, got {shown(modules)}")
    seen = dict[int, str]()
    for part, module in modules.items():
        if not isinstance(module, nn.Module):
            raise InputError(f"{method}: the part '{part}' must be a torch.nn.Module, got {type(module).__name__}")
        if not any(True for _ in module.parameters()):
            raise InputError(f"{method}: the part '{part}' ({type(module).__name__}) has no parameters to train")
        if any(is_lazy(one) for one in module.parameters()):
            raise InputError(f"{method}: the part '{part}' has parameters whose shape is not known yet (a lazy module)")
        for one in module.parameters():
            other = seen.setdefault(id(one), part)
            if other != part:
                raise InputError(f"{method}: the parts '{other}' and '{part}' share a parameter: each trains its own")
        check_containers(module)
    return modules


def check_asked(method: str, name: str, value: Any, least: int, most: int) -> int:
    """How many of something a method asks for: ``minibatches``, ``unrolled``.

    Raises:
        InputError: it is no whole number, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{method}: ``{name}`` must be a whole number from {least} to {most:,}, got {shown(value)}")
    return value


def check_cost(method: str, passes: Any, unrolled: Any) -> dict[str, Any]:
    """What a method says of its cost: ``passes`` and ``unrolled``.

    Raises:
        InputError: they are no such numbers.
    """
    number = isinstance(passes, (int, float)) and not isinstance(passes, bool)
    if not number or not 0 < passes <= _MOST_PASSES:
        raise InputError(
            f"{method}: ``passes`` must be a number above 0, {_MOST_PASSES:,} at most, got {shown(passes)}"
        )
    return {"passes": float(passes), "unrolled": check_asked(method, "unrolled", unrolled, 0, LOOP)}


def check_begun(method: str, function: str, name: str, given: Any) -> Mapping[str, Any]:
    """What a function gives for the start of a seed's optimisers, or of what it carries.

    Raises:
        InputError: naming the function, and what is no tensor.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"{method}: {function}() must give a dictionary of tensors, got {shown(given)}")
    _check_tensors(f"{method}: {function}()", name, given)
    return given


def check_carry(method: str, begun: Any, fitted: Any) -> dict[str, Any]:
    """What a seed carries at the start: what ``init_carry`` and ``fit_to`` give, together.

    Raises:
        InputError: naming the function, and what is no tensor or given by both.
    """
    both = [check_begun(method, *of) for of in (("init_carry", "carry", begun), ("fit_to", "carry", fitted))]
    if twice := set(both[0]) & set(both[1]):
        raise InputError(f"{method}: init_carry() and fit_to() both give {', '.join(sorted(twice))}")
    return {**both[0], **both[1]}


def check_extra(method: str, given: Any) -> Mapping[str, Mapping[str, Tensor]]:
    """What ``extra_parameters`` gives.

    Raises:
        InputError: it is not {part: {name: tensor}}.
    """
    if not isinstance(given, Mapping) or not all(isinstance(tensors, Mapping) for tensors in given.values()):
        raise InputError(f"{method}: extra_parameters() must give {{part: {{name: tensor}}}}, got {shown(given)}")
    _check_tensors(f"{method}: extra_parameters()", "parameters", given)
    return given


def check_loss(method: str, given: Any) -> tuple[Tensor, Any, Mapping[str, Tensor]]:
    """What ``loss`` gives.

    Raises:
        InputError: it is not (scalar, carry, info).
    """
    if not isinstance(given, tuple) or len(given) != 3 or not isinstance(given[2], Mapping):
        raise InputError(f"{method}: loss() must give (objective, carry, info), got {_kind(given)}")
    value, carry, info = given
    check_scalar(f"{method}: loss()", "its objective", value)
    _check_tensors(f"{method}: loss()", "carry", carry)
    _check_tensors(f"{method}: loss()", "info", info)
    return value, carry, info


def check_scalar(where: str, what: str, value: Any) -> None:
    """Refuses what cannot be minimised or reported: all but a floating-point tensor of one number, without axes.

    Raises:
        InputError: naming the function.
    """
    if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
        raise InputError(
            f"{where} must give {what} as a scalar, a floating-point tensor of shape [], got {_kind(value)}"
        )


def check_step(method: str, before: State, given: Any) -> tuple[State, Mapping[str, Tensor]]:
    """What ``step`` gives: a state of the same tensors as before, and the objective with what else it reports.

    Raises:
        InputError: naming what is missing, or the tensor that is another one than before.
    """
    if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[1], Mapping):
        raise InputError(f"{method}: step() must give (state, info), got {_kind(given)}")
    after, info = given
    if "objective" not in info:
        has = f"info has {', '.join(map(str, info))}" if info else "info is empty"
        raise InputError(f"{method}: step() must report its objective as info['objective'], and {has}")
    for name, value in info.items():
        check_scalar(f"{method}: step()", f"info['{name}']", value)
    return check_state(method, "step", before, after), info


def check_state(method: str, function: str, before: State, after: Any) -> State:
    """The state that ``step`` of a method or a phase gives, against the one that it was given.

    Raises:
        InputError: naming the tensor that is another one than before.
    """
    if not isinstance(after, State):
        raise InputError(f"{method}: {function}() must give the next state, a bism.state.State, got {_kind(after)}")
    for name, was in before.numbers.items():
        changed = _changed(f"state.{name}", was, after.numbers[name])
        if changed:
            raise InputError(
                f"{method}: {function}() must give a state of the same tensors as before, of the same shapes and "
                f"types: {changed}"
            )
    return after


def check_alike(method: str, seeds: Sequence[int], states: Sequence[State]) -> None:
    """The states of all seeds at the start, which are stacked.

    Raises:
        InputError: naming a seed and the tensor that another seed has in another shape or type.
    """
    for seed, state in zip(seeds, states, strict=True):
        for name, first in states[0].numbers.items():
            changed = _changed(f"state.{name}", first, state.numbers[name])
            if changed:
                raise InputError(
                    f"{method}: every seed must begin with tensors of the same shapes and types: of seed {seed}, "
                    f"{changed} of seed {seeds[0]}"
                )


def _changed(where: str, was: Any, now: Any) -> str | None:
    """The first difference between two trees of tensors but for their values, or None."""
    if isinstance(was, Mapping):
        if not isinstance(now, Mapping):
            return f"{where} is {_kind(now)}, and was a dictionary"
        for key in [*was, *now]:
            if key not in now or key not in was:
                return f"{where}[{key!r}] is {'new' if key in now else 'gone'}"
        pairs = [(f"{where}[{key!r}]", was[key], now[key]) for key in was]
    elif isinstance(was, (list, tuple)):
        if not isinstance(now, type(was)) or len(now) != len(was):
            return f"{where} is {_kind(now)}, and was {_kind(was)}"
        pairs = [(f"{where}[{i}]", *both) for i, both in enumerate(zip(was, now, strict=True))]
    else:
        same = isinstance(now, Tensor) and (now.shape, now.dtype) == (was.shape, was.dtype)
        return None if same else f"{where} is {_kind(now)}, and was {_kind(was)}"
    return next((said for said in (_changed(*pair) for pair in pairs) if said), None)


def _check_tensors(function: str, where: str, tree: Any) -> None:
    """Refuses a tree with something other than tensors in it."""
    if isinstance(tree, Mapping):
        inside = [(f"{where}[{key!r}]", value) for key, value in tree.items()]
    elif isinstance(tree, (list, tuple)):
        inside = [(f"{where}[{i}]", value) for i, value in enumerate(tree)]
    elif isinstance(tree, Tensor):
        return
    else:
        raise InputError(f"{function} gives {where} as {_kind(tree)}: all that it gives must be tensors")
    for one in inside:
        _check_tensors(function, *one)


def _kind(value: Any) -> str:
    """What something is, for people: a tensor's shape and type, and else the value."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {value.dtype}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return shown(value) if value is None or isinstance(value, (bool, int, float, str)) else f"a {type(value).__name__}"
