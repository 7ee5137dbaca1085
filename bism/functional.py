"""Calling a module's methods with parameters that are given from outside."""

import copy
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MappingView
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

Tensors = dict[str, Tensor]
# What changes a module's own tensors, which are not those that it is seen with.
_CHANGES = (
    "to", "type", "cpu", "cuda", "half", "float", "double", "bfloat16", "to_empty", "load_state_dict",
    "requires_grad_", "zero_grad",
)  # fmt: skip


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

    def forward(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)


class Bound:
    """A module seen with other parameters: ``Bound(m, tensors).energy(v, h)`` is ``m.energy(v, h)`` at ``tensors``.

    The module has these parameters while one of its functions runs, and its own again afterwards. So that nothing which
    outlives a call falls back to the module's own, what a call or an attribute gives is bound as well: generators
    (``parameters()``, ``named_parameters()``, ``modules()``, those of the module's own methods) are read to their end
    within the call; submodules are ``Bound``, too, alone and in containers; functions run with these parameters;
    ``state_dict()`` holds them undetached. What is no parameter (``latent``, ``visible_shape``, buffers) is the
    module's own.
    """

    def __init__(self, methods: Methods, tensors: Mapping[str, Tensor]) -> None:
        self._methods, self._module = methods, methods.module
        given = {f"module.{name}": tensor for name, tensor in tensors.items()}
        shared = {alias: given[name] for alias, name in methods.aliases.items() if name in given}
        self._tensors = given | shared

    def frozen(self) -> "Bound":
        """The same with parameters that no gradient reaches."""
        other = copy.copy(self)
        other._tensors = {name: tensor.detach() for name, tensor in self._tensors.items()}
        return other

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def within() -> Any:
            return self._bound(function(*args, **kwargs))

        return functional_call(self._methods, self._tensors, (within,), tie_weights=False)

    def _bound(self, value: Any) -> Any:
        """What may leave a call in the place of ``value``."""
        if isinstance(value, nn.Parameter):  # a module's own, from a container that it is not registered in
            return self._tensors.get(self._methods.own.get(id(value), ""), value)
        if value is None or isinstance(value, (Tensor, Bound, str, int, float, type)):
            return value
        if isinstance(value, nn.Module):
            return self._at(value)
        if type(value) in (dict, OrderedDict):
            return type(value)((key, self._bound(one)) for key, one in value.items())
        if type(value) in (list, tuple, set, frozenset):
            return type(value)(self._bound(one) for one in value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(self._bound(one) for one in value))
        if isinstance(value, Iterator):
            return iter([self._bound(one) for one in value])
        if isinstance(value, MappingView):
            return [self._bound(one) for one in value]  # type: ignore[attr-defined]  # every view has an iterator
        return partial(self._call, value) if callable(value) else value

    def _at(self, module: nn.Module) -> Any:
        """A submodule seen with its share of the parameters; a module that is none is itself."""
        if not any(module is one for one in self._methods.module.modules()):
            return module
        other = copy.copy(self)
        other._module = module
        return other

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_module", "_methods", "_tensors"):  # asked for while being copied
            raise AttributeError(name)
        module = self._module
        of_class = getattr(type(module), name, None)
        if name in _CHANGES and of_class is getattr(nn.Module, name):
            raise AttributeError(
                f"{type(module).__name__}.{name}() changes a module, and within a step a module is only seen with the "
                f"parameters of one seed: write it with functions of tensors"
            )
        if name == "state_dict":
            return partial(self._call, module.state_dict, keep_vars=True)
        if name == "get_parameter":  # torch's wants an nn.Parameter
            return lambda target: self._call(operator.attrgetter(target), module)
        if name in vars(module):
            return self._bound(vars(module)[name])
        if callable(of_class) and not isinstance(of_class, type):
            return partial(self._call, getattr(module, name))
        return self._call(getattr, module, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self._module, *args, **kwargs)

    def __iter__(self) -> Iterator[Any]:
        found: Iterator[Any] = self._call(iter, self._module)
        return found

    def __getitem__(self, key: Any) -> Any:
        return self._call(operator.getitem, self._module, key)

    def __len__(self) -> int:
        return len(self._module)  # type: ignore[arg-type]  # where it is a container; else Python says that it is none

    def __contains__(self, key: Any) -> bool:
        return key in self._module  # type: ignore[operator]  # as above

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Bound({self._module!r})"
