"""Contrastive divergence by Langevin dynamics, for models that have no conditionals to sample from."""

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.chains import contrast, slope
from bism.estimator import Estimator, Hyper
from bism.functional import frozen
from bism.hyperparameters import LOOP, Range, choice, count, number
from bism.objectives import several
from bism.rng import Rng
from bism.state import Info


@dataclasses.dataclass(frozen=True, kw_only=True)
class LangevinCD(Estimator):
    """CD-k with k Langevin steps in place of Gibbs sweeps, on the free energy.

    The loss is mean F(v) - mean F(v_k) + regulariser (mean F(v)^2 + mean F(v_k)^2), v_k fixed, from
    v <- v - (a^2 / 2) dF/dv + sqrt(T) a eps. Chains start at the data, or at uniform noise (short-run sampling).
    """

    id: ClassVar[str] = "langevin_cd"
    label: ClassVar[str] = "Langevin CD-{k}"
    reference: ClassVar[str] = "Hinton 2002; Nijkamp et al. 2019; the regulariser of Du and Mordatch 2019"
    family: ClassVar[str] = "Contrastive divergence"
    colour: ClassVar[str] = "#d765a6"
    marker: ClassVar[str] = "p"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)

    k: int = count(20, "Langevin steps per iteration", symbol="k", maximum=LOOP, tune=(5, 10, 20, 50))
    step_size: float = number(0.05, "step size a of the Langevin dynamics", symbol="a", tune=Range(0.01, 0.5, log=True))
    langevin_temperature: float = number(
        1.0, "T of the Langevin dynamics; 1 samples the model", symbol="T", minimum=0.0
    )
    regulariser: float = number(0.0, "weight of the squared energies, which keeps them near 0", minimum=0.0)
    start: str = choice("data", ("data", "noise"), "where chains start: at the data, or uniform on [0, 1]")

    @property
    def passes(self) -> float:
        return 1 + 0.5 * self.k

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return {"start": rng.uniform(batch_shape), "steps": rng.normal((self.k, *batch_shape))}

    def chains(self, params: Any, v: Tensor, steps: Tensor, hyper: Hyper) -> Tensor:
        """Where chains from v [batch, *visible_shape] end; no gradient flows through them."""
        model = frozen(params.model)
        for eps in steps:
            v = (
                v
                + 0.5 * hyper["step_size"] ** 2 * slope(model, v)
                + hyper["langevin_temperature"].sqrt() * hyper["step_size"] * eps
            )
        return v.detach()

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        start = batch if self.start == "data" else noise["start"]
        fantasies = self.chains(params, start, noise["steps"], hyper)
        return contrast(params.model, batch, fantasies, hyper["regulariser"]), carry, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LangevinPCD(LangevinCD):
    """As Langevin CD, with chains from a replay buffer that go on from visit to visit.

    The buffer holds ``buffer`` minibatches of chains, of which each iteration moves one, chosen at random; a chain
    starts anew, where ``start`` says, with probability ``restart``.
    """

    id: ClassVar[str] = "langevin_pcd"
    label: ClassVar[str] = "Langevin PCD-{k}"
    reference: ClassVar[str] = "Tieleman 2008; the replay buffer of Du and Mordatch 2019"
    colour: ClassVar[str] = "#bd7f5c"
    marker: ClassVar[str] = "H"

    buffer: int = count(100, "minibatches of chains in the replay buffer", maximum=1_000_000)
    restart: float = number(0.05, "probability that a chain starts anew", minimum=0.0, below=1.0)

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        shape = (self.buffer, batch_size)
        begun = data[rng.integers(len(data), shape)] if self.start == "data" else rng.uniform((*shape, *data.shape[1:]))
        return {"buffer": begun.contiguous()}

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        drawn = super().noise(model, batch_shape, rng)
        return {**drawn, "block": rng.uniform(batch_shape[:1]), "restart": rng.uniform(batch_shape[:1])}

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        chosen = (noise["block"][:1] * self.buffer).long()
        anew = several(noise["restart"] < hyper["restart"], batch)
        fresh = batch if self.start == "data" else noise["start"]
        start = torch.where(anew, fresh, carry["buffer"].index_select(0, chosen)[0])
        fantasies = self.chains(params, start, noise["steps"], hyper)
        buffer = carry["buffer"].index_copy(0, chosen, fantasies[None])
        return contrast(params.model, batch, fantasies, hyper["regulariser"]), {"buffer": buffer}, {}
