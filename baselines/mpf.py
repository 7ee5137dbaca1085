"""Minimum probability flow, on the free energy and bi-level."""

import dataclasses
from typing import ClassVar

from torch import Tensor

from bism.flips import BiFlips, FlipMatching, Flips


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow(Flips):
    """sum_i sqrt(p(v^i) / p(v)) = sum_i exp(d_i / 2), v^i for v with unit i flipped.

    The rate at which probability starts to flow from the data to the states next to them, under dynamics that lead to
    the model. Neighbours that are examples themselves count as well, which the original leaves out: so the model is
    found even if the data are all states.
    """

    def of_log_ratios(self, d: Tensor) -> Tensor:
        return (d / 2).exp().sum(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MPF(Flow, FlipMatching):
    """Minimum probability flow with flips of single units."""

    id: ClassVar[str] = "mpf"
    label: ClassVar[str] = "MPF"
    reference: ClassVar[str] = "Sohl-Dickstein et al. 2009"
    family: ClassVar[str] = "Score matching"
    colour: ClassVar[str] = "#8e3ebd"
    marker: ClassVar[str] = "4"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiMPF(Flow, BiFlips):
    """Bi-level minimum probability flow: eq. (8) with its log-ratios in the place of the score."""

    id: ClassVar[str] = "bi_mpf"
    label: ClassVar[str] = "BiMPF-{unroll_steps}"
    reference: ClassVar[str] = "Sohl-Dickstein et al. 2009; Bao et al. 2020, eq. 8-15"
    colour: ClassVar[str] = "#56b5c9"
    marker: ClassVar[str] = "+"
