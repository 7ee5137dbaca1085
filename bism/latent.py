"""Models that go from latent variables to v: a prior over h, and a decoder."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from bism.checks import check_count, check_flag, check_positive
from bism.discrete import RBMPrior
from bism.errors import InputError, shown
from bism.generator import Generator
from bism.mlp import mlp
from bism.objectives import sum_per_example
from bism.posteriors import DiagonalGaussian, convolutional
from bism.priors import LOG_2PI, StandardNormal, Tilted
from bism.rng import Rng
from bism.smoothing import SMOOTHINGS
from bism.variables import Bernoulli, Gaussian, flat_size, visible_noise

OBSERVATIONS = ("gaussian", "bernoulli")
DRAWN = ("samples", "means")
PRIORS = ("normal", "tilted", "rbm")
LEAST_SIGMA = 1e-18


class OfFirst(nn.Module):
    """A decoder of the first numbers of h alone, of a prior over more.

    Args:
        decoder: of z.
        codes: size of h = (z, ...).
    """

    def __init__(self, decoder: nn.Module, codes: int) -> None:
        super().__init__()
        self.decoder, self.visible_shape, self.codes = decoder, decoder.visible_shape, codes

    @property
    def spectral_norm(self) -> bool:
        """The decoder's."""
        return bool(getattr(self.decoder, "spectral_norm", False))

    def forward(self, h: Tensor) -> Tensor:
        z: Any = self.decoder.codes
        x: Tensor = self.decoder(h[..., :z])
        return x


