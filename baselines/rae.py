"""Regularised autoencoders."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from baselines.autoencoder import Around, around, autoencoder, jacobian_square, squares
from baselines.ex_post import ExPost
from baselines.vae import Directed
from bism.errors import InputError
from bism.estimator import Hyper
from bism.hyperparameters import Range, choice, number
from bism.latent import LatentModel
from bism.objectives import sum_per_example
from bism.rng import Rng
from bism.state import Info

REGULARISERS = {"l2": "RAE-L2", "gradient_penalty": "RAE-GP", "spectral_norm": "RAE-SN", "none": "RAE"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RAE(ExPost, Directed):
    """A regularised autoencoder (Ghosh et al. 2020): with codes e(v) and decoder g

        |v - g(e(v))|^2 + beta/2 |e(v)|^2 + lambda R(g),

    where R is the sum of squares of g's weights (``l2``), the squared Frobenius norm of its Jacobian at the codes
    (``gradient_penalty``, by one random direction of v each, whose mean it is), or nothing; ``spectral_norm`` is of the
    decoder's own layers, a property of the model. Of binary v -log p(v|e(v)) is in the place of the squares.

    An autoencoder has no likelihood. As measurements of latent variables take it, this is our reading: h of the
    mixture, v of N(g(h), s^2 I) with s the root mean square of the kept examples' residuals, not the model's sigma, and
    q(h|v) = N(e(v), s_q^2 I) with the s_q of the highest bound on them.
    """

    id: ClassVar[str] = "rae"
    label: ClassVar[str] = "RAE"
    reference: ClassVar[str] = "Ghosh et al. 2020"
    colour: ClassVar[str] = "#98c1d9"
    marker: ClassVar[str] = "s"

    regulariser: str = choice("l2", tuple(REGULARISERS), "of the decoder")
    code_weight: float = number(
        1e-4, "beta, of the codes' squares", symbol="b", minimum=0.0, tune=Range(1e-5, 1.0, log=True)
    )
    weight: float = number(1e-6, "lambda, of the regulariser", minimum=0.0, tune=Range(1e-8, 1e-2, log=True))

    @property
    def name(self) -> str:
        return REGULARISERS[self.regulariser]

    def unsupported(self, model: Any) -> str | None:
        reason = super().unsupported(model)
        if reason is None and getattr(model, "learns_sigma", False):
            return "without a likelihood it would not train the model's sigma: learn_sigma must be false"
        spectral = bool(getattr(getattr(model, "decoder", None), "spectral_norm", False))
        if reason is None and spectral != (self.regulariser == "spectral_norm"):
            return f"with regulariser: {self.regulariser} the model's spectral_norm must be {str(not spectral).lower()}"
        return reason

    def modules(self, model: Any, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        posterior = given["posterior"] if "posterior" in given else autoencoder(model)
        if not isinstance(posterior, Around):
            raise InputError(f"{self.id}: posterior must be an encoder, Around, got {type(posterior).__name__}")
        return {"model": model, "posterior": posterior}

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return rng.rademacher(batch_shape) if self.regulariser == "gradient_penalty" else ()

    def codes(self, posterior: Any, v: Tensor, rng: Rng) -> Tensor:
        found: Tensor = posterior.mean(v)
        return found

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        model, h = params.model, params.posterior.mean(batch)
        misfit = -model.log_visible(batch, h) if model.binary else sum_per_example((batch - model.decoder(h)).square())
        each = misfit + 0.5 * hyper["code_weight"] * h.square().sum(-1)
        if self.regulariser == "gradient_penalty":
            each = each + hyper["weight"] * jacobian_square(model.decoder, h, noise)
        penalty = squares(model.decoder) if self.regulariser == "l2" else each.new_zeros(())
        return each.mean() + hyper["weight"] * penalty, carry, {}

    def joint_model(self, parts: Any) -> tuple[LatentModel, nn.Module]:
        return around(super().joint_model(parts)[0], parts.posterior, parts.carry["kept"])
