"""What models of several layers of binary units are made of."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bism.errors import InputError, shown
from bism.rng import normal_

LAYERS = (2, 3)  # how many hidden layers there may be


class Layer(nn.Module):
    """Binary units above others: their logits c + W^T x, given those below.

    Parameters: ``W`` [below, above], initially N(0, 0.01^2), and ``c`` [above], initially 0 (as in an RBM).
    """

    def __init__(self, below: int, above: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(below, above))
        self.c = nn.Parameter(torch.empty(above))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the initial weights from torch's global generator."""
        normal_(self.W, std=0.01)
        nn.init.zeros_(self.c)

    def logits(self, x: Tensor) -> Tensor:
        """Of the units above given those below, [batch, above]."""
        return self.c + x @ self.W

    def downward(self, y: Tensor) -> Tensor:
        """W y, [batch, below]: what the units above add to the logits of those below."""
        return y @ self.W.T


def layer_sizes(model: str, visible: int, hidden: Any) -> tuple[int, ...]:
    """The numbers of units of a model's layers, v first.

    Raises:
        InputError: ``hidden`` does not list the sizes of two or three layers.
    """
    if isinstance(visible, bool) or not isinstance(visible, int) or visible < 1:
        raise InputError(f"{model}: visible must be a whole number above 0, got {shown(visible)}")
    whole = isinstance(hidden, Sequence) and all(isinstance(n, int) and not isinstance(n, bool) for n in hidden)
    if not whole or len(hidden) not in LAYERS or min(hidden) < 1:
        raise InputError(f"{model}: hidden must list the sizes of 2 or 3 layers, as in [16, 16], got {shown(hidden)}")
    return (visible, *hidden)


def is_on(logits: Tensor, noise: Tensor) -> Tensor:
    """Binary units from their logits and logistic noise of the same shape."""
    return (logits + noise > 0).to(logits.dtype)
