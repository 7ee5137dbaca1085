"""An energy of v and h together, as a network beside a model."""

import torch
from torch import Tensor, nn

from bism.mlp import mlp
from bism.posteriors import convolutional
from bism.variables import flat_size


class JointEnergy(nn.Module):
    """E(v, h) = f(v, h) + |h|^2 / 2 + |v|^2 / (2 s^2), [batch], with real h [batch, codes] and a network f; behind the
    Gaussian, which f multiplies, exp(-E) can be integrated.

    Args:
        visible_shape: (D,) for an f of ``layers`` hidden layers of ``width`` units on (v, h); (c, H, W) for one on h
            and the features of three convolutions, with ``width`` channels and more.
        reference: s, some times as wide as the data.
    """

    def __init__(
        self, visible_shape: tuple[int, ...], codes: int, width: int = 128, layers: int = 2, reference: float = 4.0
    ) -> None:
        super().__init__()
        self.reference, size = reference, flat_size(visible_shape)
        self.features: nn.Module = nn.Flatten(1)
        if len(visible_shape) == 3:
            network = convolutional(visible_shape, 1, width)
            self.features, size = network.network, network.mean_head.in_features
        self.head = mlp(size + codes, width, layers, 1)

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), [batch]."""
        f: Tensor = self.head(torch.cat([self.features(v), h], 1)).squeeze(-1)
        return f + 0.5 * h.square().sum(1) + 0.5 * v.flatten(1).square().sum(1) / self.reference**2
