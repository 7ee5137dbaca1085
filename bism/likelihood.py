"""What a trained model is judged by: log-likelihood, and the Fisher divergence."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from bism.annealing import ais, annealed, has_path
from bism.bilevel import log_ratio
from bism.enumeration import free_energy, in_double, log_weights, not_enumerable
from bism.errors import InputError
from bism.latent_quadrature import log_marginals, log_z_of_codes, not_summable
from bism.objectives import sm, sum_per_example
from bism.quadrature import TOLERANCE, Quadrature, not_integrable, quadrature
from bism.rng import Rng, generator
from bism.variables import Bernoulli, Gaussian, has_binary_v

METHODS = ("auto", "enumerate", "quadrature", "ais")
_ROUGH, _UNKNOWN = 0.01, 1.0  # nats, above which an error of quadrature is worth a word; leaves nothing known
NO_SCORE = "its v is binary, and the score is a derivative in v"


class NotIntegrable(InputError):
    """exp(-E) of a model cannot be integrated: what it is of must be another model, or otherwise trained."""


def log_partition(
    model: Any,
    method: str = "auto",
    *,
    data: Tensor | None = None,
    chains: int = 1000,
    steps: int = 1000,
    seed: int = 0,
) -> float:
    """log Z of a model.

    Args:
        method: "enumerate" is exact, in float64 (``bism.enumeration``). "quadrature" is for one or two real visible
            units, or one or two real h over which v can be integrated out, in float64, and up to 1e-4 nats
            (``bism.quadrature``, which also gives the error); it warns where that is above 0.01, and gives NaN where it
            is above 1. "ais" estimates it from below (``bism.annealing.ais``, which also gives the error). "auto" takes
            the first of them that can be had.
        data: the training data [n, *visible_shape], which AIS starts from and cannot do without, and which quadrature
            takes its origin and units from, where they are given.
        chains, steps, seed: for AIS.

    Raises:
        InputError: the method cannot be had for this model.
        NotIntegrable: log Z is infinite, or the model's mass farther away than can be told from it.
    """
    if method not in METHODS:
        raise InputError(f"log_partition: method must be one of {', '.join(METHODS)}, got {method!r}")
    if method == "auto" and hasattr(model, "known_log_z") and (known := model.known_log_z()) is not None:
        return float(known)
    reason, no_quadrature = not_enumerable(model), _no_quadrature(model)
    if method in ("auto", "quadrature") and not_summable(model) is None:
        return _told(model, log_z_of_codes(model))
    if method == "quadrature" or (method == "auto" and reason and not no_quadrature):
        if no_quadrature:
            raise InputError(f"log Z of {type(model).__name__} cannot be had by quadrature: {no_quadrature}")
        return _told(model, quadrature(model, data=data))
    if method == "ais" or (method == "auto" and reason and has_path(model)):
        if data is None:
            why = f" cannot be enumerated ({reason}) and" if reason else ""
            raise InputError(
                f"log Z of {type(model).__name__}{why} is estimated by AIS, which needs the training data: data=..."
            )
        return ais(*annealed(model, data), chains=chains, steps=steps, seed=seed).log_z
    if reason:
        other = f", nor had by quadrature: {no_quadrature}" if method == "auto" else ""
        raise InputError(f"log Z of {type(model).__name__} cannot be enumerated: {reason}{other}")
    return float(log_weights(model).logsumexp(0))


def log_partition_if_any(model: Any, *, data: Tensor | None = None) -> float:
    """``log_partition`` of a model as training has left it: NaN, with a warning, where that has lost the integral, as a
    divergence without a number that is not finite does; so that what is measured beside it is not lost with it."""
    try:
        return log_partition(model, data=data)
    except NotIntegrable as error:
        warnings.warn(f"{error}; NaN is given in its place", stacklevel=2)
        return math.nan


def not_exact(model: Any) -> str | None:
    """Why log p(v) can be had neither by enumeration nor by quadrature, over v or h, or None."""
    if not_summable(model) is None:
        return None
    not_enumerated, no_quadrature = not_enumerable(model), _no_quadrature(model)
    return f"{not_enumerated}; by quadrature: {no_quadrature}" if not_enumerated and no_quadrature else None


def _no_quadrature(model: Any) -> str | None:
    """Why there is no quadrature over v, and of a model with a decoder none over h."""
    reason = not_integrable(model)
    if reason and isinstance(model.latent, Gaussian) and hasattr(model, "hidden_free_energy"):
        reason = f"{reason}, and {not_summable(model)}; bism.latent_likelihood, the probe latent_likelihood, has bounds"
    return reason


def _told(model: Any, found: Quadrature) -> float:
    """log Z by quadrature, with a warning where it is rough, and NaN where it is not known."""
    if math.isinf(found.log_z):
        raise NotIntegrable(
            f"log Z of {type(model).__name__}: its energy does not rise in all directions, as far out as is looked "
            f"(10^12 times the data's spread), so that exp(-E) cannot be integrated"
        )
    if found.error > _ROUGH and not math.isnan(found.log_z):
        known = found.error <= _UNKNOWN
        error = f"may be off by {found.error:.2g} nats" if known else "is not known, and NaN is given in its place"
        warnings.warn(
            f"log Z of {type(model).__name__} by quadrature {error}: its density has features too narrow for their "
            f"distance, which {found.points:,} points do not resolve",
            stacklevel=3,
        )
        return found.log_z if known else math.nan
    return found.log_z


def log_likelihood(model: Any, v: Tensor, log_z: float | None = None, *, tolerance: float = TOLERANCE) -> Tensor:
    """log p(v) = -F(v) - log Z in nats, [batch], in float64; log Z by ``log_partition`` unless given.

    F(v) is the model's own, or a sum over few binary h, or over lattices of one or two real h (``latent_quadrature``;
    NaN where that is off by more than a nat), known to within ``tolerance`` nats where lattices get there.
    """
    constant = log_partition(model) if log_z is None else log_z
    if not_summable(model) is None:
        found = log_marginals(model, v, tolerance=tolerance)
        _warn_if_rough(model, found.errors[~found.values.isnan()], max(_ROUGH, tolerance))
        known = torch.where(found.errors <= _UNKNOWN, found.values, math.nan)
        return (known - constant).to(v.device)
    with torch.no_grad():
        return -free_energy(in_double(model), v.double()) - constant


def _warn_if_rough(model: Any, errors: Tensor, rough: float) -> None:
    worst, unknown = float(errors.max()) if len(errors) else 0.0, int((errors > _UNKNOWN).sum())
    if worst > rough:
        error = (
            f"is not known at {unknown:,} of {len(errors):,} examples, and NaN is given in its place"
            if unknown
            else f"may be off by {worst:.2g} nats at an example"
        )
        why = "p(h|v) is too narrow, or too far from the origin"
        warnings.warn(f"log p(v) of {type(model).__name__} by sums over h {error}: its {why}", stacklevel=3)


def log_density_bound(model: Any, posterior: Any, v: Tensor, *, particles: int = 10, seed: int = 0) -> Tensor:
    """A lower bound of log p~(v) = log integral exp(-E(v, h)) dh (a sum for binary h), up to its error by Monte Carlo.

    The mean of log p~(v, h) - log q(h|v) over h ~ q(h|v) (Jensen's inequality), [batch]; it is below log p~(v) by
    KL(q(h|v) || p(h|v)), and equals it for every h where q is the true posterior.

    Args:
        posterior: has sample(v, noise, temperature) and log_prob(h, v), and sample_hard(v, noise) for binary h.
        particles: samples of h for each v.
    """
    rng = Rng(generator(seed, 0, "log density bound", v.device), v.dtype)
    return log_ratios(model, posterior, v, particles, rng).mean(0)


def importance_bound(model: Any, posterior: Any, v: Tensor, *, particles: int = 100, seed: int = 0) -> Tensor:
    """An estimate of log p~(v) by importance sampling: log of the mean of p~(v, h) / q(h|v) over h ~ q(h|v), [batch].

    The mean is unbiased for p~(v), so that its logarithm is below log p~(v) on average; more particles bring it nearer
    (Burda et al. 2016). Arguments as of ``log_density_bound``, which it is with one particle.
    """
    rng = Rng(generator(seed, 0, "importance bound", v.device), v.dtype)
    return log_ratios(model, posterior, v, particles, rng).logsumexp(0) - math.log(particles)


def log_ratios(model: Any, posterior: Any, v: Tensor, particles: int, rng: Rng) -> Tensor:
    """log p~(v, h) - log q(h|v) of so many h ~ q(h|v), [particles, batch]."""
    found, binary = [], isinstance(model.latent, Bernoulli)  # a relaxed h is no sample of what log_prob is of
    with torch.no_grad():
        for _ in range(particles):
            noise = model.latent.noise(rng, (len(v),))
            h = posterior.sample_hard(v, noise) if binary else posterior.sample(v, noise, 1.0)
            found.append(log_ratio(model, posterior, v, h))
    return torch.stack(found)


def fisher_divergence(model: Any, v: Tensor) -> Tensor:
    """The Fisher divergence up to a constant of the data, eq. (2) with its 1/2: 1/2 ||s||^2 + tr(Hessian), [batch].

    By the model's closed form where it has one, otherwise with the exact trace.

    Raises:
        InputError: v is binary, and there is no score; or the model has no free energy.
    """
    if has_binary_v(model):
        raise InputError(f"the Fisher divergence of {type(model).__name__} is undefined: {NO_SCORE}")
    if hasattr(model, "score_and_laplacian"):
        with torch.no_grad():
            score, laplacian = model.score_and_laplacian(v)
        return 0.5 * sum_per_example(score.square()) + laplacian
    if not hasattr(model, "free_energy"):
        raise InputError(f"the Fisher divergence needs free_energy(v), which {type(model).__name__} lacks")
    return sm(lambda x: -model.free_energy(x), v).detach()


def grid_density(model: Any, *axes: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """The normalised density of a model of one or two visible units on a grid, in float64.

    Args:
        axes: of each visible unit the values [n] or [n1] and [n2].
        tolerance: of ``log_likelihood``.

    Returns:
        p [n], or p [n2, n1] where p[i, j] is at (v_1, v_2) = (axes[0][j], axes[1][i]), as an image with its origin at
        the lower left shows it; NaN where there is no log Z (``log_partition_if_any``).

    Raises:
        InputError: v is binary.
    """
    if has_binary_v(model):
        raise InputError(f"v of {type(model).__name__} is binary: there is no density on a grid")
    grid = torch.meshgrid(*(axis.double() for axis in axes), indexing="xy")
    v = torch.stack([values.flatten() for values in grid], dim=1)
    return (
        log_likelihood(model, v, log_partition_if_any(model, data=v), tolerance=tolerance).exp().reshape(grid[0].shape)
    )
