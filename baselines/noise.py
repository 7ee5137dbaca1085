"""Noise distributions that noise-contrastive methods tell the data from."""

import math
import warnings

import torch
from torch import Tensor

from bism.errors import InputError

NOISES = ("standard_normal", "gaussian")  # N(0, I) as in the paper; a Gaussian with the data's mean and covariance
_RIDGE, _GROWTH, _LARGEST_RIDGE = 1e-6, 10.0, 1.0  # in the variance of a visible unit


def fit_noise(kind: str, data: Tensor) -> dict[str, Tensor]:
    """The distribution's parameters: mean [D], lower Cholesky factor of the covariance [D, D], its inverse [D, D], and
    the ridge [D].

    "gaussian" is N(mean, S + diag(ridge)) with the data's mean and covariance S. The ridge of each visible unit is a
    millionth of that unit's variance, of a constant one's of the median variance: units may be as different as
    kilometres and millimetres. So directions in which the data do not vary (constant visible units, fewer examples than
    dimensions) do not make it singular; where that is not enough to factorise it, the ridge grows tenfold until it is.
    All of it is computed in float64: in float32 the rounding of S alone is larger than the ridge.

    Warns where it is the ridge that the noise consists of in some directions.

    Raises:
        InputError: "gaussian", and the data are constant, or a single row.
    """
    flat = data.flatten(1)
    if kind == "standard_normal":
        identity = torch.eye(flat.shape[1], dtype=data.dtype, device=data.device)
        return {"mean": torch.zeros_like(flat[0]), "cholesky": identity, "whitening": identity.clone()}
    double = flat.double()
    variation = double - double.mean(0)
    variances = variation.square().sum(0) / max(len(double) - 1, 1)
    varying = (flat != flat[0]).any(0) & (variances > 0)  # of a constant unit the mean's rounding may be left
    if not bool(varying.any()) or not bool(variances.isfinite().all()):
        raise InputError(
            f"noise_distribution='gaussian' cannot be fitted: the {len(flat)} rows of the data are all the same, or "
            f"too large; 'standard_normal' needs no fit"
        )
    scale = torch.where(varying, variances, variances[varying].median()).sqrt()
    standardised = variation / scale
    cholesky, ridge = _factorised(standardised.T @ standardised / max(len(double) - 1, 1))
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


def sample_noise(distribution: dict[str, Tensor], normal: Tensor) -> Tensor:
    """Noise [n, *visible_shape] from standard normal numbers of that shape."""
    flat = distribution["mean"] + normal.flatten(1) @ distribution["cholesky"].T
    return flat.reshape(normal.shape)


def noise_log_prob(distribution: dict[str, Tensor], v: Tensor) -> Tensor:
    """Normalised log-density, [n]."""
    whitening = distribution["whitening"]
    standardised = (v.flatten(1) - distribution["mean"]) @ whitening.T
    log_det = whitening.diagonal().log().sum()
    return -0.5 * standardised.square().sum(1) + log_det - 0.5 * len(whitening) * math.log(2 * math.pi)
