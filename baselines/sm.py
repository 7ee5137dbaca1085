"""Score matching."""

import dataclasses
from typing import Any, ClassVar

from torch import Tensor

from bism.estimator import Hyper
from bism.objectives import sum_per_example
from bism.score_matching import Exact, ScoreMatching
from bism.state import Info


@dataclasses.dataclass(frozen=True, kw_only=True)
class SM(Exact, ScoreMatching):
    """Score matching with the exact trace of the Hessian, eq. (2), on the free energy.

    Where the model knows its ``score_and_laplacian`` (a GRBM does: Swersky et al. 2011) that is used; elsewhere the
    trace costs as many Hessian-vector products as there are visible units.
    """

    id: ClassVar[str] = "sm"
    label: ClassVar[str] = "SM"
    reference: ClassVar[str] = "Hyvärinen 2005; for GRBMs Swersky et al. 2011"
    colour: ClassVar[str] = "#529a6f"
    marker: ClassVar[str] = "^"

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        closed_form = getattr(params.model, "score_and_laplacian", None)
        if closed_form is None:
            return super().loss(params, batch, noise, carry, hyper)
        score, laplacian = closed_form(batch)
        return (0.5 * sum_per_example(score.square()) + laplacian).mean(), carry, {}
