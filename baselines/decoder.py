"""AdVIL's decoder: a directed model of (v, h) with codes z, whose entropy has a lower bound."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from bism.posteriors import DiagonalGaussian, RelaxedBernoulli, location_and_scale
from bism.rng import Rng
from bism.variables import Bernoulli, Gaussian, Units, log_odds, visible_noise, visible_units

LOG_2PI = math.log(2 * math.pi)
Draw = tuple[Tensor, Tensor, Tensor]  # z [n, codes], h [n, m], v [n, *visible_shape]


def conditional(units: Units, inputs: int, width: int = 0) -> RelaxedBernoulli | DiagonalGaussian:
    """Independent units given ``inputs`` numbers: a linear layer, or a network with one hidden layer of a ``width``."""
    layers: list[nn.Module] = [nn.Linear(inputs, width), nn.Tanh()] if width else []
    if isinstance(units, Bernoulli):
        return RelaxedBernoulli((inputs,), units.size, nn.Sequential(*layers, nn.Linear(width or inputs, units.size)))
    return DiagonalGaussian((inputs,), units.size, nn.Sequential(*layers), width or inputs)


class Decoder(nn.Module):
    """q(v, h) = integral of N(z; 0, I) q(h|z) q(v|h) over z, with r(z|h) beside it.

    v depends on z through h alone, so that H(z|v, h) = H(z|h) <= -E log r(z|h), and

        H(v, h) >= E[log r(z|h) - log q(z) - log q(h|z) - log q(v|h)],

    equal where r(z|h) is q(z|h). q(h|z) and r are networks of one hidden layer, q(v|h) is linear in h, as p(v|h) is in
    RBMs and Boltzmann machines of several layers.

    Args:
        model: whose units these are.
        codes: size of z.
        width: of the networks' hidden layers.

    q(v|h) starts around the marginals of the training data.
    """

    def __init__(self, model: Any, codes: int, width: int) -> None:
        super().__init__()
        self.visible_shape, self.visible_units, self.latent = model.visible_shape, visible_units(model), model.latent
        self.codes = codes
        self.hidden = conditional(self.latent, codes, width)
        self.visible = conditional(self.visible_units, self.latent.size)
        self.code = conditional(Gaussian(codes), self.latent.size, width)

    def start_from(self, data: Tensor) -> None:
        """Called after ``reset_parameters()`` with the training data [n, *visible_shape]."""
        with torch.no_grad():
            if isinstance(self.visible, RelaxedBernoulli):
                layer: Any = self.visible.network
                layer[-1].bias.add_(log_odds(data.flatten(1)))
            else:
                mean, spread = location_and_scale(data.flatten(1))
                self.visible.mean_head.weight.mul_(spread[:, None])
                self.visible.mean_head.bias.mul_(spread).add_(mean)
                self.visible.log_std_head.bias.add_(spread.log())

    def sample(self, noise: dict[str, Tensor], temperature: Tensor | float) -> Draw:
        """(z, h, v), differentiable in the parameters; binary units are relaxed."""
        z, hidden, visible = noise["code"], self.hidden, self.visible
        h = hidden.sample(z, noise["hidden"], temperature)
        return z, h, visible.sample(h, noise["visible"].flatten(1), temperature).reshape(noise["visible"].shape)

    def sample_hard(self, noise: dict[str, Tensor]) -> Draw:
        """The same with binary units that are 0 or 1, and no gradient."""
        h = self.hidden.sample_hard(noise["code"], noise["hidden"])
        v = self.visible.sample_hard(h, noise["visible"].flatten(1))
        return noise["code"], h, v.reshape(noise["visible"].shape)

    def entropy_bound(self, z: Tensor, h: Tensor, v: Tensor) -> Tensor:
        """log r(z|h) - log q(z) - log q(h|z) - log q(v|h), [n]; its mean is the bound of H(v, h)."""
        log_prior = -0.5 * z.square().sum(-1) - 0.5 * self.codes * LOG_2PI
        joint = log_prior + self.hidden.log_prob(h, z) + self.visible.log_prob(v.flatten(1), h)
        return self.code.log_prob(z, h) - joint

    def draw(self, count: int, rng: Rng) -> Tensor:
        """v [count, *visible_shape]."""
        with torch.no_grad():
            return self.sample_hard(decoder_noise(self, self.codes, count, rng))[2]


def decoder_noise(model: Any, codes: int, count: int, rng: Rng) -> dict[str, Tensor]:
    """The noise of ``count`` samples of a ``Decoder`` of the model's units."""
    return {
        "code": rng.normal((count, codes)),
        "hidden": model.latent.noise(rng, (count,)),
        "visible": visible_noise(model, (count,), rng),
    }
