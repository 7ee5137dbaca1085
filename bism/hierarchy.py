"""Codes of codes: a ``LatentModel`` of z as the prior of another one's latent variables, h = (z, u)."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bism.latent import LatentModel, OfFirst
from bism.mlp import mlp
from bism.posteriors import DiagonalGaussian
from bism.priors import StandardNormal
from bism.rng import Rng


class Skip(nn.Module):
    """x and the features of a network beside it, [batch, size + width]."""

    def __init__(self, size: int, width: int, layers: int) -> None:
        super().__init__()
        self.network = nn.Sequential(mlp(size, width, layers, width), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.network(x)], -1)


class CodeDecoder(nn.Module):
    """From u [batch, m] to means of z [batch, m]."""

    def __init__(self, size: int, width: int, layers: int) -> None:
        super().__init__()
        self.visible_shape, self.codes = (size,), size
        self.network = nn.Sequential(Skip(size, width, layers), nn.Linear(size + width, size))

    def forward(self, u: Tensor) -> Tensor:
        z: Tensor = self.network(u)
        return z


class CodePrior(nn.Module):
    """p(z, u) = p(u) p(z|u) of h = (z, u), with the ``LatentModel`` of codes."""

    normalised: ClassVar[bool] = True
    standard: ClassVar[bool] = False
    binary: ClassVar[bool] = False
    how: ClassVar[str] = "independent draws of the second stage's codes, decoded twice"

    def __init__(self, second: Any) -> None:
        super().__init__()
        self.second, self.codes = second, 2 * second.latent.size

    def energy(self, h: Tensor) -> Tensor:
        """-log p(z, u), [batch]."""
        energy: Tensor = self.second.energy(*h.chunk(2, -1))
        return energy

    def draw(self, count: int, rng: Rng) -> Tensor:
        """h [count, 2 m]."""
        u = self.second.prior.draw(count, rng)
        return torch.cat([self.second.sample_visible(u, rng.normal(u.shape)), u], -1)


class BothPosteriors(nn.Module):
    """q(z|v) q(u|z) of h = (z, u)."""

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__()
        self.first, self.second = first, second

    def mean(self, v: Tensor) -> Tensor:
        """E[z|v], and E[u|z] there, [batch, 2 m]."""
        z = self.first.mean(v)
        return torch.cat([z, self.second.mean(z)], -1)

    def sample(self, v: Tensor, noise: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
        """h [batch, 2 m] from standard normal noise."""
        of_z, of_u = noise.chunk(2, -1)
        z = self.first.sample(v, of_z, temperature)
        return torch.cat([z, self.second.sample(z, of_u, temperature)], -1)

    def sample_hard(self, v: Tensor, noise: Tensor) -> Tensor:
        """The same draw, with no gradient through it."""
        return self.sample(v, noise).detach()

    def log_prob(self, h: Tensor, v: Tensor) -> Tensor:
        """log q(z|v) + log q(u|z), [batch]."""
        z, u = h.chunk(2, -1)
        found: Tensor = self.first.log_prob(z, v) + self.second.log_prob(u, z)
        return found


def code_model(size: int, width: int, layers: int) -> LatentModel:
    """p(z, u) of codes z [batch, m] with u of as many, and a learnt s that starts at 1."""
    return LatentModel(CodeDecoder(size, width, layers), StandardNormal(size), sigma=1.0, learn_sigma=True)


def code_posterior(size: int, width: int, layers: int) -> DiagonalGaussian:
    """q(u|z), with networks as ``code_model`` has."""
    return DiagonalGaussian((size,), size, Skip(size, width, layers), size + width)


def hierarchy(model: LatentModel, posterior: Any, second: LatentModel, second_posterior: Any) -> tuple[Any, Any]:
    """p(u) p(z|u) p(v|z) of h = (z, u) as one model, and q(z|v) q(u|z)."""
    prior = CodePrior(second)
    return model.with_prior(prior, decoder=OfFirst(model.decoder, prior.codes)), BothPosteriors(
        posterior, second_posterior
    )
