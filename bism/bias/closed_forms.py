"""A GRBM with one linear layer as posterior in closed form: phi*(theta), the lower level, and how that curves."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from bism.models import GRBM
from bism.optimisers import Tree
from bism.posteriors import RelaxedBernoulli

_ITERATIONS = 200  # of the power iteration, at most


def exact_posterior(theta: Tree) -> Tree:
    """phi*(theta) = (W, c), the parameters at which ``RelaxedBernoulli``'s one linear layer is p(h|v) of a GRBM.

    Differentiable in theta, and the minimiser of eq. (9) for every q(v).

    Args:
        theta: a GRBM's parameters by name.
    """
    return {"network.1.weight": theta["W"].T, "network.1.bias": theta["c"]}


def bernoulli_kl(model: GRBM, posterior: RelaxedBernoulli, v: Tensor) -> Tensor:
    """KL(q(h|v) || p(h|v)) of eq. (10) in closed form, [batch].

    sum_j q_j (l_j - l*_j) + log (1 - q_j) - log (1 - p_j), q = sigmoid(l), p = sigmoid(l*). Swapping h for 1 - h only
    changes the signs of l and l*: each unit is taken on the side where q <= 1/2, where no digits are lost.
    """
    logits, best = posterior.logits(v), model.hidden_logits(v)
    side = torch.where(logits > 0, -1.0, 1.0).to(v.dtype)
    logits, best = side * logits, side * best
    return (logits.sigmoid() * (logits - best) + logsigmoid(-logits) - logsigmoid(-best)).sum(-1)


def logit_curvature(logits: Tensor, best: Tensor) -> Tensor:
    """Second derivative in l of KL(Bernoulli(sigmoid(l)) || Bernoulli(sigmoid(l*))): q (1 - q) (1 + (1 - 2q) (l - l*)).

    At l = l* it is the variance q (1 - q); far from it it may be negative: G is strongly convex near phi* alone.
    """
    q = logits.sigmoid()
    return q * (1 - q) * (1 + (1 - 2 * q) * (logits - best))


def largest_curvature(weights: Tensor, v: Tensor) -> Tensor:
    """The eigenvalue of largest size of the Hessian in phi of the mean of ``bernoulli_kl``, by power iteration.

    The Hessian has one block for each hidden unit, H_j = mean_n w_nj x_n x_n^T with x = (v, 1): all blocks are
    iterated at once, for the price of two products with the data.

    Args:
        weights: [n, m], from ``logit_curvature``.
        v: the points, [n, D].
    """
    x = _with_one(v)
    start = torch.randn(x.shape[1], weights.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors, largest = start.to(x), x.new_zeros(())
    for _ in range(_ITERATIONS):
        vectors = vectors / vectors.norm(dim=0).clamp_min(torch.finfo(x.dtype).tiny)
        vectors, before = x.T @ (weights * (x @ vectors)) / len(x), largest
        largest = vectors.norm(dim=0).max()
        if (largest - before).abs() <= 1e-5 * largest:
            break
    return largest


def spectrum(weights: Tensor, v: Tensor) -> Tensor:
    """All eigenvalues of that Hessian, ascending for each hidden unit, [m, D + 1]; m decompositions of D + 1 squared.

    Under gradient descent at rate alpha, Theorem 2's kappa is 1 - alpha * the smallest, for alpha <= 1 / the largest.
    """
    x = _with_one(v)
    return torch.stack([torch.linalg.eigvalsh((x.T * w) @ x / len(x)) for w in weights.T])


def _with_one(v: Tensor) -> Tensor:
    """(v, 1), [n, D + 1]: what the linear layer's weights and bias multiply."""
    return torch.cat([v.flatten(1), v.new_ones(len(v), 1)], dim=1)
