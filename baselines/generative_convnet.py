"""The generative ConvNet: maximum likelihood by persistent Langevin chains, on a Gaussian reference."""

import dataclasses
from typing import Any, ClassVar

from torch import Tensor

from baselines.chains import ByChains, Runs, from_pool
from baselines.revision import revised
from bism.estimator import Hyper
from bism.hyperparameters import LOOP, Range, count, number
from bism.rng import Rng


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerativeConvNet(ByChains):
    """p(v) = exp(f(v)) N(v; 0, s^2 I) / Z, the model's ``reference`` being s: chains go on from iteration to iteration,
    k steps v <- v - (a^2 / 2) dF/dv + a eps each time, with F(v) = |v|^2 / (2 s^2) - f(v). They belong to no example.
    The loss is mean F(v) - mean F(v'), v' the chains, fixed.

    Chains start at draws from the reference, which are the model's own as long as f = 0. Samples are these chains, k
    steps further.
    """

    id: ClassVar[str] = "generative_convnet"
    label: ClassVar[str] = "Generative ConvNet-{k}"
    reference: ClassVar[str] = "Xie et al. 2016"
    colour: ClassVar[str] = "#a3236b"
    marker: ClassVar[str] = "$\u25d2$"

    k: int = count(10, "Langevin steps per iteration", symbol="k", maximum=LOOP, tune=(5, 10, 20, 50))
    step_size: float = number(0.05, "step size a of the Langevin dynamics", symbol="a", tune=Range(0.01, 0.5, log=True))

    def unsupported(self, model: Any) -> str | None:
        own = f"it needs a Gaussian reference, a model's ``reference``, and {type(model).__name__} has none"
        return super().unsupported(model) or (None if getattr(model, "reference", 0) else own)

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        return {"x": (model.reference * rng.normal((batch_size, *data.shape[1:]))).contiguous()}

    def start_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> tuple[()]:
        return ()

    def begin(self, carry: dict[str, Tensor], noise: tuple[()], hyper: Hyper) -> dict[str, Tensor]:
        return {}

    def moved(self, model: Any, x: Tensor, eps: Tensor, carry: dict[str, Tensor], hyper: Any) -> Tensor:
        return revised(model.free_energy, x, eps, hyper["step_size"])

    def sampler(self, parts: Any) -> Runs:
        return Runs(
            lambda count, rng: from_pool(parts.carry["x"], count, rng),
            lambda v, eps: self.moved(parts.model, v, eps, parts.carry, self.hyper),
            self.k,
            "its persistent chains",
        )
