"""A method whose steps have phases; also a plug-in file."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.func import grad

from bism import Estimator
from bism.estimator import Hyper
from bism.hyperparameters import Range, count, number
from bism.optimisers import Tree
from bism.phases import Phase
from bism.rng import Rng
from bism.state import Info, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phased(Estimator):
    """The model by contrast with chains that start where a generator, an affine map of noise, puts them; the generator
    learns to put them where they end, and near the data."""

    id: ClassVar[str] = "phased"
    label: ClassVar[str] = "Phased-{chain_steps}"
    reference: ClassVar[str] = "a test"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    trains: ClassVar[tuple[str, ...]] = ("model", "generator")

    chain_steps: int = count(3, "Langevin steps of the chains", minimum=0, maximum=100, tune=Range(0, 20))
    generator_steps: int = count(2, "steps on the generator", maximum=100, tune=Range(1, 5))
    step_size: float = number(0.1, "of the chains", tune=Range(0.01, 0.5, log=True))
    lr_generator: float = number(0.01, "learning rate of the generator", rate_of="generator", tune=Range(1e-3, 0.1))

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase("start", 1, self.start, self.noise),
            Phase("chain", self.chain_steps, self.chain, self.noise, count_by="chain_steps"),
            Phase("fit", self.generator_steps, self.fit_generator, self.noise, 2, count_by="generator_steps"),
        )

    def modules(self, model: nn.Module, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        size = model.visible_shape[0]  # type: ignore[index]  # of a model it is a shape
        return {"model": model, "generator": given.get("generator") or nn.Linear(int(size), int(size))}

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        return {"chains": data.new_zeros((batch_size, *data.shape[1:]))}

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return rng.normal(batch_shape)

    def start(self, state: State, batches: Tensor, noise: Tensor, hyper: Hyper) -> State:
        return state.replace(carry={"chains": state.bind().generator(noise)})

    def chain(self, state: State, batches: Tensor, noise: Tensor, hyper: Hyper) -> State:
        v, step = state.carry["chains"], hyper["step_size"]
        slope = grad(lambda x: state.bind().model.free_energy(x).sum())(v)
        return state.replace(carry={"chains": v - 0.5 * step**2 * slope + step * noise})

    def fit_generator(self, state: State, batches: Tensor, noise: Tensor, hyper: Hyper) -> State:
        def objective(params: Tree, of: Tensor, drawn: Any) -> Tensor:
            made = state.bind(params).generator(drawn)
            return (made - state.carry["chains"] - 0.1 * of[0] + 0.2 * of[1]).square().mean()

        return self.move(state, ("generator",), objective, batches, noise, hyper)[0]

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        energy = params.model.free_energy
        return energy(batch + 0.01 * noise).mean() - energy(carry["chains"]).mean(), carry, {}

    def step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        def objective(params: Tree, of: Tensor, drawn: Any) -> Tensor:
            return self.loss(state.bind(params), of[0], drawn, state.carry, hyper)[0]

        state, value, _ = self.move(state, ("model",), objective, batches, noise, hyper)
        return state, {"objective": value}
