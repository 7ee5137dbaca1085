"""Likelihoods of models of real h with a prior and a decoder: importance sampling, and annealing in both directions.

All start from a normal q_0(h) = N(h; a, diag(b^2)), N(0, I) or a trained posterior's, and work in u = (h - a) / b. The
path of annealing is

    f_t(u) = N(u; 0, I)^(1 - t) p~(v, a + b u)^t prod_i b_i^t,   0 <= t <= 1,

with Hamiltonian Monte Carlo as its transitions, whose step sizes are found in a run of their own, so that in the run
that counts each leaves its f_t invariant.

- Forward, from u ~ N(0, I): E[w] = p~(v) (Neal 2001), as of importance sampling, which is annealing by one step.
- Backward, from u of an exact draw h ~ p(h|v): E[w] = 1 / p~(v) (Grosse et al. 2015). There is such a draw for v that
  the model itself has drawn together with their h, and for no other (bidirectional Monte Carlo).

Let x_i = log w_i - log p~(v_i) be the error at example i of n. As E exp(x_i) = 1 and examples are independent,
E exp(sum x_i) = 1, and by Markov's inequality the mean of the x_i is above log(1/a) / n with a probability of at most
a: whatever the weights are, and however few. So the mean of log w is a lower bound of the mean of log p~, up to that
margin, and backward weights give an upper one in the same way.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bism.annealing import LEVEL, Bracket, Estimate, estimated
from bism.enumeration import in_double
from bism.errors import InputError
from bism.hmc import adapted, hmc
from bism.likelihood import log_ratios
from bism.priors import LOG_2PI
from bism.quadrature import log_integral
from bism.rng import Rng, generator
from bism.variables import visible_noise

Energy = Callable[[Tensor], Tensor]
_STEEP = 4.0  # of the sigmoid that temperatures follow (Grosse et al. 2015)
_RATE = 0.2  # at which step sizes follow the acceptance
_SIGNS = 16  # by which a posterior's samples are moved
_START = 0.5  # the step size at N(0, I)


def exact_in_h(model: Any) -> bool:
    """Whether v that the model draws come with exact draws of h: its prior is sampled independently."""
    return bool(getattr(model.prior, "normalised", False))


def sigmoid_temperatures(count: int) -> Tensor:
    """t from 0 to 1, [count + 1], closer to each other at both ends."""
    t = (_STEEP * torch.linspace(-1, 1, count + 1, dtype=torch.float64)).sigmoid()
    return (t - t[0]) / (t[-1] - t[0])


# --- annealing --------------------------------------------------------------------------------------------------------


def _standard(u: Tensor) -> Tensor:
    return 0.5 * u.square().sum(-1) + 0.5 * u.shape[-1] * LOG_2PI


def _between(energy: Energy, t: Tensor | float) -> Energy:
    return lambda u: (1 - t) * _standard(u) + t * energy(u)


def step_sizes(energy: Energy, u: Tensor, t: Tensor, rng: Rng, *, leapfrogs: int = 5, chains: int = 1) -> Tensor:
    """A step size for each temperature and row of u, [temperatures + 1, rows, 1], found on the way from N(0, I) to
    exp(-energy); the rows i, i + rows / chains, ... share theirs."""
    size, found = u.new_full((len(u) // chains, 1), _START), list[Tensor]()
    for one in t.tolist():
        each = size.repeat(chains, 1)
        u, accepted = hmc(_between(energy, one), u, rng.normal(u.shape), rng.uniform(u.shape[:1]), each, leapfrogs)
        found.append(each)
        size = adapted(size, accepted.reshape(chains, -1).mean(0).unsqueeze(1), _RATE)
    return torch.stack(found)


def anneal(
    energy: Energy, u: Tensor, t: Tensor, sizes: Tensor, rng: Rng, *, leapfrogs: int = 5
) -> tuple[Tensor, Tensor, float]:
    """Walks rows of u [rows, m] from f_t at the first t to that at the last: at each one transition, then on.

    Args:
        energy: of u, [rows]: -log of what stands at t = 1.
        t: [temperatures + 1], from 0 to 1 or from 1 to 0.
        sizes: of the steps, in the order of t.

    Returns:
        log w [rows] in float64; u at the end; and the share of transitions that were accepted.
    """
    log_w, accepted = torch.zeros(len(u), dtype=torch.float64, device=u.device), list[Tensor]()
    for number, one in enumerate(t[:-1].tolist()):
        noise = rng.normal(u.shape), rng.uniform(u.shape[:1])
        u, probability = hmc(_between(energy, one), u, *noise, sizes[number], leapfrogs)
        accepted.append(probability.mean())
        with torch.no_grad():
            log_w += (float(t[number + 1]) - one) * (_standard(u) - energy(u)).double()
    return log_w, u, float(torch.stack(accepted).mean())


# --- log p~(v) --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of examples, log w [weights, batch] in float64, whose means are p~(v), or 1 / p~(v) with ``sign`` -1."""

    log_w: Tensor
    sign: int = 1

    @property
    def values(self) -> Tensor:
        """Estimates of log p~(v), [batch]: below it on average, and with ``sign`` -1 above it."""
        return self.sign * (self.log_w.logsumexp(0) - math.log(len(self.log_w)))

    @property
    def effective(self) -> Tensor:
        """Effective sample sizes (sum w)^2 / sum w^2, [batch]."""
        share = self.log_w.softmax(0)
        return 1 / share.square().sum(0)

    @property
    def mean(self) -> float:
        """The mean of ``values``."""
        return float(self.values.mean())

    @property
    def error_of_examples(self) -> float:
        """The standard error of ``mean`` as one over examples of their kind."""
        return float(self.values.std() / len(self.values) ** 0.5)

    @property
    def error_of_weights(self) -> float:
        """The standard error of ``mean`` for these examples (delta method), (sum_i s_i^2)^1/2 / n with s_i that of
        log mean w_i; worth something where the effective sample sizes are well above 1 and weights independent."""
        share, count = self.log_w.softmax(0) * len(self.log_w), len(self.log_w)
        return float((share.var(0) / count).sum().sqrt() / len(self.values))

    def margin(self, level: float = LEVEL) -> float:
        """How far ``mean`` may be beyond the mean of log p~ on the side on which it bounds it, but for a chance of
        (1 - level) / 2: see the module."""
        return -math.log((1 - level) / 2) / self.log_w.shape[1]

    @property
    def bound(self) -> float:
        """``mean`` with its margin, at a level of 95%: a lower bound, or with ``sign`` -1 an upper one."""
        return self.mean - self.sign * self.margin()


