"""torchvision beside a torch that it was not built for.

The registry's torchvision is a CUDA build. Beside a CPU torch its compiled operators cannot be loaded, which it
tolerates, and then it describes two of them all the same: ``operator torchvision::nms does not exist``. torch-fidelity
imports it, and needs none of its operators.
"""

import importlib
from types import ModuleType

import torch

_DESCRIBED = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"  # of both, as in torchvision's C++ code


def import_torchvision() -> ModuleType:
    """Imports torchvision, and does no more where torch is the one that it was built for.

    Elsewhere the operators are declared, so that they can be described; calling one says that it has no kernel.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for name in _DESCRIBED:
        torch.library.define(f"torchvision::{name}", _SCHEMA)
    return importlib.import_module("torchvision")
