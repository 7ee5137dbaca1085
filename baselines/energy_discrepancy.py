"""Energy discrepancy: the data's energies against those of points nearby, without scores and without chains."""

import dataclasses
import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from bism.estimator import Estimator, Hyper
from bism.hyperparameters import Range, count, number
from bism.rng import Rng
from bism.state import Info


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergyDiscrepancy(Estimator):
    """Energy discrepancy with a Gaussian perturbation (Schröder et al. 2023).

    Of y = v + sqrt(t) e, e ~ N(0, I), the energy E_t(y) = -log E_e'[exp(-F(y + sqrt(t) e'))] is that of the model
    smoothed by N(0, t I), and

        ED = E[F(v)] - E[E_t(y)] = KL(p_data || p) - KL(p_data * N(0, t I) || p * N(0, t I)) + a constant of the data,

    which is least where p is the data's density: smoothing brings no two densities further apart. log Z cancels. ED / t
    tends to the objective of score matching as t -> 0, and ED up to a constant to the mean -log p(v) as t grows. With M
    points around y the loss is

        mean log( w / M + 1/M sum_i exp(F(v) - F(y + sqrt(t) e'_i)) ),

    where w bounds it from below; without, the network can lower it for ever at points that few e'_i reach. t is a
    variance, in the data's squared units.
    """

    id: ClassVar[str] = "energy_discrepancy"
    label: ClassVar[str] = "ED"
    reference: ClassVar[str] = "Schröder et al. 2023"
    family: ClassVar[str] = "Contrastive divergence"
    colour: ClassVar[str] = "#30540c"
    marker: ClassVar[str] = "$\u25c6$"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)

    variance: float = number(1.0, "variance of the perturbation", symbol="t", tune=Range(1e-3, 10.0, log=True))
    points: int = count(32, "points around each perturbed example", symbol="M", maximum=100_000, tune=(4, 16, 32, 64))
    stabilisation: float = number(1.0, "w, which bounds the loss from below; 0: nothing does", symbol="w", minimum=0.0)

    @property
    def passes(self) -> float:
        return 0.5 * (1 + self.points)

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> dict[str, Tensor]:
        return {"away": rng.normal(batch_shape), "back": rng.normal((batch_shape[0], self.points, *batch_shape[1:]))}

    def loss(
        self, params: Any, batch: Tensor, noise: dict[str, Tensor], carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        scale = hyper["variance"].sqrt()
        around = (batch + scale * noise["away"])[:, None] + scale * noise["back"]
        energies = params.model.free_energy(around.flatten(0, 1)).unflatten(0, around.shape[:2])
        rises = params.model.free_energy(batch)[:, None] - energies
        bound = hyper["stabilisation"].log().expand(len(batch), 1)
        value = torch.cat([rises, bound], dim=1).logsumexp(1).mean() - math.log(self.points)
        return value, carry, {}
