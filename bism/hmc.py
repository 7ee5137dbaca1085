"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011): pure steps for training, and chains for measurements."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from bism.objectives import score
from bism.rng import Rng

Energy = Callable[[Tensor], Tensor]  # of x [n, m] to [n]
ACCEPTANCE = 0.65  # the best in many dimensions (Beskos et al. 2013)


def leapfrog(
    energy: Energy, x: Tensor, momentum: Tensor, step_size: Tensor | float, steps: int
) -> tuple[Tensor, Tensor]:
    """``steps`` of the leapfrog integrator of dx/dt = p, dp/dt = -dE/dx; reversible, and it preserves volume.

    Args:
        step_size: one number, or one for each x, [n, 1].
    """

    def force(at: Tensor) -> Tensor:
        return score(lambda y: -energy(y), at)

    momentum = momentum + 0.5 * step_size * force(x)
    for number in range(steps):
        x = x + step_size * momentum
        momentum = momentum + (0.5 if number == steps - 1 else 1.0) * step_size * force(x)
    return x, momentum


def hmc(
    energy: Energy, x: Tensor, momentum: Tensor, uniform: Tensor, step_size: Tensor | float, steps: int
) -> tuple[Tensor, Tensor]:
    """One step of Hamiltonian Monte Carlo, which leaves exp(-E) invariant whatever the step size is.

    Args:
        x, momentum: [n, m], the momentum standard normal.
        uniform: [n], for the Metropolis test.
        step_size: one number, or one for each x, [n, 1].
        steps: of the integrator.

    Returns:
        x after the step, through which no gradient flows, and the probability with which each was accepted, [n].
    """
    proposed, last = leapfrog(energy, x, momentum, step_size, steps)
    before = energy(x) + 0.5 * momentum.square().sum(-1)
    after = energy(proposed) + 0.5 * last.square().sum(-1)
    probability = (before - after).exp().clamp(max=1.0).nan_to_num(0.0).detach()  # what flew away is not accepted
    accepted = (uniform < probability).unsqueeze(-1)
    return torch.where(accepted, proposed, x).detach(), probability


def adapted(
    step_size: Tensor, acceptance: Tensor, rate: Tensor | float = 0.05, target: Tensor | float = ACCEPTANCE
) -> Tensor:
    """A step size that is a little larger where more than ``target`` was accepted, and smaller where less was:
    log step_size moves by rate (acceptance - target) (Andrieu and Thoms 2008). A chain whose step size moves for ever
    is not exactly invariant; where that matters, it stops."""
    return step_size * (rate * (acceptance - target)).exp()


@dataclasses.dataclass(frozen=True)
class Chains:
    """x [n, m] where chains end, and of their second halves the share of steps that was accepted, and the step size."""

    x: Tensor
    acceptance: float
    step_size: float


def chains(
    energy: Energy, start: Tensor, rng: Rng, *, steps: int, step_size: float = 0.3, leapfrogs: int = 5
) -> Chains:
    """Chains from ``start`` [n, m], side by side. In their first half the step size, which they share, is adapted; in
    the second it stays."""
    x, size, accepted = start.detach(), start.new_tensor(step_size), list[Tensor]()
    for number in range(steps):
        x, probability = hmc(energy, x, rng.normal(x.shape), rng.uniform(x.shape[:1]), size, leapfrogs)
        if number < steps // 2:
            size = adapted(size, probability.mean())
        else:
            accepted.append(probability.mean())
    share = float(torch.stack(accepted).mean()) if accepted else float("nan")
    return Chains(x, share, float(size))
