"""Points in the plane whose density is known in closed form, so that the best possible log-likelihood is, too."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import grad

from benchmark.data.catalogue import CATALOGUE
from benchmark.data.dataset import DataSet, in_splits
from benchmark.system.memory import check_fits

_SPOTS, _SPOT_RADIUS, _SPOT = 8, math.sqrt(2), math.sqrt(2) / 8
_RINGS, _RING = (0.6, 1.2, 1.8), 0.1
_ARMS, _PINWHEEL, _TWIST = 5, 1.4, 0.25
_ARM = torch.tensor([0.3, 0.1], dtype=torch.float64)  # along and across
_FAR = 30.0  # where nothing is: the angle may be any, but must be finite
_HALF_BOARD, _SQUARE = 1.6, 0.8  # half of the board's side, and a square's


@dataclasses.dataclass(frozen=True)
class Law:
    """A distribution of points.

    Attributes:
        log_density: normalised, of float64 [n, 2] to [n], in nats.
        draw: independent points [n, 2].
        entropy: -E log p in nats; no model's mean log-likelihood is above -entropy, but for the chance in the data.
        smooth: whether log p can be differentiated wherever it is finite, and is finite everywhere.
    """

    log_density: Callable[[Tensor], Tensor]
    draw: Callable[[np.random.RandomState, int], np.ndarray]
    entropy: float
    smooth: bool = True

    def score(self, v: Tensor) -> Tensor:
        """The gradient of log p, [n, 2], where it is smooth."""
        found: Tensor = grad(lambda x: self.log_density(x).sum())(v)
        return found


def _angles(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)


def _around(angles: np.ndarray, radius: float | np.ndarray) -> np.ndarray:
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _turned(v: Tensor, angle: Tensor) -> Tensor:
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack([cosine * v[..., 0] - sine * v[..., 1], sine * v[..., 0] + cosine * v[..., 1]], dim=-1)


def _spots(v: Tensor) -> Tensor:
    """1/8 sum_k N(v; m_k, s^2 I)."""
    angles = _angles(_SPOTS)
    means = _SPOT_RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)
    squares = (v.unsqueeze(-2) - means).square().sum(-1)
    return (-0.5 * squares / _SPOT**2).logsumexp(-1) - math.log(_SPOTS * 2 * math.pi * _SPOT**2)


def _draw_spots(random: np.random.RandomState, count: int) -> np.ndarray:
    angles = _angles(_SPOTS).numpy()[random.randint(_SPOTS, size=count)]
    return _around(angles, _SPOT_RADIUS) + _SPOT * random.normal(size=(count, 2))


def _rings(v: Tensor) -> Tensor:
    """The mean over R of exp(-(|v|^2 + R^2) / (2 s^2)) I_0(R |v| / s^2) / (2 pi s^2): v = R u + s eps with u uniform on
    the circle and eps ~ N(0, I), so that |v| follows Rice's law. With I_0(x) = i0e(x) e^x nothing overflows."""
    radius = (v.square().sum(-1, keepdim=True) + 1e-300).sqrt()  # its gradient at the origin is 0
    rings = torch.tensor(_RINGS, dtype=torch.float64)
    parts = -0.5 * ((radius - rings) / _RING).square() + torch.special.i0e(rings * radius / _RING**2).log()
    return parts.logsumexp(-1) - math.log(len(_RINGS) * 2 * math.pi * _RING**2)


def _draw_rings(random: np.random.RandomState, count: int) -> np.ndarray:
    radius = np.array(_RINGS)[random.randint(len(_RINGS), size=count)]
    return _around(random.uniform(0, 2 * np.pi, size=count), radius) + _RING * random.normal(size=(count, 2))


