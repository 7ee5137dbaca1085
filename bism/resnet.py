"""Deep energies for images (Section 5.2): a fully visible ResNet, and the latent-variable model made from it.

The ResNet is that of MDSM (Li et al. 2019): no normalisation, ELU, and three stages that each halve the image.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, elu

from bism.errors import InputError
from bism.posteriors import DiagonalGaussian, convolutional
from bism.variables import Gaussian, flat_size

LAYERS = {12: 2, 18: 3}  # layers of the ResNet -> blocks in each of its three stages


class ResidualBlock(nn.Module):
    """x -> shortcut(x) + conv(elu(conv(elu(x)))), 3 x 3; a block that ``halves`` takes the mean of 2 x 2 pixels after
    its second convolution and before the 1 x 1 convolution of its shortcut."""

    def __init__(self, width: int, width_out: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width_out, 3, padding=1)
        self.shortcut = nn.Conv2d(width, width_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.second(elu(self.first(elu(x))))
        if self.halves:
            residual, x = avg_pool2d(residual, 2), avg_pool2d(x, 2)
        return residual + self.shortcut(x)


class ResNet(nn.Module):
    """Images [batch, c, H, W] to features [batch, size]: a convolution to C channels, then stages of widths 2C, 4C, 8C.

    Args:
        visible_shape: (c, H, W); H and W are multiples of 8.
        width: C.
        layers: 12 or 18: two or three blocks in each stage, of which the first halves the image.

    Attributes:
        size: number of features, 8C H/8 W/8.
        units: H/8 W/8 4C, the width of the energies' last layer.
    """

    def __init__(self, visible_shape: tuple[int, ...], width: int, layers: int) -> None:
        super().__init__()
        if len(visible_shape) != 3 or any(length % 8 or not length for length in visible_shape[1:]):
            raise InputError(
                f"the ResNet takes images [channels, height, width] whose sides are multiples of 8, "
                f"got {list(visible_shape)}"
            )
        if layers not in LAYERS:
            raise InputError(f"layers must be one of {', '.join(map(str, LAYERS))}, got {layers}")
        channels, height, long = visible_shape
        stages: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
        for stage in range(3):
            wide = width << (stage + 1)
            stages.append(ResidualBlock(wide // 2, wide, halves=True))
            stages += [ResidualBlock(wide, wide, halves=False) for _ in range(LAYERS[layers] - 1)]
        self.stages = nn.Sequential(*stages)
        pixels = (height // 8) * (long // 8)
        self.size, self.units = 8 * width * pixels, 4 * width * pixels

    def forward(self, v: Tensor) -> Tensor:
        return self.stages(v).flatten(1)


def _sum_of_squares(units: Tensor) -> Tensor:
    """sum_i elu(x_i)^2, [batch], in float32 at least: the score is a difference of many such terms."""
    return elu(units.to(torch.promote_types(units.dtype, torch.float32))).square().sum(-1)


class ResNetEBM(nn.Module):
    """The fully visible energy of MDSM: E(v) = sum_i elu(A f(v) + a)_i^2 with the features f of a ``ResNet``.

    Args: as ``ResNet``.

    Example:
        >>> ResNetEBM((1, 8, 8), width=4).energy(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5])
    """

    latent = None

    def __init__(self, visible_shape: tuple[int, ...], width: int = 64, layers: int = 12) -> None:
        super().__init__()
        self.visible_shape = tuple(visible_shape)
        self.activations = math.prod(self.visible_shape) * width
        self.visible_units = Gaussian(flat_size(self.visible_shape))
        self.features = ResNet(self.visible_shape, width, layers)
        self.head = nn.Linear(self.features.size, self.features.units)

    def energy(self, v: Tensor) -> Tensor:
        """E(v), [batch]."""
        return _sum_of_squares(self.head(self.features(v)))

    def free_energy(self, v: Tensor) -> Tensor:
        """E(v): there is nothing to sum over."""
        return self.energy(v)


class _LatentResNet(nn.Module):
    """What energies E(v, h) of images with real h share: features f(v) of a ``ResNet``, a code g1(v) = B f(v) + b in
    R^m, and the posterior that is trained beside them.

    Args: as ``ResNet``, and
        hidden: number m of latent units.
        posterior_width: channels of the posterior's first convolution.
    """

    def __init__(
        self, visible_shape: tuple[int, ...], hidden: int, width: int = 64, layers: int = 12, posterior_width: int = 64
    ) -> None:
        super().__init__()
        self.visible_shape, self.latent = tuple(visible_shape), Gaussian(hidden)
        self.visible_units = Gaussian(flat_size(self.visible_shape))
        self._posterior_width = posterior_width
        self.activations = math.prod(self.visible_shape) * width + hidden
        self.features = ResNet(self.visible_shape, width, layers)
        self.code = nn.Linear(self.features.size, hidden)
        self.head = nn.Linear(self._read_by_head(), self.features.units)

    @abstractmethod
    def _read_by_head(self) -> int:
        """How many numbers the last layer's units are linear in."""

    def default_posterior(self) -> DiagonalGaussian:
        """q(h|v), Gaussian and convolutional."""
        return convolutional(self.visible_shape, self.latent.size, self._posterior_width)


class ResNetEBLVM(_LatentResNet):
    """E(v, h) = g3(g2(g1(v), h)) (Bao et al. 2020, Section 5.2), h real.

    g1(v) = B f(v) + b in R^m with the features f of a ``ResNet``; g2(x, h) = (x + h, h), an additive coupling (Dinh et
    al. 2014); g3(y) = sum_i elu(A y + a)_i^2.

    Args: as ``ResNet``, and
        hidden: number m of latent units.
        posterior_width: channels of the posterior's first convolution.

    Example:
        >>> ResNetEBLVM((1, 8, 8), hidden=3, width=4).energy(torch.zeros(5, 1, 8, 8), torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def _read_by_head(self) -> int:
        return 2 * self.latent.size

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), [batch]."""
        coupled = torch.cat([self.code(self.features(v)) + h, h.expand(len(v), -1)], dim=1)
        return _sum_of_squares(self.head(coupled))


class BilinearEBLVM(_LatentResNet):
    """E(v, h) = E0(v) - h . g1(v) + ||h||^2 / 2, h real: an energy like that of ``ResNetEBM`` and one like that of
    ``ResNetEBLVM`` whose posterior is known exactly.

    E0(v) = sum_i elu(A f(v) + a)_i^2 and g1(v) = B f(v) + b in R^m with the features f of one ``ResNet``, and so

        p(h|v) = N(g1(v), I),   F(v) = E0(v) - ||g1(v)||^2 / 2 - m/2 log(2 pi).

    Score matching on F is what BiSM is with the exact posterior: the two side by side show what of a result is made by
    the posterior's error. The model is ours.

    Args: as ``ResNetEBLVM``.

    Example:
        >>> BilinearEBLVM((1, 8, 8), hidden=3, width=4).energy(torch.zeros(5, 1, 8, 8), torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def _read_by_head(self) -> int:
        return self.features.size

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), [batch]."""
        alone, code = self._parts(v)
        return alone + (0.5 * h.square() - h * code).sum(-1)

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v), [batch]."""
        alone, code = self._parts(v)
        return alone - 0.5 * (code.square() + math.log(2 * math.pi)).sum(-1)

    def _parts(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """E0(v) [batch] and g1(v) [batch, m]."""
        f = self.features(v)
        return _sum_of_squares(self.head(f)), self.code(f)
