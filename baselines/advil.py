"""Adversarial variational inference and learning in undirected models."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from baselines.decoder import Decoder, decoder_noise
from bism.amortised import WithPosterior
from bism.bilevel import kl_divergence, log_ratio
from bism.errors import InputError
from bism.estimator import Hyper
from bism.hyperparameters import LOOP, Range, count, number
from bism.phases import Phase
from bism.rng import Rng
from bism.state import Info, State
from bism.variables import Bernoulli, Gaussian, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdVIL(WithPosterior):
    """A game of three (Li et al. 2020), for models known by their energy alone:

        min over p and Q, max over q of  E_data E_Q [E(v, h) + log Q(h|v)]  -  (E_q [E(v, h)] - H(q))

    with the encoder Q(h|v), which is the part ``posterior``, and the decoder q(v, h) (``baselines.decoder``). The first
    term is at least the data's mean free energy, the second at least -log Z, so that at the optimum of Q and q it is
    the mean -log p(v); elsewhere it is a bound from neither side. H(q) is replaced by its lower bound.

    Each step moves the decoder with its r(z|h) ``decoder_steps`` times and the encoder K times, binary units being
    relaxed, and the model once, with units that are 0 or 1. The samples of this method are its decoder's.
    """

    id: ClassVar[str] = "advil"
    label: ClassVar[str] = "AdVIL-{decoder_steps}"
    reference: ClassVar[str] = "Li et al. 2020"
    family: ClassVar[str] = "Learnt samplers"
    colour: ClassVar[str] = "#bf26b9"
    marker: ClassVar[str] = "$\u25d7$"
    trains: ClassVar[tuple[str, ...]] = ("model", "posterior", "decoder")
    part_needs: ClassVar[dict[str, tuple[str, ...]]] = {"posterior": ("sample_hard",)}
    moves: ClassVar[tuple[str, ...]] = ("model",)
    visible_units: ClassVar[tuple[type[Units], ...]] = (Gaussian, Bernoulli)

    inner_steps: int = count(1, "steps on the encoder per step", symbol="K", minimum=0, maximum=LOOP, tune=(1, 5))
    decoder_steps: int = count(10, "steps on the decoder per step", minimum=0, maximum=LOOP, tune=(1, 10, 100))
    lr_decoder: float = number(
        1e-3, "learning rate of the decoder", tune=Range(1e-4, 1e-1, log=True), rate_of="decoder"
    )
    codes: int = count(15, "size of the decoder's codes z", maximum=LOOP, tune=(5, 15, 50))
    width: int = count(50, "of the hidden layers of q(h|z) and r(z|h)", maximum=10_000)

    @property
    def passes(self) -> float:
        return super().passes + 1.5 * self.decoder_steps

    def modules(self, model: nn.Module, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        decoder = given["decoder"] if "decoder" in given else Decoder(model, self.codes, self.width)
        if getattr(decoder, "codes", self.codes) != self.codes:
            raise InputError(f"{self.id}: decoder must have codes of the size {self.codes}, got {decoder.codes}")
        return {**super().modules(model, given), "decoder": decoder}

    def sampler(self, parts: Any) -> Any:
        return parts.decoder

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The steps on the decoder, and those on the encoder."""
        steps = self.decoder_steps, self.decoder_step, self.decoder_noise
        return (Phase("decoder", *steps, count_by="decoder_steps"), *super().phases)

    def decoder_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> dict[str, Tensor]:
        """That of as many samples of the decoder as a minibatch has rows."""
        return decoder_noise(model, self.codes, batch_shape[0], rng)

    def inner_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return model.latent.noise(rng, (batch_shape[0],))

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        decoder = self.decoder_noise(model, batch_shape, rng)
        return {"decoder": decoder, "data": self.inner_noise(model, batch_shape, rng)}

    def decoder_loss(self, params: Any, noise: dict[str, Tensor], hyper: Hyper) -> Tensor:
        """E_q [E(v, h)] - H(q), with the bound of H(q): an upper bound of -log Z."""
        z, h, v = params.decoder.sample(noise, hyper["temperature"])
        return (params.model.energy(v, h) - params.decoder.entropy_bound(z, h, v)).mean()

    def encoder_loss(self, params: Any, batch: Tensor, noise: Tensor, hyper: Hyper) -> Tensor:
        """E_data E_Q [E(v, h) + log Q(h|v)]."""
        return kl_divergence(params.model, params.posterior, batch, noise[None], hyper["temperature"]).mean()

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        """The value of the game, at samples of the encoder and the decoder that are given to the model."""
        h = params.posterior.sample_hard(batch, noise["data"])
        data = -log_ratio(params.model, params.posterior, batch, h).mean()
        code, hidden, visible = params.decoder.sample_hard(noise["decoder"])
        entropy = params.decoder.entropy_bound(code, hidden, visible).mean()
        return data - params.model.energy(visible, hidden).mean() + entropy, carry, {}

    def decoder_step(self, state: State, batches: Tensor, noise: dict[str, Tensor], hyper: Hyper) -> State:
        """One step on the decoder."""

        def loss(params: Any, batch: Tensor, drawn: dict[str, Tensor]) -> Tensor:
            return self.decoder_loss(params, drawn, hyper)

        return self.move_part(state, "decoder", loss, batches, noise, hyper)[0]

    def inner_step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> State:
        loss = partial(self.encoder_loss, hyper=hyper)
        return self.move_part(state, "posterior", loss, batches, noise, hyper)[0]