class LatentModel(nn.Module):
    """p(v, h) = p(h) p(v|h) with real h (or binary ones and what they are smoothed to): a prior, and a decoder g.

        p(v|h) = N(g(h), s^2 I), or of binary v Bernoulli(sigmoid(g(h)))
        E(v, h) = prior.energy(h) - log p(v|h)

    log p(v|h) is normalised, so that log Z is the prior's, and 0 where that is normalised.

    Args:
        decoder: g, a module from h [batch, m] to [batch, *visible_shape], with its ``visible_shape`` and ``codes``, m.
        prior: of ``bism.priors``.
        observation: "gaussian" or "bernoulli".
        sigma: s; where it starts, if it is learnt.
        learn_sigma: whether s is a parameter, ``log_sigma``.
        drawn: what ``draw`` gives: "samples" v ~ p(v|h), or the "means" g(h), which image papers show.
        width: of the encoder's network; layers: of it, of vectors.
    """

    def __init__(
        self,
        decoder: nn.Module,
        prior: nn.Module,
        *,
        observation: str = "gaussian",
        sigma: float = 0.3,
        learn_sigma: bool = False,
        drawn: str = "samples",
        width: int = 128,
        layers: int = 2,
    ) -> None:
        super().__init__()
        if observation not in OBSERVATIONS:
            raise InputError(f"LatentModel: observation must be one of {', '.join(OBSERVATIONS)}, got {observation!r}")
        if drawn not in DRAWN:
            raise InputError(f"LatentModel: drawn must be one of {', '.join(DRAWN)}, got {drawn!r}")
        if not LEAST_SIGMA <= check_positive("LatentModel: sigma, a standard deviation,", sigma) <= 1 / LEAST_SIGMA:
            limits = f"from {LEAST_SIGMA:g} to {1 / LEAST_SIGMA:g}, of whose squares float32 holds the inverse"
            raise InputError(f"LatentModel: sigma must be {limits}, got {sigma!r}")
        if check_flag("LatentModel: learn_sigma", learn_sigma) and observation == "bernoulli":
            raise InputError("LatentModel: learn_sigma is for observation: gaussian; binary v have no sigma")
        self.decoder, self.prior, self.drawn = decoder, prior, drawn
        shape: Any = decoder.visible_shape
        codes: Any = decoder.codes
        self.visible_shape, self.binary = tuple(shape), observation == "bernoulli"
        self.visible_units = (Bernoulli if self.binary else Gaussian)(flat_size(self.visible_shape))
        self.latent, self._sizes = Gaussian(codes), (width, layers)
        self.activations = sum(p.shape[0] for p in decoder.parameters() if p.ndim > 1) + self.visible_units.size
        self._sigma = float(sigma)
        if learn_sigma:
            self.log_sigma = nn.Parameter(torch.empty(()))
            self.reset_parameters()

    @property
    def learns_sigma(self) -> bool:
        """Whether s is a parameter."""
        return "log_sigma" in self._parameters

    def reset_parameters(self) -> None:
        """s starts where it was said to; decoder and prior have their own."""
        if self.learns_sigma:
            nn.init.constant_(self.log_sigma, torch.tensor(self._sigma, device="cpu").log().item())

    def default_posterior(self) -> nn.Module:
        """q(h|v) = N(mean(v), diag(s(v)^2)), with a convolutional network of images and an MLP of vectors; of binary h
        the prior's own, with the same networks."""
        width, layers = self._sizes
        if len(self.visible_shape) == 3:
            own = convolutional(self.visible_shape, self.latent.size, width)
            network, features = own.network, own.mean_head.in_features
        else:
            network, features = nn.Sequential(mlp(self.visible_shape[0], width, layers, width), nn.SiLU()), width
        if isinstance(self.prior, RBMPrior):
            return self.prior.posterior(network, features)
        return DiagonalGaussian(self.visible_shape, self.latent.size, network, features)

    def with_prior(
        self, prior: nn.Module, *, decoder: nn.Module | None = None, sigma: float | None = None
    ) -> "LatentModel":
        """The model with another prior: the same decoder, or one around it, and s fixed where it is or at ``sigma``."""
        return LatentModel(
            self.decoder if decoder is None else decoder,
            prior,
            observation="bernoulli" if self.binary else "gaussian",
            sigma=float(self.sigma) if sigma is None else sigma,
            drawn=self.drawn,
        )

    @property
    def sigma(self) -> Tensor | float:
        """s of p(v|h)."""
        return self.log_sigma.exp() if self.learns_sigma else self._sigma

    def log_visible(self, v: Tensor, h: Tensor) -> Tensor:
        """log p(v|h), [batch], normalised."""
        x = self.decoder(h)
        if self.binary:
            return sum_per_example(v * x - softplus(x))
        log_sigma = torch.as_tensor(self.sigma, dtype=v.dtype, device=v.device).log()
        normaliser = self.visible_units.size * (log_sigma + 0.5 * LOG_2PI)
        return -0.5 * sum_per_example((v - x).square()) * (-2 * log_sigma).exp() - normaliser

    def prior_energy(self, h: Tensor) -> Tensor:
        """-log p(h), [batch], up to a constant where the prior is not ``normalised``."""
        return self.prior.energy(h)  # type: ignore[operator]  # of torch's modules mypy does not know what is in them

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), [batch]."""
        return self.prior_energy(h) - self.log_visible(v, h)

    def energies(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h) of every v [batch, ...] with every h [n, m], decoded once: [batch, n]."""
        x, flat = self.decoder(h).flatten(1), v.flatten(1)
        if self.binary:
            given = flat @ x.T - softplus(x).sum(1)
        else:
            log_sigma = torch.as_tensor(self.sigma, dtype=v.dtype, device=v.device).log()
            centre = x.mean(0)  # about which less is lost when squares are expanded
            x, flat = x - centre, flat - centre
            square = flat.square().sum(1, keepdim=True) - 2 * flat @ x.T + x.square().sum(1)
            given = -0.5 * square * (-2 * log_sigma).exp() - flat.shape[1] * (log_sigma + 0.5 * LOG_2PI)
        return self.prior_energy(h) - given

    def hidden_free_energy(self, h: Tensor) -> Tensor:
        """-log of the integral of exp(-E(v, h)) over v, [batch]: the prior's energy."""
        return self.prior_energy(h)

    def known_log_z(self) -> float | None:
        """log Z where it takes no integral: 0 of a normalised prior."""
        return 0.0 if self.prior.normalised else None

    def visible_mean(self, h: Tensor) -> Tensor:
        """E[v|h], [batch, *visible_shape]."""
        x: Tensor = self.decoder(h)
        return x.sigmoid() if self.binary else x

    def sample_visible(self, h: Tensor, noise: Tensor) -> Tensor:
        """v ~ p(v|h), from standard normal noise, of binary v logistic, [batch, *visible_shape]."""
        x: Tensor = self.decoder(h)
        return (x + noise > 0).to(x.dtype) if self.binary else x + self.sigma * noise

    def reconstruct(self, v: Tensor, posterior: Any) -> Tensor:
        """E[v|h] [batch, *visible_shape] at the means of h given v by a posterior."""
        return self.visible_mean(posterior.mean(v))

    def codes(self, count: int, rng: Rng) -> Tensor:
        """h [count, m] of the prior."""
        return self.prior.draw(count, rng)  # type: ignore[operator]  # as above

    def decode(self, h: Tensor) -> Tensor:
        """E[v|h], [batch, *visible_shape]."""
        return self.visible_mean(h)

    def shown(self, h: Tensor, rng: Rng) -> Tensor:
        """What ``drawn`` says, of given h: [batch, *visible_shape]."""
        with torch.no_grad():
            if self.drawn == "means":
                return self.visible_mean(h)
            return self.sample_visible(h, visible_noise(self, (len(h),), rng))

    @property
    def how(self) -> str:
        """For people."""
        said: str = self.prior.how  # type: ignore[assignment]  # as above
        return f"{said} to means" if self.drawn == "means" else said

    def draw(self, count: int, rng: Rng) -> Tensor:
        """v [count, *visible_shape]: h of the prior, decoded."""
        return self.shown(self.codes(count, rng), rng)


