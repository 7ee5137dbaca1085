"""Mixtures of Gaussians with full covariances, fitted by expectation-maximisation (Dempster et al. 1977)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bism.errors import InputError
from bism.priors import LOG_2PI
from bism.rng import Rng

_RIDGE = 1e-6  # on covariances, in the data's mean variance: no component closes in on a point
_LLOYD, _STEPS, _SETTLED = 10, 500, 1e-6  # steps of k-means and of EM; nats a row that a step gains where it ends


class GaussianMixture(nn.Module):
    """p(h) = sum_k pi_k N(h; mu_k, S_k), a prior of real h.

    Args:
        log_weights: log pi, [K].
        means: mu, [K, m].
        scale_tril: lower triangular L_k with L_k L_k^T = S_k, [K, m, m].
    """

    normalised: ClassVar[bool] = True
    standard: ClassVar[bool] = False
    binary: ClassVar[bool] = False
    how: ClassVar[str] = "independent draws of a Gaussian mixture of the codes, decoded"

    log_weights: Tensor
    means: Tensor
    scale_tril: Tensor

    def __init__(self, log_weights: Tensor, means: Tensor, scale_tril: Tensor) -> None:
        super().__init__()
        self.codes = means.shape[1]
        for name, tensor in (("log_weights", log_weights), ("means", means), ("scale_tril", scale_tril)):
            self.register_buffer(name, tensor)

    def log_joint(self, h: Tensor) -> Tensor:
        """log pi_k N(h; mu_k, S_k), [batch, K]."""
        centred = (h.unsqueeze(-2) - self.means).movedim(0, -1)  # [K, m, batch]
        white = torch.linalg.solve_triangular(self.scale_tril, centred, upper=False)
        log_volume = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) + 0.5 * self.codes * LOG_2PI
        return (self.log_weights - log_volume - 0.5 * white.square().sum(1).T).to(h.dtype)

    def energy(self, h: Tensor) -> Tensor:
        """-log p(h), [batch]."""
        return -self.log_joint(h).logsumexp(-1)

    def draw(self, count: int, rng: Rng) -> Tensor:
        """h [count, m]."""
        below = self.log_weights.exp().cumsum(0)[:-1]
        which = (rng.uniform((count,))[:, None] > below).sum(-1)
        return self.means[which] + (self.scale_tril[which] @ rng.normal((count, self.codes))[..., None])[..., 0]


def maximised(x: Tensor, shares: Tensor, ridge: Tensor | float) -> GaussianMixture:
    """The maximisation step.

    Args:
        x: [n, m]; shares: p(k|x), [n, K].
        ridge: added to the variances.
    """
    counts = shares.sum(0) + 10 * torch.finfo(x.dtype).eps  # of a component that has lost all rows
    means = shares.T @ x / counts[:, None]
    centred = x - means[:, None]  # [K, n, m]
    covariances = (centred * shares.T[..., None]).mT @ centred / counts[:, None, None]
    covariances = covariances + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return GaussianMixture((counts / counts.sum()).log(), means, torch.linalg.cholesky(covariances))


def fitted_mixture(x: Tensor, components: int, rng: Rng) -> GaussianMixture:
    """A mixture that fits rows x [n, m], in float64: by EM from the clusters of k-means++ (Arthur and Vassilvitskii
    2007), until a step gains less than 1e-6 nats a row. A local optimum, as ever of mixtures.

    Not numbers, where x holds some that are none.

    Raises:
        InputError: fewer rows than components.
    """
    x = x.detach().double()
    n, m = x.shape
    if n < components:
        raise InputError(f"a mixture of {components} components needs as many examples, got {n}")
    if not x.isfinite().all():
        nan = x.new_full((components, m, m), torch.nan)
        return GaussianMixture(nan[:, 0, 0], nan[:, 0], nan)
    ridge = (_RIDGE * x.var(0, correction=0).mean()).clamp(min=torch.finfo(torch.float32).tiny)
    mixture, best = maximised(x, _clusters(x, components, rng), ridge), -torch.inf
    for _ in range(_STEPS):
        joint = mixture.log_joint(x)
        found = float(joint.logsumexp(1).mean())
        if found - best < _SETTLED:
            break
        mixture, best = maximised(x, joint.softmax(1), ridge), found
    return mixture


def _clusters(x: Tensor, components: int, rng: Rng) -> Tensor:
    """Of each row the cluster that it is in, one-hot [n, K]."""
    centres = x[rng.integers(len(x), (1,))]
    while len(centres) < components:
        away = torch.cdist(x, centres).amin(1).square() + torch.finfo(x.dtype).tiny
        reached = away.cumsum(0)
        at = torch.searchsorted(reached, rng.uniform((1,)).to(x) * reached[-1]).clamp(max=len(x) - 1)
        centres = torch.cat([centres, x[at]])
    for _ in range(_LLOYD):
        nearest = nn.functional.one_hot(torch.cdist(x, centres).argmin(1), components).to(x)
        counts = nearest.sum(0)[:, None]
        centres = torch.where(counts > 0, nearest.T @ x / counts.clamp(min=1), centres)
    return nearest
