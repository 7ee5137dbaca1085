"""A deep latent Gaussian model by Hamiltonian Monte Carlo from an encoder's samples."""

import dataclasses
from typing import Any, ClassVar

from torch import Tensor

from baselines.codes import bound_and_energy, code_noise, start_at_encoder
from baselines.vae import Directed
from bism.estimator import Hyper
from bism.functional import frozen
from bism.hmc import ACCEPTANCE, adapted, hmc
from bism.hyperparameters import LOOP, Range, count, number
from bism.phases import Phase
from bism.rng import Rng
from bism.state import Info, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hoffman(Directed):
    """h_0 ~ q(h|v), then ``chain_steps`` steps of Hamiltonian Monte Carlo on p(h|v), of ``leapfrog_steps`` each. The
    model goes along the gradient of log p(v, h_M), which does not flow through the chain, and q along its ELBO, which
    is the objective that is reported.

    All examples share one step size, a factor of ``step_size`` that is carried from iteration to iteration: after each
    it grows a little where more than ``acceptance`` was accepted, and shrinks where less was. Within an iteration it
    stays, so that these steps leave p(h|v) exactly invariant. A step costs leapfrog_steps + 1 gradients of the energy
    in h and two energies, which ``passes`` counts.
    """

    id: ClassVar[str] = "hoffman"
    label: ClassVar[str] = "HMC-{chain_steps}"
    reference: ClassVar[str] = "Hoffman 2017"
    colour: ClassVar[str] = "#7a9e2f"
    marker: ClassVar[str] = "^"

    chain_steps: int = count(
        5, "steps of Hamiltonian Monte Carlo per iteration", symbol="M", maximum=LOOP, tune=(1, 5, 20)
    )
    leapfrog_steps: int = count(5, "leapfrog steps of each of these", maximum=100, tune=(1, 5, 10))
    step_size: float = number(0.1, "step size to adapt from", symbol="a", tune=Range(0.01, 0.5, log=True))
    acceptance: float = number(ACCEPTANCE, "share of accepted steps that the step size is adapted to", below=1.0)
    adaptation: float = number(0.05, "rate of the step size's logarithm; 0: it stays", minimum=0.0)

    @property
    def passes(self) -> float:
        return 2.5 + 0.5 * self.chain_steps * (self.leapfrog_steps + 2)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The start of the chains, and their steps."""
        return (
            Phase("start", 1, self.start, code_noise),
            Phase("chain", self.chain_steps, self.chain_step, self.chain_noise, count_by="chain_steps"),
        )

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        h = data.new_zeros((batch_size, model.latent.size))
        return {"h": h, "factor": data.new_ones(()), "accepted": data.new_zeros(())}

    def chain_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> dict[str, Tensor]:
        return {"momentum": code_noise(model, batch_shape, rng), "uniform": rng.uniform(batch_shape[:1])}

    def start(self, state: State, batches: Tensor, noise: Tensor, hyper: Hyper) -> State:
        """Chains start at q's samples."""
        state = start_at_encoder(state, batches, noise, hyper)
        return state.replace(carry={**state.carry, "accepted": 0 * state.carry["accepted"]})

    def chain_step(self, state: State, batches: Tensor, noise: dict[str, Tensor], hyper: Hyper) -> State:
        """One step of the chains."""
        model, carry = frozen(state.bind().model), state.carry
        size = hyper["step_size"] * carry["factor"]
        h, probability = hmc(
            lambda at: model.energy(batches[0], at),
            carry["h"], noise["momentum"], noise["uniform"], size, self.leapfrog_steps,
        )  # fmt: skip
        accepted = carry["accepted"] + probability.mean() / self.chain_steps
        return state.replace(carry={**carry, "h": h, "accepted": accepted})

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return code_noise(model, batch_shape, rng)

    def loss(
        self, params: Any, batch: Tensor, noise: Tensor, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        value, accepted = bound_and_energy(params, batch, noise, carry["h"]).mean(), carry["accepted"]
        factor = adapted(carry["factor"], accepted, hyper["adaptation"], hyper["acceptance"])
        info = {"acceptance": accepted, "step_size": hyper["step_size"] * carry["factor"]}
        return value, {**carry, "factor": factor}, info
