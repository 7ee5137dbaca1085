"""Variational autoencoders whose prior is a Gaussian mixture, fitted after training."""

import dataclasses
from typing import ClassVar

from baselines.ex_post import ExPost
from baselines.vae import VAE


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEMixture(ExPost, VAE):
    """A VAE, and then a Gaussian mixture of draws of its posterior at training examples in the place of N(0, I) (Ghosh
    et al. 2020, Section 4)."""

    id: ClassVar[str] = "vae_gmm"
    label: ClassVar[str] = "VAE + GMM"
    colour: ClassVar[str] = "#5f7fa8"
    marker: ClassVar[str] = "D"
    reference: ClassVar[str] = "Ghosh et al. 2020"

    @property
    def name(self) -> str:
        return self.label if self.particles == 1 else f"{super().name} + GMM"
