"""Denoising score matching by variational gradient estimates of the score."""

import dataclasses
from typing import ClassVar

from baselines.vages import VaGES
from bism.score_matching import Denoising


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaGESDSM(Denoising, VaGES):
    """VaGES of denoising score matching, eq. (4)."""

    id: ClassVar[str] = "vages_dsm"
    label: ClassVar[str] = "VaGES-DSM-{particles}"
    colour: ClassVar[str] = "#99536b"
    marker: ClassVar[str] = "$\u25e3$"
