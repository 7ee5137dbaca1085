"""Persistent contrastive divergence."""

import dataclasses
from typing import Any, ClassVar

from torch import Tensor

from baselines.cd import CD
from bism.estimator import Hyper
from bism.rng import Rng
from bism.sampling import gibbs
from bism.state import Info


@dataclasses.dataclass(frozen=True, kw_only=True)
class PCD(CD):
    """PCD-k: as CD-k, with chains that go on from step to step instead of starting at the data.

    The chains are part of the state and start at training examples.
    """

    id: ClassVar[str] = "pcd"
    label: ClassVar[str] = "PCD-{k}"
    reference: ClassVar[str] = "Tieleman 2008"
    colour: ClassVar[str] = "#5c6875"
    marker: ClassVar[str] = "s"

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        return {"chains": data[rng.integers(len(data), (batch_size,))]}

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        chains = gibbs(params.model, carry["chains"], noise).detach()
        value = params.model.free_energy(batch).mean() - params.model.free_energy(chains).mean()
        return value, {"chains": chains}, {}
