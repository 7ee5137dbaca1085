"""Deep belief networks, layer by layer and by wake-sleep."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from baselines.greedy import Greedy, Pair
from bism.dbn import DBN, Recognition
from bism.errors import InputError
from bism.estimator import Hyper
from bism.functional import frozen
from bism.hyperparameters import Range, number
from bism.layers import is_on
from bism.posteriors import default_posterior
from bism.rng import Rng
from bism.sampling import gibbs, gibbs_noise
from bism.state import Info, State
from bism.variables import Bernoulli, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainDBN(Greedy):
    """A DBN greedily, each pair of layers as an RBM by CD-k, and then by wake-sleep (the up-down algorithm).

    In a layer's stage the weights upwards, of the posterior, are those downwards, of the model. Afterwards both are
    free. Wake: h ~ q(h|v) at the data, and the model lowers E(v, h), with CD-k from h(L-1) in the RBM on top. Sleep:
    where these chains end v and h are drawn downwards, and the posterior raises log q(h|v) of them. The loss is the sum
    of both.
    """

    id: ClassVar[str] = "dbn"
    label: ClassVar[str] = "DBN"
    reference: ClassVar[str] = "Hinton, Osindero and Teh 2006"
    colour: ClassVar[str] = "#b5486b"
    marker: ClassVar[str] = "X"
    trains: ClassVar[tuple[str, ...]] = ("model", "posterior")
    visible_units: ClassVar[tuple[type[Units], ...]] = (Bernoulli,)
    together: ClassVar[str] = "wake-sleep"

    lr_posterior: float = number(
        1e-3, "learning rate of the posterior", symbol="α", tune=Range(1e-4, 1e-1, log=True), rate_of="posterior"
    )

    @property
    def passes(self) -> float:
        return 2 + 0.3 * self.k

    def unsupported(self, model: Any) -> str | None:
        if not isinstance(model, DBN):
            return f"it trains deep belief networks (DBN), and {type(model).__name__} is not one"
        return super().unsupported(model)

    def modules(self, model: nn.Module, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        posterior = given["posterior"] if "posterior" in given else default_posterior(model)
        if self.pretraining and not isinstance(posterior, Recognition):
            kind = type(posterior).__name__
            raise InputError(
                f"{self.id}: pre-training is of a posterior of layers (Recognition), and {kind} is not one"
            )
        below: Any = model.sizes
        if isinstance(posterior, Recognition) and posterior.sizes != tuple(below[:-1]):
            wanted, got = list(below[:-1]), list(posterior.sizes)
            raise InputError(f"{self.id}: posterior must be of layers {wanted}, v first, got {got}")
        return {"model": model, "posterior": posterior}

    def pair(self, parts: Any, number: int) -> Pair:
        if number == self.layers:
            top = parts.model.top
            return Pair(top.visible_energy, top.hidden_logits, top.sample_visible)
        layer, c = parts.model.directed[number - 1], parts.posterior.layers[number - 1].c
        return Pair(lambda x: -x @ layer.b, lambda x: c + x @ layer.W, lambda y, noise: is_on(layer.logits(y), noise))

    def below(self, state: State, number: int) -> Pair:
        return self.pair(state.bind(), number)

    def greedy_step(self, number: int, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        state, info = super().greedy_step(number, state, batches, noise, hyper)
        if number < self.layers:
            up = {f"layers.{number - 1}.W": state.params["model"][f"directed.{number - 1}.W"]}
            state = state.replace(params={**state.params, "posterior": {**state.params["posterior"], **up}})
        return state, info

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        batch = batch_shape[:1]
        top, down = gibbs_noise(model.top, batch[0], self.k, rng), model.downward_noise(rng, batch)
        return {"up": model.latent.noise(rng, batch), "top": top, "down": down}

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        model, fixed = params.model, frozen(params.model)
        h = frozen(params.posterior).sample_hard(batch, noise["up"])
        last = gibbs(fixed.top, fixed.split(h)[-1], noise["top"])
        wake = model.energy(batch, h).mean() - model.top.free_energy(last).mean()
        dream, asleep = fixed.downward(last, noise["down"])
        sleep = -params.posterior.log_prob(asleep, dream).mean()
        return wake + sleep, carry, {"wake": wake, "sleep": sleep}
