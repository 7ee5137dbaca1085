"""Variational posteriors q(h|v; phi) (``protocols.Posterior``): reparametrised samples and log-probabilities."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from bism.variables import Bernoulli, flat_size


def location_and_scale(data: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (over n) of each visible unit of data [n, D], in the data's type; 1 for a constant
    one."""
    exact = data.double()
    spread = exact.std(0, correction=0)
    constant = (data == data[0]).all(0) | (spread == 0)  # of which rounding makes the spread something above 0
    return exact.mean(0).to(data), torch.where(constant, 1.0, spread).to(data)


def softplus_of_flips(logits: Tensor, weight: Tensor, v: Tensor) -> Tensor:
    """sum_j [softplus(l_j + s_i W_ij) - softplus(l_j)], [batch, D]: what flips of binary v do to the log-normaliser of
    Bernoulli units whose logits l [batch, m] are linear in v with the weight W [D, m]; s_i = 1 - 2 v_i is v_i's step.

    D m numbers per example, where logits anew for each flip would take D^2 m products.
    """
    step, logits = (1 - 2 * v).unsqueeze(-1), logits.unsqueeze(-2)
    return (softplus(logits + step * weight) - softplus(logits)).sum(-1)


class RelaxedBernoulli(nn.Module):
    """q(h_j = 1|v) = sigmoid(l_j(v)) with logits l from one linear layer (or a network of one's own).

    A sample is relaxed (binary concrete: Maddison et al. 2016; Jang et al. 2016):
    h = sigmoid((l + noise) / temperature) with logistic noise, which tends to a Bernoulli draw at temperature 0.

    ``log_prob`` is the Bernoulli log-mass h.l - softplus(l), extended linearly to relaxed h. At the true posterior h
    then cancels in the gradient of log p(v, h) - log q(h|v) in v: it is the marginal score for every h, relaxed or
    not, as Theorem 1 needs.

    Args:
        visible_shape: shape of one visible vector.
        size: number m of latent units.
        network: module from [batch, *visible_shape] to logits [batch, m]; one linear layer by default.
        start_from_data: start as the linear layer does on standardised training data.
    """

    def __init__(
        self,
        visible_shape: tuple[int, ...],
        size: int,
        network: nn.Module | None = None,
        start_from_data: bool = False,
    ) -> None:
        super().__init__()
        self.network = network or nn.Sequential(nn.Flatten(1), nn.Linear(flat_size(visible_shape), size))
        self._linear, self._starts_from_data = network is None, start_from_data

    def start_from(self, data: Tensor) -> None:
        """Called after ``reset_parameters()`` with the training data."""
        if self._starts_from_data and isinstance(self.network, nn.Sequential):
            shift, factor = location_and_scale(data.flatten(1))
            layer: Any = self.network[1]
            with torch.no_grad():
                layer.weight.div_(factor)
                layer.bias.sub_(layer.weight @ shift)

    def logits(self, v: Tensor) -> Tensor:
        """l(v), [batch, m]."""
        return self.network(v)

    def mean(self, v: Tensor) -> Tensor:
        """E[h|v] of the Bernoulli q, [batch, m]."""
        return self.logits(v).sigmoid()

    def sample(self, v: Tensor, noise: Tensor, temperature: Tensor | float) -> Tensor:
        """Relaxed h [batch, m] in (0, 1)."""
        return ((self.logits(v) + noise) / temperature).sigmoid()

    def sample_hard(self, v: Tensor, noise: Tensor) -> Tensor:
        """h [batch, m] in {0, 1}; no gradient flows through it."""
        return (self.logits(v) + noise > 0).to(v.dtype)

    def log_prob(self, h: Tensor, v: Tensor) -> Tensor:
        """sum_j h_j l_j - softplus(l_j), [batch]."""
        logits = self.logits(v)
        return (h * logits - softplus(logits)).sum(-1)

    def flip_log_probs(self, h: Tensor, v: Tensor) -> Tensor | None:
        """log q(h|v with unit i flipped) - log q(h|v) of binary v, [batch, D]; None with a network of one's own."""
        if not self._linear:
            return None
        layer: Any = self.network[1]  # type: ignore[index]
        x, weight = v.flatten(1), layer.weight.T
        return (1 - 2 * x) * (h @ layer.weight) - softplus_of_flips(self.logits(v), weight, x)


class DiagonalGaussian(nn.Module):
    """q(h|v) = N(mean(v), diag(exp(log_std(v))^2)), both linear in the features of ``network``.

    Args:
        visible_shape: shape of one visible vector.
        size: number m of latent units.
        network: module from [batch, *visible_shape] to features [batch, features]; flattening by default.
        features: number of features of ``network``.
    """

    def __init__(
        self, visible_shape: tuple[int, ...], size: int, network: nn.Module | None = None, features: int | None = None
    ) -> None:
        super().__init__()
        self.network = network or nn.Flatten(1)
        width = features or flat_size(visible_shape)
        self.mean_head = nn.Linear(width, size)
        self.log_std_head = nn.Linear(width, size)

    def _parameters_at(self, v: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network(v)
        mean, log_std = self.mean_head(features), self.log_std_head(features)
        exact = torch.promote_types(mean.dtype, torch.float32)  # under autocast the layers give less
        return mean.to(exact), log_std.to(exact)

    def mean(self, v: Tensor) -> Tensor:
        """E[h|v], [batch, m]."""
        return self._parameters_at(v)[0]

    def sample(self, v: Tensor, noise: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
        """h = mean(v) + std(v) * noise, [batch, m]; the temperature does not matter here."""
        mean, log_std = self._parameters_at(v)
        return mean + log_std.exp() * noise

    def sample_hard(self, v: Tensor, noise: Tensor) -> Tensor:
        """The same draw, with no gradient through it."""
        return self.sample(v, noise).detach()

    def kl_to_standard_normal(self, v: Tensor) -> Tensor:
        """KL(q(h|v) || N(0, I)) = sum_j (mean_j^2 + std_j^2 - 1) / 2 - log std_j, [batch]."""
        mean, log_std = self._parameters_at(v)
        return (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).sum(-1)

    def log_prob(self, h: Tensor, v: Tensor) -> Tensor:
        """Normalised log-density, [batch]."""
        mean, log_std = self._parameters_at(v)
        standardised = (h - mean) * (-log_std).exp()
        return (-0.5 * standardised.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


def convolutional(visible_shape: tuple[int, ...], size: int, width: int = 64) -> DiagonalGaussian:
    """The Gaussian posterior for images [c, H, W] (Section 5.2): three 3 x 3 convolutions of stride 2 to ``width``,
    twice and four times as many channels with LeakyReLU(0.2), then linear heads for mean and log_std."""
    channels, height, long = visible_shape
    layers: list[nn.Module] = []
    for wide in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(channels, wide, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels, height, long = wide, -(-height // 2), -(-long // 2)
    return DiagonalGaussian(visible_shape, size, nn.Sequential(*layers, nn.Flatten(1)), channels * height * long)


def default_posterior(model: Any) -> nn.Module:
    """The posterior that a model brings along (``default_posterior()``), else the one that fits its latent's kind."""
    if hasattr(model, "default_posterior"):
        own: nn.Module = model.default_posterior()
        return own
    family = RelaxedBernoulli if isinstance(model.latent, Bernoulli) else DiagonalGaussian
    return family(model.visible_shape, model.latent.size)
