"""Pseudo-likelihood, on the free energy and bi-level."""

import dataclasses
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import softplus

from bism.flips import BiFlips, FlipMatching, Flips


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditionals(Flips):
    """- sum_i log p(v_i | all others) = sum_i softplus(d_i), which needs no log Z."""

    def of_log_ratios(self, d: Tensor) -> Tensor:
        return softplus(d).sum(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLikelihood(Conditionals, FlipMatching):
    """Maximum pseudo-likelihood for binary v: the loss is - sum_i log p(v_i | all others)."""

    id: ClassVar[str] = "pseudo_likelihood"
    label: ClassVar[str] = "Pseudo-likelihood"
    reference: ClassVar[str] = "Besag 1975"
    family: ClassVar[str] = "Contrastive divergence"  # with one random unit per step CD-1 has its gradient
    colour: ClassVar[str] = "#6b3f2a"
    marker: ClassVar[str] = "|"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiPseudoLikelihood(Conditionals, BiFlips):
    """Bi-level pseudo-likelihood: eq. (8) with the pseudo-likelihood's log-ratios in the place of the score."""

    id: ClassVar[str] = "bi_pseudo_likelihood"
    label: ClassVar[str] = "BiPL-{unroll_steps}"
    reference: ClassVar[str] = "Besag 1975; Bao et al. 2020, eq. 8-15"
    colour: ClassVar[str] = "#2a2f55"
    marker: ClassVar[str] = "1"
