"""What methods share that move h given v, or decode it."""

import dataclasses
from typing import Any

from torch import Tensor

from baselines.chains import Runs
from baselines.vae import negative_elbo
from bism.estimator import Hyper
from bism.functional import frozen
from bism.rng import Rng
from bism.state import State


def code_noise(model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
    """Standard normal, [batch, m]."""
    return rng.normal((batch_shape[0], model.latent.size))


def start_at_encoder(state: State, batches: Tensor, noise: Tensor, hyper: Hyper) -> State:
    """A phase: ``carry["h"]`` is h ~ q(h|v)."""
    h = frozen(state.bind().posterior).sample(batches[0], noise, 1.0)
    return state.replace(carry={**state.carry, "h": h})


def bound_and_energy(params: Any, v: Tensor, noise: Tensor, h: Tensor) -> Tensor:
    """-ELBO, [batch], with its gradient in the encoder, and in the model that of E(v, h) at h given."""
    energy = params.model.energy(v, h)
    return negative_elbo(frozen(params.model), params.posterior, v, noise) + energy - energy.detach()


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A method's own sampler: h where its chains on the prior end, decoded as the model says."""

    model: Any
    runs: Runs

    @property
    def how(self) -> str:
        """For people."""
        return f"{self.runs.how}, decoded{' to means' if self.model.drawn == 'means' else ''}"

    def codes(self, count: int, rng: Rng) -> Tensor:
        """h [count, m]."""
        return self.runs.draw(count, rng)

    def decode(self, h: Tensor) -> Tensor:
        """E[v|h], [n, *visible_shape]."""
        v: Tensor = self.model.visible_mean(h)
        return v

    def draw(self, count: int, rng: Rng) -> Tensor:
        """v [count, *visible_shape]."""
        v: Tensor = self.model.shown(self.codes(count, rng), rng)
        return v
