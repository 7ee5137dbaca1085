"""Pseudo-likelihood."""

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from bism.estimator import Estimator, Hyper
from bism.state import Info
from bism.variables import Bernoulli, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLikelihood(Estimator):
    """Maximum pseudo-likelihood for binary v: the loss is - sum_i log p(v_i | all others), which needs no log Z:

    log p(v_i | all others) = -softplus(F(v) - F(v with unit i flipped)).
    """

    id: ClassVar[str] = "pseudo_likelihood"
    label: ClassVar[str] = "Pseudo-likelihood"
    reference: ClassVar[str] = "Besag 1975"
    family: ClassVar[str] = "Contrastive divergence"  # with one random unit per step CD-1 has its gradient
    colour: ClassVar[str] = "#6b3f2a"
    marker: ClassVar[str] = "|"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    visible_units: ClassVar[tuple[type[Units], ...]] = (Bernoulli,)

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        v = batch.flatten(1)
        flip = torch.eye(v.shape[1], dtype=v.dtype, device=v.device)[:, None]
        flipped = (v - flip).abs().reshape(-1, *batch.shape[1:])  # [D, batch, D], one unit of each row
        above = params.model.free_energy(batch) - params.model.free_energy(flipped).reshape(v.shape[1], -1)
        return softplus(above).sum(0).mean(), carry, {}
