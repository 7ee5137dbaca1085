"""Two-stage variational autoencoders: a second one learns what codes the first one has."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from baselines.vae import Weighted, negative_elbo, risen
from bism.errors import InputError
from bism.estimator import Hyper
from bism.functional import frozen
from bism.hierarchy import code_model, code_posterior, hierarchy
from bism.hooks import Hooks
from bism.hyperparameters import Range, count, number
from bism.latent import LatentModel
from bism.optimisers import Tree
from bism.rng import Rng
from bism.stages import Stage
from bism.state import Info, State
from bism.variables import Gaussian, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoStageVAE(Weighted):
    """A VAE with a learnt s, which makes it reconstruct; and then, the first one held, a second VAE of its codes
    z ~ q(z|v), with a learnt s of its own, which learns the density that they have in the place of N(0, I) (Dai and
    Wipf 2019, Section 4). Samples go u, z, v. Each stage warms its KL up anew; without that the second
    often learns nothing.

    Networks of the second stage are fully connected, with x beside their last hidden layer. Measurements of latent
    variables take p(u) p(z|u) p(v|z) as one model of h = (z, u), and q(z|v) q(u|z).
    """

    id: ClassVar[str] = "two_stage_vae"
    label: ClassVar[str] = "Two-stage VAE"
    reference: ClassVar[str] = "Dai and Wipf 2019"
    colour: ClassVar[str] = "#ee6c4d"
    marker: ClassVar[str] = "^"
    trains: ClassVar[tuple[str, ...]] = ("model", "posterior", "second", "second_posterior")
    visible_units: ClassVar[tuple[type[Units], ...]] = (Gaussian,)

    share: float = number(0.5, "of the iterations for the first stage", below=1.0, tune=Range(0.2, 0.8))
    second_width: int = count(1024, "of the second stage's hidden layers", maximum=10_000, tune=(128, 512, 1024))
    second_layers: int = count(3, "hidden layers of the second stage's networks", maximum=100)

    def unsupported(self, model: Any) -> str | None:
        reason = super().unsupported(model)
        if reason is None and not model.learns_sigma:
            return "its first stage learns the model's sigma: learn_sigma must be true"
        return reason

    def modules(self, model: Any, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        sizes = model.latent.size, self.second_width, self.second_layers
        own = {"second": code_model(*sizes), "second_posterior": code_posterior(*sizes)}
        if given.keys() & own.keys():
            raise InputError(f"{self.id} makes the networks of its second stage itself")
        return {**super().modules(model, given), **own}

    def unshardable(self) -> str | None:
        return None

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        return {"steps": data.new_zeros(())}

    def scheduled(self, hyper: Hyper, step: Tensor) -> Hyper:
        return Hooks.scheduled(self, hyper, step)  # the weight counts the steps of a stage

    @property
    def stages(self) -> tuple[Stage, ...]:
        second = Stage("codes", 1 - self.share, self.second_step, self.second_noise, begin=self.begin_second)
        return (Stage("data", self.share, self.first_step, self.noise), second)

    def begin_second(self, state: State, hyper: Hyper) -> State:
        return state.replace(carry={"steps": 0 * state.carry["steps"]})

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return model.latent.noise(rng, batch_shape[:1])

    def second_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> dict[str, Tensor]:
        return {name: model.latent.noise(rng, batch_shape[:1]) for name in ("z", "u")}

    def loss(
        self, params: Any, batch: Tensor, noise: Tensor, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        weight = risen(carry["steps"], self.kl_warmup, hyper["kl_weight"])
        return negative_elbo(params.model, params.posterior, batch, noise, weight).mean(), carry, {}

    def second_loss(self, params: Any, batch: Tensor, noise: dict[str, Tensor], weight: Tensor) -> Tensor:
        """The bound of codes z ~ q(z|v)."""
        z = frozen(params.posterior).sample(batch, noise["z"], 1.0)
        return negative_elbo(params.second, params.second_posterior, z, noise["u"], weight).mean()

    def first_step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        def objective(params: Tree, of: Tensor, drawn: Any) -> Tensor:
            return self.loss(state.bind(params), of[0], drawn, state.carry, hyper)[0]

        return self._moved(state, ("model", "posterior"), objective, batches, noise, hyper)

    def second_step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        def objective(params: Tree, of: Tensor, drawn: Any) -> Tensor:
            weight = risen(state.carry["steps"], self.kl_warmup, hyper["kl_weight"])
            return self.second_loss(state.bind(params), of[0], drawn, weight)

        return self._moved(state, ("second", "second_posterior"), objective, batches, noise, hyper)

    def _moved(self, state: State, parts: Any, objective: Any, batches: Tensor, noise: Any, hyper: Hyper) -> Any:
        state, value, _ = self.move(state, parts, objective, batches, noise, hyper)
        return state.replace(carry={"steps": state.carry["steps"] + 1}), {"objective": value}

    def joint_model(self, parts: Any) -> tuple[Any, Any]:
        return hierarchy(parts.model, parts.posterior, parts.second, parts.second_posterior)

    def sampler(self, parts: Any) -> LatentModel:
        model: LatentModel = self.joint_model(parts)[0]
        return model
