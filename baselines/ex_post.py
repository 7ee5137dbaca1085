"""Densities of codes that are fitted after training (Ghosh et al. 2020, ex-post density estimation)."""

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from bism.errors import InputError
from bism.estimator import Estimator
from bism.gaussian_mixture import fitted_mixture
from bism.hyperparameters import count
from bism.latent import LatentModel
from bism.rng import Rng, generator


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExPost(Estimator):
    """Methods whose prior is a Gaussian mixture that is fitted to the codes of training examples after training, by
    maximum likelihood; each seed keeps some examples for that, the same ones throughout. Stands before the method that
    trains a ``LatentModel`` and a posterior."""

    maps_codes: ClassVar[bool] = True

    components: int = count(10, "Gaussians, with full covariances, of the density of codes", maximum=1000)
    kept: int = count(2000, "training examples whose codes it is fitted to", maximum=100_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kept < self.components:
            raise InputError(
                f"{self.id}: kept must be at least components, {self.components}, to fit so many Gaussians to, "
                f"got {self.kept}"
            )

    def unsupported(self, model: Any) -> str | None:
        reason = super().unsupported(model)
        if reason is None and not hasattr(model, "with_prior"):
            return "it fits a prior to codes, and this model has no decoder: latent_mlp and latent_conv do"
        return reason

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        some = min(self.kept, len(data))
        if some < self.components:
            raise InputError(f"{self.id}: a density of {self.components} components needs as many examples, got {some}")
        return {"kept": data[rng.uniform((len(data),)).argsort()[: self.kept]]}

    def unshardable(self) -> str | None:
        return None

    def codes(self, posterior: Any, v: Tensor, rng: Rng) -> Tensor:
        """h [n, m] of v: draws of q(h|v)."""
        found: Tensor = posterior.sample(v, rng.normal((len(v), posterior.mean(v[:1]).shape[1])), 1.0)
        return found

    def sampler(self, parts: Any) -> LatentModel:
        return self.joint_model(parts)[0]

    def joint_model(self, parts: Any) -> tuple[LatentModel, Any]:
        """The model with the mixture as its prior, and the posterior."""
        kept = parts.carry["kept"]
        rng = Rng(generator(0, 0, "density of codes", kept.device), kept.dtype)
        with torch.no_grad():
            mixture = fitted_mixture(self.codes(parts.posterior, kept, rng), self.components, rng)
        return parts.model.with_prior(mixture.to(kept.dtype)), parts.posterior
