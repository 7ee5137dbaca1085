"""Samples of points beside the data and beside those of long chains: whether a sampler draws what its model is."""

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from benchmark.data.datasets import DataSet
from benchmark.data.points import Law, law_of
from benchmark.measures.density import limits
from benchmark.measures.pictures import save_arrays
from benchmark.measures.probes.base import Metrics, Probe, Subject
from benchmark.measures.two_samples import BANDWIDTHS, c2st, median_distance, squared_ksd, squared_mmd
from bism import Estimator
from bism.enumeration import has_free_energy
from bism.likelihood import grid_density, not_exact
from bism.rng import Rng, generator
from bism.sampling import marginal_energy
from bism.variables import has_binary_v

_GRID = 121  # of densities, in either coordinate
_SEEN = 0.05  # nats: what a picture shows; sums over h to more digits at every pixel take minutes
_SIGNS = 500  # steps between two signs of life
_ACCEPTED = 0.57  # of MALA's proposals at the best step size (Roberts and Rosenthal 1998)


class TwoSamples(Probe):
    """Samples as the method draws them (``Estimator.sampler``, or as ``bism.sampling`` chooses) against test data:
    ``test/mmd``, ``test/ksd`` (against the score of what made the data, where that is known and smooth), ``test/c2st``
    with ``test/c2st_stderr``; and the same of long chains by the Metropolis-adjusted Langevin algorithm on the trained
    energy, which start where those samples are: ``test/long_mmd`` and so on (``benchmark.measures.two_samples``).

    Of a model with a prior and a decoder the long ones are the joint model's own draws instead, of a prior that is
    learnt the ends of long chains of Hamiltonian Monte Carlo on it, decoded; then there is no ``langevin``.

    A sampler that has converged is not moved by them. ``langevin/energy_gap`` is the mean energy of the method's own
    samples less that of the long chains' ends, in nats; ``langevin/gradient_own`` and ``langevin/gradient_long`` are
    the mean norms of the energy's gradient; ``langevin/acceptance`` is the share of proposals that were accepted.

    Densities, the data and both samples are arrays, ``toy2d_step_*.npz``.

    Options:
        count: of samples, and of test data.
        chains: of long ones.
        steps: of them, in the first tenth of which the step size is adapted.
        step_size: that they begin with.
        seed: of the chains and the classifier.
        seeds: of cells that are looked at, those below this; all without.
    """

    count: int = Field(1000, ge=20, le=10_000)
    chains: int = Field(250, ge=20, le=10_000)
    steps: int = Field(10_000, ge=10, le=10_000_000)
    step_size: float = Field(0.1, gt=0)
    seed: int = 0
    seeds: int | None = Field(None, gt=0)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        if has_binary_v(model) or tuple(model.visible_shape) != (2,):
            return "it is of points in the plane"
        if has_free_energy(model) or hasattr(model, "prior_energy"):
            return None
        return "its chains need the energy of v alone, or a prior"

    @staticmethod
    def lacking(data: DataSet) -> str | None:
        alike = bool((data.test == data.test[:1]).all())
        return Probe.of_two(data) or (f"the test data of {data.name} are all alike" if alike else None)

    def measure(self, subject: Subject) -> Metrics:
        if self.seeds is not None and subject.seed >= self.seeds:
            return {}
        model, law = subject.fitted.model(subject.seed), law_of(subject.data)
        test = subject.data.test[: self.count].double()
        own = subject.fitted.draw(self.count, subject.seed)
        joint, _ = subject.fitted.joint(subject.seed)  # in the units of the training
        if hasattr(joint, "prior_energy"):
            return self.of_prior(subject, joint, law, test, own)
        long, accepted = self.chained(model, own[: self.chains], subject.alive)
        found = self.compared(own.double().cpu(), test, law, "")
        found |= self.compared(long.double().cpu(), test, law, "long_")
        at_own, slope_own = _energy_and_slope(model, own)
        at_long, slope_long = _energy_and_slope(model, long)
        found |= {
            "langevin/energy_gap": float(at_own.mean() - at_long.mean()),
            "langevin/gradient_own": float(slope_own.norm(dim=1).mean()),
            "langevin/gradient_long": float(slope_long.norm(dim=1).mean()),
            "langevin/acceptance": accepted,
        }
        self.keep(subject, model, law, own, long, steps=f"{self.steps:,} steps")
        return found

    def of_prior(self, subject: Subject, joint: Any, law: Law | None, test: Tensor, own: Tensor) -> Metrics:
        """Where the joint model goes from codes to v."""
        scaling = subject.data.scaling
        model = scaling.model(joint) if scaling else joint
        like = next(joint.parameters())
        long = joint.draw(self.chains, Rng(generator(self.seed, 0, "long chains", like.device), like.dtype))
        long = scaling.own(long) if scaling else long
        found = self.compared(own.double().cpu(), test, law, "")
        found |= self.compared(long.double().cpu(), test, law, "long_")
        self.keep(subject, model, law, own, long, instead="draws of the trained prior, decoded")
        return found

    def chained(self, model: Any, v: Tensor, alive: Callable[..., None]) -> tuple[Tensor, float]:
        """Where the chains from v end, and the share of accepted proposals after the adaptation.

        v' = v - a^2/2 grad E(v) + a eps is accepted with probability min(1, e^(E(v) - E(v')) q(v|v') / q(v'|v)).
        """
        rng = Rng(generator(self.seed, 0, "long chains", v.device), v.dtype)
        size, accepted, adapting = self.step_size, 0.0, max(1, self.steps // 10)
        energy, slope = _energy_and_slope(model, v)
        for step in range(self.steps):
            eps = rng.normal(v.shape)
            there = v - 0.5 * size**2 * slope + size * eps
            energy_there, slope_there = _energy_and_slope(model, there)
            back = (v - there + 0.5 * size**2 * slope_there) / size
            log_ratio = energy - energy_there + 0.5 * (eps.square() - back.square()).sum(1)
            taken = rng.uniform((len(v),)).log() < log_ratio
            v, slope = (torch.where(taken[:, None], new, old) for new, old in ((there, v), (slope_there, slope)))
            energy = torch.where(taken, energy_there, energy)
            share = float(taken.double().mean())
            if step < adapting:
                size *= 1.05 if share > _ACCEPTED else 1 / 1.05
            else:
                accepted += share / (self.steps - adapting)
            if step % _SIGNS == 0:
                alive("long chains", step, self.steps)
        return v, accepted

    def compared(self, samples: Tensor, test: Tensor, law: Law | None, name: str) -> Metrics:
        """The distances of samples from test data and from their law; NaN where a sample is not finite."""
        test = test[: len(samples)]
        distance, names = median_distance(test), ["mmd", "c2st", "c2st_stderr"]
        if law is not None and law.smooth:
            names.append("ksd")
        if not samples.isfinite().all():
            return {f"test/{name}{one}": float("nan") for one in names}
        both = min(len(samples), len(test))  # a classifier gains by the larger of two classes
        accuracy, error = c2st(samples[:both], test[:both], self.seed)
        found = {
            f"test/{name}mmd": squared_mmd(samples, test, [b * distance for b in BANDWIDTHS]),
            f"test/{name}c2st": accuracy,
            f"test/{name}c2st_stderr": error,
        }
        if law is not None and law.smooth:
            found[f"test/{name}ksd"] = squared_ksd(samples, law.score(samples), BANDWIDTHS[1] * distance)
        return found

    def keep(self, subject: Subject, model: Any, law: Law | None, own: Tensor, long: Tensor, **how: str) -> None:
        """Writes the arrays, and of how many ``steps`` the long chains are, or what there is ``instead`` of them."""
        train = subject.data.train
        axes = [torch.linspace(*limits(values), _GRID, dtype=torch.float64) for values in train.numpy().T]
        grid = torch.stack(torch.meshgrid(*axes, indexing="xy"), -1).reshape(-1, 2)
        arrays = {"points": train[: self.count].float(), "own": own.float().cpu(), "long": long.float().cpu()}
        if law is not None:
            arrays["truth"] = law.log_density(grid).exp().reshape(_GRID, _GRID).float()
        if not_exact(model) is None:
            arrays["density"] = grid_density(model.cpu(), *axes, tolerance=_SEEN).float()
        subject.folder.mkdir(parents=True, exist_ok=True)
        step = subject.fitted.step
        save_arrays(subject.folder, "toy2d", step, first=axes[0], second=axes[1], **arrays, **how)


def _energy_and_slope(model: Any, v: Tensor) -> tuple[Tensor, Tensor]:
    """E(v) [n] and its gradient [n, 2]."""
    with torch.enable_grad():
        at = v.detach().requires_grad_()
        energy = marginal_energy(model, at)
        (slope,) = torch.autograd.grad(energy.sum(), at)
    return energy.detach(), slope
