"""Multiscale denoising score matching."""

import dataclasses
from typing import ClassVar

from bism.score_matching import Multiscale, ScoreMatching


@dataclasses.dataclass(frozen=True, kw_only=True)
class MDSM(Multiscale, ScoreMatching):
    """Multiscale denoising score matching, eq. (5), on the free energy: several noise levels, one target level."""

    id: ClassVar[str] = "mdsm"
    label: ClassVar[str] = "MDSM"
    reference: ClassVar[str] = "Li et al. 2019"
    colour: ClassVar[str] = "#81612a"
    marker: ClassVar[str] = ">"
