"""Noise distributions that noise-contrastive methods tell the data from."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from bism.errors import InputError
from bism.rng import Rng
from bism.variables import has_binary_v, log_odds

# N(0, I) as in the paper; a Gaussian with the data's mean and covariance; for binary v independent units of its means
NOISES = ("standard_normal", "gaussian", "bernoulli")
NOISES_HELP = "N(0, I), or a Gaussian fitted to the data; for binary v independent units with the data's means"
_RIDGE, _GROWTH, _LARGEST_RIDGE = 1e-6, 10.0, 1.0  # in the variance of a visible unit


def fit_noise(kind: str, data: Tensor, data_noise: float = 0.0) -> dict[str, Tensor]:
    """The distribution's parameters: mean [D], lower Cholesky factor of the covariance [D, D], its inverse [D, D], and
    the ridge [D]; of "bernoulli" the logits [D], of means that are smoothed by Laplace's rule.

    "gaussian" is N(mean, S + data_noise^2 I + diag(ridge)) with the data's mean and covariance S, and the standard
    deviation of the noise that training adds to them: one fitted without that would be told from them at once, and
    nothing would be learnt. The ridge of each visible unit is a millionth of that unit's variance, of a constant one's
    of the median variance: units may be as different as kilometres and millimetres. So directions in which the data do
    not vary (constant visible units, fewer examples than dimensions) do not make it singular; where that is not enough
    to factorise it, the ridge grows tenfold until it is. All of it is computed in float64: in float32 the rounding of S
    alone is larger than the ridge.

    Warns where it is the ridge that the noise consists of in some directions.

    Raises:
        InputError: "gaussian", and the data are constant, or a single row, and training adds no noise to them.
    """
    flat = data.flatten(1)
    if kind == "bernoulli":
        return {"logits": log_odds(flat)}
    if kind == "standard_normal":
        identity = torch.eye(flat.shape[1], dtype=data.dtype, device=data.device)
        return {"mean": torch.zeros_like(flat[0]), "cholesky": identity, "whitening": identity.clone()}
    double = flat.double()
    variation = double - double.mean(0)
    added = float(data_noise) ** 2
    variances = variation.square().sum(0) / max(len(double) - 1, 1) + added
    varying = ((flat != flat[0]).any(0) | (added > 0)) & (variances > 0)  # a constant unit's mean may be rounded
    if not bool(varying.any()) or not bool(variances.isfinite().all()):
        raise InputError(
            f"noise_distribution='gaussian' cannot be fitted: the {len(flat)} rows of the data are all the same, or "
            f"too large; 'standard_normal' needs no fit"
        )
    scale = torch.where(varying, variances, variances[varying].median()).sqrt()
    standardised = variation / scale
    correlation = standardised.T @ standardised / max(len(double) - 1, 1) + (added / scale.square()).diag()
    cholesky, ridge = _factorised(correlation)
    whitening = torch.linalg.solve_triangular(cholesky, torch.eye(len(cholesky)).to(cholesky), upper=False)
    _warn_of_ridge(whitening, ridge)
    found = {
        "mean": double.mean(0),
        "cholesky": scale[:, None] * cholesky,
        "whitening": whitening / scale,
        "ridge": ridge * scale.square(),
    }
    return {name: x.to(data.dtype).contiguous() for name, x in found.items()}


def _factorised(correlation: Tensor) -> tuple[Tensor, float]:
    """The Cholesky factor of correlation + ridge I, and the least ridge of the row that has one."""
    ridge = _RIDGE
    while True:
        shifted = correlation + ridge * torch.eye(len(correlation)).to(correlation)
        cholesky, failed = torch.linalg.cholesky_ex(shifted)
        if not int(failed):
            return cholesky, ridge
        if ridge > _LARGEST_RIDGE:
            raise InputError(
                "noise_distribution='gaussian' cannot be fitted: the data's covariance cannot be factorised with a "
                f"ridge of {ridge:.2g} of each unit's variance either; 'standard_normal' needs no fit"
            )
        ridge *= _GROWTH


def _warn_of_ridge(whitening: Tensor, ridge: float) -> None:
    """Says where there is little beside the ridge: by the least variance in any direction, from power iteration."""
    at = whitening.sum(0)
    for _ in range(10):
        at = whitening.T @ (whitening @ (at / at.norm()))
    if 1 / float(at.norm()) < 2 * ridge:
        warnings.warn(
            f"the data do not vary in every direction: where they do not, the Gaussian noise fitted to them has a "
            f"variance of its own ({ridge:.0e} of each visible unit's)",
            stacklevel=4,
        )


def unsuited_noise(kind: str, model: Any) -> str | None:
    """Why a model cannot be told from such noise, or None."""
    if has_binary_v(model) == (kind == "bernoulli"):
        return None
    of, better = ("binary", "'bernoulli'") if has_binary_v(model) else ("real", "'standard_normal' or 'gaussian'")
    return f"v of {type(model).__name__} is {of}, and noise_distribution={kind!r} is not: it must be {better}"


def draw_noise(kind: str, shape: tuple[int, ...], rng: Rng) -> Tensor:
    """The random numbers that ``sample_noise`` makes noise of: standard normal, or logistic for "bernoulli"."""
    return rng.logistic(shape) if kind == "bernoulli" else rng.normal(shape)


def sample_noise(distribution: dict[str, Tensor], drawn: Tensor) -> Tensor:
    """Noise [n, *visible_shape] from the numbers of ``draw_noise``, of that shape."""
    if "logits" in distribution:
        return (distribution["logits"] + drawn.flatten(1) > 0).to(drawn.dtype).reshape(drawn.shape)
    flat = distribution["mean"] + drawn.flatten(1) @ distribution["cholesky"].T
    return flat.reshape(drawn.shape)


def noise_log_prob(distribution: dict[str, Tensor], v: Tensor) -> Tensor:
    """Normalised log-density, or log-probability of binary v, [n]."""
    if "logits" in distribution:
        return v.flatten(1) @ distribution["logits"] - softplus(distribution["logits"]).sum()
    whitening = distribution["whitening"]
    standardised = (v.flatten(1) - distribution["mean"]) @ whitening.T
    log_det = whitening.diagonal().log().sum()
    return -0.5 * standardised.square().sum(1) + log_det - 0.5 * len(whitening) * math.log(2 * math.pi)
