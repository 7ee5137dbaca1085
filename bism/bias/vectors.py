"""Gradients and parameters as vectors, and what many draws of one say of its expectation."""

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bism.optimisers import Tree

GROUPS = 20  # of draws, for the jackknife


def flat(tree: Tree) -> Tensor:
    """All numbers of a tree in one vector."""
    return torch.cat([leaf.flatten() for leaf in tree_leaves(tree)])


def distance(a: Tree, b: Tree) -> Tensor:
    """L2 distance of two sets of parameters over all their numbers, a scalar: ||phi^0 - phi*|| of Theorem 2."""
    return torch.stack([(a[name] - b[name]).square().sum() for name in a]).sum().sqrt()


class Moments:
    """Running mean and variance of each component of a vector (Welford 1962), in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean, self._squares = torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Takes in one more vector."""
        x = x.double()
        if not self.count:
            self.mean, self._squares = torch.zeros_like(x), torch.zeros_like(x)
        self.count += 1
        before = x - self.mean
        self.mean += before / self.count
        self._squares += before * (x - self.mean)

    @property
    def noise_floor(self) -> float:
        """sqrt(sum of the components' variances / count): the root mean square distance of ``mean`` from the expected
        vector, which is the norm that a vector of expectation zero would show. Not known from one vector."""
        return float((self._squares.sum() / (self.count - 1) / self.count).sqrt()) if self.count > 1 else float("nan")


class NormOfMean:
    """The squared norm of an expected vector from draws of it, without the share of their noise, and with its error.

    ||mean of n draws||^2 has expectation ||mu||^2 + tr(Sigma) / n. The mean of x_i . x_j over all pairs i != j has
    ||mu||^2; where mu is about 0 it may be negative. Its standard error is the jackknife's that leaves out one of so
    many groups of draws at a time. All in float64.

    Args:
        groups: of draws, at least 3; draws are put into them in turn.
    """

    def __init__(self, groups: int = GROUPS) -> None:
        self.groups, self.count = groups, 0
        self._sums: list[Tensor] = []
        self._squares = torch.zeros(groups, dtype=torch.float64)
        self._counts = torch.zeros(groups, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Takes in one more draw, [p]."""
        x, place = x.double(), self.count % self.groups
        if self.count < self.groups:
            self._sums.append(torch.zeros_like(x))
        self._sums[place] += x
        self._squares[place] += x.square().sum().cpu()
        self._counts[place] += 1
        self.count += 1

    @property
    def squared(self) -> float:
        """The estimate of ||mu||^2, of at least 2 draws."""
        return _pairs(float(torch.stack(self._sums).sum(0).square().sum()), float(self._squares.sum()), self.count)

    @property
    def error(self) -> float:
        """Its standard error, of draws in at least 3 groups."""
        total, used = torch.stack(self._sums).sum(0), len(self._sums)
        left = [
            _pairs(
                float((total - own).square().sum()),
                float(self._squares.sum() - self._squares[i]),
                self.count - int(self._counts[i]),
            )
            for i, own in enumerate(self._sums)
        ]
        return float(torch.tensor(left, dtype=torch.float64).var(correction=0).mul(used - 1).sqrt())

    @property
    def spread(self) -> float:
        """sqrt(tr Sigma): the root mean square distance of one draw from mu."""
        return max(0.0, float(self._squares.sum()) / self.count - self.squared) ** 0.5


def _pairs(square_of_sum: float, sum_of_squares: float, count: int) -> float:
    return (square_of_sum - sum_of_squares) / (count * (count - 1))
