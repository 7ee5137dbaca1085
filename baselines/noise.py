"""Noise distributions that noise-contrastive methods tell the data from."""

import math

import torch
from torch import Tensor

NOISES = ("standard_normal", "gaussian")  # N(0, I) as in the paper; a Gaussian with the data's mean and covariance


def fit_noise(kind: str, data: Tensor) -> dict[str, Tensor]:
    """The distribution's parameters: mean [D], lower Cholesky factor of the covariance [D, D] and its inverse [D, D].

    "gaussian" is fitted to the data, with a millionth of the mean variance added to the diagonal, so that constant
    visible units do not make it singular.
    """
    flat = data.flatten(1)
    identity = torch.eye(flat.shape[1], dtype=data.dtype, device=data.device)
    mean, cholesky = torch.zeros_like(flat[0]), identity
    if kind == "gaussian":
        covariance = flat.T.cov().reshape(identity.shape)
        ridge = 1e-6 * covariance.diagonal().mean()
        mean, cholesky = flat.mean(0), torch.linalg.cholesky(covariance + ridge * identity)
    whitening = torch.linalg.solve_triangular(cholesky, identity, upper=False)
    return {"mean": mean, "cholesky": cholesky, "whitening": whitening}


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
