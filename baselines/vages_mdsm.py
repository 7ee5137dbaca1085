"""Multiscale denoising score matching by variational gradient estimates of the score."""

import dataclasses
from typing import ClassVar

from baselines.vages import VaGES
from bism.score_matching import Multiscale


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaGESMDSM(Multiscale, VaGES):
    """VaGES of multiscale denoising score matching, eq. (5)."""

    id: ClassVar[str] = "vages_mdsm"
    label: ClassVar[str] = "VaGES-MDSM-{particles}"
    colour: ClassVar[str] = "#9f7df3"
    marker: ClassVar[str] = "$\u25e2$"
