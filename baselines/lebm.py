"""Latent-space energy-based priors, by short-run or persistent chains."""

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.codes import code_noise
from baselines.latent_chains import LatentContrast
from bism.estimator import Hyper
from bism.hyperparameters import LOOP, choice, count
from bism.phases import Phase
from bism.rng import Rng
from bism.state import Info, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class LEBM(LatentContrast):
    """A ``LatentModel`` without an encoder: h+ are where ``posterior_steps`` Langevin steps on p(h|v) end, along the
    contrast  mean E(v, h+) - mean E_prior(h-)  of ``LatentContrast``. With a standard normal prior this is alternating
    back-propagation (Han et al. 2017).

    h+ start at N(0, I) (``short``), or each training example has a chain, which goes on whenever the example comes
    (``persistent``). An example that comes twice in a minibatch takes two chains from there; the first is kept. What is
    no training example (validation) starts at N(0, I). With data noise a chain meets another noisy v each time, and
    lags behind its posterior as it lags behind the model.
    """

    id: ClassVar[str] = "lebm"
    label: ClassVar[str] = "LEBM-{prior_steps}"
    reference: ClassVar[str] = "Pang et al. 2020"
    colour: ClassVar[str] = "#b5541c"
    marker: ClassVar[str] = "s"
    uses_examples: ClassVar[bool] = True

    posterior_chains: str = choice(
        "short", ("short", "persistent"), "from N(0, I) in each iteration, or going on for each training example"
    )
    posterior_steps: int = count(20, "Langevin steps on p(h|v) in an iteration", maximum=LOOP, tune=(10, 20, 40))

    @property
    def passes(self) -> float:
        return 1 + 0.5 * self.posterior_steps + 0.1 * self.prior_steps

    @property
    def posterior_phases(self) -> tuple[Phase, ...]:
        keep = Phase("keep", 1, self.keep, lambda *_: ())
        return (
            Phase("start on the posterior", 1, self.start, code_noise),
            Phase("posterior", self.posterior_steps, self.posterior_step, code_noise, count_by="posterior_steps"),
            *((keep,) if self.posterior_chains == "persistent" else ()),
        )

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        carry = super().init_carry(model, data, batch_size, rng)
        if self.posterior_chains == "short":
            return carry
        rows = rng.normal((len(data) + 1, model.latent.size)).contiguous()  # the last is for what is no example
        return {**carry, "examples": rows}

    def rows(self, state: State) -> Tensor:
        """Which rows of ``carry["examples"]`` the minibatch has, [batch]."""
        assert state.examples is not None
        return state.examples[0].remainder(len(state.carry["examples"]))  # -1 is the last

    def start(self, state: State, batches: Tensor, noise: Tensor, hyper: Hyper) -> State:
        """Where the chains on the posterior are before their first step."""
        if self.posterior_chains == "persistent":
            rows = self.rows(state)
            known = (rows < len(state.carry["examples"]) - 1).unsqueeze(1)
            noise = torch.where(known, state.carry["examples"].index_select(0, rows), noise)
        return state.replace(carry={**state.carry, "h": noise})

    def keep(self, state: State, batches: Tensor, noise: tuple[()], hyper: Hyper) -> State:
        """Each example's chain stays where it ended."""
        rows, examples = self.rows(state), state.carry["examples"]
        first = (rows.unsqueeze(1) == rows).int().argmax(1)  # so that who writes last does not matter
        ends = state.carry["h"].index_select(0, first)
        return state.replace(carry={**state.carry, "examples": examples.index_copy(0, rows, ends)})

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        value = params.model.energy(batch, carry["h"]).mean() - params.model.prior_energy(carry["prior"]).mean()
        return value, carry, self.figures(params.model, carry)
