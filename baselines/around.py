"""What has no likelihood of its own as a model with one: noise around an autoencoder's codes and reconstructions."""

import math

import torch
from torch import Tensor, nn

from bism.latent import LatentModel
from bism.priors import LOG_2PI
from bism.rng import Rng, generator

_TRIED = 41  # values of s_q, from a thousandth of the codes' spread up to it
_SEEN = 500  # examples at which they are


class Around(nn.Module):
    """q(h|v) = N(e(v), s^2 I) with e the means of an encoder.

    Args:
        encoder: has ``mean(v)``.
        scale: s, a tensor [].
    """

    scale: Tensor

    def __init__(self, encoder: nn.Module, scale: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("scale", scale)

    def mean(self, v: Tensor) -> Tensor:
        """e(v), [batch, m]."""
        found: Tensor = self.encoder.mean(v)  # type: ignore[operator]  # mypy does not know what it has
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


def around(model: LatentModel, encoder: nn.Module, v: Tensor) -> tuple[LatentModel, Around]:
    """A model with s at the root mean square of the residuals of examples v [n, *visible_shape], and q(h|v) around an
    encoder's codes with the s_q, of 41, of the highest mean of log p(v, h) - log q(h|v) on the first 500 of them."""
    with torch.no_grad():
        h = encoder.mean(v)  # type: ignore[operator]  # as above
        if not model.binary:
            error = float((v - model.decoder(h)).square().mean().sqrt())
            tiny = torch.finfo(v.dtype).tiny
            model = model.with_prior(model.prior, sigma=max(error, tiny) if math.isfinite(error) else 1.0)
        v = v[:_SEEN]
        rng = Rng(generator(0, 0, "spread of codes", v.device), v.dtype)
        noise, spread = rng.normal((len(v), h.shape[1])), h.std(0, correction=0).square().mean().sqrt()
        spread = spread.clamp(min=torch.finfo(v.dtype).tiny)
        tried = [Around(encoder, spread * 10 ** (-3 * i / (_TRIED - 1))) for i in range(_TRIED)]
        bounds = []
        for q in tried:
            drawn = q.sample(v, noise)
            bounds.append((-model.energy(v, drawn) - q.log_prob(drawn, v)).mean())
        return model, tried[int(torch.stack(bounds).argmax())]
