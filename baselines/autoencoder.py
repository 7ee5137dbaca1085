"""Autoencoders: penalties of their decoders; and what they are as models with a likelihood, by noise around them."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from bism.latent import LEAST_SIGMA, LatentModel
from bism.objectives import score
from bism.priors import LOG_2PI
from bism.rng import Rng, generator

_TRIED = 41  # values of s_q, from a thousandth of the codes' spread up to it
_SEEN = 500  # examples at which they are


class Around(nn.Module):
    """q(h|v) = N(e(v), s^2 I) with e the means of an encoder.

    Args:
        encoder: e, a module from [batch, *visible_shape] to codes [batch, m].
        scale: s, a tensor [], which is not learnt.
    """

    scale: Tensor

    def __init__(self, encoder: nn.Module, scale: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("scale", scale)

    def mean(self, v: Tensor) -> Tensor:
        """e(v), [batch, m]."""
        found: Tensor = self.encoder(v)
        return found

    def sample(self, v: Tensor, noise: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
        """e(v) + s noise, [batch, m]."""
        return self.mean(v) + self.scale * noise

    def sample_hard(self, v: Tensor, noise: Tensor) -> Tensor:
        """The same draw, with no gradient through it."""
        return self.sample(v, noise).detach()

    def log_prob(self, h: Tensor, v: Tensor) -> Tensor:
        """Normalised log-density, [batch]."""
        white = (h - self.mean(v)) / self.scale
        return -0.5 * white.square().sum(-1) - h.shape[-1] * (self.scale.log() + 0.5 * LOG_2PI)


def autoencoder(model: LatentModel) -> Around:
    """The encoder that a model brings along, its means alone; s is 1 until ``around`` finds one."""
    own: Any = model.default_posterior()
    return Around(nn.Sequential(own.network, own.mean_head), torch.ones(()))


def around(model: LatentModel, q: Around, v: Tensor) -> tuple[LatentModel, Around]:
    """A model with s at the root mean square of the residuals of examples v [n, *visible_shape], and q(h|v) around an
    encoder's codes with the s_q, of 41, of the highest mean of log p(v, h) - log q(h|v) on the first 500 of them."""
    with torch.no_grad():
        h = q.mean(v)
        if not model.binary:
            error = float((v - model.decoder(h)).square().mean().sqrt())
            sigma = min(max(error, LEAST_SIGMA), 1 / LEAST_SIGMA) if math.isfinite(error) else 1.0
            model = model.with_prior(model.prior, sigma=sigma)
        v = v[:_SEEN]
        rng = Rng(generator(0, 0, "spread of codes", v.device), v.dtype)
        noise, spread = rng.normal((len(v), h.shape[1])), h.std(0, correction=0).square().mean().sqrt()
        spread = spread.clamp(min=torch.finfo(v.dtype).tiny)
        tried = [Around(q.encoder, spread * 10 ** (-3 * i / (_TRIED - 1))) for i in range(_TRIED)]
        bounds = []
        for one in tried:
            drawn = one.sample(v, noise)
            bounds.append((-model.energy(v, drawn) - one.log_prob(drawn, v)).mean())
        return model, tried[int(torch.stack(bounds).argmax())]


def squares(decoder: Any) -> Tensor:
    """The sum of squares of a decoder's parameters; of its ``network`` alone, where it has one behind which it shifts
    and scales as the data are."""
    parameters = getattr(decoder, "network", decoder).parameters()
    return torch.stack([p.square().sum() for p in parameters]).sum()


def jacobian_square(decoder: Any, h: Tensor, u: Tensor) -> Tensor:
    """|J^T u|^2 with the Jacobian J of the decoder at h, [batch]; of random signs u [batch, *visible_shape] the mean is
    |J|_F^2."""
    return score(lambda at: (u * decoder(at)).flatten(1).sum(1), h).square().sum(-1)
