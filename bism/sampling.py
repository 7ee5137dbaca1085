"""How v is drawn from a trained model, and the one place where that is chosen.

``sampler`` takes the first of these that a model has: a way of its own (``draw(count, rng)``), exact draws by
enumeration, block Gibbs chains, and on real v annealed Langevin dynamics. A method whose samples come from elsewhere (a
generator that it trains) says so in ``Estimator.sampler``, which comes before all of them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from bism.enumeration import exact_samples, exactly_sampled, free_energy, has_free_energy
from bism.langevin import Stretch, langevin, temperatures
from bism.protocols import OwnUnits, Sampler
from bism.rng import Rng
from bism.variables import Gaussian, has_binary_v, visible_noise

Chains = dict[str, Tensor]  # what chains are at, by name, each [chains, ...]; "v" is among them
ANNEALED = (Stretch(1000, 10.0, 1.0), Stretch(1000, 1.0, 1.0))  # on the model itself in the end
SWEEPS = 1000

# --- block Gibbs ------------------------------------------------------------------------------------------------------


def gibbs_noise(model: Any, batch: int, steps: int, rng: Rng) -> Any:
    """The noise of ``steps`` sweeps of block Gibbs sampling over ``batch`` chains: a tree of tensors [steps, ...]."""
    if hasattr(model, "transition"):
        return model.transition_noise(rng, (steps, batch))
    return {"hidden": model.latent.noise(rng, (steps, batch)), "visible": visible_noise(model, (steps, batch), rng)}


def walk(model: Any, chains: Chains, noise: Any) -> Chains:
    """Block Gibbs sampling, as many sweeps as the noise has; chains start at a v alone.

    A sweep is the model's own ``transition(chains, noise)``, where it has one, and else h ~ p(h|v), v ~ p(v|h).
    """
    leaves, structure = tree_flatten(noise)
    for row in zip(*leaves, strict=True):
        drawn = tree_unflatten(row, structure)
        if hasattr(model, "transition"):
            chains = model.transition(chains, drawn)
        else:
            h = model.sample_hidden(chains["v"], drawn["hidden"])
            chains = {"v": model.sample_visible(h, drawn["visible"])}
    return chains


def gibbs(model: Any, v: Tensor, noise: Any) -> Tensor:
    """The v of ``walk`` from v [batch, *visible_shape]."""
    return walk(model, {"v": v}, noise)["v"]


def has_gibbs(model: Any) -> bool:
    """Whether a model has what Gibbs sampling needs: its own transition, or both conditionals."""
    return hasattr(model, "transition") or (hasattr(model, "sample_hidden") and hasattr(model, "sample_visible"))


# --- samplers ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Enumeration:
    """Independent draws, exact: see ``enumeration.exact_samples``."""

    model: Any
    how: ClassVar[str] = "independent draws, exact"

    def draw(self, count: int, rng: Rng) -> Tensor:
        """v [count, *visible_shape]."""
        return exact_samples(self.model, count, rng)


@dataclasses.dataclass(frozen=True)
class _Chains:
    """What starts somewhere.

    rows: where, in turn; by default N(0, I) in the units of the training, or fair coins where v is binary.
    scaling: between those units and the model's.
    """

    model: Any
    rows: Tensor | None = None
    scaling: OwnUnits | None = None

    def start(self, count: int, rng: Rng) -> Tensor:
        """v [count, *visible_shape]."""
        if self.rows is not None:
            return self.rows[torch.arange(count) % len(self.rows)]
        shape = (count, *self.model.visible_shape)
        if has_binary_v(self.model):
            return (rng.uniform(shape) < 0.5).to(rng.dtype)
        normal = rng.normal(shape)
        return self.scaling.own(normal) if self.scaling else normal


@dataclasses.dataclass(frozen=True)
class GibbsChains(_Chains):
    """The ends of block Gibbs chains."""

    sweeps: int = SWEEPS

    @property
    def how(self) -> str:
        """For people."""
        return f"ends of Gibbs chains of {self.sweeps:,} sweeps"

    def draw(self, count: int, rng: Rng) -> Tensor:
        """v [count, *visible_shape]."""
        chains = {"v": self.start(count, rng)}
        with torch.no_grad():
            for _ in range(self.sweeps):
                chains = walk(self.model, chains, gibbs_noise(self.model, count, 1, rng))
        return chains["v"]


@dataclasses.dataclass(frozen=True)
class LangevinChains(_Chains):
    """The ends of annealed Langevin chains over v, and over real h beside it where h cannot be integrated out.

    schedule: of temperatures; the default is for any model, and not the paper's, which is for images and ends at modes.
    step_size: in the units of the training. Directions with a standard deviation of s take about 2 (s / step_size)^2
        steps to be forgotten, and those below step_size / 2 diverge.
    """

    schedule: Sequence[Stretch] = ANNEALED
    step_size: float = 0.1
    how: ClassVar[str] = "ends of annealed Langevin chains"

    def draw(self, count: int, rng: Rng) -> Tensor:
        """v [count, *visible_shape]."""
        model, start = self.model, {"v": self.start(count, rng)}
        sizes: dict[str, Any] = {"v": self.step_size * (self.scaling.factor.to(start["v"]) if self.scaling else 1)}
        if not _marginal(model):
            start["h"], sizes["h"] = rng.normal((count, model.latent.size)), self.step_size

        def energy(at: Any) -> Tensor:
            found: Tensor = marginal_energy(model, at["v"]) if _marginal(model) else model.energy(at["v"], at["h"])
            return found

        seed = int(torch.randint(1 << 62, (), generator=rng.source, device=rng.device))
        *_, last = langevin(energy, start, temperatures(self.schedule), step_size=sizes, seed=seed)
        return last["v"]


def _marginal(model: Any) -> bool:
    """Whether the energy of v alone can be computed."""
    return has_free_energy(model) or model.latent is None


def marginal_energy(model: Any, v: Tensor) -> Tensor:
    """The energy of v alone, [batch], of models whose h can be integrated or summed out, or that have none."""
    found: Tensor = free_energy(model, v) if has_free_energy(model) else model.energy(v)
    return found


def sampler(
    model: Any, *, rows: Tensor | None = None, scaling: OwnUnits | None = None, sweeps: int = SWEEPS
) -> Sampler | None:
    """How a model is sampled, or None where there is no way: see above.

    Args:
        rows: where chains start, in turn, [n, *visible_shape]; what needs no start does without.
        scaling: of the data that the model was trained on, where it is one of the data in their own units.
        sweeps: of Gibbs chains.
    """
    if isinstance(model, Sampler):
        return model
    if exactly_sampled(model):
        return Enumeration(model)
    if has_gibbs(model):
        return GibbsChains(model, rows, scaling, sweeps)
    if not has_binary_v(model) and (_marginal(model) or isinstance(model.latent, Gaussian)):
        return LangevinChains(model, rows, scaling)
    return None


def no_sampler(model: Any) -> str:
    """What to say of a model that cannot be sampled."""
    return (
        f"{type(model).__name__} cannot be sampled: it has no draw(), cannot be enumerated, has neither transition() "
        f"nor sample_hidden() and sample_visible() for Gibbs chains, and Langevin dynamics need real v, and real h or "
        f"free_energy()"
    )
