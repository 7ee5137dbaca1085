"""Mixtures of products of independent units, whose log-probability and samples are cheap: NVIL's proposal."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from bism.posteriors import location_and_scale
from bism.rng import Rng, normal_
from bism.variables import Gaussian, Units, log_odds, visible_units

Points = tuple[Tensor, ...]  # (v,) or (v, h)
SPREAD = 0.1  # of the components at the start: logits, or in standard deviations of the data


class Products(nn.Module):
    """K products of independent units: of binary ones with logits ``location`` [K, size], of real ones with means
    ``location`` and log standard deviations ``log_s`` [K, size]."""

    log_s: nn.Parameter | None

    def __init__(self, components: int, units: Units) -> None:
        super().__init__()
        self.location = nn.Parameter(torch.empty(components, units.size))
        real = isinstance(units, Gaussian)
        self.register_parameter("log_s", nn.Parameter(torch.empty(components, units.size)) if real else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Components near each other: of real units around N(0, I), of binary ones around fair coins."""
        normal_(self.location, std=SPREAD)
        if self.log_s is not None:
            nn.init.zeros_(self.log_s)

    def move_to(self, data: Tensor) -> None:
        """The same around the mean of data [n, size], and with their standard deviations."""
        with torch.no_grad():
            if self.log_s is None:
                self.location.add_(log_odds(data))
            else:
                mean, spread = location_and_scale(data)
                self.location.mul_(spread).add_(mean)
                self.log_s.add_(spread.log())

    def log_prob(self, x: Tensor) -> Tensor:
        """Of x [n, size] under each product, [n, K]."""
        if self.log_s is None:
            return x @ self.location.T - softplus(self.location).sum(-1)
        white = (x[:, None] - self.location) * (-self.log_s).exp()
        return (-0.5 * white.square() - self.log_s - 0.5 * math.log(2 * math.pi)).sum(-1)

    def sample(self, which: Tensor, noise: Tensor) -> Tensor:
        """x [n, size] from the products ``which`` [n, K], one-hot, and logistic or normal noise [n, size]."""
        location = which @ self.location
        if self.log_s is None:
            return (location + noise > 0).to(noise)
        return location + (which @ self.log_s).exp() * noise


class Mixture(nn.Module):
    """q(x) = sum_k pi_k prod_i q_k(x_i) over x = v, or over x = (v, h).

    Args:
        model: whose units these are.
        components: their number K.
        joint: over (v, h).

    Parameters: ``logits`` [K] of pi, and those of ``visible`` and ``hidden``, which are ``Products``. It starts near
    the product of the training data's marginals, h at fair coins or N(0, I).
    """

    def __init__(self, model: Any, components: int, joint: bool = False) -> None:
        super().__init__()
        self.visible_shape = model.visible_shape
        self.logits = nn.Parameter(torch.empty(components))
        self.visible = Products(components, visible_units(model))
        self.hidden = Products(components, model.latent) if joint else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Components of equal weight."""
        nn.init.zeros_(self.logits)

    def start_from(self, data: Tensor) -> None:
        """Called after ``reset_parameters()`` with the training data [n, *visible_shape]."""
        self.visible.move_to(data.flatten(1))

    def log_prob(self, v: Tensor, h: Tensor | None = None) -> Tensor:
        """log q(v), or log q(v, h), [n]."""
        each = self.logits.log_softmax(0) + self.visible.log_prob(v.flatten(1))
        if self.hidden is not None and h is not None:
            each = each + self.hidden.log_prob(h)
        return each.logsumexp(-1)

    def sample(self, noise: dict[str, Tensor]) -> Points:
        """(v,) or (v, h) from the noise of ``mixture_noise``."""
        below = self.logits.softmax(0).cumsum(0)[:-1]
        component = (noise["component"][:, None] > below).sum(-1, keepdim=True)
        which = (component == torch.arange(len(self.logits), device=component.device)).to(self.logits)
        v = self.visible.sample(which, noise["visible"]).reshape(-1, *self.visible_shape)
        return (v,) if self.hidden is None else (v, self.hidden.sample(which, noise["hidden"]))


def mixture_noise(model: Any, count: int, joint: bool, rng: Rng) -> dict[str, Tensor]:
    """The noise of ``count`` samples of a ``Mixture``."""
    units = {"visible": visible_units(model)} | ({"hidden": model.latent} if joint else {})
    return {"component": rng.uniform((count,))} | {name: of.noise(rng, (count,)) for name, of in units.items()}


def log_z_bound(log_w: Tensor) -> Tensor:
    """1/2 log E_q[w^2] from log w at n samples of q: its exponential's square is unbiased."""
    return 0.5 * ((2 * log_w).logsumexp(0) - math.log(len(log_w)))
