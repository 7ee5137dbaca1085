"""Joint training of a variational autoencoder and an energy of v and h."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.codes import code_noise
from baselines.joint_energy import JointEnergy
from baselines.turns import against
from baselines.vae import Directed
from bism.estimator import Hyper
from bism.hyperparameters import Range, choice, count, number
from bism.optimisers import Tree
from bism.rng import Rng
from bism.state import Info, State
from bism.variables import Gaussian, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEEBM(Directed):
    """Three densities of (v, h), none of which needs chains (Han et al. 2020): Q = p_data(v) q(h|v) of the encoder,
    P = p(h) p(v|h) of the ``LatentModel``, and Pi = exp(-E) / Z of an energy, the part ``energy``;

        min over P and Q, max over E of  L = KL(Q || P) + KL(P || Pi) - KL(Q || Pi).

    With KL(Q || P) = -H(Q) - E_Q log P, KL(P || Pi) = -H(P) + E_P E + log Z, KL(Q || Pi) = -H(Q) + E_Q E + log Z both
    log Z and H(Q) cancel, and nothing else has to be known of p_data:

        L = -E_Q log P - H(P) + E_P E - E_Q E.

    E ascends  E_P E - E_Q E: the likelihood of Q under Pi, with P's samples in the place of Pi's. The encoder descends
    -E_Q log P - E_Q E, by reparametrised h, the model  -E_Q log P - H(P) + E_P E, by reparametrised h and v. H(P) is
    exact, m/2 log 2 pi e of h ~ N(0, I) and D/2 log 2 pi e s^2 of v given h, and s alone has a derivative of it. (It is
    the entropy of v alone that would need an approximation.) At P = Q = Pi all three rest. They move at once;
    ``energy_decay`` |parameters of E|^2 / 2, which E descends, may calm them.

    As H(Q) cancels, E alone keeps q from becoming a point. With ``entropy: kept`` the encoder ascends the ELBO + E_Q E:
    -H(q) is added to L, as if the last divergence had it not, and the three need no longer rest where they are one.

    The method's samples are the model's: independent draws of the prior, decoded. ``Fitted.part("energy", seed)`` has
    the learnt ``energy(v, h)``, a score for anomalies.
    """

    id: ClassVar[str] = "vae_ebm"
    label: ClassVar[str] = "VAE + EBM"
    reference: ClassVar[str] = "Han et al. 2020"
    colour: ClassVar[str] = "#5e548e"
    marker: ClassVar[str] = "P"
    trains: ClassVar[tuple[str, ...]] = ("model", "posterior", "energy")
    visible_units: ClassVar[tuple[type[Units], ...]] = (Gaussian,)

    beta1: float = number(0.5, "decay of Adam's first moment, the paper's", minimum=0.0, below=1.0)
    beta2: float = number(0.999, "decay of Adam's second moment, the paper's", minimum=0.0, below=1.0)
    lr_energy: float = number(3e-4, "learning rate of the energy", tune=Range(1e-5, 1e-2, log=True), rate_of="energy")
    energy_decay: float = number(0.0, "weight of the squared parameters of the energy, halved", minimum=0.0)
    entropy: str = choice("cancelled", ("cancelled", "kept"), "of q, in the encoder's objective")
    width: int = count(128, "of the energy's hidden layers, or channels of its first map", maximum=10_000)
    layers: int = count(2, "hidden layers of the energy", maximum=100)

    @property
    def passes(self) -> float:
        return 4.0

    def unsupported(self, model: Any) -> str | None:
        reason = super().unsupported(model)
        if reason is None and not model.prior.standard:
            return f"it needs h ~ N(0, I), and the prior is a {type(model.prior).__name__}"
        return reason

    def modules(self, model: nn.Module, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        of: Any = model
        own = given.get("energy") or JointEnergy(of.visible_shape, of.latent.size, self.width, self.layers)
        return {**super().modules(model, given), "energy": own}

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> dict[str, Tensor]:
        codes = {name: code_noise(model, batch_shape, rng) for name in ("posterior", "prior")}
        return {**codes, "visible": rng.normal(batch_shape)}

    def loss(
        self, params: Any, batch: Tensor, noise: dict[str, Tensor], carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        """L."""
        model, energy = params.model, params.energy.energy
        h = params.posterior.sample(batch, noise["posterior"], 1.0)
        v = model.sample_visible(noise["prior"], noise["visible"])
        sizes = model.visible_units.size, model.latent.size
        log_sigma = torch.as_tensor(model.sigma, dtype=v.dtype, device=v.device).log()
        entropy = 0.5 * sum(sizes) * math.log(2 * math.pi * math.e) + sizes[0] * log_sigma
        gap = energy(v, noise["prior"]).mean() - energy(batch, h).mean()
        value = model.energy(batch, h).mean() - entropy + gap
        if self.entropy == "kept":
            value = value + params.posterior.log_prob(h, batch).mean()
        return value, carry, {"energy_gap": gap}

    def step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        """The energy ascends, the others descend."""

        def objective(params: Tree, of: Tensor, drawn: Any) -> tuple[Tensor, Info]:
            opposed = {**params, "energy": against(params["energy"])}
            value, _, info = self.loss(state.bind(opposed), of[0], drawn, state.carry, hyper)
            decay = sum(x.square().sum() for x in params["energy"].values())
            return value + 0.5 * hyper["energy_decay"] * (decay - decay.detach()), info

        state, value, info = self.move(state, self.trains, objective, batches, noise, hyper)
        return state, {"objective": value, **info}
