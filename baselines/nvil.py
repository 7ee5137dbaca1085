"""Neural variational inference and learning in undirected models."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from baselines.mixture import Mixture, Points, log_z_bound, mixture_noise
from bism.errors import InputError
from bism.estimator import Estimator, Hyper
from bism.functional import frozen
from bism.hyperparameters import LOOP, Range, choice, count, number
from bism.phases import Phase
from bism.rng import Rng
from bism.state import Info, State
from bism.variables import Bernoulli, Gaussian, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class NVIL(Estimator):
    """A proposal q, a mixture of products, that bounds the normaliser: with w = p~/q

        log Z <= 1/2 log E_q[w^2],  equal where q = p, and else 1/2 log(1 + chi^2(p || q)) above it

    (Kuleshov and Ermon 2017). Each step first moves q down the bound, whose gradient by the score function is
    -1/2 sum_i (u_i - 1/n) grad log q(x_i) with u = softmax(2 log w) over n samples of q; the baseline 1/n leaves the
    mean alone, as grad log q has mean 0. Then the model goes along the likelihood's gradient, its expectation being
    sum_i softmax(log w)_i grad log p~(x_i): exact in the mean where q = p, and else with a bias that falls as 1/n.

    Not the NVIL of directed models (Mnih and Gregor 2014). From n samples the bound is below its value on average, so
    that the objective that is reported is no bound; the probe ``log_z_bounds`` measures how far it is from log Z.

    x is v with p~ = exp(-F(v)), or (v, h) with p~ = exp(-E(v, h)). Nothing leaves the logarithms, so that weights
    neither overflow nor vanish all at once.
    """

    id: ClassVar[str] = "nvil"
    label: ClassVar[str] = "NVIL"
    reference: ClassVar[str] = "Kuleshov and Ermon 2017"
    family: ClassVar[str] = "Learnt samplers"
    colour: ClassVar[str] = "#1c8c21"
    marker: ClassVar[str] = "$\u25b0$"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    trains: ClassVar[tuple[str, ...]] = ("model", "proposal")
    moves: ClassVar[tuple[str, ...]] = ("model",)
    visible_units: ClassVar[tuple[type[Units], ...]] = (Gaussian, Bernoulli)

    samples: int = count(100, "samples of the proposal in each step", symbol="n", minimum=2, maximum=100_000)
    components: int = count(10, "components of the proposal", maximum=LOOP, tune=(1, 10, 30))
    proposal_steps: int = count(3, "steps on the proposal per step", minimum=0, maximum=LOOP, tune=(1, 3, 10))
    lr_proposal: float = number(
        1e-2, "learning rate of the proposal", tune=Range(1e-4, 1e-1, log=True), rate_of="proposal"
    )
    proposal_over: str = choice(
        "visible", ("visible", "joint"), "what the proposal is of: v, with h summed out in the model, or (v, h)"
    )
    baseline: str = choice("mean", ("mean", "none"), "of the proposal's gradient: the mean share 1/n of a sample, or 0")

    @property
    def joint(self) -> bool:
        """Whether the proposal is of (v, h)."""
        return self.proposal_over == "joint"

    @property
    def passes(self) -> float:
        return 1.5 + self.proposal_steps

    def unsupported(self, model: Any) -> str | None:
        if self.joint and model.latent is None:
            return "proposal_over='joint' is of (v, h), and this model has no h: 'visible'"
        return super().unsupported(model)

    def modules(self, model: nn.Module, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        own = given["proposal"] if "proposal" in given else Mixture(model, self.components, self.joint)
        if isinstance(own, Mixture) and (own.hidden is not None) != self.joint:
            raise InputError(f"{self.id}: proposal must be a Mixture with joint={self.joint}, as proposal_over says")
        return {"model": model, "proposal": own}

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The steps on the proposal."""
        return (Phase("proposal", self.proposal_steps, self.proposal_step, self.noise, count_by="proposal_steps"),)

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> dict[str, Tensor]:
        return mixture_noise(model, self.samples, self.joint, rng)

    def energy(self, model: Any, points: Points) -> Any:
        """-log p~ of (v,) or (v, h), [n]."""
        return model.energy(*points) if self.joint else model.free_energy(*points)

    def proposal_loss(self, params: Any, noise: dict[str, Tensor]) -> Tensor:
        """The bound from samples, with the score function's gradient in the proposal."""
        points = frozen(params.proposal).sample(noise)
        log_q = params.proposal.log_prob(*points)
        log_w = (-self.energy(params.model, points) - log_q).detach()
        share = (2 * log_w).softmax(0) - (1 / len(log_w) if self.baseline == "mean" else 0.0)
        surrogate = -0.5 * (share * log_q).sum()
        return log_z_bound(log_w) + (surrogate - surrogate.detach())

    def loss(
        self, params: Any, batch: Tensor, noise: dict[str, Tensor], carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        """The bound of the mean -log p(v), from samples, with the gradient of the likelihood in the model."""
        proposal, data = frozen(params.proposal), params.model.free_energy(batch).mean()
        points = proposal.sample(noise)
        energies = self.energy(params.model, points)
        log_w = (-energies - proposal.log_prob(*points)).detach()
        surrogate = -(log_w.softmax(0) * energies).sum()
        return data + log_z_bound(log_w) + (surrogate - surrogate.detach()), carry, {}

    def proposal_step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> State:
        """One step on the proposal."""

        def loss(params: Any, batch: Tensor, drawn: dict[str, Tensor]) -> Tensor:
            return self.proposal_loss(params, drawn)

        return self.move_part(state, "proposal", loss, batches, noise, hyper)[0]
