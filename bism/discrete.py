"""Binary latent variables z behind a decoder of smoothed ones: a Boltzmann machine as prior, and posteriors.

h = (zeta, z), [batch, 2 m]. As r(zeta|z) is in p(v, h) and in q(h|v) alike it is left out of both: energies and
log-probabilities are of densities with respect to r(dzeta|z), which has none of its own where zeta = 0 has a mass. So
log p(v, h) - log q(h|v) is what it is, and sums over z of integrals over r(dzeta|z) give log Z and p(v).
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from bism.enumeration import exactly_sampled
from bism.likelihood import log_partition
from bism.models import RBM
from bism.rng import Rng
from bism.sampling import SWEEPS, Enumeration, GibbsChains
from bism.smoothing import Smoothing


class RBMPrior(nn.Module):
    """p(z) = exp(-E(z_1, z_2)) / Z of an RBM between the first half of z and the rest, and zeta ~ r(zeta|z).

    Args:
        units: number m of z, 2 or more.
        smoothing: r(zeta|z).
    """

    normalised: ClassVar[bool] = False
    standard: ClassVar[bool] = False
    binary: ClassVar[bool] = True

    def __init__(self, units: int, smoothing: Smoothing) -> None:
        super().__init__()
        self.units, self.codes, self.smoothing = units, 2 * units, smoothing
        self.rbm = RBM(units - units // 2, units // 2)

    def energy(self, h: Tensor) -> Tensor:
        """E(z_1, z_2), [batch]; linear in each z, so that means of independent z give its mean."""
        z = h[..., self.units :]
        half = self.rbm.visible_units.size
        return self.rbm.energy(z[..., :half], z[..., half:])

    def log_partition(self) -> float:
        """log Z by enumeration.

        Raises:
            InputError: more than 20 units in the smaller half.
        """
        return log_partition(self.rbm, "enumerate")

    def _chosen(self) -> Enumeration | GibbsChains:
        return Enumeration(self.rbm) if exactly_sampled(self.rbm) else GibbsChains(self.rbm)

    @property
    def how(self) -> str:
        """For people."""
        exact = exactly_sampled(self.rbm)
        drawn = "independent draws" if exact else f"ends of Gibbs chains of {SWEEPS:,} sweeps"
        return f"{drawn} of the Boltzmann machine, smoothed and decoded"

    def draw(self, count: int, rng: Rng) -> Tensor:
        """h [count, 2 m]."""
        first = self._chosen().draw(count, rng)
        second = self.rbm.sample_hidden(first, self.rbm.latent.noise(rng, (count,)))
        z = torch.cat([first, second], 1)
        return torch.cat([self.smoothing.inverse(rng.uniform(z.shape), z), z], 1)

    def posterior(self, network: nn.Module, features: int) -> "SmoothedBernoulli":
        """q(h|v) with these features of v."""
        return SmoothedBernoulli(nn.Sequential(network, nn.Linear(features, self.units)), self.smoothing)


class SmoothedBernoulli(nn.Module):
    """q(z_j = 1|v) = sigmoid(l_j(v)), independent, and zeta ~ r(zeta|z).

    Args:
        network: module from [batch, *visible_shape] to logits l [batch, m].
        smoothing: r(zeta|z).
    """

    def __init__(self, network: nn.Module, smoothing: Smoothing) -> None:
        super().__init__()
        self.network, self.smoothing = network, smoothing

    def logits(self, v: Tensor) -> Tensor:
        """l(v), [batch, m]."""
        logits: Tensor = self.network(v)
        return logits

    def mean(self, v: Tensor) -> Tensor:
        """E[h|v], [batch, 2 m]."""
        q = self.logits(v).sigmoid()
        return torch.cat([self.smoothing.mean(q), q], -1)

    def averaged(self, v: Tensor, rho: Tensor) -> Tensor:
        """(zeta, E[z|v]), [batch, 2 m], with zeta ~ q(zeta|v) from uniform rho [batch, m], differentiable in q."""
        q = self.logits(v).sigmoid()
        return torch.cat([self.smoothing.inverse(rho, q), q], -1)

    def sample(self, v: Tensor, noise: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
        """h [batch, 2 m] from standard normal noise; gradients go through none of it."""
        of_zeta, of_z = noise.chunk(2, -1)
        logistic = torch.special.log_ndtr(of_z) - torch.special.log_ndtr(-of_z)
        z = (self.logits(v) + logistic > 0).to(v.dtype)
        return torch.cat([self.smoothing.inverse(torch.special.ndtr(of_zeta), z), z], -1).detach()

    def sample_hard(self, v: Tensor, noise: Tensor) -> Tensor:
        """The same."""
        return self.sample(v, noise)

    def log_prob(self, h: Tensor, v: Tensor) -> Tensor:
        """log q(z|v) = sum_j z_j l_j - softplus(l_j), [batch]; linear in z, as the prior's energy."""
        logits: Any = self.logits(v)
        return (h.chunk(2, -1)[1] * logits - softplus(logits)).sum(-1)
