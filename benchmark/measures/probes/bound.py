"""Lower bounds of log-likelihoods, of models whose free energy cannot be had."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from benchmark.measures.probes.annealing import MOST, ByAnnealing
from benchmark.measures.probes.base import Metrics, Subject
from bism import Estimator, log_partition
from bism.annealing import annealed, has_path
from bism.enumeration import not_enumerable
from bism.likelihood import importance_bound

_ROWS = 500  # examples at once


class Bound(ByAnnealing):
    """``val/log_likelihood_bound`` and ``test/log_likelihood_bound``: a lower bound of log p~(v) less log Z, in nats.

    The bound of log p~(v) is the model's own by mean field (DBM), or by importance sampling from the posterior that was
    trained beside it (DBN), which is below log p~(v) on average over the samples; of models with a free energy (RBM,
    GRBM) it is -F(v), and the result the log-likelihood.

    log Z is exact where it can be enumerated. Else it is AIS's, which is too small on average, so that the bound is
    optimistic: ``_lower`` has the upper end of ``Bracket.interval`` in its place, and ``_upper`` the lower end, and
    ``_stderr`` is the standard error of AIS's log Z. ``bound/log_z`` and ``bound/gap`` say how far AIS and reverse AIS
    came.

    Options:
        particles: samples of the posterior for each example.
        mean_field_steps: at most, for each example.
        chains, steps, tolerance, sweeps: of ``ByAnnealing``.
    """

    particles: int = Field(100, gt=0, le=MOST)
    mean_field_steps: int = Field(50, gt=0, le=10_000)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        reason = not_enumerable(model)
        if reason and not has_path(model):
            return f"log Z cannot be enumerated ({reason}), and there is no annealing path to an RBM"
        own = hasattr(model, "free_energy") or hasattr(model, "variational_free_energy")
        if not own and "posterior" not in estimator.trains:
            return "the model has no bound of its own, and this method trains no posterior"
        return None

    def measure(self, subject: Subject) -> Metrics:
        fitted, seed = subject.fitted, subject.seed
        model = fitted.model(seed)
        posterior = fitted.posterior(seed) if "posterior" in fitted.estimator.trains else None
        log_z, metrics = self._log_z(model, posterior, subject)
        for split in ("val", "test"):
            v = getattr(subject.data, split).to(next(model.parameters()))
            density = 0.0
            for rows in v.split(_ROWS):
                density += float(self._log_density(model, posterior, rows, seed).double().sum()) / len(v)
                subject.alive()
            name = f"{split}/log_likelihood_bound"
            metrics |= {name if not end else f"{name}_{end}": density - value for end, value in log_z.items()}
            metrics[f"{name}_stderr"] = metrics["bound/standard_error"]
        return metrics

    def _log_density(self, model: Any, posterior: Any, v: Tensor, seed: int) -> Tensor:
        """A lower bound of log p~(v), [batch]."""
        with torch.no_grad():
            if hasattr(model, "free_energy"):
                return -model.free_energy(v)
            if hasattr(model, "variational_free_energy"):
                return -model.variational_free_energy(v, model.mean_field(v, self.mean_field_steps).hidden)
            return importance_bound(model, posterior, v, particles=self.particles, seed=seed)

    def _log_z(self, model: Any, posterior: Any, subject: Subject) -> tuple[dict[str, float], Metrics]:
        """log Z, and in place of it the ends between which it lies, for the bounds "lower" and "upper"."""
        if not_enumerable(model) is None:
            exact = log_partition(model)
            return {"": exact, "lower": exact, "upper": exact}, {
                "bound/log_z": exact,
                "bound/standard_error": 0.0,
                "bound/gap": 0.0,
            }
        rbm, examples = annealed(model, subject.data.train, posterior)
        found = self.bracketed(rbm, examples, subject, "bound")
        low, high = found.interval()
        return {"": found.lower.log_z, "lower": high, "upper": low}, {
            "bound/log_z": found.lower.log_z,
            "bound/standard_error": found.lower.standard_error,
            "bound/gap": found.gap,
            "bound/temperatures": float(found.lower.temperatures),
            "bound/contradictory": float(found.contradictory),
        }