@dataclasses.dataclass(frozen=True)
class _Normal:
    """q_0 of examples: a and b, each [batch, m]."""

    a: Tensor
    b: Tensor


def _normal(model: Any, posterior: Any, v: Tensor) -> _Normal:
    like = v.new_zeros(len(v), model.latent.size)
    if posterior is None:
        return _Normal(like, torch.ones_like(like))
    signs = Rng(generator(0, 0, "spread of a posterior", v.device), v.dtype).rademacher((_SIGNS, like.shape[1]))
    with torch.no_grad():  # any b above 0 will do; of a Gaussian q it is its own, and of q(z|v) q(u|z) that of u alone
        a = posterior.sample(v, like, 1.0)
        moved = torch.stack([posterior.sample(v, one.expand_as(like), 1.0) - a for one in signs])
        return _Normal(a, moved.square().mean(0).sqrt().clamp(min=1e-4))


def _energy(model: Any, v: Tensor, q: _Normal, chains: int) -> Energy:
    """-log p~(v, a + b u) - sum_i log b_i, of u [chains * batch, m] with the chains outermost."""
    all_v = v.repeat(chains, *[1] * (v.ndim - 1))
    a, b, volume = q.a.repeat(chains, 1), q.b.repeat(chains, 1), q.b.log().sum(-1).repeat(chains)
    return lambda u: model.energy(all_v, a + b * u) - volume


