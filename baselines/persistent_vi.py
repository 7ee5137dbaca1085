"""Persistent variational inference."""

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from bism.estimator import Estimator, Hyper
from bism.functional import frozen, rebound
from bism.hyperparameters import LOOP, Range, choice, count, number
from bism.optimisers import Tree
from bism.rng import Rng
from bism.sampling import gibbs, gibbs_noise, has_gibbs
from bism.state import Info
from bism.variables import Bernoulli, Gaussian, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class PersistentVI(Estimator):
    """A posterior of the parameters instead of a point: q(theta) = prod_i N(mu_i, s_i^2), by the bound

        (1/N) E_q [log p(data | theta) + log p(theta) - log q(theta)],  theta = mu + s eps,

    whose gradient in theta is that of the likelihood, the model's moments coming from persistent Gibbs chains that are
    run at the sampled theta (Ingraham and Marks 2017). Each of ``samples`` parameters has chains of its own, as many as
    a minibatch has rows. mu are the parameters of the part ``model``, which is what is evaluated; log s is ``spread``.

    The prior is N(0, prior_scale^2). With prior="horseshoe" matrices have, in place of that, theta_i = z_i t_i with
    t_i ~ N(0, 1), z_i half-Cauchy of scale prior_scale, and q the product of N(m_i, s_i^2) of t_i and N(a_i, d_i^2) of
    log z_i. mu_i = m_i exp(a_i + d_i^2 / 2) is then the mean of theta_i under q, so that the part ``model`` has the
    posterior mean with either prior.
    """

    id: ClassVar[str] = "persistent_vi"
    label: ClassVar[str] = "Persistent VI"
    reference: ClassVar[str] = "Ingraham and Marks 2017"
    family: ClassVar[str] = "Contrastive divergence"
    colour: ClassVar[str] = "#2f9e8f"
    marker: ClassVar[str] = "8"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    trains: ClassVar[tuple[str, ...]] = ("model", "spread")
    visible_units: ClassVar[tuple[type[Units], ...]] = (Gaussian, Bernoulli)

    k: int = count(3, "sweeps of Gibbs sampling per step", symbol="k", maximum=LOOP, tune=(1, 3, 5, 10))
    samples: int = count(3, "draws of the parameters per step", maximum=LOOP)
    prior: str = choice("gaussian", ("gaussian", "horseshoe"), "of the parameters; the horseshoe is of matrices alone")
    prior_scale: float = number(
        1.0, "standard deviation of the Gaussian prior, and scale of the horseshoe", tune=Range(0.1, 10.0, log=True)
    )

    @property
    def passes(self) -> float:
        return self.samples * (1 + 0.3 * self.k)

    def unsupported(self, model: Any) -> str | None:
        if not has_gibbs(model):
            return "it samples by Gibbs sweeps, and this model has no transition() and no conditionals"
        return super().unsupported(model)

    def _shrunk(self, mean: Tensor) -> bool:  # whether a parameter has the horseshoe prior
        return self.prior == "horseshoe" and mean.ndim > 1

    def extra_parameters(self, model: Any, rng: Rng) -> Tree:
        spread = {}
        for name, mean in model.named_parameters():
            spread[name] = torch.full_like(mean, -3.0).detach()  # as published
            if self._shrunk(mean):
                spread |= {
                    f"{name}/scale": torch.zeros_like(mean).detach(),
                    f"{name}/scale_spread": spread[name].clone(),
                }
        return {"spread": spread}

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        chains = data[rng.integers(len(data), (self.samples, batch_size))]
        return {"chains": chains, "examples": torch.full((), float(len(data)), dtype=rng.dtype, device=rng.device)}

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        def one() -> Any:
            drawn = {name: rng.normal(tuple(mean.shape)) for name, mean in model.named_parameters()}
            shrunk = [(name, mean) for name, mean in model.named_parameters() if self._shrunk(mean)]
            drawn |= {f"{name}/scale": rng.normal(tuple(mean.shape)) for name, mean in shrunk}
            return {"parameters": drawn, "chains": gibbs_noise(model, batch_shape[0], self.k, rng)}

        return [one() for _ in range(self.samples)]

    def draw(self, means: Tree, spread: Tree, noise: Tree, hyper: Hyper) -> tuple[Tree, Tensor]:
        """theta ~ q by name, and an estimate of KL(q || prior) up to a constant; exact where the prior is Gaussian."""
        theta, divergence = {}, torch.zeros_like(hyper["prior_scale"])
        for name, mu in means.items():
            log_s, eps = spread[name], noise[name]
            if self._shrunk(mu):
                a, log_d = spread[f"{name}/scale"], spread[f"{name}/scale_spread"]
                log_z = a + log_d.exp() * noise[f"{name}/scale"]
                m, unit = mu * (-a - 0.5 * (2 * log_d).exp()).exp(), torch.ones_like(divergence)
                theta[name] = log_z.exp() * (m + log_s.exp() * eps)
                log_prior = log_z - softplus(2 * (log_z - hyper["prior_scale"].log()))  # half-Cauchy z, of log z
                divergence = divergence - (log_prior + log_d).sum()
            else:
                m, unit = mu, hyper["prior_scale"]
                theta[name] = mu + log_s.exp() * eps
            divergence = divergence + (0.5 * (m.square() + (2 * log_s).exp()) / unit**2 - log_s).sum()
        return theta, divergence

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        means, after, total = dict(params.model.named_parameters()), [], torch.zeros_like(hyper["prior_scale"])
        for start, drawn in zip(carry["chains"], noise, strict=True):
            theta, divergence = self.draw(means, params.spread, drawn["parameters"], hyper)
            model = rebound(params.model, theta)
            chains = gibbs(frozen(model), start, drawn["chains"]).detach()
            contrast = model.free_energy(batch).mean() - model.free_energy(chains).mean()
            total = total + (contrast + divergence / carry["examples"]) / self.samples
            after.append(chains)
        return total, {**carry, "chains": torch.stack(after)}, {}
