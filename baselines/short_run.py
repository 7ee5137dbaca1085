"""Short-run MCMC: a model of the ends of chains that never converge."""

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.chains import ByChains, Runs, slope, within
from bism.estimator import Hyper
from bism.hyperparameters import LOOP, Range, count, number
from bism.rng import Rng


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShortRun(ByChains):
    """Chains of k steps v <- v - slope_size dF/dv + noise_size eps from uniform noise in the data's range, anew in each
    iteration: no buffer, no convergence. The loss is mean F(v) - mean F(v_k), v_k fixed.

    What is learnt is the sampler: a generator of v_k from v_0, whose samples follow the data when the loss's gradient
    vanishes, and an energy that need not be the data's. So samples are drawn by the same k steps (``sampler``), and
    v_0 is the code of v_k (``DecodingRuns``). Noise on the data is training's ``data_noise``.

    The authors' slope_size 1, noise_size 0.01 and noise on the data of 0.03 are for values from -1 to 1. A step in
    x = c v moves v as one with slope_size / c^2 and noise_size / c does: for values from 0 to 1, c = 2.
    """

    id: ClassVar[str] = "short_run"
    label: ClassVar[str] = "Short run-{k}"
    reference: ClassVar[str] = "Nijkamp et al. 2019"
    colour: ClassVar[str] = "#1f9e4d"
    marker: ClassVar[str] = "$\u25d0$"
    maps_codes: ClassVar[bool] = True

    k: int = count(100, "Langevin steps of a run", symbol="k", maximum=LOOP, tune=(20, 50, 100))
    slope_size: float = number(1.0, "of the slope dF/dv in a step", symbol="η", tune=Range(1e-3, 10.0, log=True))
    noise_size: float = number(
        0.01, "standard deviation of a step's noise", symbol="τ", minimum=0.0, tune=Range(1e-3, 0.1, log=True)
    )

    def start_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return rng.uniform(batch_shape)

    def begin(self, carry: dict[str, Tensor], noise: Tensor, hyper: Hyper) -> dict[str, Tensor]:
        return {"x": within(carry["low"], carry["high"], noise)}

    def moved(self, model: Any, x: Tensor, eps: Tensor, carry: dict[str, Tensor], hyper: Any) -> Tensor:
        return x + hyper["slope_size"] * slope(model, x) + hyper["noise_size"] * eps

    def sampler(self, parts: Any) -> "DecodingRuns":
        carry = parts.carry

        def begin(count: int, rng: Rng) -> Tensor:
            return within(carry["low"], carry["high"], rng.uniform((count, *carry["low"].shape)))

        def move(v: Tensor, eps: Tensor) -> Tensor:
            return self.moved(parts.model, v, eps, carry, self.hyper)

        return DecodingRuns(begin, move, self.k, "uniform noise")


class DecodingRuns(Runs):
    """Short runs as a generator (Nijkamp et al. 2019): where a chain starts is the code of where it ends."""

    def codes(self, count: int, rng: Rng) -> Tensor:
        """z [count, *visible_shape], starts of chains."""
        return self.begin(count, rng)

    def decode(self, z: Tensor) -> Tensor:
        """v [n, *visible_shape]: where chains from z end, were their moves without noise."""
        for _ in range(self.k):
            z = self.move(z, torch.zeros_like(z))
        return z
