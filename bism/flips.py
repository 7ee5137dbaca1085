"""Objectives for binary v, where nothing can be differentiated in it: functions of what a flip of one unit changes.

In the place of the score in eq. (7) they have the D log-ratios

    d_i(v) = log p~(v^i) - log p~(v),    v^i = v with unit i flipped,    p(v_i | all others) = sigmoid(-d_i),

in which Z cancels too. ``FlipMatching`` takes them from the free energy, ``BiFlips`` from F(v; h) = log p~(v, h) -
log q(h|v), which eq. (8) puts in the place of log p(v).

**Bi-level** d_i(v; h) = F(v^i; h) - F(v; h) has one h ~ q(.|v) for v and all its neighbours: as h stays while eq. (8)
differentiates in v, it stays while v is flipped. Where q is the posterior, F(v; h) = log p~(v) for every h, and
d_i(v; h) = d_i(v): Theorem 1 for differences. It takes a q that is right at the neighbours too, so that the lower level
looks there as well (``Flips.points``).

Elsewhere F(v; h) = log p~(v) + r(v; h), r(v; h) = log p(h|v) - log q(h|v). Of factorial distributions of binary h, of
which q misses the logits by e(v), r(v; h) = h.e(v) + a term without h. What is random in d_i is then

    h.[e(v^i) - e(v)]           with the same h,
    h'.e(v^i) - h.e(v)          with h' ~ q(.|v^i), which is (h' - h).e(v^i) more.

A flip changes e by little, by a row of the error's weights if p and q are linear, while |h' - h| is of order one for
independent h'; common random numbers leave it to the few units whose probability the flip has moved across their noise.
So, where e changes slowly, the variance of d_i is least with the same h, and greatest with independent ones. It matters
twice, since the objectives are not linear in d_i: noise there is a bias of theirs. On the other side, E[r(v^i; h') -
r(v; h)], the terms without h included, is a difference of two evidence bounds, of second order in e and stationary in
phi at the posterior, so that its gradient needs no second term in eq. (14); with the same h the mean of d_i is off by
first order, as the score in eq. (8) is, and the bi-level gradient is what makes up for it.
"""

import dataclasses
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import vmap

from bism.estimator import Estimator, Hyper
from bism.methods import BiSM
from bism.objectives import LogDensity
from bism.protocols import EnergyModel, Posterior
from bism.rng import Rng
from bism.score_matching import Criterion
from bism.state import Info
from bism.variables import Bernoulli, Units


def flipped(v: Tensor, which: Tensor) -> Tensor:
    """v [batch, *shape] with the units flipped where ``which`` [..., D] is 1; it broadcasts over examples."""
    return (v.flatten(1) - which).abs().reshape(v.shape)


def log_ratios(log_density: LogDensity, v: Tensor) -> Tensor:
    """d_i = log_density(v with unit i flipped) - log_density(v), [batch, D], all flips at once."""
    units = torch.eye(v[0].numel(), dtype=v.dtype, device=v.device)
    return (vmap(lambda unit: log_density(flipped(v, unit)))(units) - log_density(v)).T


def marginal_log_ratios(model: Any, v: Tensor) -> Tensor:
    """d_i from the free energy, [batch, D], in the model's closed form where it has one."""
    closed = _closed_form(model, "flip_log_ratios", v)
    return log_ratios(lambda x: -model.free_energy(x), v) if closed is None else closed


def joint_log_ratios(model: EnergyModel, posterior: Posterior, v: Tensor, h: Tensor) -> Tensor:
    """d_i(v; h) = F(v^i; h) - F(v; h), [batch, D], in closed forms where there are some."""
    energies, log_probs = _closed_form(model, "flip_energies", v, h), _closed_form(posterior, "flip_log_probs", h, v)
    if energies is None:
        energies = log_ratios(lambda x: model.energy(x, h), v)
    if log_probs is None:
        log_probs = log_ratios(lambda x: posterior.log_prob(h, x), v)
    return -energies - log_probs


def _closed_form(of: Any, name: str, *given: Tensor) -> Tensor | None:
    method = getattr(of, name, None)
    return None if method is None else method(*given)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flips(Criterion):
    """A criterion of the log-ratios between v and its neighbours, of which one unit is another."""

    visible_units: ClassVar[tuple[type[Units], ...]] = (Bernoulli,)

    @abstractmethod
    def of_log_ratios(self, d: Tensor) -> Tensor:
        """The objective per example, [batch], from the log-ratios [batch, D]."""

    def objective(self, log_density: LogDensity, v: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        return self.of_log_ratios(log_ratios(log_density, v))

    def draw(self, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return self.draw_points(batch_shape, rng)  # the objective has no use for it, the lower level has

    def draw_points(self, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return rng.uniform(batch_shape[:1])

    def points(self, v: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        """Half of the examples themselves, half with a unit flipped at random: each d_i is of v and of v^i alike."""
        size = v[0].numel()
        unit = (2 * size * noise).floor().unsqueeze(1)
        return flipped(v, (unit == torch.arange(size, device=v.device)).to(v.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlipMatching(Flips, Estimator):
    """A criterion of flips on the marginal log p~(v) = -free_energy(v)."""

    needs: ClassVar[tuple[str, ...]] = ("free_energy",)

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        return self.of_log_ratios(marginal_log_ratios(params.model, batch)).mean(), carry, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiFlips(Flips, BiSM):
    """A criterion of flips on log p~(v, h) - log q(h|v), with the lower level and the hypergradients of BiSM."""

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        """J_Bi of eq. (8) on a minibatch, at the given posterior."""
        h = params.posterior.sample(batch, noise["upper"]["hidden"], hyper["temperature"])
        return self.of_log_ratios(joint_log_ratios(params.model, params.posterior, batch, h)).mean(), carry, {}
