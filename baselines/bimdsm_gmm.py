"""Bi-level score matching of a decoder, whose prior is a Gaussian mixture that is fitted after training."""

import dataclasses
from typing import ClassVar

from baselines.ex_post import ExPost
from bism.methods import BiMDSM


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiMDSMMixture(ExPost, BiMDSM):
    """BiMDSM, and then a Gaussian mixture of draws of its posterior at training examples in the place of N(0, I).

    Ours. Score matching weighs modes of p(v) that lie apart by next to nothing, so neither does it hold codes to the
    prior: those of a trained decoder are not N(0, I). The decoder and the posterior stay as BiMDSM leaves them.
    """

    id: ClassVar[str] = "bimdsm_gmm"
    label: ClassVar[str] = "BiMDSM-{unroll_steps} + GMM"
    colour: ClassVar[str] = "#4a2fa8"
    marker: ClassVar[str] = "D"
    needs: ClassVar[tuple[str, ...]] = (*BiMDSM.needs, "log_visible", "prior_energy")
    reference: ClassVar[str] = "Bao et al. 2020, eq. 5 and 8-15; the mixture is ours, after Ghosh et al. 2020"
