"""A method with a known optimum: whatever the data, the model becomes a Gaussian around ``shift``."""

import dataclasses
import sys
from typing import Any, ClassVar

import torch
from torch import Tensor

from bism import Estimator, InputError
from bism.hyperparameters import Range, count, number
from bism.state import Info, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peak(Estimator):
    """Sets b = shift, W = c = 0, log s = width: log p(v) is that of N(shift, e^width)."""

    id: ClassVar[str] = "peak"
    label: ClassVar[str] = "Peak-{kind}"
    reference: ClassVar[str] = "none"

    shift: float = number(0.0, "where the model is", symbol="x", above=None, minimum=-10.0, tune=Range(-2.0, 2.5))
    width: float = number(-1.0, "log of its standard deviation", above=None, minimum=-5.0, tune=Range(-3.0, 1.0))
    kind: int = count(1, "of no effect, but another structure", tune=(1, 2))
    bad: int = count(0, "what goes wrong: 1 divergence, 2 an error, 3 an exit", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == 2 and self.shift > 2.9:
            raise InputError("peak: shift must be at most 2.9 where kind is 2")

    def loss(self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Any) -> Any:
        raise NotImplementedError

    def step(self, state: State, batches: Tensor, noise: Any, hyper: dict[str, Tensor]) -> tuple[State, Info]:
        if self.bad == 2:
            raise RuntimeError("the method is broken")
        if self.bad == 3:
            sys.exit(0)
        model = state.params["model"]
        new = {name: torch.zeros_like(value) for name, value in model.items()}
        new |= {"b": new["b"] + hyper["shift"], "log_s": new["log_s"] + hyper["width"]}
        if self.bad == 1:
            new["b"] = new["b"] + torch.where(hyper["shift"] > 0.5, torch.inf, 0.0)
        return state.replace(params={**state.params, "model": new}), {"objective": hyper["shift"]}
