"""Contrastive divergence."""

import dataclasses
from typing import Any, ClassVar

from torch import Tensor

from bism.estimator import Estimator, Hyper
from bism.hyperparameters import LOOP, count
from bism.rng import Rng
from bism.sampling import gibbs, gibbs_noise
from bism.state import Info
from bism.variables import Bernoulli, Gaussian, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class CD(Estimator):
    """CD-k: the likelihood gradient with k sweeps of Gibbs sampling from the data in place of model samples.

    The loss is mean F(v) - mean F(v_k), v_k fixed; as k grows its gradient tends to that of the negative
    log-likelihood. Its value is not comparable with anything.
    """

    id: ClassVar[str] = "cd"
    label: ClassVar[str] = "CD-{k}"
    reference: ClassVar[str] = "Hinton 2002"
    family: ClassVar[str] = "Contrastive divergence"
    colour: ClassVar[str] = "#2878c8"
    marker: ClassVar[str] = "o"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    visible_units: ClassVar[tuple[type[Units], ...]] = (Gaussian, Bernoulli)

    k: int = count(1, "sweeps of Gibbs sampling per step", symbol="k", maximum=LOOP, tune=(1, 2, 5, 10, 20))

    @property
    def passes(self) -> float:
        return 1 + 0.3 * self.k

    def unsupported(self, model: Any) -> str | None:
        if not hasattr(model, "transition"):
            if model.latent is None:
                return "it samples by Gibbs sweeps between v and h, and this model has no latent variables"
            lacking = [f"{name}()" for name in ("sample_hidden", "sample_visible") if not hasattr(model, name)]
            if lacking:
                return f"it needs {' and '.join(lacking)}, which {type(model).__name__} lacks"
        return super().unsupported(model)

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return gibbs_noise(model, batch_shape[0], self.k, rng)

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        fantasies = gibbs(params.model, batch, noise).detach()
        return params.model.free_energy(batch).mean() - params.model.free_energy(fantasies).mean(), carry, {}
