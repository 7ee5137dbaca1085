"""Whether the chains of unbiased CD meet."""

import torch
from pydantic import Field

from baselines import UnbiasedCD
from baselines.coupling import meeting_times
from benchmark.measures.probes.base import Metrics, Probe, Subject
from bism import Estimator


class Coupling(Probe):
    """When coupled chains that start at training examples meet, under the model as it is.

    ``coupling/not_met`` is the share of those that have not within the method's ``max_steps``, which is where its bias
    comes from; ``coupling/not_met_at_all`` within ``sweeps``. ``coupling/meeting_time`` is their mean time in sweeps,
    ``sweeps`` for those that have not met at all; ``coupling/out_of_tries`` the draws from a residual that were not
    of their law, per chain.

    Options:
        chains: pairs of them, from the first training examples in turn.
        sweeps: at most.
        seed: of their noise.
    """

    chains: int = Field(1000, gt=0)
    sweeps: int = Field(1000, gt=0)
    seed: int = 0

    @staticmethod
    def unsuitable(estimator: Estimator, model: object) -> str | None:
        return None if isinstance(estimator, UnbiasedCD) else "only unbiased_cd couples chains"

    def measure(self, subject: Subject) -> Metrics:
        estimator, model = subject.fitted.estimator, subject.fitted.model(subject.seed)
        assert isinstance(estimator, UnbiasedCD)  # see unsuitable()
        train = subject.data.train
        v = train[torch.arange(self.chains) % len(train)].to(next(model.parameters()))
        sweeps = max(self.sweeps, estimator.max_steps)
        times, short = meeting_times(model, v, estimator.coupling, estimator.tries, sweeps=sweeps, seed=self.seed)
        return {
            "coupling/not_met": float((times > estimator.max_steps).double().mean()),
            "coupling/not_met_at_all": float(times.isinf().double().mean()),
            "coupling/meeting_time": float(times.clamp(max=sweeps).double().mean()),
            "coupling/out_of_tries": short / self.chains,
        }
