"""Unbiased contrastive divergence."""

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.cd import CD
from baselines.coupling import COUPLINGS, apart, coupled_chains, coupled_noise
from bism.errors import InputError
from bism.estimator import Hyper
from bism.functional import frozen
from bism.hyperparameters import LOOP, choice, count
from bism.rng import Rng
from bism.state import Info
from bism.variables import has_binary_v


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnbiasedCD(CD):
    """Unbiased CD: the likelihood's gradient without bias, from two coupled Gibbs chains and the time when they meet.

    Chains x and y start at the same training example, x a sweep ahead, each by itself a Gibbs chain of the model;
    (x_t, y_{t-1}) move together, so that at some time tau they are equal, and stay so. With f = dF/dtheta

        f(x_k) + sum over t = k + 1, ..., tau - 1 of [f(x_t) - f(y_{t-1})]

    has the mean of f under the model, whatever k (Glynn and Rhee 2014; Jacob, O'Leary and Atchadé 2020): x_{t-1} and
    y_{t-1} are of one law, so that the expected sum telescopes. It takes the place of CD's f(v_k). A larger k costs
    sweeps and lowers the variance.

    Here all chains make ``max_steps`` = T sweeps and terms from tau on are masked. What is left out of chains that have
    not met by then makes the mean exactly that of CD-T: the bias is CD-T's, and is small where few have not met. Their
    share and the mean of tau are in ``Info`` and are measured by the probe ``coupling``. With binary v and too few
    ``tries`` there is a bias of its own, see ``coupling.maximal_bernoulli``; ``coupling="common"`` has none.

    As published it is for binary RBMs. Of real v (GRBMs) it is an extension of ours: the reflection-maximal coupling of
    p(v|h), and common random numbers for h.
    """

    id: ClassVar[str] = "unbiased_cd"
    label: ClassVar[str] = "Unbiased CD-{k}"
    reference: ClassVar[str] = "Qiu, Zhang and Wang 2020; on GRBMs with an extension of ours"
    colour: ClassVar[str] = "#1b2f8f"
    marker: ClassVar[str] = "h"
    needs: ClassVar[tuple[str, ...]] = ("free_energy", "sample_hidden", "sample_visible")

    k: int = count(1, "sweeps before the correction begins", symbol="k", maximum=LOOP, tune=(1, 2, 5, 10))
    max_steps: int = count(25, "sweeps at most, met or not", symbol="T", maximum=LOOP, tune=(10, 25, 50))
    coupling: str = choice(
        "maximal", COUPLINGS, "how v of the two chains is drawn: by the maximal coupling, or common random numbers"
    )
    tries: int = count(5, "draws at most of binary v from the residual of the maximal coupling", maximum=LOOP)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_steps < self.k:
            raise InputError(f"{self.id}: max_steps must be at least k = {self.k}, got {self.max_steps}")

    @property
    def passes(self) -> float:
        return 1 + 0.6 * self.max_steps + 2 * (self.max_steps - self.k)

    def unsupported(self, model: Any) -> str | None:
        reason = super().unsupported(model)
        if reason is None and self.coupling == "maximal":
            wanted = ("visible_logits",) if has_binary_v(model) else ("visible_mean", "visible_scale")
            lacking = [f"{name}()" for name in wanted if not hasattr(model, name)]
            if lacking:
                return f"coupling='maximal' needs {' and '.join(lacking)}, which {type(model).__name__} lacks: 'common'"
        return reason

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return coupled_noise(model, batch_shape[0], self.max_steps, self.coupling, self.tries, rng)

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        ahead, behind, short = coupled_chains(frozen(params.model), batch, noise)
        not_met = apart(ahead, behind)
        points = torch.cat([batch[None], ahead[self.k - 1 :], behind[self.k :]])  # 1, then T - k + 1, then T - k
        energies = params.model.free_energy(points.flatten(0, 1)).reshape(len(points), -1)
        positive, start, later, earlier = energies.split([1, 1, *[self.max_steps - self.k] * 2])
        correction = torch.where(not_met[self.k :], later - earlier, 0.0).sum(0)
        info = {
            "not_met": not_met[-1].to(batch).mean(),
            "meeting_time": (1 + not_met[:-1].to(batch).sum(0)).mean(),
            "out_of_tries": short.to(batch).sum(0).mean(),
        }
        return positive.mean() - start.mean() - correction.mean(), carry, info
