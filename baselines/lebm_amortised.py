"""Latent-space energy-based priors with an encoder, whose samples Langevin dynamics may refine."""

import dataclasses
from typing import Any, ClassVar

from torch import Tensor

from baselines.codes import bound_and_energy, code_noise, start_at_encoder
from baselines.latent_chains import LatentContrast
from baselines.vae import Directed
from bism.estimator import Hyper
from bism.hyperparameters import LOOP, count
from bism.phases import Phase
from bism.rng import Rng
from bism.state import Info


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmortisedLEBM(LatentContrast, Directed):
    """A ``LatentModel`` with an encoder: h+ ~ q(h|v), or, with ``posterior_steps``, where so many Langevin steps on
    p(h|v) from there end. q goes along the ELBO, in which a tilted prior's log Z is constant.

    The objective is -ELBO, without these steps, up to log Z: in its place stands -mean E_prior(h-), which has its
    gradient and not its value.
    """

    id: ClassVar[str] = "lebm_amortised"
    label: ClassVar[str] = "LEBM-{prior_steps}, encoder"
    reference: ClassVar[str] = "Pang et al. 2020, with amortised inference"
    colour: ClassVar[str] = "#d98b5f"
    marker: ClassVar[str] = "D"

    posterior_steps: int = count(
        0, "Langevin steps on p(h|v) from q's samples; 0: none", minimum=0, maximum=LOOP, tune=(0, 5, 20)
    )

    @property
    def passes(self) -> float:
        return 2.5 + 0.5 * self.posterior_steps + 0.1 * self.prior_steps

    @property
    def posterior_phases(self) -> tuple[Phase, ...]:
        return (
            Phase("start on the posterior", 1, start_at_encoder, code_noise),
            Phase("posterior", self.posterior_steps, self.posterior_step, code_noise, count_by="posterior_steps"),
        )

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return code_noise(model, batch_shape, rng)

    def loss(
        self, params: Any, batch: Tensor, noise: Tensor, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        value = bound_and_energy(params, batch, noise, carry["h"]).mean()
        value = value - params.model.prior_energy(carry["prior"]).mean()
        return value, carry, self.figures(params.model, carry)
