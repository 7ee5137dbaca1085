"""Sliced score matching."""

import dataclasses
from typing import ClassVar

from bism.score_matching import ScoreMatching, Sliced


@dataclasses.dataclass(frozen=True, kw_only=True)
class SSM(Sliced, ScoreMatching):
    """Sliced score matching, eq. (3), on the free energy: the trace along one random direction per example."""

    id: ClassVar[str] = "ssm"
    label: ClassVar[str] = "SSM"
    reference: ClassVar[str] = "Song et al. 2019"
    colour: ClassVar[str] = "#848e0f"
    marker: ClassVar[str] = "v"
