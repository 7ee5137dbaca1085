"""Log partition functions and likelihoods of RBMs by annealing, where their units are too many to enumerate.

Everything walks one path of distributions between independent units and the model,

    f_beta(v, h) = exp(-(1 - beta) E_0(v, h) - beta E(v, h)),

with E_0 the energy of a base-rate model: v_i Gaussian (GRBM) or Bernoulli (RBM), h_j Bernoulli, all independent, Z_0
known. Each f_beta is a model of the same kind itself, so that a transition is one sweep of block Gibbs sampling, and h
is summed out of every weight.

- Forward, from the base (AIS; Neal 2001, Salakhutdinov and Murray 2008): E[w] = Z / Z_0. By Jensen's inequality
  log Z is underestimated on average, so that the likelihoods it gives are optimistic.
- Backward, from samples of the model (reverse AIS; Burda et al. 2015, Grosse et al. 2015): E[w] = Z_0 / Z, so that
  log Z is overestimated on average: if the samples are exact. Long Gibbs chains are samples only approximately.
- Backward, from an example v (RAISE; Burda et al. 2015): exp(-F(v)) E[w] / Z_0 is the probability of v under the
  *annealed* model, the one that samples by going forward. Its logarithm is underestimated on average.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.nn.functional import softplus

from bism.enumeration import exact_samples, not_enumerable
from bism.errors import InputError
from bism.models import GRBM, RBM
from bism.rng import Rng, generator
from bism.sampling import GibbsChains
from bism.variables import has_binary_v, log_odds

LEVEL = 0.95  # of what bounds an estimate
Annealable = GRBM | RBM
_MANY = 20  # chains from which on the spread of their weights says how far off their mean is


@dataclasses.dataclass(frozen=True)
class BaseRate:
    """Independent units: v_i ~ N(mean_i, scale_i^2), h_j ~ Bernoulli(sigmoid(logits_j))."""

    mean: Tensor  # [D]
    scale: Tensor  # [D]
    logits: Tensor  # [m]

    @property
    def log_z(self) -> float:
        """log Z_0 = sum_i log scale_i + D/2 log 2 pi + sum_j softplus(logits_j), that of the unnormalised f_0."""
        gaussian = self.scale.double().log().sum() + 0.5 * self.mean.numel() * math.log(2 * math.pi)
        return float(gaussian + softplus(self.logits.double()).sum())

    def sample(self, count: int, rng: Rng) -> Tensor:
        """v [count, D]."""
        return self.mean + self.scale * rng.normal((count, self.mean.numel()))


@dataclasses.dataclass(frozen=True)
class BinaryBaseRate:
    """Independent units: v_i ~ Bernoulli(sigmoid(visible_logits_i)), h_j ~ Bernoulli(sigmoid(logits_j))."""

    visible_logits: Tensor  # [D]
    logits: Tensor  # [m]

    @property
    def log_z(self) -> float:
        """log Z_0 = sum_i softplus(visible_logits_i) + sum_j softplus(logits_j)."""
        return float(softplus(self.visible_logits.double()).sum() + softplus(self.logits.double()).sum())

    def sample(self, count: int, rng: Rng) -> Tensor:
        """v [count, D]."""
        noise = rng.logistic((count, self.visible_logits.numel()))
        return (self.visible_logits + noise > 0).to(noise.dtype)


Base = BaseRate | BinaryBaseRate


@dataclasses.dataclass(frozen=True)
class Estimate:
    """log Z from independent annealing runs.

    standard_error: of ``log_z``, from the spread of the weights; worth something only while many of them count, that
        is where ``effective_sample_size`` = (sum w)^2 / sum w^2 is well above 1.
    chains, temperatures: how many runs, and of how many transitions each.
    """

    log_z: float
    standard_error: float
    effective_sample_size: float
    chains: int
    temperatures: int

    def margin(self, level: float = LEVEL) -> float:
        """How far ``log_z`` may be beyond log Z on the side on which it bounds it, but for a chance of (1 - level) / 2.

        The smaller of two, with a = (1 - level) / 2:

        - z s: the mean of many weights is normal, and its logarithm has the standard error s (the delta method); z is
          the normal's 1 - a quantile. Weights are skewed to the right, so that a mean that came out too high has a high
          s, and one that came out too low a low one: the side that is needed here is the safe one.
        - log(1/a): weights are not negative and their mean is Z / Z_0, so that by Markov's inequality it is 1/a times
          as high with a probability of at most a (Grosse et al. 2015), whatever the weights are. It is all that is said
          of fewer than 20 chains.
        """
        tail = (1 - level) / 2
        normal = statistics.NormalDist().inv_cdf(1 - tail) * self.standard_error
        return min(normal, -math.log(tail)) if self.chains >= _MANY else -math.log(tail)


@dataclasses.dataclass(frozen=True)
class Bracket:
    """log Z between AIS from below and reverse AIS from above, each on average.

    upper: by where the samples of the model came from: "exact", or "data" and "base", from where Gibbs chains were
        started. These are approximate: a chain that has not mixed makes an upper bound too low or too high.
    """

    lower: Estimate
    upper: Mapping[str, Estimate]
    tolerance: float

    @property
    def approximate(self) -> bool:
        """Whether the upper end stands on samples that are not exact."""
        return "exact" not in self.upper

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Bounds of log Z: the smallest interval that holds every estimate with its ``margin`` on both sides.

        With exact samples log Z lies in it with a probability of at least ``level``: it is below what AIS gives less
        its margin with a probability of at most (1 - level) / 2, and above what reverse AIS gives plus its margin as
        rarely. The margins on the other sides keep the bounds in order, and each estimate between them, where AIS came
        out above reverse AIS. That happens half of the time when both have converged, as each errs by its own noise.
        """
        estimates = [self.lower, *self.upper.values()]
        return min(x.log_z - x.margin(level) for x in estimates), max(x.log_z + x.margin(level) for x in estimates)

    @property
    def contradictory(self) -> bool:
        """Whether an upper estimate lies below the lower one by more than both margins: its samples were not exact."""
        return any(x.log_z + x.margin() < self.lower.log_z - self.lower.margin() for x in self.upper.values())

    @property
    def gap(self) -> float:
        """Distance in nats between the lower estimate and the upper one furthest from it."""
        return max(abs(estimate.log_z - self.lower.log_z) for estimate in self.upper.values())

    @property
    def reached(self) -> bool:
        """Whether the gap is within the tolerance."""
        return self.gap <= self.tolerance


