"""Langevin dynamics on energies: annealed as in the paper's Appendix B.2, over v, over h, or over both.

A step moves every free variable x by

    x <- x - (a^2 / 2) dE/dx + sqrt(T) a eps,   eps ~ N(0, I)

with step size a and temperature T; there is no Metropolis correction. At a constant T and a small a its stationary
density is exp(-E / T).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import grad

from bism.checks import check_count
from bism.errors import InputError
from bism.precision import computing
from bism.rng import Rng, generator

Free = Mapping[str, Tensor]  # the variables that move, by name, each [batch, ...]
Energy = Callable[[Free], Tensor]  # to [batch]


@dataclasses.dataclass(frozen=True)
class Stretch:
    """``steps`` steps at temperatures from ``first`` to ``last``, both included, spaced geometrically or linearly."""

    steps: int
    first: float
    last: float
    spacing: str = "geometric"

    def __post_init__(self) -> None:
        check_count("steps", self.steps, 1)
        if self.spacing not in ("geometric", "linear"):
            raise InputError(f"spacing must be geometric or linear, got {self.spacing!r}")
        if min(self.first, self.last) < 0 or (self.spacing == "geometric" and min(self.first, self.last) == 0):
            raise InputError(f"temperatures must be positive (0 with spacing linear), got {self.first} to {self.last}")

    @property
    def temperatures(self) -> Tensor:
        """[steps], in float64."""
        if self.spacing == "linear":
            return torch.linspace(self.first, self.last, self.steps, dtype=torch.float64)
        exponents = torch.linspace(0, 1, self.steps, dtype=torch.float64)
        return self.first * (self.last / self.first) ** exponents


PAPER = (Stretch(500, 100.0, 100.0), Stretch(2000, 100.0, 1.0), Stretch(200, 1.0, 0.0, "linear"))


def temperatures(schedule: Sequence[Stretch] = PAPER) -> Tensor:
    """All temperatures of a schedule in order, [steps]; by default the paper's 2,700 (Appendix B.2)."""
    return torch.cat([stretch.temperatures for stretch in schedule])


def langevin(
    energy: Energy,
    start: Free,
    heat: Tensor,
    *,
    step_size: float | Mapping[str, float | Tensor] = 0.02,
    seed: int = 0,
    batch: int = 0,
    first: int = 0,
    precision: str = "float32",
) -> Iterator[dict[str, Tensor]]:
    """Yields the free variables after each step.

    The noise of a step is a function of (seed, batch, step), so that a run that was cut short at any step goes on as
    if it had not been.

    Args:
        energy: of the free variables, [batch]; examples do not interact.
        start: the free variables before step number ``first``.
        heat: a temperature for each step, [steps].
        step_size: a, for all variables or by name; a tensor has one for each unit.
        precision: "bf16" for matrix products and convolutions in bfloat16, "tf32" for TF32 on a GPU; the variables stay
            as they are.
    """
    x = {name: value.detach() for name, value in start.items()}
    sizes = step_size if isinstance(step_size, Mapping) else dict.fromkeys(x, step_size)
    slope = grad(lambda at: energy(at).sum())
    device = next(iter(x.values())).device
    for number, temperature in enumerate(heat[first:].tolist(), start=first):
        autocast = torch.autocast(device.type, torch.bfloat16, precision == "bf16", cache_enabled=False)
        with computing(device, precision), autocast:
            downhill = slope(x)
        for name, value in x.items():
            rng = Rng(generator(seed, number, f"langevin/{batch}/{name}", value.device), value.dtype)
            noise = rng.normal(value.shape) * temperature**0.5 * sizes[name]
            x[name] = (value - 0.5 * sizes[name] ** 2 * downhill[name] + noise).detach()
        yield dict(x)


def denoise(energy: Callable[[Tensor], Tensor], v: Tensor, sigma0: float) -> Tensor:
    """v - sigma0^2 dE/dv: the mean of the clean vector where exp(-E) is the data's density smoothed by sigma0 (Robbins
    1956; Miyasawa 1961), which takes a sample's last noise away."""
    return v - sigma0**2 * grad(lambda at: energy(at).sum())(v)
