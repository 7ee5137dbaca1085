"""Calling a module's methods with parameters that are given from outside."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

Tensors = dict[str, Tensor]


class Methods(nn.Module):
    """Lets ``functional_call``, which calls ``forward`` only, call any method of ``module``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.module, method)(*args, **kwargs)


class Bound:
    """A module seen with other parameters: ``Bound(m, tensors).energy(v, h)`` is ``m.energy(v, h)`` at ``tensors``.

    Attributes that are not callable (``latent``, ``visible_shape``) are the module's own.
    """

    def __init__(self, methods: Methods, tensors: Mapping[str, Tensor]) -> None:
        self._methods = methods
        self._tensors = {f"module.{name}": tensor for name, tensor in tensors.items()}

    def frozen(self) -> "Bound":
        """The same with parameters that no gradient reaches."""
        tensors = {name.removeprefix("module."): tensor.detach() for name, tensor in self._tensors.items()}
        return Bound(self._methods, tensors)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self._methods, self._tensors, (method, *args), kwargs)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._methods.module, name)
        return partial(self._call, name) if callable(attribute) else attribute
