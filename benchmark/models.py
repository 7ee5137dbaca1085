"""The models that suites name."""

from collections.abc import Callable
from typing import Any

from torch import nn

from bism import GRBM
from bism.errors import InputError, nearest

MODELS: dict[str, Callable[..., nn.Module]] = {"grbm": GRBM}


def build_model(config: dict[str, Any]) -> nn.Module:
    """A model from its name and sizes: ``{"name": "grbm", "visible": 2, "hidden": 4}``.

    Raises:
        InputError: unknown name.
    """
    sizes = dict(config)
    name = sizes.pop("name")
    if name not in MODELS:
        raise InputError(f"no model '{name}': {nearest(name, MODELS)}")
    return MODELS[name](**sizes)
