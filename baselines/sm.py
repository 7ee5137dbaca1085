"""Score matching."""

import dataclasses
from typing import ClassVar

from bism.score_matching import Exact, ScoreMatching


@dataclasses.dataclass(frozen=True, kw_only=True)
class SM(Exact, ScoreMatching):
    """Score matching with the exact trace of the Hessian, eq. (2), on the free energy.

    Costs as many Hessian-vector products as there are visible units.
    """

    id: ClassVar[str] = "sm"
    label: ClassVar[str] = "SM"
    reference: ClassVar[str] = "Hyvärinen 2005; for GRBMs Swersky et al. 2011"
