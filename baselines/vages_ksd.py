"""Kernelised Stein discrepancies by variational gradient estimates of the score."""

import dataclasses
from typing import ClassVar

from baselines.vages import VaGES
from bism.score_matching import Stein


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaGESKSD(Stein, VaGES):
    """VaGES of the kernelised Stein discrepancy, which compares all pairs of a minibatch.

    The authors' code compares one half of the minibatch with the other: the same expectation with more variance.
    """

    id: ClassVar[str] = "vages_ksd"
    label: ClassVar[str] = "VaGES-KSD-{particles}"
    reference: ClassVar[str] = "Bao et al. 2021; Liu et al. 2016; Chwialkowski et al. 2016"
    colour: ClassVar[str] = "#f84f18"
    marker: ClassVar[str] = "$\u25d6$"

    def unshardable(self) -> str | None:
        return "its objective compares all pairs of examples of a minibatch"