@overload
def base_rate(model: GRBM, data: Tensor) -> BaseRate: ...
@overload
def base_rate(model: RBM, data: Tensor) -> BinaryBaseRate: ...
def base_rate(model: Annealable, data: Tensor) -> Base:
    """The base-rate model of data [n, D]: its means and standard deviations, or its log-odds where v is binary, and the
    mean of p(h|v) on it.

    Standard deviations are at least a hundredth of the model's own s_i, so that a visible unit that never changes can
    move, in whatever units each is measured; log-odds are finite for the same reason (Laplace's rule).
    """
    v = data.to(model.b)
    hidden = model.hidden_logits(v).sigmoid().mean(0).clamp(0.01, 0.99).logit().detach()
    if isinstance(model, RBM):
        return BinaryBaseRate(log_odds(v), hidden)
    scale = v.std(0).maximum(0.01 * model.log_s.detach().exp())
    return BaseRate(v.mean(0), scale, hidden)


class _GaussianPath:
    """The visible units of f_beta between a base-rate model and a GRBM: v_i given h is Gaussian at every beta."""

    def __init__(self, base: BaseRate, model: GRBM) -> None:
        self.base, self.W = base, model.W
        precision, self.base_precision = (-2 * model.log_s).exp(), base.scale.pow(-2)
        self.square = precision - self.base_precision
        self.linear = precision * model.b - self.base_precision * base.mean
        self.constant = float(precision @ model.b.square() - self.base_precision @ base.mean.square())

    def sample(self, h: Tensor, beta: float, kind: dict[str, Any]) -> Tensor:
        """v ~ f_beta(v|h), [chains, D]; ``kind`` is how random numbers are drawn."""
        mixed = self.base_precision + beta * self.square
        centre = (self.base_precision * self.base.mean + beta * self.linear) / mixed
        v = torch.addmm(centre, h, (beta / mixed) * self.W.T)
        return v.addcmul_(mixed.rsqrt(), torch.randn(v.shape, **kind))

    def rise(self, v: Tensor) -> Tensor:
        """What of E - E_0 is of v alone, [chains]."""
        return 0.5 * (v.square() @ self.square - 2 * (v @ self.linear) + self.constant)


