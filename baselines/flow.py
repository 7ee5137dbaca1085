"""A normalising flow: a density of v that is known, and cheap to sample."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from bism.errors import InputError
from bism.estimator import Estimator, Hyper
from bism.generator import Affine, coarser
from bism.mlp import mlp
from bism.rng import Rng
from bism.stages import Stage
from bism.state import Info, State
from bism.variables import flat_size

_LARGEST = 2.0  # log-scale of a coupling: what one alone can do to a unit is bounded, so that no step makes it explode


class Coupling(nn.Module):
    """An affine coupling (Dinh et al. 2017): units that stay set the shift t and the log-scale s of the others,

        y_a = x_a,  y_b = exp(s(x_a)) x_b + t(x_a),  log |det dy/dx| = sum s.

    s lies in (-2, 2); a learnt gain on each of s and t, 0 at the start, makes it the identity there.

    Args:
        stays: [*shape], 1 for the units of a and 0 for those of b.
        network: from [batch, *shape] to twice as many channels.
    """

    stays: Tensor

    def __init__(self, stays: Tensor, network: nn.Module) -> None:
        super().__init__()
        self.network, self.gain = network, nn.Parameter(torch.zeros(2))
        self.register_buffer("stays", stays)

    def reset_parameters(self) -> None:
        """The identity."""
        nn.init.zeros_(self.gain)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self.network(self.stays * x).chunk(2, dim=1)
        moves = 1 - self.stays
        return moves * self.gain[0] * shift, moves * _LARGEST * (self.gain[1] * log_scale / _LARGEST).tanh()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y [batch, *shape] and log |det dy/dx| [batch]."""
        shift, log_scale = self._parts(x)
        return log_scale.exp() * x + shift, log_scale.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x [batch, *shape] and log |det dy/dx| [batch]."""
        shift, log_scale = self._parts(y)
        return (y - shift) * (-log_scale).exp(), log_scale.flatten(1).sum(1)


def _of_vectors(size: int, couplings: int, width: int) -> Iterator[Coupling]:
    """Units with odd and with even numbers take turns."""
    for turn in range(couplings):
        stays = (torch.arange(size) + turn) % 2
        yield Coupling(stays.to(torch.get_default_dtype()), mlp(size, width, 2, 2 * size))


def _of_images(shape: tuple[int, ...], couplings: int, width: int, squeezed: bool) -> Iterator[Coupling]:
    """The fields of a checkerboard take turns, or of squeezed images the channels."""
    channels, rows, columns = shape
    board = torch.arange(rows)[:, None] + torch.arange(columns)
    parity = (torch.arange(channels)[:, None, None] + 0 * board) if squeezed else board.expand(shape)
    for turn in range(couplings):
        network = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * channels, 3, padding=1),
        )
        yield Coupling(((parity + turn) % 2).to(torch.get_default_dtype()), network)


class Flow(nn.Module):
    """q(v): v = a + exp(l) f(z) with z ~ N(0, I) and f a stack of affine couplings (RealNVP, Dinh et al. 2017).

    Vectors are coupled by networks of two hidden layers, their units by turns. Images are coupled at several scales by
    convolutions: at the finest by a checkerboard, and after each squeeze of 2 x 2 pixels into channels by channels; all
    units stay to the end. It starts as the product of Gaussians with the training data's means and deviations. A single
    unit has nothing that could move it: q is then a Gaussian.

    Args:
        visible_shape: (D,) or (c, H, W).
        couplings: on each scale.
        width: of the networks' hidden layers, or their channels.
    """

    how = "independent draws of the flow"

    def __init__(self, visible_shape: tuple[int, ...], couplings: int = 8, width: int = 64) -> None:
        super().__init__()
        if min(couplings, width) < 1:
            raise InputError(f"Flow: couplings and width must be 1 or more, got {couplings} and {width}")
        self.visible_shape = tuple(visible_shape)
        self.image, levels = len(self.visible_shape) == 3, list[nn.ModuleList]()
        if self.image:
            channels, rows, columns = self.visible_shape
            for level in range(1 + coarser((rows, columns))):
                shape = (channels << (2 * level), rows >> level, columns >> level)
                levels.append(nn.ModuleList(_of_images(shape, couplings, width, level > 0)))
        else:
            levels.append(nn.ModuleList(_of_vectors(flat_size(self.visible_shape), couplings, width)))
        self.levels = nn.ModuleList(levels)
        self.visible = Affine(self.visible_shape)

    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """v and log q(v), [n], of standard normal z, both [n, *visible_shape]; differentiable in the parameters."""
        x, log_q = z if self.image else z.flatten(1), self._log_normal(z)
        for _ in range(len(self.levels) - 1):
            x = pixel_unshuffle(x, 2)
        for number, level in reversed(list(enumerate(self.levels))):
            for coupling in reversed(list(level)):  # type: ignore[call-overload]  # a ModuleList
                x, log_det = coupling(x)
                log_q = log_q - log_det
            x = pixel_shuffle(x, 2) if number else x
        return self.visible(x.reshape(z.shape)), log_q - self.visible.log_scale.sum()

    def pull(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """z, and log q(v), [n], of v; both [n, *visible_shape]."""
        x, log_det = self.visible.inverse(v), self.visible.log_scale.sum()
        x = x if self.image else x.flatten(1)
        for number, level in enumerate(self.levels):
            x = pixel_unshuffle(x, 2) if number else x
            for coupling in level:  # type: ignore[attr-defined]  # a ModuleList
                x, more = coupling.inverse(x)
                log_det = log_det + more
        for _ in range(len(self.levels) - 1):
            x = pixel_shuffle(x, 2)
        z = x.reshape(v.shape)
        return z, self._log_normal(z) - log_det

    def log_prob(self, v: Tensor) -> Tensor:
        """log q(v), [n]."""
        return self.pull(v)[1]

    def codes(self, count: int, rng: Rng) -> Tensor:
        """z [count, *visible_shape], standard normal."""
        return rng.normal((count, *self.visible_shape))

    def decode(self, z: Tensor) -> Tensor:
        """v of ``push``."""
        return self.push(z)[0]

    def draw(self, count: int, rng: Rng) -> Tensor:
        """v [count, *visible_shape]."""
        with torch.no_grad():
            return self.decode(self.codes(count, rng))

    @staticmethod
    def _log_normal(z: Tensor) -> Tensor:
        flat = z.flatten(1)
        return -0.5 * flat.square().sum(1) - 0.5 * flat.shape[1] * math.log(2 * math.pi)


def likelihood_stage(method: Estimator, share: float) -> Stage:
    """The stage in which a method's part ``flow`` is fitted alone, by maximum likelihood: along the mean -log q(v)."""

    def loss(params: Any, batch: Tensor, drawn: Any) -> Tensor:
        return -params.flow.log_prob(batch).mean()

    def step(state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        state, value = method.move_part(state, "flow", loss, batches, noise, hyper)
        return state, {"objective": value}

    return Stage("flow", share, step, lambda *_: {})
