"""The models that suites name."""

import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bism import DBM, DBN, GRBM, RBM, Ising
from bism.convnet import ConvEBM
from bism.errors import InputError, described, first_line, nearest, shortened, shown
from bism.latent import latent_conv, latent_mlp
from bism.mlp import MLPEBLVM, MLPEBM
from bism.resnet import BilinearEBLVM, ResNetEBLVM, ResNetEBM

MODELS: dict[str, Callable[..., nn.Module]] = {
    "grbm": GRBM,
    "rbm": RBM,
    "ising": Ising,
    "dbm": DBM,
    "dbn": DBN,
    "mlp_ebm": MLPEBM,
    "mlp_eblvm": MLPEBLVM,
    "conv_ebm": ConvEBM,
    "latent_mlp": latent_mlp,
    "latent_conv": latent_conv,
    "resnet_ebm": ResNetEBM,
    "resnet_eblvm": ResNetEBLVM,
    "resnet_bilinear": BilinearEBLVM,
}


def takes_images(name: str) -> bool:
    """Whether a model's visible vectors are images [channels, height, width]; they are flat otherwise."""
    return "visible_shape" in inspect.signature(MODELS[name]).parameters


def sizes(name: str) -> dict[str, bool]:
    """What a suite may say of a model beside its name, and whether it must; the visible units follow from the data."""
    _, *others = inspect.signature(MODELS[name]).parameters.values()
    return {one.name: one.default is one.empty for one in others}


def takes_list(name: str, size: str) -> bool:
    """Whether a model wants a list for one of its sizes, as of layers."""
    return typing.get_origin(inspect.signature(MODELS[name]).parameters[size].annotation) in (Sequence, list, tuple)


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """A model from its name and sizes: ``{"name": "grbm", "visible": 2, "hidden": 4}``; images have a shape for
    ``visible``.

    Raises:
        InputError: unknown name, or what the model does not take.
    """
    given = dict(config)
    name, visible = given.pop("name"), given.pop("visible")
    if name not in MODELS:
        raise InputError(f"no model '{name}': {nearest(name, MODELS)}")
    try:
        return MODELS[name](tuple(visible) if isinstance(visible, list) else visible, **given)
    except Exception as error:  # of a plug-in's model, whatever a suite file gives it, or want of memory
        said = first_line(error) if isinstance(error, (TypeError, ValueError, RuntimeError)) else described(error)
        raise InputError(f"model {name} cannot be made from {shown(given)}: {shortened(said)}") from error


def refused_option(name: str, options: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first of a model's options that the model itself refuses by name, whatever the data are, and how it says so;
    None where it refuses none. It is made without its numbers, for data that stand for any."""
    visible = (1, 32, 32) if takes_images(name) else 2
    try:
        with torch.device("meta"):
            MODELS[name](visible, **options)
    except InputError as error:
        said = str(error)
        named = [key for key in options if re.search(rf"\b{re.escape(key)}\b", said)]
        return (named[0], shortened(said)) if named else None
    except Exception:  # a plug-in's model may look at its own numbers, or at the data's sizes
        return None
    return None


def parameter_count(config: Mapping[str, Any]) -> int | None:
    """How many parameters a model has, which takes no memory to find out; None of one that cannot be made without."""
    return _parameter_count(MODELS.get(config["name"]), json.dumps(config))


@functools.lru_cache(maxsize=1000)
def _parameter_count(made_by: object, config: str) -> int | None:
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in build_model(json.loads(config)).parameters())
    except Exception:  # a plug-in's model may look at its own numbers
        return None
