"""Deep Boltzmann machines by greedy pre-training, mean field and persistent chains."""

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.greedy import Greedy, Pair
from bism.dbm import DBM
from bism.estimator import Hyper
from bism.functional import frozen, rebound
from bism.hyperparameters import LOOP, count, number
from bism.layers import is_on
from bism.rng import Rng
from bism.sampling import gibbs_noise, walk
from bism.state import Info, Parts, State
from bism.variables import Bernoulli, Gaussian, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainDBM(Greedy):
    """A DBM by its variational bound: mean field for p(h|v), persistent chains for the model.

    The loss is mean E(v, mu) - mean F(h), with the means mu of ``DBM.mean_field`` and chains (v, h) that go on from
    step to step, both fixed. Its gradient is that of the bound, as far as the chains are samples of the model.

    Pre-training: each pair's RBM has the energy of its two layers twice, with two copies of v and of the last layer.
    So the lowest RBM's weights count double upwards and the highest one's downwards, and those between are twice the
    model's. Half the sum of the RBMs' energies, with equal copies, is the DBM's: the weights of each, and for biases of
    a layer between two RBMs the sum of both, which each has half of. With two layers, where both RBMs have the same
    prior of h1, so has the DBM; with three it is a heuristic.
    """

    id: ClassVar[str] = "dbm"
    label: ClassVar[str] = "DBM"
    reference: ClassVar[str] = "Salakhutdinov and Hinton 2009"
    colour: ClassVar[str] = "#7a3e9d"
    marker: ClassVar[str] = "P"
    visible_units: ClassVar[tuple[type[Units], ...]] = (Gaussian, Bernoulli)
    together: ClassVar[str] = "joint"

    mean_field_steps: int = count(10, "steps of mean field at most", maximum=LOOP, tune=(5, 10, 20))
    tolerance: float = number(1e-4, "movement of its means at which mean field stops", minimum=0.0)

    @property
    def passes(self) -> float:
        return 1 + 0.5 * (self.k + self.mean_field_steps)

    def unsupported(self, model: Any) -> str | None:
        if not isinstance(model, DBM):
            return f"it trains deep Boltzmann machines (DBM), and {type(model).__name__} is not one"
        return super().unsupported(model)

    def copies(self, number: int) -> tuple[int, int]:
        return 1 + (number == 1), 1 + (number == self.layers)

    def pair(self, parts: Any, number: int) -> Pair:
        model, copies = parts.model, self.copies(number)
        if number == 1:
            bottom = model.bottom
            return Pair(bottom.visible_energy, bottom.hidden_logits, bottom.sample_visible, 2.0, *copies)
        layer, bias = model.upper[number - 2], model.bottom.c if number == 2 else model.upper[number - 3].c

        def draw(y: Tensor, noise: Tensor) -> Tensor:
            return is_on(2 * (bias + layer.downward(y)), noise)

        return Pair(lambda x: -x @ bias, layer.logits, draw, 2.0, *copies)

    @property
    def shared(self) -> list[str]:
        """The biases that two RBMs have in turn; carried are those of the RBM below."""
        return ["bottom.c", "upper.0.c"][: self.layers - 1]

    def below(self, state: State, number: int) -> Pair:
        model = rebound(state.bind().model, {name: state.carry[name] for name in self.shared})
        return self.pair(Parts({"model": model}), number)

    def begin(self, number: int, state: State, hyper: Hyper) -> State:
        own, carry = state.params["model"], dict(state.carry)
        if number <= self.layers:
            name = self.shared[number - 2]
            carry[name] = own[name]
        else:
            own = {name: value + carry[name] if name in self.shared else value for name, value in own.items()}
            state = state.replace(params={**state.params, "model": own})
            carry |= self.chains(state.bind().model, carry["v"])
        return super().begin(number, state.replace(carry=carry), hyper)

    def chains(self, model: Any, v: Tensor) -> dict[str, Tensor]:
        """Chains that start at v."""
        return {"v": v, **{f"h{i}": h.detach() for i, h in enumerate(model.upward(v), start=1)}}

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        own, v = dict(model.named_parameters()), data[rng.integers(len(data), (batch_size,))]
        return {**self.chains(model, v), **{name: own[name].detach().clone() for name in self.shared}}

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return gibbs_noise(model, batch_shape[0], self.k, rng)

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        fixed = frozen(params.model)
        means, converged = fixed.mean_field(batch, self.mean_field_steps, hyper["tolerance"])
        after = walk(fixed, {name: x for name, x in carry.items() if name not in self.shared}, noise)
        odd = torch.cat([after[f"h{i}"] for i in range(1, self.layers + 1, 2)], -1)
        value = params.model.joint_energy(batch, means).mean() - params.model.hidden_free_energy(odd).mean()
        return value, {**carry, **after}, {"converged": converged.to(batch).mean()}
