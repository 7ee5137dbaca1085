"""Log-likelihoods where log Z cannot be enumerated."""

import warnings
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from benchmark.measures.probes.base import Metrics, Probe, Subject
from bism import Estimator
from bism.annealing import LEVEL, Bracket, bracket, not_annealable, raise_log_likelihood

MOST = 1_000_000
Temperatures = Annotated[int, Field(gt=0, le=MOST)]


class ByAnnealing(Probe):
    """Probes that ask AIS and reverse AIS for log Z.

    Options:
        chains: AIS runs.
        steps: numbers of temperatures, tried in this order until AIS and reverse AIS differ by at most
        tolerance: in nats.
        sweeps: of Gibbs sampling before a chain counts as a sample for reverse AIS.
    """

    chains: int = Field(1000, gt=1, le=MOST)
    steps: list[Temperatures] = Field([1000, 2000, 4000, 8000], min_length=1)
    tolerance: float = Field(1.0, gt=0)
    sweeps: int = Field(1000, ge=0, le=MOST)

    def bracketed(self, model: Any, examples: Tensor, subject: Subject, what: str) -> Bracket:
        """log Z between AIS and reverse AIS; a warning where they are further apart than the tolerance."""
        found = bracket(
            model,
            examples,
            chains=self.chains,
            steps=self.steps,
            tolerance=self.tolerance,
            sweeps=self.sweeps,
            seed=subject.seed,
        )
        if not found.reached:
            warnings.warn(
                f"seed {subject.seed}, step {subject.fitted.step:,}: AIS and reverse AIS differ by {found.gap:.1f} "
                f"nats with {found.lower.temperatures:,} temperatures, and the tolerance is {self.tolerance:g}: the "
                f"{what} is that uncertain; the probe's option 'steps' takes more temperatures",
                stacklevel=3,
            )
        return found


class Annealing(ByAnnealing):
    """Log-likelihoods of a GRBM or an RBM by AIS, with what is known about their error.

    ``val/log_likelihood`` and ``test/log_likelihood`` use AIS's log Z, which is low on average, so that they are
    optimistic. They lie between ``_lower`` and ``_upper``: -F(v) less the ends of ``Bracket.interval``, which AIS and
    reverse AIS give together, each with its standard error, at the level ``ais/level``. ``_stderr`` is the standard
    error of AIS's log Z. ``test/raise_log_likelihood`` is RAISE's, of the annealed model.

    Options, beside those of ``ByAnnealing``:
        raise_chains: RAISE runs for each test example; 0 leaves RAISE out.
        raise_steps: temperatures of RAISE.
    """

    raise_chains: int = Field(10, ge=0, le=MOST)
    raise_steps: int = Field(1000, gt=0, le=MOST)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        return not_annealable(model)

    def measure(self, subject: Subject) -> Metrics:
        model = subject.fitted.model(subject.seed)
        train = subject.data.train.to(model.b)
        found = self.bracketed(model, train, subject, "log-likelihood")
        metrics, (low, high) = _of_log_z(found), found.interval()
        for split in ("val", "test"):
            v = getattr(subject.data, split).to(model.b)
            with torch.no_grad():
                unnormalised = -float(model.free_energy(v).double().mean())
            metrics |= {
                f"{split}/log_likelihood": unnormalised - found.lower.log_z,
                f"{split}/log_likelihood_stderr": found.lower.standard_error,
                f"{split}/log_likelihood_upper": unnormalised - low,
                f"{split}/log_likelihood_lower": unnormalised - high,
            }
        if self.raise_chains:
            v, runs = subject.data.test.to(model.b), self.raise_chains
            bound = raise_log_likelihood(model, v, train, chains=runs, steps=self.raise_steps, seed=subject.seed)
            metrics["test/raise_log_likelihood"] = float(bound.mean())
        return metrics


def _of_log_z(found: Bracket) -> Metrics:
    lower = found.lower
    return {
        "ais/log_z": lower.log_z,
        "ais/standard_error": lower.standard_error,
        "ais/effective_sample_size": lower.effective_sample_size,
        "ais/chains": float(lower.chains),
        "ais/temperatures": float(lower.temperatures),
        "ais/gap": found.gap,
        "ais/level": LEVEL,
        "ais/contradictory": float(found.contradictory),
        "ais/within_tolerance": float(found.reached),
        **{f"ais/reverse_log_z_from_{name}": estimate.log_z for name, estimate in found.upper.items()},
        **{f"ais/reverse_standard_error_from_{name}": x.standard_error for name, x in found.upper.items()},
    }
