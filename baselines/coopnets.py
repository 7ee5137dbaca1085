"""Cooperative learning of an energy-based model and a generator."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from baselines.chains import contrast
from baselines.revision import Revised, distance, revised
from bism.estimator import Estimator, Hyper
from bism.functional import frozen
from bism.generator import Generator
from bism.hyperparameters import LOOP, Range, choice, count, number
from bism.parts import check_generator
from bism.phases import Phase
from bism.rng import Rng
from bism.state import Info, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoopNets(Estimator):
    """Cooperative learning (Xie et al. 2018): a generator g draws fast samples, the model revises them, and each learns
    from that. In each step, with as many codes z ~ N(0, I) as a minibatch has rows,

        v <- g(z), then k times  v <- v - a^2/2 dF/dv + a eps    (the model's reference, if it has one, is part of F)
        the model goes along  mean F(data) - mean F(v)
        the generator along  mean |v - g(z)|^2 / (2 s^2),

    so that it takes up what the model's dynamics did to its samples. Before that z may be revised by ``code_steps``
    steps of Langevin dynamics on |z|^2 / 2 + |v - g(z)|^2 / (2 s^2), which is the posterior of v's code. Its samples
    are revised ones, as the paper's; ``drawn`` says otherwise.
    """

    id: ClassVar[str] = "coopnets"
    label: ClassVar[str] = "CoopNets-{k}"
    reference: ClassVar[str] = "Xie et al. 2018"
    family: ClassVar[str] = "Learnt samplers"
    colour: ClassVar[str] = "#6e1616"
    marker: ClassVar[str] = "$\u25b2$"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    trains: ClassVar[tuple[str, ...]] = ("model", "generator")
    moves: ClassVar[tuple[str, ...]] = ("model",)
    maps_codes: ClassVar[bool] = True

    beta1: float = number(0.5, "decay of Adam's first moment, the paper's", minimum=0.0, below=1.0)
    k: int = count(15, "Langevin steps that revise a sample", symbol="k", maximum=LOOP, tune=(5, 15, 30))
    step_size: float = number(0.1, "step size a of the Langevin dynamics", symbol="a", tune=Range(0.01, 0.5, log=True))
    lr_generator: float = number(
        1e-3, "learning rate of the generator", tune=Range(1e-4, 1e-2, log=True), rate_of="generator"
    )
    codes: int = count(16, "size of the generator's codes z", maximum=10_000, tune=(2, 16, 100))
    width: int = count(128, "of the generator's hidden layers, or channels of its finest map", maximum=10_000)
    code_steps: int = count(0, "Langevin steps that revise a code", minimum=0, maximum=LOOP, tune=(0, 5, 10))
    code_step_size: float = number(0.1, "step size of the codes' Langevin dynamics", tune=Range(0.01, 0.5, log=True))
    spread: float = number(0.3, "standard deviation s of v around g(z), for the revision of codes", symbol="s")
    drawn: str = choice("revised", ("revised", "generated"), "the method's samples: the generator's, revised or not")

    @property
    def passes(self) -> float:
        return 2 + 0.5 * self.k + 0.5 * self.code_steps

    def modules(self, model: Any, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        own = given["generator"] if "generator" in given else Generator(model.visible_shape, self.codes, self.width)
        check_generator(self.id, own, self.codes, tuple(model.visible_shape))
        return {"model": model, "generator": own}

    def sampler(self, parts: Any) -> Any:
        steps = self.k if self.drawn == "revised" else 0
        return Revised(parts.model, parts.generator, self.codes, steps, self.step_size)

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        return {"v": data.new_zeros((batch_size, *data.shape[1:])), "z": data.new_zeros((batch_size, self.codes))}

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The start of the chains, their steps, and those of their codes."""
        return (
            Phase("generate", 1, self.generate, self.code_noise),
            Phase("revise", self.k, self.revise, lambda model, shape, rng: rng.normal(shape), count_by="k"),
            Phase("codes", self.code_steps, self.revise_codes, self.code_noise, count_by="code_steps"),
            Phase("regress", 1, self.regress, lambda *_: ()),
        )

    def code_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return rng.normal((batch_shape[0], self.codes))

    def generate(self, state: State, batches: Tensor, noise: Tensor, hyper: Hyper) -> State:
        """Chains start at g(z)."""
        return state.replace(carry={"z": noise, "v": frozen(state.bind().generator)(noise)})

    def revise(self, state: State, batches: Tensor, noise: Tensor, hyper: Hyper) -> State:
        """One step of the chains."""
        model, v = frozen(state.bind().model), state.carry["v"]
        return state.replace(carry={**state.carry, "v": revised(model.free_energy, v, noise, hyper["step_size"])})

    def revise_codes(self, state: State, batches: Tensor, noise: Tensor, hyper: Hyper) -> State:
        """One step of the codes."""
        generator, v = frozen(state.bind().generator), state.carry["v"]

        def energy(z: Tensor) -> Tensor:
            return 0.5 * z.square().sum(1) + distance(generator(z), v, hyper["spread"])

        z = revised(energy, state.carry["z"], noise, hyper["code_step_size"])
        return state.replace(carry={**state.carry, "z": z})

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        """The model's contrast with the revised samples."""
        return contrast(params.model, batch, carry["v"]), carry, {}

    def regress(self, state: State, batches: Tensor, noise: tuple[()], hyper: Hyper) -> State:
        """The generator's step, from the samples that the model's is from, too."""

        def loss(params: Any, batch: Tensor, drawn: tuple[()]) -> Tensor:
            return distance(params.generator(state.carry["z"]), state.carry["v"], hyper["spread"]).mean()

        return self.move_part(state, "generator", loss, batches, noise, hyper)[0]
