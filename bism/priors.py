"""Priors of real latent variables h: standard normal, and tilted by an energy that is learnt."""

import math
from typing import Any, ClassVar

from torch import Tensor, nn

from bism.hmc import chains
from bism.mlp import mlp
from bism.rng import Rng

LOG_2PI = math.log(2 * math.pi)
_STEPS = 500  # of the chains that sample a tilted prior
_ASKED = ("codes", "energy", "draw", "normalised", "standard", "binary", "how")


def no_prior(model: Any) -> str | None:
    """Why a model's ``prior`` is none as those here are, or None."""
    prior = getattr(model, "prior", None)
    if prior is None:
        return "it has no ``prior``, a module as in bism.priors, of which its prior_energy(h) is"
    lacks = [name for name in _ASKED if not hasattr(type(prior), name) and not hasattr(prior, name)]
    if lacks:
        return f"its prior ({type(prior).__name__}) lacks {', '.join(lacks)}, which those of bism.priors have"
    return None


class StandardNormal(nn.Module):
    """p(h) = N(h; 0, I), h in R^m."""

    normalised: ClassVar[bool] = True  # whether exp(-energy) integrates to one
    standard: ClassVar[bool] = True  # whether it is N(0, I)
    binary: ClassVar[bool] = False  # whether h holds binary variables, which have no gradients
    how: ClassVar[str] = "independent draws of the prior, decoded"

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.codes = codes

    def energy(self, h: Tensor) -> Tensor:
        """-log p(h), [batch]."""
        return 0.5 * h.square().sum(-1) + 0.5 * self.codes * LOG_2PI

    def draw(self, count: int, rng: Rng) -> Tensor:
        """h [count, m]."""
        return rng.normal((count, self.codes))


class Tilted(nn.Module):
    """p(h) = exp(f(h)) N(h; 0, I) / Z with a network f (Pang et al. 2020, eq. 4); Z = E exp(f(h)) over N(0, I).

    Args:
        codes: size m of h.
        width, layers: of f.
    """

    normalised: ClassVar[bool] = False
    standard: ClassVar[bool] = False
    binary: ClassVar[bool] = False
    how: ClassVar[str] = f"ends of chains of {_STEPS:,} steps of Hamiltonian Monte Carlo on the prior, decoded"

    def __init__(self, codes: int, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.codes, self.normal = codes, StandardNormal(codes)
        self.network = mlp(codes, width, layers, 1)

    def tilt(self, h: Tensor) -> Tensor:
        """f(h), [batch]."""
        found: Tensor = self.network(h).squeeze(-1)
        return found

    def energy(self, h: Tensor) -> Tensor:
        """-log N(h; 0, I) - f(h), [batch]: -log p(h) - log Z."""
        energy: Any = self.normal.energy(h)
        return energy - self.tilt(h)

    def draw(self, count: int, rng: Rng) -> Tensor:
        """h [count, m] by chains from N(0, I), each long and of its own; approximate where they do not mix."""
        return chains(self.energy, self.normal.draw(count, rng), rng, steps=_STEPS).x
