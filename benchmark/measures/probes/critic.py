"""The Fisher divergence of a model to the data, by a critic."""

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, vmap

from baselines.latent_scores import mean_score
from benchmark.measures.probes.base import Metrics, Probe, Subject
from bism import Estimator
from bism.bilevel import log_ratio
from bism.critic import fisher_divergence_by_critic
from bism.objectives import score
from bism.rng import Rng
from bism.variables import has_binary_v


class CriticDivergence(Probe):
    """``test/critic_fisher_divergence``: 1/2 E ||s - s_D||^2 of the model's score s and that of the smoothed data, s_D,
    in the data's own units; a lower bound, as good as the critic (``bism.critic``). ``_stderr`` is its standard error.

    The score is that of the free energy where the model has one, else estimated from samples of its posterior, without
    bias where that is exact.

    Options:
        noise: that smooths the data, in their own units.
        steps, width: of the critic's training, and of its layers.
        particles: samples of h for the score.
    """

    noise: float = Field(0.05, ge=0)
    steps: int = Field(2000, gt=0)
    width: int = Field(128, gt=0)
    particles: int = Field(5, gt=0)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        if has_binary_v(model):
            return "v of the model is binary and has no score"
        if not hasattr(model, "free_energy") and "posterior" not in estimator.trains:
            return "the model has no free energy, and without a posterior its score cannot be estimated"
        return None

    def measure(self, subject: Subject) -> Metrics:
        model = subject.fitted.model(subject.seed)
        like, data = next(model.parameters()), subject.data
        found = fisher_divergence_by_critic(
            self.score(subject, model),
            *(split.to(like) for split in (data.train, data.val, data.test)),
            noise=self.noise,
            steps=self.steps,
            width=self.width,
            seed=subject.seed,
        )
        return {
            "test/critic_fisher_divergence": found.divergence,
            "test/critic_fisher_divergence_stderr": found.stderr,
            "val/critic_fisher_divergence": found.validation,
        }

    def score(self, subject: Subject, model: Any) -> Callable[[Tensor, Rng], Tensor]:
        """The model's score."""
        if hasattr(model, "free_energy"):
            return lambda v, rng: score(lambda x: -model.free_energy(x), v)
        posterior = subject.fitted.posterior(subject.seed)

        def estimated(v: Tensor, rng: Rng) -> Tensor:
            subject.alive()
            noise = model.latent.noise(rng, (self.particles, len(v)))
            with torch.no_grad():
                h = vmap(lambda eps: posterior.sample_hard(v, eps))(noise)
            return mean_score(lambda x, at: log_ratio(model, posterior, x, at), v, h)

        return estimated
