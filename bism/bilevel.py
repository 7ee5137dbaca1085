"""The two levels of BiSM: the lower level's divergences, eq. (10)-(11), and Algorithm 1's gradient, eq. (12)-(14)."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from bism.optimisers import Tree, Update
from bism.protocols import EnergyModel, Posterior

LowerLevel = Callable[[Tree, Tree, Any], Tensor]  # (theta, phi, noise) -> scalar


def kl_divergence(
    model: EnergyModel, posterior: Posterior, v: Tensor, noise: Tensor, temperature: Tensor | float
) -> Tensor:
    """KL(q(h|v) || p(h|v)) up to log p(v), eq. (10), from k particles: per example, [batch].

    -log 1/k sum_i p~(v, h_i) / q(h_i|v), h_i ~ q(.|v): the importance-weighted bound of Burda et al. 2015, of which
    k = 1 is eq. (10).

    Args:
        noise: [k, batch, m].
    """
    log_weights = [log_ratio(model, posterior, v, posterior.sample(v, particle, temperature)) for particle in noise]
    if len(log_weights) == 1:
        return -log_weights[0]
    return math.log(len(log_weights)) - torch.stack(log_weights).logsumexp(0)


def posterior_fisher_divergence(
    model: EnergyModel, posterior: Posterior, v: Tensor, noise: Tensor, temperature: Tensor | float
) -> Tensor:
    """Fisher divergence of the posteriors, eq. (11), averaged over k particles: per example, [batch].

    1/2 E_q ||grad_h log q(h|v) - grad_h log p~(v, h)||^2, for continuous h.

    Args:
        noise: [k, batch, m].
    """
    values = []
    for particle in noise:
        h = posterior.sample(v, particle, temperature)
        difference = grad(lambda x: log_ratio(model, posterior, v, x).sum())(h)
        values.append(0.5 * difference.square().sum(-1))
    return torch.stack(values).mean(0)


DIVERGENCES = {"kl": kl_divergence, "fisher": posterior_fisher_divergence}


def log_ratio(model: EnergyModel, posterior: Posterior, v: Tensor, h: Tensor) -> Tensor:
    """log p~(v, h) - log q(h|v), [batch]: the log-density that eq. (8) puts in place of log p(v)."""
    return -model.energy(v, h) - posterior.log_prob(h, v)


def descend(
    lower: Callable[[Tree, Any], Tensor],
    phi: Tree,
    optimiser: Tree,
    noises: Iterable[Any],
    update: Update,
) -> tuple[Tree, Tree]:
    """One step on ``lower(phi, noise)`` for each element of ``noises``, eq. (12).

    A pure function: called inside a function of theta it is the unrolled recursion (13), differentiable through the
    optimiser's running state.
    """
    for noise in noises:
        phi, optimiser = update(grad(lower)(phi, noise), phi, optimiser)
    return phi, optimiser


def unrolled(
    upper: Callable[[Tree, Tree], Any],
    lower: LowerLevel,
    phi: Tree,
    optimiser: Tree,
    noises: Iterable[Any],
    update: Update,
) -> Callable[[Tree], Any]:
    """The function theta -> upper(theta, phi^N(theta)), of which eq. (14) is the gradient, N = number of ``noises``.

    phi^N follows from phi^0 = ``phi`` by N steps of the lower level at theta, eq. (13); phi^0 and the optimiser's
    state are constants. With N = 0 the second term of (14) drops out.
    """

    def surrogate(theta: Tree) -> Any:
        return upper(theta, descend(partial(lower, theta), phi, optimiser, noises, update)[0])

    return surrogate
