"""Data in units that a model starts at, and what was learnt from them in the data's own units.

A model p_y of scaled data y = (x - a) / f, with one f_i > 0 for each visible unit, is a model of x with the energy
E((x - a) / f, h). By the change of variables

    log p_x(x) = log p_y(y) - sum_i log f_i,
    score_x,i = score_y,i / f_i,   Hessian_x,ii = Hessian_y,ii / f_i^2,

so that the Fisher divergence of eq. (2) in the data's own units is 1/2 sum_i (score_y,i / f_i)^2 + sum_i
Hessian_y,ii / f_i^2, in one over their square. What an integral over v gives gains the factor prod_i f_i.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bism.errors import InputError
from bism.fitted import Fitted
from bism.models import GRBM
from bism.posteriors import location_and_scale
from bism.protocols import Sampler
from bism.rng import Rng
from bism.sampling import SWEEPS, sampler
from bism.variables import has_binary_v


@dataclasses.dataclass(frozen=True)
class Scaling:
    """x = shift + factor * y: x in the data's own units, y in those of the training.

    shift, factor: float64, [*visible_shape] or one number for all units.
    """

    kind: str
    shift: Tensor
    factor: Tensor

    @classmethod
    def standard(cls, x: Tensor) -> "Scaling":
        """Each visible unit to mean 0 and standard deviation 1 (over n); constant ones are shifted alone."""
        return cls("standard", *location_and_scale(x.double()))

    @classmethod
    def unit(cls, x: Tensor) -> "Scaling":
        """All values by one map, the least to 0 and the largest to 1."""
        low, high = x.double().min(), x.double().max()
        return cls("unit", low, high - low)

    def scaled(self, x: Tensor) -> Tensor:
        """From the data's own units to those of the training, in float64."""
        return (x.double() - self.shift.to(x.device)) / self.factor.to(x.device)

    def own(self, y: Tensor) -> Tensor:
        """Back to the data's own units, in float64."""
        return self.shift.to(y.device) + self.factor.to(y.device) * y.double()

    def reshaped(self, shape: tuple[int, ...]) -> "Scaling":
        """The same for visible vectors in another shape."""
        if self.shift.ndim == 0:
            return self
        return dataclasses.replace(self, shift=self.shift.reshape(shape), factor=self.factor.reshape(shape))

    @property
    def record(self) -> dict[str, Any]:
        """As plain numbers, all digits of them."""
        return {"kind": self.kind, "shift": self.shift.tolist(), "factor": self.factor.tolist()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Scaling":
        """The inverse of ``record``."""
        shift, factor = (torch.tensor(record[name], dtype=torch.float64) for name in ("shift", "factor"))
        return cls(record["kind"], shift, factor)

    def model(self, model: Any) -> Any:
        """A model of scaled data as one of the data in their own units, in float64.

        Raises:
            InputError: its v is binary, and so has no units.
        """
        if has_binary_v(model):
            raise InputError(f"v of {type(model).__name__} is binary: there is nothing to scale")
        if type(model) is GRBM:
            parameter = model.b
            return model.rescaled(self.shift.to(parameter.device), self.factor.to(parameter.device))
        return Rescaled(model, self)

    def posterior(self, posterior: Any) -> Any:
        """A posterior given scaled data as one given the data in their own units, in float64."""
        return _Posterior(posterior, self)

    def fitted(self, fitted: Fitted) -> Fitted:
        """Trained models of scaled data as models of the data in their own units."""
        return _Fitted(fitted, self)


class _Scaled(nn.Module):
    """A module of scaled vectors that takes them in the data's own units."""

    shift: Tensor
    factor: Tensor

    def __init__(self, module: Any, scaling: Scaling) -> None:
        super().__init__()
        self.inner = copy.deepcopy(module).double()
        like = next(self.inner.parameters())
        self.register_buffer("shift", scaling.shift.to(like))
        self.register_buffer("factor", scaling.factor.to(like))

    def scaled(self, v: Tensor) -> Tensor:
        scaled: Tensor = (v - self.shift) / self.factor
        return scaled


_OPTIONAL = (
    "free_energy", "hidden_free_energy", "known_log_z", "sample_hidden", "sample_visible", "transition",
    "transition_noise", "draw", "score_and_laplacian", "energies", "mean_field", "variational_free_energy",
)  # fmt: skip


class Rescaled(_Scaled):
    """A model of scaled data as one of the data in their own units; it has of what is optional what that one has."""

    def __init__(self, model: Any, scaling: Scaling) -> None:
        super().__init__(model, scaling)
        self.visible_shape, self.latent = model.visible_shape, model.latent

    def __getattr__(self, name: str) -> Any:
        if name in _OPTIONAL and hasattr(self.inner, name):
            return getattr(self, f"_{name}")
        return super().__getattr__(name)

    def energy(self, v: Tensor, *h: Tensor) -> Tensor:
        """E((v - a) / f, h), [batch]."""
        energy: Tensor = self.inner.energy(self.scaled(v), *h)
        return energy

    def _free_energy(self, v: Tensor) -> Any:
        return self.inner.free_energy(self.scaled(v))

    def _volume(self) -> Tensor:
        return self.factor.log().expand(self.visible_shape).sum()

    def _hidden_free_energy(self, h: Tensor) -> Any:
        return self.inner.hidden_free_energy(h) - self._volume()

    def _known_log_z(self) -> float | None:
        known = self.inner.known_log_z()
        return None if known is None else known + float(self._volume())

    def _energies(self, v: Tensor, h: Tensor) -> Any:
        return self.inner.energies(self.scaled(v), h)

    def _mean_field(self, v: Tensor, *how: Any) -> Any:
        return self.inner.mean_field(self.scaled(v), *how)

    def _variational_free_energy(self, v: Tensor, *hidden: Any) -> Any:
        return self.inner.variational_free_energy(self.scaled(v), *hidden)

    def _sample_hidden(self, v: Tensor, noise: Tensor) -> Any:
        return self.inner.sample_hidden(self.scaled(v), noise)

    def _sample_visible(self, h: Tensor, noise: Tensor) -> Any:
        return self.shift + self.factor * self.inner.sample_visible(h, noise)

    def _transition(self, chains: dict[str, Tensor], noise: Any) -> dict[str, Tensor]:
        after = self.inner.transition({**chains, "v": self.scaled(chains["v"])}, noise)
        return {**after, "v": self.shift + self.factor * after["v"]}

    def _transition_noise(self, rng: Rng, batch: tuple[int, ...]) -> Any:
        return self.inner.transition_noise(rng, batch)

    def _draw(self, count: int, rng: Rng) -> Tensor:
        return self.shift + self.factor * self.inner.draw(count, rng)

    def _score_and_laplacian(self, v: Tensor) -> Any:
        # The trace weighs each diagonal entry of the Hessian by its own factor; the inner closed form has their sum.
        if self.factor.numel() > 1:
            from bism.objectives import score, sm  # the exact trace, by differentiation

            found = score(lambda x: -self._free_energy(x), v)
            divergence = sm(lambda x: -self._free_energy(x), v)
            return found, divergence - 0.5 * found.square().flatten(1).sum(1)
        found, laplacian = self.inner.score_and_laplacian(self.scaled(v))
        return found / self.factor, laplacian / self.factor.square()


class _Posterior(_Scaled):
    def mean(self, v: Tensor) -> Any:
        return self.inner.mean(self.scaled(v))

    def sample(self, v: Tensor, *given: Any) -> Any:
        return self.inner.sample(self.scaled(v), *given)

    def sample_hard(self, v: Tensor, noise: Tensor) -> Any:
        return self.inner.sample_hard(self.scaled(v), noise)

    def log_prob(self, h: Tensor, v: Tensor) -> Any:
        return self.inner.log_prob(h, self.scaled(v))


class _Fitted(Fitted):
    """Its parameters and state are those of the training."""

    def __init__(self, fitted: Fitted, scaling: Scaling) -> None:
        vars(self).update(vars(fitted))
        self._scaling = scaling

    def model(self, seed: int) -> Any:
        return self._scaling.model(super().model(seed))

    def posterior(self, seed: int) -> Any:
        return self._scaling.posterior(super().posterior(seed))

    def sampler(self, seed: int, *, rows: Tensor | None = None, sweeps: int = SWEEPS) -> Sampler | None:
        own = self._own_sampler(seed)
        if own:
            return _InOwnUnits(own, self._scaling, next(super().model(seed).parameters()).dtype)
        return sampler(self.model(seed), rows=rows, scaling=self._scaling, sweeps=sweeps)


@dataclasses.dataclass(frozen=True)
class _InOwnUnits:
    """A method's own sampler of scaled data."""

    inner: Sampler
    scaling: Scaling
    dtype: torch.dtype  # of the training

    @property
    def how(self) -> str:
        return str(self.inner.how)  # type: ignore[attr-defined]  # an AttributeError where it has none

    @property
    def codes(self) -> Callable[[int, Rng], Tensor]:
        codes: Callable[[int, Rng], Tensor] = self.inner.codes  # type: ignore[attr-defined]  # as above
        return lambda count, rng: codes(count, Rng(rng.source, self.dtype))

    @property
    def decode(self) -> Callable[[Tensor], Tensor]:
        decode: Callable[[Tensor], Tensor] = self.inner.decode  # type: ignore[attr-defined]  # as above
        return lambda z: self.scaling.own(decode(z))

    def draw(self, count: int, rng: Rng) -> Tensor:
        return self.scaling.own(self.inner.draw(count, Rng(rng.source, self.dtype)))
