"""Flow contrastive estimation."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from baselines.flow import Flow, likelihood_stage
from baselines.turns import against, in_turn
from bism.estimator import Estimator, Hyper
from bism.hyperparameters import LOOP, Range, count, number
from bism.optimisers import Tree
from bism.rng import Rng
from bism.stages import Stage
from bism.state import Info, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowContrast(Estimator):
    """Noise-contrastive estimation whose noise is a flow q that learns, too (Gao et al. 2020):

        min over q, max over p and c of  V = E_data log p / (p + q) + E_q log q / (p + q),  log p(v) = -F(v) - c.

    The model with its learnt log normaliser c (the part ``normaliser``) tells data from the flow's samples; the flow,
    through its samples and through its density, makes that hard: at the best p, V is 2 JS(p_data, q) - log 4. The
    objective is -V, at equilibrium log 4.

    First, in the share ``pretraining`` of the iterations, the flow alone is fitted by maximum likelihood. Then c starts
    where the mean log p / q of the flow's samples is 0 (else at 0), and in each step one player moves: the model and c
    while the running mean of the classifier's accuracy is at most ``threshold``, else the flow. The model is p; the
    samples of this method are the flow's, as in the paper: independent draws of a known density.
    """

    id: ClassVar[str] = "flow_contrast"
    label: ClassVar[str] = "FCE"
    reference: ClassVar[str] = "Gao et al. 2020"
    family: ClassVar[str] = "Noise contrast"
    colour: ClassVar[str] = "#8a8abf"
    marker: ClassVar[str] = "$\u25c8$"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    trains: ClassVar[tuple[str, ...]] = ("model", "normaliser", "flow")
    maps_codes: ClassVar[bool] = True

    pretraining: float = number(
        0.3, "share of the iterations for the flow alone; 0: none", minimum=0.0, below=1.0, tune=Range(0.1, 0.6)
    )
    threshold: float = number(
        0.6, "accuracy up to which the model moves, and beyond which the flow", below=1.0, tune=Range(0.5, 0.8)
    )
    memory: float = number(0.0, "decay of the running mean of the accuracy; 0: a minibatch's", minimum=0.0, below=1.0)
    lr_flow: float = number(7e-4, "learning rate of the flow", tune=Range(1e-4, 1e-2, log=True), rate_of="flow")
    couplings: int = count(8, "affine couplings of the flow, on each scale", maximum=LOOP, tune=(4, 8, 16))
    width: int = count(64, "of the hidden layers of the couplings' networks", maximum=10_000, tune=(32, 64, 128))

    @property
    def passes(self) -> float:
        return 3.0

    def modules(self, model: nn.Module, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        shape: Any = model.visible_shape
        return {"model": model, "flow": given["flow"] if "flow" in given else Flow(shape, self.couplings, self.width)}

    def extra_parameters(self, model: Any, rng: Rng) -> Tree:
        return {"normaliser": {"c": torch.zeros((), dtype=rng.dtype, device=rng.device)}}

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        """The running accuracy, at first a guess's; and the noise of the samples that c starts by."""
        return {"accuracy": data.new_full((), 0.5), "start": rng.normal((batch_size, *data.shape[1:]))}

    def sampler(self, parts: Any) -> Any:
        return parts.flow

    @property
    def stages(self) -> tuple[Stage, ...]:
        contrast = Stage("contrast", 1 - self.pretraining, self.step, self.noise)
        if not self.pretraining:
            return (contrast,)
        return likelihood_stage(self, self.pretraining), dataclasses.replace(contrast, begin=self.begin)

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return rng.normal(batch_shape)

    def begin(self, state: State, hyper: Hyper) -> State:
        """c by samples of the flow; and optimisers without gradients of before."""
        parts = state.bind()
        v, log_q = parts.flow.push(state.carry["start"])
        c = (-parts.model.free_energy(v) - log_q).mean()
        params = {**state.params, "normaliser": {"c": c}}
        return state.replace(params=params, optimiser=self.init_optimiser(params))

    def loss(
        self, params: Any, batch: Tensor, noise: Tensor, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        """-V, and the classifier's accuracy."""

        def log_odds(v: Tensor, log_q: Tensor) -> Tensor:
            return -params.model.free_energy(v) - params.normaliser["c"] - log_q

        v, log_q = params.flow.push(noise)
        data, fantasies = log_odds(batch, params.flow.log_prob(batch)), log_odds(v, log_q)
        accuracy = 0.5 * ((data > 0).to(data).mean() + (fantasies <= 0).to(data).mean())
        return softplus(-data).mean() + softplus(fantasies).mean(), carry, {"accuracy": accuracy}

    def step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        """One player moves: both gradients come from one pass, since each seed has turns of its own."""

        def objective(params: Tree, of: Tensor, drawn: Tensor) -> tuple[Tensor, Info]:
            opposed = {**params, "flow": against(params["flow"])}
            value, _, info = self.loss(state.bind(opposed), of[0], drawn, state.carry, hyper)
            return value, info

        moved, value, info = self.move(state, self.trains, objective, batches, noise, hyper)
        accuracy = torch.lerp(info["accuracy"], state.carry["accuracy"], hyper["memory"])
        of_model = accuracy <= hyper["threshold"]
        after = in_turn(state, moved, {part: ~of_model if part == "flow" else of_model for part in self.trains})
        return after.replace(carry={**state.carry, "accuracy": accuracy}), {"objective": value, **info}
