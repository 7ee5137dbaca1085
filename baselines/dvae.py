"""Discrete variational autoencoders: binary latent variables with a Boltzmann machine as prior."""

import dataclasses
from typing import Any, ClassVar

from torch import Tensor

from baselines.vae import Weighted
from bism.estimator import Hyper
from bism.functional import frozen
from bism.hyperparameters import LOOP, count
from bism.phases import Phase
from bism.rng import Rng
from bism.sampling import gibbs, gibbs_noise
from bism.state import Info, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class DVAE(Weighted):
    """A discrete VAE: DVAE (Rolfe 2017) with the model's smoothing spike_exponential, DVAE++ (Vahdat et al. 2018) with
    overlapping_exponential. With q(z|v) of independent units it raises

        E_q(zeta|v) [log p(v|zeta)] - KL(q(z|v) || p(z)),    KL = E_q [log q(z|v) + E(z)] + log Z.

    The first term's gradient goes through zeta, the inverse of q(zeta|v)'s distribution function. log q(z|v) and E(z)
    are linear in each unit of z, and units are independent, so that their means in the place of z make the KL exact but
    for log Z. The gradient of log Z is -E_p [dF(z_1)/d theta], F having summed z_2 out, by persistent chains of Gibbs
    sampling. The objective's value lacks log Z: it says nothing from one step to the next.
    """

    id: ClassVar[str] = "dvae"
    label: ClassVar[str] = "DVAE"
    reference: ClassVar[str] = "Rolfe 2017; Vahdat et al. 2018"
    colour: ClassVar[str] = "#293241"
    marker: ClassVar[str] = "P"
    any_prior: ClassVar[bool] = True
    binary_prior: ClassVar[bool] = True

    gibbs_sweeps: int = count(10, "sweeps of the prior's chains per step", symbol="k", maximum=LOOP, tune=(1, 10, 40))
    chains: int = count(100, "persistent chains of the prior", maximum=100_000)

    @property
    def passes(self) -> float:
        return 2 + 0.02 * self.gibbs_sweeps

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        return {"chains": (rng.uniform((self.chains, model.prior.rbm.visible_units.size)) < 0.5).to(rng.dtype)}

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("gibbs", self.gibbs_sweeps, self.sweep, self.sweep_noise, count_by="gibbs_sweeps"),)

    def sweep_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return gibbs_noise(model.prior.rbm, self.chains, 1, rng)

    def sweep(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> State:
        """z_2 given z_1, and z_1 given z_2."""
        rbm = frozen(state.bind().model).prior.rbm
        return state.replace(carry={"chains": gibbs(rbm, state.carry["chains"], noise)})

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return rng.uniform((batch_shape[0], model.prior.units))

    def loss(
        self, params: Any, batch: Tensor, noise: Tensor, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        model, posterior = params.model, params.posterior
        h = posterior.averaged(batch, noise)
        kl = posterior.log_prob(h, batch) + model.prior_energy(h)
        log_z = -model.prior.rbm.free_energy(carry["chains"]).mean()  # in its gradient alone
        return (hyper["kl_weight"] * kl - model.log_visible(batch, h)).mean() + hyper["kl_weight"] * log_z, carry, {}
