"""Ratio matching, on the free energy and bi-level."""

import dataclasses
from typing import ClassVar

from torch import Tensor

from bism.flips import BiFlips, FlipMatching, Flips


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratios(Flips):
    """sum_i g(p(v) / p(v^i))^2 with g(u) = 1 / (1 + u), v^i for v with unit i flipped.

    Up to a constant its mean over data is the squared distance of all g(p(v) / p(v^i)) from the data's. With the
    log-ratios it is sum_i sigmoid(d_i)^2 = sum_i (1 - p(v_i | all others))^2, half the Brier score of the conditionals.
    """

    def of_log_ratios(self, d: Tensor) -> Tensor:
        return d.sigmoid().square().sum(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatioMatching(Ratios, FlipMatching):
    """Ratio matching, which is to binary v what score matching is to real v."""

    id: ClassVar[str] = "ratio_matching"
    label: ClassVar[str] = "Ratio matching"
    reference: ClassVar[str] = "Hyvärinen 2007"
    family: ClassVar[str] = "Score matching"
    colour: ClassVar[str] = "#404040"
    marker: ClassVar[str] = "2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiRatioMatching(Ratios, BiFlips):
    """Bi-level ratio matching: eq. (8) with ratio matching's log-ratios in the place of the score."""

    id: ClassVar[str] = "bi_ratio_matching"
    label: ClassVar[str] = "BiRM-{unroll_steps}"
    reference: ClassVar[str] = "Hyvärinen 2007; Bao et al. 2020, eq. 8-15"
    colour: ClassVar[str] = "#9db36a"
    marker: ClassVar[str] = "3"
