"""What the plain objects that a module holds lead to: modules, and parameters that training would not see."""

import functools
from collections import deque
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from bism.errors import InputError

_OF_TORCH = frozenset(vars(nn.Module()))
_END = (str, bytes, int, float, complex, type, ModuleType, type(None))
_MOST = 10_000  # objects that are looked through


def attributes(module: nn.Module) -> dict[str, Any]:
    """A module's own attributes: no parameters, buffers and submodules, nor what it keeps of cached properties."""
    hidden = _OF_TORCH.union(cached_properties(module))
    return {name: value for name, value in vars(module).items() if name not in hidden}


def cached_properties(module: nn.Module) -> list[str]:
    """The names of a module's ``functools.cached_property``."""
    return [
        name
        for base in type(module).__mro__
        for name, of in vars(base).items()
        if isinstance(of, functools.cached_property)
    ]


def held(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the modules and the tensors that a value leads to, each with the way there: ``.model``, ``[0].weight``.

    Through containers, the attributes of objects, and what functions have closed over; not through modules.
    """
    found, seen = [("", value)], set[int]()
    while found and len(seen) < _MOST:
        way, one = found.pop()
        if isinstance(one, _END) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (nn.Module, Tensor)):
            yield way, one
        else:
            found += [(way + step, inner) for step, inner in _inside(one)]


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value consists of, and how it is reached from there."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", one) for key, one in value.items())
    elif isinstance(value, (list, tuple, deque)):
        yield from ((f"[{place}]", one) for place, one in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from (("", one) for one in value)
    elif isinstance(value, partial):
        yield from (("", one) for one in (value.func, value.args, value.keywords))
    elif isinstance(value, MethodType):
        yield "", value.__self__
    elif isinstance(value, FunctionType):
        yield "", value.__defaults__
        for cell in value.__closure__ or ():
            try:
                yield "", cell.cell_contents
            except ValueError:  # not assigned yet
                continue
    for name, one in getattr(value, "__dict__", {}).items():
        yield f".{name}", one
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield f".{name}", getattr(value, name)


def leads_to_modules(value: Any) -> bool:
    """Whether there is a module in or behind a value."""
    return any(isinstance(one, nn.Module) for _, one in held(value))


def check_containers(model: nn.Module) -> None:
    """Refuses parameters, and modules that have some, in plain lists, dictionaries and objects: there they stay what
    they were before. What is meant to stay so has ``requires_grad=False``."""
    own = {id(module) for module in model.modules()}
    for module in model.modules():
        for name, value in attributes(module).items():
            where, kind = f"{type(module).__name__}.{name}", type(value).__name__
            for way, one in () if isinstance(value, Tensor) else held(value):
                if isinstance(one, Tensor) and one.requires_grad:
                    of = " of parameters" if isinstance(value, (list, tuple, dict, set, deque)) else ""
                    raise InputError(
                        f"{where} is a plain {kind}{of}"
                        + (f", and {name}{way} is a parameter" if not of else "")
                        + ", which training does not see through: use torch.nn.ParameterList or ParameterDict, or the "
                        "parameters' own names"
                    )
                if isinstance(one, nn.Module) and id(one) not in own and any(x.requires_grad for x in one.parameters()):
                    raise InputError(
                        f"{where} is a plain {kind}, and {name}{way} is a {type(one).__name__} that is not one of the "
                        "model's own modules: it would not be trained. Use torch.nn.ModuleList or ModuleDict, or "
                        "requires_grad_(False) where that is meant"
                    )
