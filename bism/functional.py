"""Calling a module's methods with parameters that are given from outside."""

import copy
import functools
import operator
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, MappingView
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bism.holding import attributes, cached_properties, leads_to_modules

Tensors = dict[str, Tensor]
# What changes a module's own tensors, which are not those that it is seen with.
_CHANGES = (
    "to", "type", "cpu", "cuda", "half", "float", "double", "bfloat16", "to_empty", "load_state_dict",
    "requires_grad_", "zero_grad",
)  # fmt: skip
_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, partial)


class Methods(nn.Module):
    """Lets ``functional_call``, which calls ``forward`` only, run any function of ``module``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        named = [
            (f"{path}.{name}", parameter)
            for path, part in self.named_modules()
            for name, parameter in part._parameters.items()
            if parameter is not None
        ]
        self.own = {id(parameter): name for name, parameter in reversed(named)}  # by the first of its names
        # Of parameters that several modules share. Left to torch, what a module that has two names itself is called
        # with would stay in it (2.13).
        self.aliases = {name: self.own[id(parameter)] for name, parameter in named if self.own[id(parameter)] != name}
        self.buffer_names = [name for name, _ in self.named_buffers()]
        parts = list(module.modules())
        self.holding = {
            name for part in parts for name, value in attributes(part).items() if leads_to_modules(value)
        }  # the names of plain attributes behind which there are modules
        self.cached = [(part, name) for part in parts for name in cached_properties(part)]

    def forward(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def forget(self) -> None:
        """Drops the values of cached properties, which may be of other parameters."""
        for part, name in self.cached:
            vars(part).pop(name, None)


class Bound:
    """A module seen with other parameters: ``Bound(m, tensors).energy(v, h)`` is ``m.energy(v, h)`` at ``tensors``.

    The module has these parameters while one of its functions runs, and its own again afterwards. So that nothing which
    outlives a call falls back to the module's own, what a call or an attribute gives is bound as well: generators
    (``parameters()``, ``named_parameters()``, ``modules()``, those of the module's own methods) are read to their end
    within the call; submodules are ``Bound``, too, alone, in containers and in plain objects, whose own functions and
    attributes are seen in the same way; functions run with these parameters; cached properties are computed anew;
    ``state_dict()`` holds them undetached. What leads to no parameter (``latent``, ``visible_shape``, buffers) is the
    module's own.

    It has no public names of its own, so that it hides none of the module's; ``frozen`` and ``rebound`` are functions
    beside it.
    """

    def __init__(self, methods: Methods, tensors: Mapping[str, Tensor]) -> None:
        self.__methods, self.__module = methods, methods.module
        given = {f"module.{name}": tensor for name, tensor in tensors.items()}
        shared = {alias: given[name] for alias, name in methods.aliases.items() if name in given}
        self.__tensors = given | shared

    def __frozen__(self) -> "Bound":
        other = copy.copy(self)
        other.__tensors = {name: tensor.detach() for name, tensor in self.__tensors.items()}
        return other

    def __with_others__(self, tensors: Mapping[str, Tensor]) -> "Bound":
        other = copy.copy(self)
        given = {f"module.{name}": tensor for name, tensor in tensors.items()}
        shared = {alias: given[name] for alias, name in self.__methods.aliases.items() if name in given}
        other.__tensors = {**self.__tensors, **given, **shared}
        return other

    def __run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A function of the module, and what may leave it in the place of its result."""
        return self.__called(function, args, kwargs, False)

    def __inside(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The same for what is behind an object that holds modules."""
        return self.__called(function, args, kwargs, True)

    def __called(self, function: Callable[..., Any], args: Any, kwargs: Any, holds: bool) -> Any:
        def within() -> Any:
            return self.__bound(function(*args, **kwargs), holds)

        self.__methods.forget()
        try:
            return self.__with_tensors(within)
        finally:
            self.__methods.forget()

    def __with_tensors(self, within: Callable[[], Any]) -> Any:
        if not self.__methods.buffer_names:
            return functional_call(self.__methods, self.__tensors, (within,), tie_weights=False)
        tensors = dict(self.__tensors)
        try:
            value = functional_call(self.__methods, tensors, (within,), tie_weights=False)
        except RuntimeError as error:
            if "mutate a captured Tensor" not in str(error):
                raise
            raise AttributeError(
                f"{type(self.__methods.module).__name__} changes a buffer within a step (batch normalisation does): it "
                f"would be lost, state.replace(buffers=...) gives new ones"
            ) from error
        for name in self.__methods.buffer_names:  # torch itself refuses changes in place
            if name in tensors and tensors[name] is not self.__tensors.get(name):
                raise AttributeError(
                    f"{type(self.__methods.module).__name__} sets its buffer {name.removeprefix('module.')} within a "
                    f"step, which would be lost: state.replace(buffers=...) gives new ones"
                )
        return value

    def __bound(self, value: Any, holds: bool) -> Any:
        """What may leave a call in the place of ``value``.

        holds: whether objects hold modules; else that is looked for.
        """
        if isinstance(value, nn.Parameter):  # a module's own, from a container that it is not registered in
            return self.__tensors.get(self.__methods.own.get(id(value), ""), value)
        if value is None or isinstance(value, (Tensor, Bound, Held, str, int, float, type)):
            return value
        if isinstance(value, nn.Module):
            return self.__at(value)
        if type(value) in (dict, OrderedDict):
            return type(value)((key, self.__bound(one, holds)) for key, one in value.items())
        if type(value) in (list, tuple, set, frozenset, deque):
            return type(value)(self.__bound(one, holds) for one in value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(self.__bound(one, holds) for one in value))
        if isinstance(value, Iterator):
            return iter([self.__bound(one, holds) for one in value])
        if isinstance(value, MappingView):
            return [self.__bound(one, holds) for one in value]  # type: ignore[attr-defined]  # it has an iterator
        if isinstance(value, _FUNCTIONS):
            return partial(self.__run, value)
        # An object that a compiled step makes itself cannot be looked through; those that modules have are known.
        if holds or (not torch.compiler.is_compiling() and leads_to_modules(value)):
            return Held(self.__inside, value)
        return partial(self.__run, value) if callable(value) else value

    def __at(self, module: nn.Module) -> Any:
        """A submodule seen with its share of the parameters; a module that is none is itself."""
        if not any(module is one for one in self.__methods.module.modules()):
            return module
        other = copy.copy(self)
        other.__module = module
        return other

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("__", "_Bound__")):  # asked for while being copied
            raise AttributeError(name)
        module = self.__module
        of_class = getattr(type(module), name, None)
        if name in _CHANGES and of_class is getattr(nn.Module, name):
            raise AttributeError(
                f"{type(module).__name__}.{name}() changes a module, and within a step a module is only seen with the "
                f"parameters of one seed: write it with functions of tensors"
            )
        if name == "state_dict":
            return partial(self.__run, module.state_dict, keep_vars=True)
        if name == "get_parameter":  # torch's wants an nn.Parameter
            return lambda target: self.__run(operator.attrgetter(target), module)
        if name in vars(module) and not isinstance(of_class, functools.cached_property):
            return self.__bound(vars(module)[name], name in self.__methods.holding)
        if callable(of_class) and not isinstance(of_class, type):
            return partial(self.__run, getattr(module, name))
        return self.__run(getattr, module, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__run(self.__module, *args, **kwargs)

    def __iter__(self) -> Iterator[Any]:
        found: Iterator[Any] = self.__run(iter, self.__module)
        return found

    def __getitem__(self, key: Any) -> Any:
        return self.__run(operator.getitem, self.__module, key)

    def __len__(self) -> int:
        return len(self.__module)  # type: ignore[arg-type]  # where it is a container; else Python says that it is none

    def __contains__(self, key: Any) -> bool:
        return key in self.__module  # type: ignore[operator]  # as above

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Bound({self.__module!r})"


def frozen(bound: Bound) -> Bound:
    """The same module with parameters that no gradient reaches."""
    return bound.__frozen__()


def rebound(bound: Bound, tensors: Mapping[str, Tensor]) -> Bound:
    """The same module seen with other tensors in the place of those of these names."""
    return bound.__with_others__(tensors)


class Held:
    """A plain object that holds modules, seen as they are seen: its attributes are bound, its functions run bound."""

    def __init__(self, run: Callable[..., Any], value: Any) -> None:
        self.__run, self.__value = run, value

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("__", "_Held__")):
            raise AttributeError(name)
        return self.__run(getattr, self.__value, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__run(self.__value, *args, **kwargs)

    def __iter__(self) -> Iterator[Any]:
        found: Iterator[Any] = self.__run(iter, self.__value)
        return found

    def __getitem__(self, key: Any) -> Any:
        return self.__run(operator.getitem, self.__value, key)

    def __len__(self) -> int:
        return len(self.__value)

    def __contains__(self, key: Any) -> bool:
        return key in self.__value