def latent_mlp(
    visible: int,
    codes: int,
    prior: str = "normal",
    observation: str = "gaussian",
    sigma: float = 0.3,
    learn_sigma: bool = False,
    drawn: str = "samples",
    width: int = 128,
    layers: int = 2,
    prior_width: int | None = None,
    prior_layers: int | None = None,
    spectral_norm: bool = False,
    smoothing: str | None = None,
    sharpness: float | None = None,
) -> LatentModel:
    """A ``LatentModel`` of vectors: decoder and encoder are networks of ``layers`` hidden layers of ``width`` units.

    Args:
        visible: number D of visible units.
        codes: size m of h.
        prior: "normal"; "tilted", by a network of ``prior_layers`` (2) of ``prior_width`` (128) units; or "rbm", binary
            h, which reach the decoder by a ``smoothing`` (``bism.smoothing``; "spike_exponential") of some
            ``sharpness`` (5).
        observation, sigma, learn_sigma, drawn: of ``LatentModel``.
        spectral_norm: of the decoder (``Generator``).
    """
    of_prior = {
        "prior_width": prior_width, "prior_layers": prior_layers, "smoothing": smoothing, "sharpness": sharpness
    }  # fmt: skip
    return _assembled(
        (visible,), codes, prior, 128, of_prior, (width, layers), spectral_norm,
        observation=observation, sigma=sigma, learn_sigma=learn_sigma, drawn=drawn,
    )  # fmt: skip


def latent_conv(
    visible_shape: tuple[int, ...],
    codes: int,
    prior: str = "normal",
    observation: str = "gaussian",
    sigma: float = 0.3,
    learn_sigma: bool = False,
    drawn: str = "means",
    width: int = 32,
    prior_width: int | None = None,
    prior_layers: int | None = None,
    spectral_norm: bool = False,
    smoothing: str | None = None,
    sharpness: float | None = None,
) -> LatentModel:
    """A ``LatentModel`` of images [c, H, W]: a decoder of transposed convolutions with ``width`` channels in its finest
    map, and an encoder of convolutions from ``width`` channels on. Other arguments as of ``latent_mlp``, but for
    ``prior_width`` (200)."""
    if not isinstance(visible_shape, Sequence) or len(visible_shape) != 3:
        raise InputError(f"LatentModel: visible_shape must be (channels, height, width), got {shown(visible_shape)}")
    shape = tuple(visible_shape)
    of_prior = {
        "prior_width": prior_width, "prior_layers": prior_layers, "smoothing": smoothing, "sharpness": sharpness
    }  # fmt: skip
    return _assembled(
        shape, codes, prior, 200, of_prior, (width, 1), spectral_norm,
        observation=observation, sigma=sigma, learn_sigma=learn_sigma, drawn=drawn,
    )  # fmt: skip


def _assembled(
    visible_shape: tuple[int, ...],
    codes: int,
    prior: str,
    prior_width: int,
    of_prior: dict[str, Any],
    of_networks: tuple[int, int],
    spectral_norm: bool,
    **options: Any,
) -> LatentModel:
    for side in visible_shape:
        check_count("LatentModel: visible" + ("_shape" if len(visible_shape) > 1 else ""), side, 1)
    for name, size in zip(("codes", "width", "layers"), (codes, *of_networks), strict=True):
        check_count(f"LatentModel: {name}", size, 1)
    check_flag("LatentModel: spectral_norm", spectral_norm)
    own = _made_prior(prior, codes, prior_width, of_prior)
    width, layers = of_networks
    decoder: nn.Module
    decoder = Generator(visible_shape, codes, width, layers, options["observation"] == "bernoulli", spectral_norm)
    if prior == "rbm":
        decoder = OfFirst(decoder, own.codes)
    return LatentModel(decoder, own, width=width, layers=layers, **options)


def _made_prior(kind: str, codes: int, width: int, given: dict[str, Any]) -> Any:
    """A prior by its name; of the options ``given``, those of other kinds must be None, and None is a default."""
    if kind not in PRIORS:
        raise InputError(f"LatentModel: prior must be one of {', '.join(PRIORS)}, got {shown(kind)}")
    for owner, names in {"tilted": ("prior_width", "prior_layers"), "rbm": ("smoothing", "sharpness")}.items():
        for name in names:
            if given[name] is not None and kind != owner:
                raise InputError(f"LatentModel: {name} is of prior: {owner}, and the prior is {kind}")
    defaults: dict[str, Any] = {
        "prior_width": width,
        "prior_layers": 2,
        "smoothing": "spike_exponential",
        "sharpness": 5.0,
    }
    wide, deep, smoothing, sharpness = (defaults[name] if given[name] is None else given[name] for name in defaults)
    check_count("LatentModel: prior_width", wide, 1)
    check_count("LatentModel: prior_layers", deep, 1)
    if kind == "tilted":
        return Tilted(codes, wide, deep)
    if kind == "normal":
        return StandardNormal(codes)
    if smoothing not in SMOOTHINGS:
        raise InputError(f"LatentModel: smoothing must be one of {', '.join(SMOOTHINGS)}, got {shown(smoothing)}")
    check_count("LatentModel: codes of an rbm", codes, 2)
    return RBMPrior(codes, SMOOTHINGS[smoothing](sharpness))