def importance(model: Any, posterior: Any, v: Tensor, *, particles: int = 1000, seed: int = 0) -> Weights:
    """Importance sampling from q(h|v) (Burda et al. 2016; see ``likelihood.importance_bound``)."""
    rng = Rng(generator(seed, 0, "importance bound", v.device), v.dtype)
    return Weights(log_ratios(model, posterior, v, particles, rng).double())


@dataclasses.dataclass(frozen=True)
class Annealed:
    """Weights by annealing, the share of transitions accepted, and h [chains, batch, m] where chains ended."""

    weights: Weights
    acceptance: float
    h: Tensor


def annealed_importance(
    model: Any,
    v: Tensor,
    posterior: Any = None,
    *,
    chains: int = 10,
    steps: int = 500,
    leapfrogs: int = 5,
    pilots: int | None = None,
    seed: int = 0,
    h: Tensor | None = None,
) -> Annealed:
    """AIS over h for each example of v [batch, *visible_shape].

    Args:
        model: with ``energy`` and real h.
        posterior: from whose normal to start; else from N(0, I).
        chains: independent, for each example.
        steps: temperatures; leapfrogs: of a transition.
        pilots: chains for each example of the run that finds step sizes; as many as of the other.
        h: exact draws of p(h|v), [batch, m], to go backwards from them: the weights are then of 1 / p~(v). Chains that
            start at the same h are not independent, and neither ``effective`` nor ``error_of_weights`` knows.

    Raises:
        InputError: h are binary.
    """
    if getattr(getattr(model, "prior", None), "binary", False):
        raise InputError(
            f"the latent variables of {type(model.prior).__name__} are binary, and Hamiltonian dynamics do not anneal "
            f"them: importance(), from a posterior, bounds log p(v)"
        )
    rng, kind = Rng(generator(seed, 0, "annealing h", v.device), v.dtype), "forward" if h is None else "backward"
    own = Rng(generator(seed, 0, f"annealing h, {kind}", v.device), v.dtype)
    q, t = _normal(model, posterior, v), sigmoid_temperatures(steps)
    pilots = pilots or chains
    ahead = rng.normal((pilots * len(v), q.a.shape[1]))
    sizes = step_sizes(_energy(model, v, q, pilots), ahead, t, rng, leapfrogs=leapfrogs, chains=pilots)
    sizes = sizes[:, : len(v)].repeat(1, chains, 1)
    if h is None:
        start = own.normal((chains * len(v), q.a.shape[1]))
    else:
        start, t, sizes = ((h - q.a) / q.b).repeat(chains, 1), t.flip(0), sizes.flip(0)
    log_w, u, acceptance = anneal(_energy(model, v, q, chains), start, t, sizes, own, leapfrogs=leapfrogs)
    end = q.a + q.b * u.reshape(chains, *q.a.shape)
    return Annealed(Weights(log_w.reshape(chains, -1), 1 if h is None else -1), acceptance, end)


def posterior_mean(
    model: Any, v: Tensor, *, chains: int = 5, steps: int = 100, leapfrogs: int = 2, seed: int = 0
) -> Tensor:
    """E[h|v], [batch, m], for models without a network that knows it: sum_c w_c h_c / sum_c w_c of the ends h_c of AIS
    from N(0, I), which tends to it with more chains whatever the number of temperatures; arguments as of
    ``annealed_importance``. Where p(h|v) has several modes, few chains find the heavier ones and not their shares."""
    found = annealed_importance(model, v, chains=chains, steps=steps, leapfrogs=leapfrogs, pilots=1, seed=seed)
    return (found.weights.log_w.softmax(0).to(found.h).unsqueeze(-1) * found.h).sum(0)


