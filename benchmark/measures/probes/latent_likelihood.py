"""Likelihoods of models of real h with a prior and a decoder."""

import math
import warnings
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from benchmark.measures.probes.annealing import MOST
from benchmark.measures.probes.base import Metrics, Probe, Subject
from bism import Estimator
from bism.annealing import LEVEL
from bism.enumeration import not_enumerable
from bism.latent_likelihood import (
    Bidirectional,
    PriorLogZ,
    Weights,
    annealed_importance,
    bidirectional,
    importance,
    prior_log_z,
)
from bism.latent_quadrature import not_summable
from bism.likelihood import log_likelihood
from bism.priors import no_prior
from bism.scaling import Scaling
from bism.variables import Gaussian

_BOTH = 1 - (1 - LEVEL) / 2  # level of each of two intervals that are to hold at once


class LatentLikelihood(Probe):
    """log p(v) of the validation and the test data, in nats: ``bism.latent_likelihood``.

    Of one or two codes exact (``log_likelihood``), of all examples. Else of the first ``examples`` of each:
    ``log_likelihood_bound`` by AIS over h for each example, from the trained posterior where there is one and else from
    N(0, I), less log Z, and with its margin ``..._lower``; ``..._stderr`` is the standard error of AIS's weights.
    ``..._upper`` adds the upper end of the gap of annealing both ways at examples that the model has drawn: it holds as
    far as data are no harder to anneal than these. ``log_likelihood_iw`` is the importance-weighted bound.
    ``ais_effective_samples`` and ``iw_effective_samples`` are means over examples. Of binary h, which Hamiltonian
    dynamics do not move, ``log_likelihood_bound`` is the importance-weighted bound, and there is no upper end.

    ``latent/ais_gap`` is that gap, with its standard error, and ``latent/draws_exact`` whether the draws were: of a
    tilted prior they are ends of chains. ``latent/log_z`` is the prior's, ``..._lower`` and ``..._upper`` its interval,
    and ``..._effective_samples`` that of importance sampling from N(0, I).

    Options:
        examples: of each split, the first ones, for bounds.
        particles: of importance sampling, for each example.
        chains, steps, leapfrogs: AIS runs for each example, temperatures, and steps of a transition.
        simulated: examples that the model draws.
        tolerance: in nats, of the gap and of log Z.
        prior_draws, prior_chains: for log Z of the prior by importance sampling, and by annealing.
        batch: examples at once.
    """

    examples: int = Field(200, gt=0, le=MOST)
    particles: int = Field(1000, gt=0, le=MOST)
    chains: int = Field(10, gt=1, le=10_000)
    steps: int = Field(500, gt=0, le=MOST)
    leapfrogs: int = Field(5, gt=0, le=1000)
    simulated: int = Field(100, gt=1, le=MOST)
    tolerance: float = Field(1.0, gt=0)
    prior_draws: int = Field(100_000, gt=1, le=10_000_000)
    prior_chains: int = Field(200, ge=20, le=MOST)
    batch: int = Field(100, gt=0, le=MOST)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        if not isinstance(model.latent, Gaussian):
            return "the model has no real latent variables"
        if not all(hasattr(model, name) for name in ("prior_energy", "log_visible")):
            return "the model has no prior of its h with a decoder (prior_energy, log_visible)"
        if reason := no_prior(model):
            return reason
        if model.prior.binary and (reason := not_enumerable(model.prior.rbm)):
            return f"its prior's log Z cannot be enumerated: {reason}"
        return None

    def measure(self, subject: Subject) -> Metrics:
        model, posterior = subject.fitted.joint(subject.seed)
        like, scaling = next(model.parameters()), subject.data.scaling
        splits = {
            name: (scaling.scaled(v) if scaling else v).to(like)
            for name, v in (("val", subject.data.val), ("test", subject.data.test))
        }
        volume = _volume(scaling, model.visible_shape)
        if not_summable(model) is None:
            return {
                f"{name}/log_likelihood": float(log_likelihood(model, v).mean()) - volume for name, v in splits.items()
            }
        if model.prior.binary:
            return self._of_binary(subject, model, posterior, splits, volume)
        return self._bounds(subject, model, posterior, splits, volume)

    def _of_binary(
        self, subject: Subject, model: Any, posterior: Any, splits: dict[str, Tensor], volume: float
    ) -> Metrics:
        """By importance sampling alone: binary h are not annealed by Hamiltonian dynamics."""
        metrics, log_z = Metrics(), model.prior.log_partition()
        for name, rows in splits.items():
            weights = self._weighted(subject, model, posterior, rows[: self.examples])
            metrics |= {
                f"{name}/log_likelihood_bound": weights.mean - log_z - volume,
                f"{name}/log_likelihood_bound_lower": weights.bound - log_z - volume,
                f"{name}/log_likelihood_bound_stderr": weights.error_of_weights,
                f"{name}/log_likelihood_bound_examples_stderr": weights.error_of_examples,
                f"{name}/iw_effective_samples": float(weights.effective.mean()),
            }
        return metrics | {"latent/log_z": log_z}

    def _bounds(
        self, subject: Subject, model: Any, posterior: Any, splits: dict[str, Tensor], volume: float
    ) -> Metrics:
        how: dict[str, Any] = {"chains": self.chains, "steps": self.steps, "leapfrogs": self.leapfrogs}
        log_z = prior_log_z(
            model.prior, draws=self.prior_draws, chains=self.prior_chains, steps=self.steps, leapfrogs=self.leapfrogs,
            tolerance=self.tolerance, seed=subject.seed,
        )  # fmt: skip
        subject.alive()
        both = bidirectional(model, posterior, examples=self.simulated, seed=subject.seed, **how)
        subject.alive()
        low, high = log_z.interval(_BOTH)
        error_of_z = log_z.bracket.lower.standard_error if log_z.bracket else 0.0
        unseen = max(0.0, both.gap + 1.96 * both.gap_error)
        metrics = _of_model(log_z, both)
        for name, rows in splits.items():
            found = self._annealed(subject, model, posterior, rows[: self.examples], how)
            metrics |= {
                f"{name}/log_likelihood_bound": found.mean - log_z.log_z - volume,
                f"{name}/log_likelihood_bound_lower": found.mean - found.margin(_BOTH) - high - volume,
                f"{name}/log_likelihood_bound_upper": found.mean + unseen - low - volume,
                f"{name}/log_likelihood_bound_stderr": math.hypot(found.error_of_weights, error_of_z),
                f"{name}/log_likelihood_bound_examples_stderr": found.error_of_examples,
                f"{name}/ais_effective_samples": float(found.effective.mean()),
            }
            if posterior is not None:
                weights = self._weighted(subject, model, posterior, rows[: self.examples])
                metrics |= {
                    f"{name}/log_likelihood_iw": weights.mean - log_z.log_z - volume,
                    f"{name}/log_likelihood_iw_stderr": math.hypot(weights.error_of_weights, error_of_z),
                    f"{name}/iw_effective_samples": float(weights.effective.mean()),
                }
        self._doubts(subject, log_z, both, metrics)
        return metrics

    def _annealed(self, subject: Subject, model: Any, posterior: Any, v: Tensor, how: dict[str, Any]) -> Weights:
        parts = []
        for number, rows in enumerate(torch.split(v, self.batch)):
            seed = subject.seed + number * 1_000_003  # other noise for each part
            parts.append(annealed_importance(model, rows, posterior, seed=seed, **how).weights.log_w)
            subject.alive("annealing h", min(len(v), (number + 1) * self.batch), len(v))
        return Weights(torch.cat(parts, 1))

    def _weighted(self, subject: Subject, model: Any, posterior: Any, v: Tensor) -> Weights:
        parts = []
        for number, rows in enumerate(torch.split(v, self.batch)):
            seed = subject.seed + number * 1_000_003
            parts.append(importance(model, posterior, rows, particles=self.particles, seed=seed).log_w)
            subject.alive()
        return Weights(torch.cat(parts, 1))

    def _doubts(self, subject: Subject, log_z: PriorLogZ, both: Bidirectional, metrics: Metrics) -> None:
        """Warnings where the numbers are rough."""
        said = []
        if both.gap > self.tolerance:
            said.append(f"AIS and reverse AIS over h differ by {both.gap:.1f} nats at the model's own draws")
        if min(metrics["val/ais_effective_samples"], metrics["test/ais_effective_samples"]) < min(2.0, self.chains / 2):
            said.append(f"of {self.chains} chains for each example one counts")
        if log_z.bracket and log_z.bracket.contradictory:
            said.append("reverse AIS of the prior lies below AIS: its chains were no samples")
        elif log_z.bracket and not log_z.bracket.reached:
            said.append(f"the prior's log Z is known to {log_z.bracket.gap:.1f} nats")
        if said:
            warnings.warn(
                f"seed {subject.seed}, step {subject.fitted.step:,}: {'; '.join(said)}: log-likelihoods are that "
                f"uncertain; the probe's option 'steps' takes more temperatures than {self.steps:,}",
                stacklevel=3,
            )


def _volume(scaling: Scaling | None, shape: tuple[int, ...]) -> float:
    """sum_i log f_i of x = a + f y, by which log-densities of y lie above those of x."""
    return float(scaling.factor.log().expand(shape).sum()) if scaling else 0.0


def _of_model(log_z: PriorLogZ, both: Bidirectional) -> Metrics:
    low, high = log_z.interval()
    found = {
        "latent/ais_gap": both.gap,
        "latent/ais_gap_stderr": both.gap_error,
        "latent/ais_acceptance": both.lower.acceptance,
        "latent/draws_exact": float(both.exact),
        "latent/log_z": log_z.log_z,
        "latent/log_z_lower": low,
        "latent/log_z_upper": high,
    }
    if log_z.importance:
        found["latent/log_z_effective_samples"] = log_z.importance.effective_sample_size
    return found
