"""Training layer by layer: two neighbouring layers as an RBM, and methods that begin so."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from bism.estimator import Estimator, Hyper
from bism.hyperparameters import LOOP, Range, count, number
from bism.layers import LAYERS, is_on
from bism.optimisers import Tree
from bism.rng import Rng
from bism.stages import Stage
from bism.state import Info, State
from bism.variables import visible_noise


@dataclasses.dataclass(frozen=True)
class Pair:
    """An RBM of a layer x and the layer y above it, whose energy is ``weight`` times that of the two layers.

    With e(x, y) = e_0(x) - y . l(x) the energy of the two layers, linear in y, and copies x_i of x and y_j of y that
    share all parameters,

        E(x_1, ..., y_1, ...) = weight * mean over i and j of e(x_i, y_j).

    Attributes:
        alone: e_0(x), [batch].
        logits: l(x), [batch, above].
        draw: the copies of x from the mean of y's copies [batch, above] and noise [below, batch, size].
        weight, below, above: as above, with numbers of copies.
    """

    alone: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor]
    draw: Callable[[Tensor, Tensor], Tensor]
    weight: float = 1.0
    below: int = 1
    above: int = 1

    def upward(self, x: Tensor) -> Tensor:
        """Logits of each copy of y given the copies of x [below, batch, size]."""
        return self.weight / self.above * self.logits(x.mean(0))  # l is linear

    def free_energy(self, x: Tensor) -> Tensor:
        """-log sum_y exp(-E), [batch], of the copies of x [below, batch, size]."""
        alone = torch.stack([self.alone(copy) for copy in x]).mean(0)
        return self.weight * alone - self.above * softplus(self.upward(x)).sum(-1)

    def chain(self, x: Tensor, noise: dict[str, Tensor]) -> Tensor:
        """The copies of x after as many sweeps of Gibbs sampling as the noise has."""
        for up, down in zip(noise["above"], noise["below"], strict=True):
            x = self.draw(is_on(self.upward(x), up).mean(0), down)
        return x

    def infer(self, x: Tensor, noise: Tensor) -> Tensor:
        """y [batch, above] given x [batch, below], of which all copies are alike."""
        return is_on(self.upward(x[None]), noise)

    def contrast(self, x: Tensor, noise: dict[str, Tensor]) -> Tensor:
        """CD's loss on examples x [batch, below], of which all copies are alike."""
        data = x.expand(self.below, *x.shape)
        return self.free_energy(data).mean() - self.free_energy(self.chain(data, noise).detach()).mean()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy(Estimator):
    """Estimators of deep models that first, in the share ``pretraining`` of the iterations, train each pair of layers
    as an RBM by CD-k, from the lowest up, on what the RBMs below infer from the data; and then all of it together, by
    ``step``.

    Until a layer has been trained what is measured is of a model that is not yet put together.
    """

    family: ClassVar[str] = "Deep models"
    together: ClassVar[str]  # name of the last stage

    layers: int = count(2, "hidden layers of the model", minimum=LAYERS[0], maximum=LAYERS[1])
    pretraining: float = number(
        0.4, "share of the iterations for greedy pre-training; 0: none", minimum=0.0, below=1.0, tune=Range(0.1, 0.8)
    )
    k: int = count(1, "sweeps of Gibbs sampling per step", symbol="k", maximum=LOOP, tune=(1, 2, 5, 10))

    def unsupported(self, model: Any) -> str | None:
        if len(getattr(model, "sizes", ())) != self.layers + 1:
            return f"layers is {self.layers}, and this model has {len(model.sizes) - 1} hidden layers"
        return super().unsupported(model)

    @property
    def stages(self) -> tuple[Stage, ...]:
        last = Stage(self.together, 1 - self.pretraining, self.step, self.noise)
        if not self.pretraining:
            return (last,)
        numbers, share = range(1, self.layers + 1), self.pretraining / self.layers
        steps = [(partial(self.greedy_step, i), partial(self.greedy_noise, i)) for i in numbers]
        begins = [None, *(partial(self.begin, i) for i in numbers[1:])]
        greedy = [Stage(f"layer {i}", share, *steps[i - 1], begin=begins[i - 1]) for i in numbers]
        return (*greedy, dataclasses.replace(last, begin=partial(self.begin, self.layers + 1)))

    @abstractmethod
    def pair(self, parts: Any, number: int) -> Pair:
        """Layers number - 1 and number, v being layer 0, as they are trained."""

    @abstractmethod
    def below(self, state: State, number: int) -> Pair:
        """The same after it has been trained, for what it infers."""

    def copies(self, number: int) -> tuple[int, int]:
        """Of the layers of a pair."""
        return 1, 1

    def begin(self, number: int, state: State, hyper: Hyper) -> State:
        """The state that pair ``number``, or after the last the stage of all, starts from: no gradients of before."""
        return state.replace(optimiser=self.init_optimiser(state.params))

    def greedy_noise(self, number: int, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        """Everything random in a step on pair ``number``."""
        sizes, batch, (below, above) = model.sizes, batch_shape[0], self.copies(number)
        shape = (self.k, below, batch)
        lower = visible_noise(model, shape, rng) if number == 1 else rng.logistic((*shape, sizes[number - 1]))
        upper = rng.logistic((self.k, above, batch, sizes[number]))
        return {"chain": {"below": lower, "above": upper}, "up": [rng.logistic((batch, m)) for m in sizes[1:number]]}

    def greedy_step(self, number: int, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        """A step on pair ``number``."""

        def objective(params: Tree, of: Tensor, drawn: Any) -> Tensor:
            x = of[0]
            for i, up in enumerate(drawn["up"], start=1):
                x = self.below(state, i).infer(x, up)
            return self.pair(state.bind(params), number).contrast(x, drawn["chain"])

        state, value, _ = self.move(state, self.trains, objective, batches, noise, hyper)
        return state, {"objective": value}
