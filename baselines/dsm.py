"""Denoising score matching."""

import dataclasses
from typing import ClassVar

from bism.score_matching import Denoising, ScoreMatching


@dataclasses.dataclass(frozen=True, kw_only=True)
class DSM(Denoising, ScoreMatching):
    """Denoising score matching, eq. (4), on the free energy. Its optimum is the density smoothed by sigma."""

    id: ClassVar[str] = "dsm"
    label: ClassVar[str] = "DSM"
    reference: ClassVar[str] = "Vincent 2011"
    colour: ClassVar[str] = "#138c9d"
    marker: ClassVar[str] = "<"
