"""Networks from codes to v: generators, and the decoders of models with latent variables."""

import torch
from torch import Tensor, nn

from bism.errors import InputError
from bism.mlp import mlp
from bism.posteriors import location_and_scale
from bism.spectral import SpectralConv2d, SpectralConvTranspose2d, SpectralLinear
from bism.variables import flat_size, log_odds

_SMALLEST, _HALVINGS = 4, 3  # side of an image's coarsest map, and how many maps there are between it and the image


class Affine(nn.Module):
    """v_i = a_i + exp(l_i) y_i with learnt a and l, at the start the training data's means and log standard deviations:
    networks behind it work at a scale of one, whatever the data's is. With ``logits`` these are logits of binary data,
    and a starts at their log-odds, l at 0."""

    def __init__(self, visible_shape: tuple[int, ...], logits: bool = False) -> None:
        super().__init__()
        self.logits = logits
        self.location = nn.Parameter(torch.zeros(visible_shape))
        self.log_scale = nn.Parameter(torch.zeros(visible_shape))

    def reset_parameters(self) -> None:
        """The identity."""
        nn.init.zeros_(self.location)
        nn.init.zeros_(self.log_scale)

    def start_from(self, data: Tensor) -> None:
        """Called after ``reset_parameters()`` with the training data [n, *visible_shape]."""
        if self.logits:
            with torch.no_grad():
                self.location.copy_(log_odds(data))
            return
        mean, spread = location_and_scale(data.flatten(1))
        with torch.no_grad():
            self.location.copy_(mean.reshape(self.location.shape))
            self.log_scale.copy_(spread.log().reshape(self.location.shape))

    def forward(self, y: Tensor) -> Tensor:
        return self.location + self.log_scale.exp() * y

    def inverse(self, v: Tensor) -> Tensor:
        """y."""
        return (v - self.location) * (-self.log_scale).exp()


def coarser(sides: tuple[int, ...]) -> int:
    """How often an image of these sides can be halved: at most three times, to sides of 4 or more."""
    times = 0
    while times < _HALVINGS and all(side % 2 == 0 and side // 2 >= _SMALLEST for side in sides):
        sides, times = tuple(side // 2 for side in sides), times + 1
    return times


def transposed_convolutions(
    visible_shape: tuple[int, ...], codes: int, width: int, spectral_norm: bool = False
) -> nn.Sequential:
    """Codes [batch, codes] to images [batch, c, H, W]: a linear layer to a coarse map; transposed convolutions that
    double its sides and halve its channels each, to ``width`` of them; and a convolution."""
    linear, doubling, last = (
        (SpectralLinear, SpectralConvTranspose2d, SpectralConv2d)
        if spectral_norm
        else (nn.Linear, nn.ConvTranspose2d, nn.Conv2d)
    )
    channels, *sides = visible_shape
    times = coarser(tuple(sides))
    coarse = (width << times, *(side >> times for side in sides))
    stack: list[nn.Module] = [linear(codes, flat_size(coarse)), nn.Unflatten(1, coarse), nn.SiLU()]
    for level in reversed(range(times)):
        stack += [doubling(width << (level + 1), width << level, 4, stride=2, padding=1), nn.SiLU()]
    return nn.Sequential(*stack, last(width, channels, 3, padding=1))


class Generator(nn.Module):
    """g(z) = a + exp(l) * network(z), from codes z [batch, codes] to [batch, *visible_shape].

    Args:
        visible_shape: (D,) for a network of ``layers`` hidden layers, (c, H, W) for transposed convolutions.
        codes: size of z.
        width: of the hidden layers; of images, channels of the finest map.
        logits: whether g gives logits of binary v.
        spectral_norm: whether the network's weights are divided by their largest singular value (``bism.spectral``);
            a and l are not.

    Example:
        >>> Generator((2,), codes=3)(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        visible_shape: tuple[int, ...],
        codes: int,
        width: int = 128,
        layers: int = 2,
        logits: bool = False,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        if min(codes, width, layers) < 1:
            raise InputError(f"Generator: codes, width and layers must be 1 or more, got {codes}, {width} and {layers}")
        self.visible_shape, self.codes, self.spectral_norm = tuple(visible_shape), codes, spectral_norm
        image = len(self.visible_shape) == 3
        if image:
            self.network = transposed_convolutions(self.visible_shape, codes, width, spectral_norm)
        else:
            linear = SpectralLinear if spectral_norm else nn.Linear
            stack = mlp(codes, width, layers, flat_size(visible_shape), linear)
            self.network = nn.Sequential(stack, nn.Unflatten(1, self.visible_shape))
        self.visible = Affine(self.visible_shape, logits)

    def forward(self, z: Tensor) -> Tensor:
        return self.visible(self.network(z))