class _BinaryPath:
    """The same between a base-rate model and an RBM: v_i given h is Bernoulli, its logit between the two ends'."""

    def __init__(self, base: BinaryBaseRate, model: RBM) -> None:
        self.base, self.b, self.W = base, model.b, model.W

    def sample(self, h: Tensor, beta: float, kind: dict[str, Any]) -> Tensor:
        logits = torch.addmm(torch.lerp(self.base.visible_logits, self.b, beta), h, beta * self.W.T)
        return (torch.rand(logits.shape, **kind) < logits.sigmoid_()).to(h.dtype)

    def rise(self, v: Tensor) -> Tensor:
        return v @ (self.base.visible_logits - self.b)


def inverse_temperatures(count: int) -> Tensor:
    """Inverse temperatures beta from 0 to 1, [count + 1]."""
    return torch.linspace(0, 1, count + 1, dtype=torch.float64)


def anneal(model: Annealable, base: Base, v: Tensor, betas: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Walks chains along the path: at each beta one Gibbs sweep that leaves f_beta invariant, then on to the next beta.

    log w = sum_k log f_(k+1)(v_k) - log f_k(v_k), with h summed out and v_k the chain after the sweep at beta_k.

    Args:
        v: [chains, D], where the chains start.
        betas: [temperatures + 1], from 0 up to 1 (AIS) or from 1 down to 0.

    Returns:
        log w [chains] in float64, and v at the end.
    """
    kind: dict[str, Any] = {"dtype": v.dtype, "device": v.device, "generator": source}
    log_w = torch.zeros(len(v), dtype=torch.float64, device=v.device)
    with torch.no_grad():
        path = _path(base, model)
        logits = torch.lerp(base.logits, model.hidden_logits(v), float(betas[0]))  # of h given v at beta
        for beta, following in itertools.pairwise(betas.tolist()):
            h = (torch.rand(logits.shape, **kind) < logits.sigmoid_()).to(v.dtype)
            v = path.sample(h, beta, kind)
            at_one = model.hidden_logits(v)
            before = torch.lerp(base.logits, at_one, beta)
            logits = torch.lerp(base.logits, at_one, following)
            hidden = softplus(logits).sub_(softplus(before)).sum(1)
            log_w += hidden - (following - beta) * path.rise(v)
    return log_w, v


def _path(base: Base, model: Annealable) -> _GaussianPath | _BinaryPath:
    if isinstance(base, BinaryBaseRate):
        assert isinstance(model, RBM)
        return _BinaryPath(base, model)
    assert isinstance(model, GRBM)
    return _GaussianPath(base, model)


def ais(model: Annealable, data: Tensor, *, chains: int = 1000, steps: int = 1000, seed: int = 0) -> Estimate:
    """log Z by annealed importance sampling from the base-rate model of ``data``; a lower bound on average.

    Args:
        data: [n, D], what the model was trained on. From a base-rate model elsewhere AIS may miss the region that holds
            most of Z and not show it: from the model's own b and s, as if W were 0, log Z of a GRBM trained on the Frey
            faces comes out 266 nats too low, with a standard error of 0.1.
        chains: independent runs.
        steps: temperatures, that is transitions of each run.

    Raises:
        InputError: the model is no GRBM and no RBM.
    """
    base, rng = _prepare(model, data, seed, "AIS")
    log_w, _ = anneal(model, base, base.sample(chains, rng), inverse_temperatures(steps), rng.source)
    return estimated(base.log_z, log_w, steps, 1)


def reverse_ais(model: Annealable, samples: Tensor, data: Tensor, *, steps: int = 1000, seed: int = 0) -> Estimate:
    """log Z by annealing from samples of the model [chains, D] to the base-rate model.

    An upper bound on average if the samples are exact, with the same base as ``ais`` for the same data.

    Raises:
        InputError: the model is no GRBM and no RBM.
    """
    base, rng = _prepare(model, data, seed, "reverse AIS")
    log_w, _ = anneal(model, base, samples, inverse_temperatures(steps).flip(0), rng.source)
    return estimated(base.log_z, log_w, steps, -1)


def raise_log_likelihood(
    model: Annealable, v: Tensor, data: Tensor, *, chains: int = 10, steps: int = 1000, seed: int = 0
) -> Tensor:
    """log p_ann(v) of the annealed model by RAISE, [batch] in float64; underestimated on average.

    The annealed model draws from the base-rate model of ``data`` and makes ``steps`` transitions to the model; it tends
    to the model as they grow, and what this bounds is its likelihood, not the model's.

    Args:
        v: examples [batch, D].
        chains: independent runs for each example.

    Raises:
        InputError: the model is no GRBM and no RBM.
    """
    base, rng = _prepare(model, data, seed, "RAISE")
    start = v.to(model.b).repeat_interleave(chains, 0)
    log_w, _ = anneal(model, base, start, inverse_temperatures(steps).flip(0), rng.source)
    mean = log_w.reshape(len(v), chains).logsumexp(1) - math.log(chains)
    return mean - _free_energy(model, v) - base.log_z


def bracket(
    model: Annealable,
    data: Tensor,
    *,
    chains: int = 1000,
    steps: Sequence[int] = (1000, 2000, 4000, 8000),
    tolerance: float = 1.0,
    sweeps: int = 1000,
    seed: int = 0,
) -> Bracket:
    """log Z from both sides, with more temperatures until the gap is within the tolerance or the budget is spent.

    Args:
        data: training data [n, D]: for the base-rate model, and where Gibbs chains start.
        steps: numbers of temperatures to try, in this order.
        tolerance: in nats.
        sweeps: of Gibbs sampling before a chain's state counts as a sample, where the model cannot be enumerated.

    Raises:
        InputError: the model is no GRBM and no RBM.
    """
    starts = _samples(model, data, chains, sweeps, seed)
    for number in steps:
        lower = ais(model, data, chains=chains, steps=number, seed=seed)
        upper = {name: reverse_ais(model, v, data, steps=number, seed=seed) for name, v in starts.items()}
        found = Bracket(lower, upper, tolerance)
        if found.reached:
            break
    return found


def _samples(model: Annealable, data: Tensor, chains: int, sweeps: int, seed: int) -> dict[str, Tensor]:
    """Samples of the model, by where they come from: exact ones where its units can be enumerated."""
    base, rng = _prepare(model, data, seed, "samples of the model")
    if not_enumerable(model) is None:
        return {"exact": exact_samples(model, chains, rng)}
    rows = rng.integers(len(data), (chains,))
    starts = {"data": data.to(model.b)[rows], "base": base.sample(chains, rng)}
    return {name: GibbsChains(model, v, sweeps=sweeps).draw(chains, rng) for name, v in starts.items()}


def _prepare(model: Annealable, data: Tensor, seed: int, purpose: str) -> tuple[Base, Rng]:
    reason = not_annealable(model)
    if reason:
        raise InputError(f"{purpose} cannot be had for {type(model).__name__}: {reason}")
    return base_rate(model, data), Rng(generator(seed, 0, purpose, model.b.device), model.b.dtype)


def not_annealable(model: object) -> str | None:
    """Why there is no annealing path to this model, or None."""
    return None if isinstance(model, Annealable) else "the annealing path is written for GRBMs and RBMs"


def has_path(model: Any) -> bool:
    """Whether there is an annealing path to this model, or to an RBM with the same Z: see ``annealed``."""
    return isinstance(model, Annealable) or (hasattr(model, "as_rbm") and has_binary_v(model))


def annealed(model: Any, data: Tensor, posterior: Any = None) -> tuple[Annealable, Tensor]:
    """What is annealed to find a model's log Z, and examples of what is visible to it: the model and the data, or the
    RBM ``as_rbm()`` with the same Z (a DBM's even and odd layers, the top of a DBN) and ``as_rbm_examples(data)``.

    Args:
        posterior: of models whose examples follow from one (a DBN's); without it they are poor, and AIS needs more
            temperatures.

    Raises:
        InputError: there is no path.
    """
    if isinstance(model, Annealable):
        return model, data
    if not has_path(model):
        raise InputError(f"AIS cannot be had for {type(model).__name__}: {not_annealable(model)}")
    with torch.no_grad():
        return model.as_rbm(), model.as_rbm_examples(data.to(next(model.parameters())), posterior)


def _free_energy(model: Annealable, v: Tensor) -> Tensor:
    with torch.no_grad():
        return model.free_energy(v.to(model.b)).double()


def estimated(log_z0: float, log_w: Tensor, steps: int, sign: int) -> Estimate:
    """log Z = log Z_0 + sign * log mean w, with the error that the spread of the weights makes."""
    count = len(log_w)
    mean = log_w.logsumexp(0) - math.log(count)
    weights = (log_w - log_w.max()).exp()
    error = (log_w - mean).exp().std() / math.sqrt(count) if count > 1 else torch.tensor(math.nan)
    effective = weights.sum().square() / weights.square().sum()
    return Estimate(log_z0 + sign * float(mean), float(error), float(effective), count, steps)
