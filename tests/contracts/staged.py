"""A method that trains in two stages; also a plug-in file."""

import dataclasses
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import softplus

from bism import Estimator
from bism.estimator import Hyper
from bism.hyperparameters import Range, number
from bism.optimisers import Tree
from bism.rng import Rng
from bism.stages import Stage
from bism.state import Info, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class Staged(Estimator):
    """The model by contrast with blurred points; then the model and a normaliser c by contrast with N(0, I)."""

    id: ClassVar[str] = "staged"
    label: ClassVar[str] = "Staged"
    reference: ClassVar[str] = "a test"
    needs: ClassVar[tuple[str, ...]] = ("free_energy", "b")
    trains: ClassVar[tuple[str, ...]] = ("model", "normaliser")

    share: float = number(0.5, "of the iterations for the first stage", below=1.0, tune=Range(0.2, 0.8))

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage("blur", self.share, self.blur_step, self.blur_noise),
            Stage("normalise", 1 - self.share, self.normalise_step, self.normalise_noise, 2, self.normalise_begin),
        )

    def extra_parameters(self, model: Any, rng: Rng) -> Tree:
        return {"normaliser": {"c": model.b.new_zeros(())}}

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        return {"begun": model.b.new_zeros(())}

    def blur_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return rng.normal(batch_shape)

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        energy = params.model.free_energy
        return energy(batch).mean() - energy(batch + 0.5 * noise).mean(), carry, {}

    def blur_step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        def objective(params: Tree, of: Tensor, drawn: Any) -> Tensor:
            return self.loss(state.bind(params), of[0], drawn, state.carry, hyper)[0]

        state, value, _ = self.move(state, ("model",), objective, batches, noise, hyper)
        first = next(iter(state.params["model"].values()))
        return state, {"objective": value, "mean_of_v": batches.mean(), "first": first.sum()}

    def normalise_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> dict[str, Tensor]:
        return {"points": rng.normal(batch_shape), "kept": rng.uniform((batch_shape[0],))}

    def normalise_begin(self, state: State, hyper: Hyper) -> State:
        c = state.params["model"]["b"].square().sum() + hyper["share"]
        carry = {"begun": state.carry["begun"] + 1}
        return state.replace(params={**state.params, "normaliser": {"c": c}}, carry=carry)

    def normalise_step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        def objective(params: Tree, of: Tensor, drawn: Any) -> Tensor:
            parts = state.bind(params)

            def ratio(v: Tensor) -> Tensor:
                return parts.normaliser["c"] - parts.model.free_energy(v) + 0.5 * v.square().sum(-1)

            weight = (drawn["kept"] < 0.8).to(of)
            data, points = softplus(-ratio(of[0])) + softplus(-ratio(of[1])), softplus(ratio(drawn["points"]))
            return (weight * (data + points)).mean()

        state, value, _ = self.move(state, self.trains, objective, batches, noise, hyper)
        return state, {"objective": value}
