"""Gradients and parameters as vectors, and what many draws of one say of its expectation."""

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bism.optimisers import Tree


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
