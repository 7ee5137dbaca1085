"""How near the bounds of log Z are that NVIL and AdVIL train by."""

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from baselines import NVIL, AdVIL
from baselines.mixture import Points, log_z_bound, mixture_noise
from benchmark.measures.probes.base import Metrics, Probe, Subject
from bism import Estimator, log_partition
from bism.enumeration import exact_samples, exactly_sampled, in_double, not_enumerable
from bism.rng import Rng, generator


class LogZBounds(Probe):
    """``log_z/upper``, NVIL's 1/2 log E_q[(p~/q)^2], or ``log_z/lower``, AdVIL's H(q) - E_q [E] with the bound of H(q),
    from samples of the proposal or decoder; in float64, as are all of these.

    Where log Z can be enumerated: ``log_z/exact``, and ``log_z/gap`` >= 0, how far the bound is from it. NVIL's gap is
    1/2 log E_p[p/q] from exact samples of the model, ``log_z/gap_stderr`` being its standard error: samples of q do not
    show what q has missed, and ``log_z/upper`` can then lie below log Z. ``log_z/effective_samples`` is the share
    (sum w)^2 / (n sum w^2) of NVIL's samples.

    All of them in the units that the model was trained in, those of scaled data included, in which the gap is the same.

    Options:
        samples: of the proposal or decoder, and of the model.
        seed: of them.
    """

    samples: int = Field(20_000, gt=1, le=10_000_000)
    seed: int = 0

    @staticmethod
    def unsuitable(estimator: Estimator, model: object) -> str | None:
        return None if isinstance(estimator, (NVIL, AdVIL)) else "only nvil and advil bound log Z"

    def measure(self, subject: Subject) -> Metrics:
        fitted, model = subject.fitted, in_double(subject.fitted.part("model", subject.seed))
        device = next(model.parameters()).device
        rng = Rng(generator(self.seed, subject.seed, "bounds of log Z", device), torch.float64)
        found: Metrics = {}
        with torch.no_grad():
            exact = None if not_enumerable(model) else log_partition(model)
            if exact is not None:
                found["log_z/exact"] = exact
            if isinstance(fitted.estimator, AdVIL):
                decoder = in_double(fitted.part("decoder", subject.seed))
                return found | self.lower(fitted.estimator, model, decoder, exact, rng)
            assert isinstance(fitted.estimator, NVIL)  # see unsuitable()
            proposal = in_double(fitted.part("proposal", subject.seed))
            return found | self.upper(fitted.estimator, model, proposal, exact, rng)

    def lower(self, estimator: AdVIL, model: Any, decoder: Any, exact: float | None, rng: Rng) -> Metrics:
        noise = estimator.decoder_noise(model, (self.samples,), rng)
        code, h, v = decoder.sample_hard(noise)
        bound = float((decoder.entropy_bound(code, h, v) - model.energy(v, h)).mean())
        return {"log_z/lower": bound} | ({} if exact is None else {"log_z/gap": exact - bound})

    def upper(self, estimator: NVIL, model: Any, proposal: Any, exact: float | None, rng: Rng) -> Metrics:
        def log_weights(points: Points) -> Tensor:
            return -estimator.energy(model, points) - proposal.log_prob(*points)

        log_w = log_weights(proposal.sample(mixture_noise(model, self.samples, estimator.joint, rng)))
        share = log_w.softmax(0)
        found = {
            "log_z/upper": float(log_z_bound(log_w)),
            "log_z/effective_samples": float(1 / (len(share) * share.square().sum())),
        }
        if exact is None or not exactly_sampled(model):
            return found
        v = exact_samples(model, self.samples, rng)
        h = (model.sample_hidden(v, model.latent.noise(rng, (len(v),))),) if estimator.joint else ()
        ratio = log_weights((v, *h)) - exact  # log p/q at samples of p
        mean = float(ratio.logsumexp(0)) - math.log(len(ratio))
        spread = float((ratio - mean).exp().std()) / len(ratio) ** 0.5
        return found | {"log_z/gap": 0.5 * mean, "log_z/gap_stderr": 0.5 * spread}
