"""The Fisher divergence of a model to data by a critic: for models whose score is known, or estimated without bias.

With the data's density p_D and the model's score s, for every function f that vanishes at infinity beside p_D,

    1/2 E ||s(v) - grad log p_D(v)||^2  >=  E[f(v).s(v) + div f(v) - 1/2 ||f(v)||^2],   v ~ p_D,

with equality for f = s - grad log p_D (Hu et al. 2018; Grathwohl et al. 2020; VaGES-Fisher of Bao et al. 2021). The
right-hand side needs samples of p_D alone, and is linear in s. On examples that a trained f has not seen it is, but for
their finite number, a lower bound of the divergence itself, and not only up to a constant as eq. (2) is.
"""

import copy
import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import grad

from bism.checks import check_count
from bism.posteriors import location_and_scale
from bism.rng import Rng, generator

Score = Callable[[Tensor, Rng], Tensor]  # v [batch, *shape] to [batch, *shape]; what is random in it is drawn there
_LOOKS = 10  # at the validation data
_DIRECTIONS = 8  # for the divergence of a critic that has been trained


@dataclasses.dataclass(frozen=True)
class Found:
    """What a critic found: its divergence on the test examples, the mean's standard error, and that on validation."""

    divergence: float
    stderr: float
    validation: float


class Critic(nn.Module):
    """f(v) of vectors in the data's own units; 0 at first."""

    shift: Tensor
    factor: Tensor

    def __init__(self, data: Tensor, width: int) -> None:
        super().__init__()
        shift, factor = location_and_scale(data)
        self.register_buffer("shift", shift)
        self.register_buffer("factor", factor)
        size = data.shape[1]
        layers = [nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, size)]
        self.network = nn.Sequential(*layers).to(data)
        nn.init.zeros_(self.network[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.network[-1].bias)  # type: ignore[arg-type]

    def forward(self, v: Tensor) -> Tensor:
        found: Tensor = self.network((v - self.shift) / self.factor) / self.factor
        return found


def fisher_divergence_by_critic(
    score: Score,
    train: Tensor,
    val: Tensor,
    test: Tensor,
    *,
    noise: float = 0.0,
    steps: int = 2000,
    width: int = 128,
    lr: float = 1e-3,
    batch_size: int = 256,
    seed: int = 0,
) -> Found:
    """Trains a critic and takes it where it is best on the validation data; the result is that on the test data.

    Args:
        score: of the model.
        train, val, test: [n, *shape].
        noise: standard deviation of Gaussian noise that is added to the data: the divergence is that to the smoothed
            data. Without it a density with edges, or of a few grey levels, has an infinite one.
        width: of the critic's two hidden layers.
        seed: of all that is random; the result is a pure function of it.
    """
    check_count("steps", steps, 1)
    rng = Rng(generator(seed, 0, "critic", train.device), train.dtype)
    with rng.seeding_torch():
        critic = Critic(train.flatten(1), width)
    optimiser = torch.optim.Adam(critic.parameters(), lr=lr)
    sees = {name: _seen(score, x, noise, _DIRECTIONS, rng) for name, x in (("val", val), ("test", test))}
    best, kept = -math.inf, critic
    for step in range(1, steps + 1):
        chosen = train[rng.integers(len(train), (batch_size,))]
        optimiser.zero_grad()
        (-_bound(critic, *_seen(score, chosen, noise, 1, rng)).mean()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % max(1, steps // _LOOKS) == 0 or step == steps:
            with torch.no_grad():
                value = float(_bound(critic, *sees["val"]).mean())
            if value > best:
                best, kept = value, copy.deepcopy(critic)
    with torch.no_grad():
        values = _bound(kept, *sees["test"]).double()
    return Found(float(values.mean()), float(values.std() / len(values) ** 0.5), best)


def _seen(score: Score, v: Tensor, noise: float, directions: int, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
    """Points and the model's score there, [n, D] each, and directions [directions, n, D]."""
    points = v + noise * rng.normal(v.shape) if noise else v
    found = score(points, rng).detach().flatten(1)
    return points.flatten(1), found, rng.rademacher((directions, *found.shape))


def _bound(critic: Critic, v: Tensor, score: Tensor, directions: Tensor) -> Tensor:
    """f.s + div f - 1/2 ||f||^2 with the divergence along random directions (Hutchinson 1990), [batch]."""
    f = critic(v)
    along = [(u * grad(lambda x, u=u: (u * critic(x)).sum())(v)).sum(1) for u in directions]
    divergence = torch.stack(along).mean(0)
    return (f * score).sum(1) + divergence - 0.5 * f.square().sum(1)