@dataclasses.dataclass(frozen=True)
class Bidirectional:
    """log p~(v) of examples that the model has drawn, from below and from above.

    exact: whether h are exact draws of p(h|v). Of a tilted prior they are ends of chains, and where these have not
        mixed the upper end is none.
    """

    lower: Annealed
    upper: Annealed
    exact: bool

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Holds the mean of log p~(v) of these examples with a probability of at least ``level``, if ``exact``."""
        ends = self.lower.weights, self.upper.weights
        low, high = (end.mean - end.sign * end.margin(level) for end in ends)
        return low, high

    @property
    def gap(self) -> float:
        """Mean distance of the two in nats: at least what AIS is too low by, on average."""
        return self.upper.weights.mean - self.lower.weights.mean

    @property
    def gap_error(self) -> float:
        """Its standard error, over examples."""
        apart = self.upper.weights.values - self.lower.weights.values
        return float(apart.std() / len(apart) ** 0.5)


def bidirectional(
    model: Any, posterior: Any = None, *, examples: int = 100, seed: int = 0, **how: Any
) -> Bidirectional:
    """Annealing both ways at (v, h) that the model draws; ``how`` as of ``annealed_importance``."""
    like = next(model.parameters())
    rng = Rng(generator(seed, 0, "draws of v and h", like.device), like.dtype)
    with torch.no_grad():
        h = model.prior.draw(examples, rng)
        v = model.sample_visible(h, visible_noise(model, (examples,), rng))
    lower = annealed_importance(model, v, posterior, seed=seed, **how)
    upper = annealed_importance(model, v, posterior, seed=seed, h=h, **how)
    return Bidirectional(lower, upper, exact_in_h(model))


# --- log Z ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PriorLogZ:
    """log of the integral of exp(-prior.energy(h)), and between which ends it lies.

    how: "normalised", where it is 0; "enumeration", of binary variables; "quadrature"; or "annealing".
    importance: by importance sampling from N(0, I), of "annealing".
    bracket: by AIS from N(0, I) and back from the prior's chains, which are approximate draws.
    """

    log_z: float
    how: str
    error: float = 0.0
    importance: Estimate | None = None
    bracket: Bracket | None = None

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """As of ``Bracket.interval``; exact values have no width but their ``error``."""
        if self.bracket:
            return self.bracket.interval(level)
        return self.log_z - self.error, self.log_z + self.error


def prior_log_z(
    prior: Any,
    *,
    draws: int = 100_000,
    chains: int = 200,
    steps: int = 500,
    leapfrogs: int = 5,
    tolerance: float = 1.0,
    seed: int = 0,
) -> PriorLogZ:
    """log Z of a prior with ``energy``, ``draw`` and ``codes``.

    Args:
        draws: for importance sampling; chains, steps, leapfrogs: of annealing; tolerance: of the bracket, in nats.

    Raises:
        InputError: its variables are binary, and too many to enumerate.
    """
    if getattr(prior, "normalised", False):
        return PriorLogZ(0.0, "normalised")
    if getattr(prior, "binary", False):
        return PriorLogZ(prior.log_partition(), "enumeration")
    like = next(itertools.chain(prior.parameters(), prior.buffers()), torch.empty(()))  # it may have no numbers
    if prior.codes <= 2:
        exact = in_double(prior)
        found = log_integral(lambda h: -_energies_in_parts(exact, h.to(like.device)).cpu(), prior.codes)
        return PriorLogZ(found.log_z, "quadrature", found.error)
    rng = Rng(generator(seed, 0, "log Z of a prior", like.device), like.dtype)
    h = rng.normal((draws, prior.codes))
    with torch.no_grad():
        by_importance = estimated(0.0, _standard(h).double() - _energies_in_parts(prior, h), 0, 1)
    t, shape = sigmoid_temperatures(steps), (chains, prior.codes)
    sizes = step_sizes(prior.energy, rng.normal(shape), t, rng, leapfrogs=leapfrogs, chains=chains)
    up, _, _ = anneal(prior.energy, rng.normal(shape), t, sizes, rng, leapfrogs=leapfrogs)
    start = prior.draw(chains, rng)
    down, _, _ = anneal(prior.energy, start, t.flip(0), sizes.flip(0), rng, leapfrogs=leapfrogs)
    lower = estimated(0.0, up, steps, 1)
    found_by = Bracket(lower, {"chains": estimated(0.0, down, steps, -1)}, tolerance)
    return PriorLogZ(lower.log_z, "annealing", importance=by_importance, bracket=found_by)


def _energies_in_parts(prior: Any, h: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([prior.energy(part) for part in torch.split(h, 1 << 14)]).double()
