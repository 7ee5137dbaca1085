"""What a method declares about itself, checked where it is first seen: its class, and the networks that it trains."""

import functools
import inspect
import string
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from bism.checks import check_containers
from bism.errors import InputError, shown
from bism.hyperparameters import specs
from bism.variables import Bernoulli, Gaussian

_HOOKS = (
    "modules", "extra_parameters", "init_carry", "init_optimiser", "noise", "loss", "step", "inner_noise", "inner_step",
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
    if "model" not in kind.trains or len(set(kind.trains)) < len(kind.trains):
        return f"``trains`` must name 'model' and each part once, got {shown(kind.trains)}"
    units = kind.visible_units
    if not isinstance(units, tuple) or not units or not all(one in (Gaussian, Bernoulli) for one in units):
        return f"``visible_units`` must be a tuple of Gaussian (real v) and Bernoulli (binary v), got {shown(units)}"
    if not isinstance(kind.uses_examples, bool):
        return f"``uses_examples`` must be True or False, got {shown(kind.uses_examples)}"
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
    return next((said for said in (_signature(kind, base, hook) for hook in _HOOKS) if said), None)


def _signature(kind: type, base: type, hook: str) -> str | None:
    """Whether a method of the class can be called as the engine does."""
    ours, theirs = getattr(kind, hook), getattr(base, hook)
    parameters = [one for one in inspect.signature(theirs).parameters.values() if one.default is one.empty]
    if ours is theirs or not callable(ours):
        return None
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
