"""Score-matching objectives F(score, noise, v), eq. (7), as pure functions of a log-density.

Each takes ``log_density``, a function from v [batch, *shape] to [batch] (a normalising constant does not matter), a
batch and explicit noise, and returns one value per example, [batch]; the objective is their mean. All carry the
factor 1/2. Whether the log-density is a free energy (the baselines) or log p(v, h) - log q(h|v) (eq. 8) is not their
business.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vmap

LogDensity = Callable[[Tensor], Tensor]


def score(log_density: LogDensity, v: Tensor) -> Tensor:
    """Gradient of log_density in v, [batch, *shape]; examples do not interact."""
    return grad(lambda x: log_density(x).sum())(v)


def curvature(log_density: LogDensity, v: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The score [batch, *shape] and direction . Hessian . direction per example, [batch]."""

    def projection(x: Tensor) -> tuple[Tensor, Tensor]:
        s = score(log_density, x)
        return (s * direction).sum(), s

    product, s = grad(projection, has_aux=True)(v)
    return s, sum_per_example(product * direction)


def sum_per_example(x: Tensor) -> Tensor:
    """Sum over everything but the first axis."""
    return x.flatten(1).sum(1)


def perturb(v: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """v + sigma * noise; a sigma per example, [batch], scales its own example."""
    return v + _per_example(sigma, v) * noise


def _per_example(value: Tensor | float, like: Tensor) -> Tensor | float:
    return several(value, like) if isinstance(value, Tensor) and value.ndim == 1 else value


def several(values: Tensor, like: Tensor) -> Tensor:
    """[n] as [n, 1, ...], for what is [n, ...]."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def sm(log_density: LogDensity, v: Tensor) -> Tensor:
    """Score matching with the exact trace, eq. (2): 1/2 ||s||^2 + tr(Hessian). Costs D Hessian-vector products."""
    identity = torch.eye(v[0].numel(), dtype=v.dtype, device=v.device).reshape(-1, *v.shape[1:])

    def diagonal(direction: Tensor) -> Tensor:
        return curvature(log_density, v, direction.expand_as(v))[1]

    return 0.5 * sum_per_example(score(log_density, v).square()) + vmap(diagonal)(identity).sum(0)


def ssm(log_density: LogDensity, v: Tensor, direction: Tensor) -> Tensor:
    """Sliced score matching, eq. (3): 1/2 ||s||^2 + u . Hessian . u for random directions u with E[u u^T] = I."""
    s, second = curvature(log_density, v, direction)
    return 0.5 * sum_per_example(s.square()) + second


def dsm(log_density: LogDensity, v: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """Denoising score matching, eq. (4) with the factor 1/2: 1/2 ||s(v + sigma eps) + eps / sigma||^2.

    -eps / sigma is the score of N(v~ | v, sigma^2 I). Its optimum is the data smoothed by sigma.
    """
    s = score(log_density, perturb(v, noise, sigma))
    return 0.5 * sum_per_example((s + noise / sigma).square())


def mdsm(
    log_density: LogDensity,
    v: Tensor,
    noise: Tensor,
    sigma: Tensor,
    sigma0: Tensor | float,
    weighting: str = "inverse_variance",
) -> Tensor:
    """Multiscale denoising score matching, eq. (5) with the factor 1/2, with a noise level per example, sigma [batch].

    weighting "none" is eq. (5) as printed, 1/2 ||s(v~) + sigma eps / sigma0^2||^2; "inverse_variance" weights it by
    1/sigma^2 as the authors' code does, 1/2 ||s(v~) / sigma + eps / sigma0^2||^2.
    """
    residual = score(log_density, perturb(v, noise, sigma)) + _per_example(sigma, v) * noise / sigma0**2
    value = 0.5 * sum_per_example(residual.square())
    return value / sigma**2 if weighting == "inverse_variance" else value


def typical_distance(v: Tensor) -> Tensor:
    """The root mean squared distance between the n examples over sqrt(2 log n): a kernel exp(-d^2 / (2 b^2)) of this
    bandwidth b is 1/n at that distance, so that an example's neighbours weigh about as much as itself.

    As the median heuristic of Liu and Wang (2016), with a mean in the place of the median; 1 of examples that are all
    the same.
    """
    centred = (v - v.mean(0)).flatten(1)
    squared = 2 * centred.square().sum() / (len(v) - 1)
    unit = (squared / (2 * math.log(len(v)))).sqrt()
    return torch.where(unit > 0, unit, 1.0)


def ksd(log_density: LogDensity, v: Tensor, bandwidth: Tensor | float) -> Tensor:
    """Kernelised Stein discrepancy with the factor 1/2, of which 1/2 KSD^2 is the mean over examples.

    1/2 1/(n - 1) sum over the other examples v' of u(v, v') with the kernel k = exp(-||v - v'||^2 / (2 b^2)) and

        u = s(v).s(v') k + s(v).grad_v' k + s(v').grad_v k + trace grad_v grad_v' k.

    Unlike the others it needs no derivative of the score, and compares examples: at least 2. Unbiased, so that it may
    be negative (Liu et al. 2016; Chwialkowski et al. 2016).
    """
    s, centred = score(log_density, v).flatten(1), (v - v.mean(0)).flatten(1)  # small distances keep their digits
    with torch.autocast(v.device.type, enabled=False):  # differences of products, which bfloat16 would not leave right
        width = torch.as_tensor(bandwidth, dtype=v.dtype, device=v.device).square()
        squares, mixed = centred.square().sum(1), s @ centred.T  # s_i . v_j
        distance = (squares[:, None] + squares - 2 * centred @ centred.T).clamp(min=0)
        along = mixed.diagonal()
        difference = along[:, None] + along - mixed - mixed.T  # (s_i - s_j) . (v_i - v_j)
        bracket = s @ s.T + difference / width + v[0].numel() / width - distance / width.square()
        others = 1 - torch.eye(len(v), dtype=v.dtype, device=v.device)
        return 0.5 * (others * (-0.5 * distance / width).exp() * bracket).sum(1) / (len(v) - 1)
