"""Implicit generation: Langevin chains from a replay buffer."""

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.chains import ByChains, Runs, contrast, data_range, from_pool, slope, within
from bism.estimator import Hyper
from bism.hyperparameters import LOOP, Range, choice, count, number
from bism.objectives import several
from bism.rng import Rng
from bism.state import Info


@dataclasses.dataclass(frozen=True, kw_only=True)
class IGEBM(ByChains):
    """Chains of k steps from a replay buffer, whose moves are bounded.

    A move is v <- v + noise_size eps, then v <- v - slope_size clip(dF/dv, -clip, clip), element by element, and, with
    ``clamp: data``, v cut to the data's range. The loss is mean F(v) - mean F(v_k) + regulariser (mean F(v)^2 +
    mean F(v_k)^2), which keeps energies near 0.

    Each iteration takes one chain out of every row of the buffer [batch, chains of a row], at random, and puts it back
    where it ends; with probability ``restart`` a chain starts anew, at uniform noise in the data's range. (The authors'
    buffer appends the ends and forgets the oldest.)
    """

    id: ClassVar[str] = "igebm"
    label: ClassVar[str] = "IGEBM-{k}"
    reference: ClassVar[str] = "Du and Mordatch 2019, Algorithm 1"
    colour: ClassVar[str] = "#3f4fd0"
    marker: ClassVar[str] = "$\u25d1$"

    k: int = count(20, "Langevin steps per iteration", symbol="k", maximum=LOOP, tune=(10, 20, 40, 60))
    slope_size: float = number(10.0, "of the clipped slope in a step", symbol="η", tune=Range(0.1, 100.0, log=True))
    noise_size: float = number(
        0.005, "standard deviation of a step's noise", symbol="τ", minimum=0.0, tune=Range(1e-3, 0.1, log=True)
    )
    clip: float = number(0.01, "largest size of an element of the slope", tune=Range(1e-3, 1.0, log=True))
    clamp: str = choice("none", ("none", "data"), "keeps chains in the data's range, as pixels in theirs")
    regulariser: float = number(1.0, "weight of the squared energies", minimum=0.0, tune=Range(0.01, 10.0, log=True))
    buffer: int = count(10_000, "chains of the buffer, at least; as many for each of a minibatch", maximum=100_000_000)
    restart: float = number(0.05, "probability that a chain starts anew", minimum=0.0, below=1.0)

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        span, row = data_range(data), -(-self.buffer // batch_size)
        begun = within(span["low"], span["high"], rng.uniform((batch_size * row, *data.shape[1:])))
        slots = torch.zeros(batch_size, dtype=torch.long, device=data.device)
        return {**super().init_carry(model, data, batch_size, rng), "buffer": begun.contiguous(), "slots": slots}

    def start_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        chosen, anew = rng.uniform(batch_shape[:1]), rng.uniform(batch_shape[:1])
        return {"slots": chosen, "restart": anew, "fresh": rng.uniform(batch_shape)}

    def begin(self, carry: dict[str, Tensor], noise: Any, hyper: Hyper) -> dict[str, Tensor]:
        chains = len(carry["x"])
        row = len(carry["buffer"]) // chains
        slots = torch.arange(chains, device=noise["slots"].device) * row + (noise["slots"] * row).long()
        anew = several(noise["restart"] < hyper["restart"], carry["x"])
        fresh = within(carry["low"], carry["high"], noise["fresh"])
        return {"slots": slots, "x": torch.where(anew, fresh, carry["buffer"].index_select(0, slots))}

    def moved(self, model: Any, x: Tensor, eps: Tensor, carry: dict[str, Tensor], hyper: Any) -> Tensor:
        x = x + hyper["noise_size"] * eps
        largest = hyper["clip"]
        x = x + hyper["slope_size"] * slope(model, x).clamp(-largest, largest)
        return x if self.clamp == "none" else torch.minimum(torch.maximum(x, carry["low"]), carry["high"])

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        ends = carry["x"].detach()
        buffer = carry["buffer"].index_copy(0, carry["slots"], ends)
        return contrast(params.model, batch, ends, hyper["regulariser"]), {**carry, "buffer": buffer}, {}

    def sampler(self, parts: Any) -> Runs:
        carry = parts.carry
        return Runs(
            lambda count, rng: from_pool(carry["buffer"], count, rng),
            lambda v, eps: self.moved(parts.model, v, eps, carry, self.hyper),
            self.k,
            "the replay buffer",
        )
