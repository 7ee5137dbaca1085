"""What methods share that train the prior of a ``LatentModel`` against chains on it."""

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from baselines.chains import Runs, from_pool
from baselines.codes import Decoded, code_noise
from baselines.revision import revised
from bism.estimator import Estimator, Hyper
from bism.functional import frozen
from bism.hyperparameters import LOOP, Range, choice, count, number
from bism.objectives import score
from bism.optimisers import Tree, Update
from bism.phases import Phase
from bism.priors import no_prior
from bism.rng import Rng
from bism.state import Info, State
from bism.variables import Bernoulli, Gaussian, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentContrast(Estimator, ABC):
    """Maximum likelihood of a ``LatentModel`` whose prior may have an unknown normaliser: with h+ ~ p(h|v) and
    h- ~ p(h), since log p(v|h) is normalised,

        -d/dtheta log p(v) = E [d/dtheta E(v, h+)] - E [d/dtheta E_prior(h-)],

    in all parameters at once. h- are where ``prior_steps`` Langevin steps h <- h - s^2/2 dE_prior/dh + s eps end, from
    N(0, I) anew in each iteration (``short``), or from where they were (``persistent``, as many as a minibatch has
    rows). Where h+ come from, as ``carry["h"]``, a method says by ``posterior_phases``.

    The method's samples are decoded h- of chains of its own; of a normalised prior the model's. ``prior_rate`` scales
    the steps of the optimiser on the prior, which of Adam is a learning rate of prior_rate lr (a factor of the gradient
    would be none).
    """

    family: ClassVar[str] = "Latent space"
    needs: ClassVar[tuple[str, ...]] = ("log_visible", "prior_energy")
    visible_units: ClassVar[tuple[type[Units], ...]] = (Gaussian, Bernoulli)
    maps_codes: ClassVar[bool] = True
    any_prior: ClassVar[bool] = True

    beta1: float = number(0.5, "decay of Adam's first moment, the paper's", minimum=0.0, below=1.0)
    beta2: float = number(0.999, "decay of Adam's second moment, the paper's", minimum=0.0, below=1.0)
    prior_rate: float = number(
        0.2, "learning rate of the prior as a multiple of the decoder's", tune=Range(0.02, 2.0, log=True)
    )
    prior_chains: str = choice("short", ("short", "persistent"), "from N(0, I) in each iteration, or going on")
    prior_steps: int = count(60, "Langevin steps on the prior in an iteration", maximum=LOOP, tune=(20, 40, 60))
    prior_step_size: float = number(0.4, "step size s of these", tune=Range(0.05, 1.0, log=True))
    posterior_step_size: float = number(
        0.1, "step size s of the Langevin steps on p(h|v)", tune=Range(0.01, 0.5, log=True)
    )

    def unsupported(self, model: Any) -> str | None:
        reason = super().unsupported(model) or no_prior(model)
        if reason is None and model.prior.binary:
            return f"its latent variables ({type(model.prior).__name__}) are binary; dvae trains such models"
        return reason

    @property
    @abstractmethod
    def posterior_phases(self) -> tuple[Phase, ...]:
        """Those that leave h+ in ``carry["h"]``."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The chains on the prior, and those on the posterior."""
        start = (Phase("start on the prior", 1, self.start_on_prior, code_noise),)
        moves = Phase("prior", self.prior_steps, self.prior_step, code_noise, count_by="prior_steps")
        return (*start[: self.prior_chains == "short"], moves, *self.posterior_phases)

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        size = (batch_size, model.latent.size)
        return {"prior": rng.normal(size).contiguous(), "h": data.new_zeros(size)}

    def start_on_prior(self, state: State, batches: Tensor, noise: Tensor, hyper: Hyper) -> State:
        """Chains start at N(0, I)."""
        return state.replace(carry={**state.carry, "prior": noise})

    def prior_step(self, state: State, batches: Tensor, noise: Tensor, hyper: Hyper) -> State:
        """One step of the chains on the prior."""
        energy, h = frozen(state.bind().model).prior_energy, state.carry["prior"]
        return state.replace(carry={**state.carry, "prior": revised(energy, h, noise, hyper["prior_step_size"])})

    def posterior_step(self, state: State, batches: Tensor, noise: Tensor, hyper: Hyper) -> State:
        """One step of the chains on p(h|v)."""
        model, h = frozen(state.bind().model), state.carry["h"]
        h = revised(lambda at: model.energy(batches[0], at), h, noise, hyper["posterior_step_size"])
        return state.replace(carry={**state.carry, "h": h})

    def figures(self, model: Any, carry: dict[str, Tensor]) -> Info:
        """How far the prior is from telling h+ and h- apart, and how steep it is where h- are."""
        energy = frozen(model).prior_energy
        gap = energy(carry["h"]).mean() - energy(carry["prior"]).mean()
        return {"prior_gap": gap, "prior_slope": score(energy, carry["prior"]).square().sum(1).sqrt().mean()}

    def update(self, part: str, hyper: Hyper) -> Update:
        whole = super().update(part, hyper)

        def update(gradient: Tree, params: Tree, state: Tree) -> tuple[Tree, Tree]:
            moved, state = whole(gradient, params, state)
            rates = {name: hyper["prior_rate"] if name.startswith("prior.") else 1.0 for name in moved}
            return {name: x + rates[name] * (moved[name] - x) for name, x in params.items()}, state

        return update if part == "model" else whole

    def sampler(self, parts: Any) -> Decoded | None:
        model, bank, size = parts.model, parts.carry["prior"], self.prior_step_size
        persistent = self.prior_chains == "persistent"

        def begin(count: int, rng: Rng) -> Tensor:
            return from_pool(bank, count, rng) if persistent else rng.normal((count, bank.shape[1]))

        def move(h: Tensor, eps: Tensor) -> Tensor:
            return revised(model.prior_energy, h, eps, size)

        where = "its persistent chains" if persistent else "N(0, I)"
        return None if model.prior.normalised else Decoded(model, Runs(begin, move, self.prior_steps, where))