def _pinwheel(v: Tensor) -> Tensor:
    """1/5 sum_k N(x_k; (1, 0), diag(0.3^2, 0.1^2)) / 1.4^2 with x_k = v / 1.4 turned back by the k-th arm's angle and
    by 0.25 exp(|v| / 1.4). Turning by an angle that depends on the radius alone changes no areas and can be undone."""
    x = v / _PINWHEEL
    radius = (x.square().sum(-1, keepdim=True) + 1e-300).sqrt()
    straight = _turned(x.unsqueeze(-2), -_angles(_ARMS) - _TWIST * radius.clamp(max=_FAR).exp())
    squares = ((straight - torch.tensor([1.0, 0.0], dtype=torch.float64)) / _ARM).square().sum(-1)
    constant = math.log(_ARMS * 2 * math.pi * _PINWHEEL**2) + float(_ARM.log().sum())
    return (-0.5 * squares).logsumexp(-1) - constant


def _draw_pinwheel(random: np.random.RandomState, count: int) -> np.ndarray:
    angles = _angles(_ARMS)[torch.from_numpy(random.randint(_ARMS, size=count))]
    x = torch.from_numpy(random.normal(size=(count, 2))) * _ARM + torch.tensor([1.0, 0.0])
    return (_PINWHEEL * _turned(x, angles + _TWIST * x.norm(dim=1).exp())).numpy()


def _board(v: Tensor) -> Tensor:
    """-log of the area of the eight squares inside them, -infinity outside."""
    square = (v / _SQUARE).floor()
    inside = (v.abs() < _HALF_BOARD).all(-1) & (square.sum(-1) % 2 == 0)
    return torch.where(inside, -math.log(8 * _SQUARE**2), -torch.inf).to(v)


def _draw_board(random: np.random.RandomState, count: int) -> np.ndarray:
    column, half = random.randint(4, size=count), random.randint(2, size=count)
    corner = np.stack([column - 2, 2 * half + column % 2 - 2], axis=1)
    return _SQUARE * (corner + random.uniform(size=(count, 2)))


# Entropies by quadrature of -p log p (``tests/harness/test_points.py`` does it again), the board's by its area.
LAWS = {
    "eight_gaussians": Law(_spots, _draw_spots, 1.4452839994),
    "rings": Law(_rings, _draw_rings, 2.1307818032),
    "pinwheel": Law(_pinwheel, _draw_pinwheel, 1.6072386957),
    "checkerboard_4x4": Law(_board, _draw_board, math.log(8 * _SQUARE**2), smooth=False),
}


def law_of(data: DataSet) -> Law | None:
    """The law of points in their own units, as it draws them: none of what was made binary since."""
    return LAWS.get(data.name) if data.entropy is not None else None


def _points(name: str, **asked: int) -> DataSet:
    """Independent points of a law, by a fixed seed; of each split as many as asked for, or as the catalogue says."""
    law, (train, val, test) = LAWS[name], CATALOGUE[name].sizes
    sizes = asked.get("train", train), asked.get("val", val), asked.get("test", test)
    check_fits(80.0 * sum(sizes), f"{name} with {sum(sizes):,} points", "fewer of them")
    rows = law.draw(np.random.RandomState(0), sum(sizes))  # the legacy generator's stream never changes
    return dataclasses.replace(in_splits(name, rows, sizes), entropy=law.entropy)


def eight_gaussians(folder: Path, **sizes: int) -> DataSet:
    """Eight Gaussians of standard deviation sqrt(2) / 8 around a circle of radius sqrt(2)."""
    return _points("eight_gaussians", **sizes)


def rings(folder: Path, **sizes: int) -> DataSet:
    """Three circles of radius 0.6, 1.2 and 1.8, each as likely, with Gaussian noise of standard deviation 0.1."""
    return _points("rings", **sizes)


def pinwheel(folder: Path, **sizes: int) -> DataSet:
    """Five Gaussians away from the origin as arms, that turn the more the further out they are (Johnson et al. 2016;
    here by an angle that depends on the radius, so that the density is known)."""
    return _points("pinwheel", **sizes)


def checkerboard_4x4(folder: Path, **sizes: int) -> DataSet:
    """Uniform on the eight squares of one colour of a 4 x 4 board of side 3.2 around the origin."""
    return _points("checkerboard_4x4", **sizes)


POINTS = {made.__name__: made for made in (eight_gaussians, rings, pinwheel, checkerboard_4x4)}
