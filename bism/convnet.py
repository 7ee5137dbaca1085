"""The energy of images that methods with chains train: a plain convolutional network (Nijkamp et al. 2019)."""

import math

from torch import Tensor, nn

from bism.checks import check_count, check_flag, check_scale
from bism.errors import InputError, shown
from bism.spectral import SpectralConv2d, SpectralLinear
from bism.variables import Gaussian, flat_size

_SMALLEST = 4  # sides up to which images are halved


class ConvEBM(nn.Module):
    """E(v) = f(v) + |v|^2 / (2 s^2), fully visible, with f a convolutional network.

    A 3 x 3 convolution to C channels; 4 x 4 ones of stride 2 to twice as many each, which halve the image until its
    shorter side is at most 4 (one for 8 x 8 pixels, three for 28 x 28 and 32 x 32); and a linear layer, the 4 x 4
    convolution that ends the network of Nijkamp et al. Between them SiLU, which is smooth, as scores need.

    Args:
        visible_shape: (c, H, W).
        width: C.
        reference: s, the standard deviation of the Gaussian exp(-|v|^2 / (2 s^2)) that exp(-f) multiplies, as the
            generative ConvNet has it (Xie et al. 2016); 0: there is none, and E = f.
        spectral_norm: whether weights are divided by their largest singular value (``bism.spectral``; of kernels as
            matrices), so that f cannot be steep.

    Example:
        >>> ConvEBM((1, 8, 8), width=4).energy(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5])
    """

    latent = None

    def __init__(
        self, visible_shape: tuple[int, ...], width: int = 64, reference: float = 0.0, spectral_norm: bool = False
    ) -> None:
        super().__init__()
        if not isinstance(visible_shape, tuple) or len(visible_shape) != 3 or min(visible_shape) < 1:
            raise InputError(
                f"ConvEBM: takes images (channels, height, width), of at least one each, got {shown(visible_shape)}"
            )
        check_count("ConvEBM: width", width, 1)
        check_scale("ConvEBM: reference, a standard deviation, or 0 for none,", reference)
        check_flag("ConvEBM: spectral_norm", spectral_norm)
        convolution, dense = (SpectralConv2d, SpectralLinear) if spectral_norm else (nn.Conv2d, nn.Linear)
        channels, *sides = visible_shape
        self.visible_shape, self.visible_units = tuple(visible_shape), Gaussian(flat_size(visible_shape))
        self.reference, self.activations = reference, 2 * width * math.prod(sides)
        layers: list[nn.Module] = [convolution(channels, width, 3, padding=1), nn.SiLU()]
        while min(sides) > _SMALLEST:
            layers += [convolution(width, 2 * width, 4, stride=2, padding=1), nn.SiLU()]
            width, sides = 2 * width, [side // 2 for side in sides]
        self.network = nn.Sequential(*layers, nn.Flatten(), dense(width * math.prod(sides), 1))

    def energy(self, v: Tensor) -> Tensor:
        """E(v), [batch]."""
        found: Tensor = self.network(v).squeeze(-1)
        return found + 0.5 * v.square().flatten(1).sum(1) / self.reference**2 if self.reference else found

    def free_energy(self, v: Tensor) -> Tensor:
        """E(v): there is nothing to sum over."""
        return self.energy(v)
