"""The gradient of the upper level by the implicit function theorem, in place of eq. (14)'s unrolled steps.

Where grad_phi G(theta, phi*(theta)) = 0, the derivative of phi* is -H^-1 d^2 G / dphi dtheta, H = d^2 G / dphi^2, so

    dJ(theta, phi*(theta)) / dtheta = dJ/dtheta - u . d^2 G / dphi dtheta,    H u = dJ/dphi.

It is evaluated at the phi that there is. Both ways to u need products with H alone, and memory for one of them whatever
their number; neither moves phi.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import grad
from torch.utils._pytree import tree_leaves, tree_map

from bism.bilevel import LowerLevel
from bism.optimisers import Tree

Product = Callable[[Tree], Tree]
Upper = Callable[[Tree, Tree], Tensor]


def implicit(
    upper: Upper, lower: LowerLevel, phi: Tree, noises: Sequence[Any], damping: Tensor | float
) -> Callable[[Tree], Tensor]:
    """The function theta -> upper(theta, phi) whose gradient is the above, by conjugate gradients: (H + damping I) u =
    dJ/dphi in as many iterations as there are ``noises``.

    G is the mean of ``lower`` over the ``noises``: of one alone, H is mostly not positive definite where h is sampled.
    With none the second term drops out, as with N = 0 unrolled steps.
    """

    def mean_lower(theta: Tree, at: Tree) -> Tensor:
        return torch.stack([lower(theta, at, noise) for noise in noises]).mean()

    def surrogate(theta: Tree) -> Tensor:
        value = upper(theta, phi)
        if not noises:
            return value
        fixed = tree_map(torch.detach, theta)
        product = hessian_product(lambda at: mean_lower(fixed, at), phi)

        def damped(x: Tree) -> Tree:
            return tree_map(lambda h, of: h + damping * of, product(x), x)

        u = conjugate_gradients(damped, grad(upper, argnums=1)(fixed, phi), len(noises))
        return _with_gradient_of(value, -dot(u, grad(mean_lower, argnums=1)(theta, phi)))

    return surrogate


def neumann(
    upper: Upper, lower: LowerLevel, phi: Tree, noises: Sequence[Any], rate: Tensor | float
) -> Callable[[Tree], Tensor]:
    """The same with u = rate sum_{n < N} (I - rate H)^n dJ/dphi, N = number of ``noises``: the first terms of a series
    for H^-1, which converges for 0 < rate < 2 / (the largest curvature of G).

    Each term is of a noise of its own, the last one first. It is eq. (14) of N steps of gradient descent at that rate,
    where those leave phi in its place.
    """

    def surrogate(theta: Tree) -> Tensor:
        value = upper(theta, phi)
        if not noises:
            return value
        fixed = tree_map(torch.detach, theta)
        term, second = grad(upper, argnums=1)(fixed, phi), torch.zeros_like(value)
        for place, noise in reversed(list(enumerate(noises))):
            slope = grad(lower, argnums=1)(theta, phi, noise)
            second = second - rate * dot(tree_map(torch.detach, term), slope)
            if place:  # the first step's Hessian would be of the term after the last
                moved = hessian_product(partial(_at, lower, fixed, noise), phi)(term)
                term = tree_map(lambda t, h: t - rate * h, term, moved)
        return _with_gradient_of(value, second)

    return surrogate


def _at(lower: LowerLevel, theta: Tree, noise: Any, phi: Tree) -> Tensor:
    return lower(theta, phi, noise)


def hessian_product(function: Callable[[Tree], Tensor], at: Tree) -> Product:
    """x -> H x with the Hessian of ``function`` at a point."""

    def product(x: Tree) -> Tree:
        found: Tree = grad(lambda moved: dot(grad(function)(moved), x))(at)
        return found

    return product


def conjugate_gradients(product: Product, right: Tree, iterations: int) -> Tree:
    """x with A x = ``right`` for a symmetric A, from x = 0 (Hestenes and Stiefel 1952); constants of the gradient.

    It stays where it is once a direction has no positive curvature, or nothing is left to solve.
    """
    x, residual = tree_map(torch.zeros_like, right), right
    direction, left = right, dot(right, right)
    going = left > 0
    for _ in range(iterations):
        image = product(direction)
        curvature = dot(direction, image)
        going = going & (curvature > 0)
        step = torch.where(going, left / torch.where(going, curvature, 1.0), 0.0)
        x = tree_map(lambda a, d, step=step: a + step * d, x, direction)
        residual = tree_map(lambda r, i, step=step: r - step * i, residual, image)
        now = dot(residual, residual)
        going = going & (now > 0)
        turn = torch.where(going, now / torch.where(going, left, 1.0), 0.0)
        direction = tree_map(lambda r, d, turn=turn: r + turn * d, residual, direction)
        left = now
    return tree_map(torch.detach, x)


def dot(a: Tree, b: Tree) -> Tensor:
    """The inner product of two trees over all their numbers."""
    return torch.stack([(x * y).sum() for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True)]).sum()


def _with_gradient_of(value: Tensor, beside: Tensor) -> Tensor:
    """``value``, with the gradient of the sum of both."""
    return value + (beside - beside.detach())
