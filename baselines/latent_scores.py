"""The score of a latent-variable model and its derivative in theta, from samples h_i ~ q(h|v) (Bao et al. 2021).

Both are expectations under the exact posterior p(h|v), with s(v) = grad_v log p~(v):

    s(v)         = E[grad_v log p~(v, h)]
    ds(v)/dtheta = E[d^2 log p~(v, h) / dv dtheta] + Cov[grad_v log p~(v, h), grad_theta log p~(v, h)].

The second is given as a *surrogate*: a function of theta whose gradient is z . ds(v)/dtheta for a fixed z, and whose
value means nothing. Where q is the exact posterior, its expectation is exact.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.func import grad, vmap

from bism.functional import frozen
from bism.objectives import LogDensity, score, sum_per_example

LogJoint = Callable[[Tensor, Tensor], Tensor]  # (v [batch, *shape], h [batch, m]) -> [batch]

COVARIANCES = ("unbiased", "biased", "none")


def mean_score(log_joint: LogJoint, v: Tensor, h: Tensor) -> Tensor:
    """1/L sum_i grad_v log p~(v, h_i), [batch, *shape]: the variational estimate of the score (VaES).

    With log p~(v, h) - log q(h|v) for ``log_joint`` it has a control variate, since E_q grad_v log q(h|v) = 0: at the
    exact posterior it is then the score itself, whatever the h_i.

    Args:
        h: [L, batch, m].
    """
    return score(lambda x: _particles(log_joint, x, h).mean(0), v)


def residual(objective: Callable[[LogDensity], Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
    """z = dF/ds, [batch, *shape], and F per example, [batch], at given scores; constants of the gradient.

    Args:
        objective: F of a log-density, of which it uses the score alone; here that of s.v.
        s: [batch, *shape].
    """

    def total(at: Tensor) -> tuple[Tensor, Tensor]:
        values = objective(lambda x: sum_per_example(at * x))
        return values.sum(), values

    z, values = grad(total, has_aux=True)(s.detach())
    return z.detach(), values.detach()


def second_surrogate(log_joint: LogJoint, v: Tensor, h: Tensor, z: Tensor) -> Tensor:
    """The surrogate of z . 1/L sum_i d^2 log p~(v, h_i) / dv dtheta, [batch].

    Args:
        h: [L, batch, m].
        z: [batch, *shape], fixed.
    """
    return sum_per_example(z * mean_score(log_joint, v, h))


def covariance_surrogate(
    log_joint: LogJoint, fixed: LogJoint, v: Tensor, h: Tensor, z: Tensor, biased: bool = False
) -> Tensor:
    """The surrogate of z . C, C the sample covariance of grad_v log p~(v, h_i) and grad_theta log p~(v, h_i), [batch].

    It is 1/(L - 1) sum_i w_i log p~(v, h_i) with fixed weights w_i = z . (g_i - mean g), g_i = grad_v log p~(v, h_i).
    The weights sum to zero, so that the other factor need not be centred, and no two energies are multiplied, of whose
    product float32 would keep no digit of a covariance. What rounding leaves of that sum is taken from them: it would
    multiply what all grad_theta log p~(v, h_i) have in common.

    Args:
        fixed: the same function as ``log_joint``, with a theta that no gradient reaches.
        h: [L, batch, m], L >= 2.
        z: [batch, *shape], fixed.
        biased: divide by L in place of L - 1.
    """
    g = vmap(lambda each: score(lambda x: fixed(x, each), v))(h)
    along = vmap(lambda centred: sum_per_example(z * centred))(g - g.mean(0))
    weights = (along - along.mean(0)).detach()
    return (weights * _particles(log_joint, v, h)).sum(0) / (len(h) if biased else len(h) - 1)


def corrected(
    model: Any, v: Tensor, h: Tensor, noise: Tensor, step_size: Tensor | float, sigma: Tensor | float
) -> Tensor:
    """Samples of h after some Langevin steps on the posterior, h <- h - a/2 grad_h E(v, h) + sigma xi.

    Args:
        model: a bound model.
        h: [L, batch, m], real.
        noise: xi, [steps, L, batch, m], standard normal.
        step_size: a; with sigma = sqrt(a) the steps sample p(h|v) as a falls to 0.
    """
    energy = frozen(model).energy
    slope = grad(lambda at: _particles(energy, v, at).sum())
    for xi in noise:
        h = h - 0.5 * step_size * slope(h) + sigma * xi
    return h.detach()


def _particles(function: LogJoint, v: Tensor, h: Tensor) -> Tensor:
    """A function at (v, h_i) for every i, [L, batch]; what depends on v alone is computed once."""
    found: Tensor = vmap(lambda each: function(v, each))(h)
    return found
