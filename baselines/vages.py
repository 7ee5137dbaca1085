"""Variational gradient estimates of the score (VaGES), of any criterion of the score."""

import dataclasses
from functools import partial
from typing import Any, ClassVar

from torch import Tensor
from torch.func import vmap

from baselines.latent_scores import COVARIANCES, corrected, covariance_surrogate, mean_score, residual, second_surrogate
from bism.amortised import Amortised
from bism.bilevel import log_ratio
from bism.errors import InputError
from bism.estimator import Hyper
from bism.functional import frozen
from bism.hyperparameters import LOOP, choice, count, number
from bism.rng import Rng
from bism.state import Info, State
from bism.variables import Bernoulli


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaGES(Amortised):
    """Score matching for models known by their energy alone, with nothing unrolled.

    The gradient of an objective F(s, eps, v) of the score s, eq. (7), is z . ds/dtheta with the residual z = dF/ds.
    Both factors are estimated from samples h ~ q(h|v) (``baselines.latent_scores``), in groups of L that are
    independent of each other, so that the product is unbiased where q is the exact posterior.
    """

    family: ClassVar[str] = "Bi-level score matching"
    reference: ClassVar[str] = "Bao et al. 2021"
    part_needs: ClassVar[dict[str, tuple[str, ...]]] = {"posterior": ("sample_hard",)}

    particles: int = count(5, "samples of h per example in each estimate", symbol="L", maximum=LOOP, tune=(2, 5, 10))
    covariance: str = choice(
        "unbiased", COVARIANCES, "of the scores in v and in theta: divided by L - 1, by L (biased), or left out"
    )
    groups: str = choice(
        "independent", ("independent", "shared"), "whether the covariance has samples of its own or the second term's"
    )
    control_variate: str = choice(
        "none",
        ("none", "posterior"),
        "in the residual's score: none, or the score of log q(h|v), whose mean is 0",
        tune=True,
    )
    corrector_steps: int = count(
        0, "Langevin steps that samples of real h take towards p(h|v)", minimum=0, maximum=LOOP
    )
    corrector_step_size: float = number(0.01, "a of these: h - a/2 dE/dh")  # no tune: without steps it does nothing
    corrector_noise: float = number(
        1e-4, "standard deviation of the noise in each of them; the root of a samples p(h|v)", minimum=0.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.particles < 2 and self.covariance != "none":
            raise InputError(
                f"{self.id}: particles must be at least 2, got {self.particles}: one sample of h has no covariance; "
                f"covariance='none' leaves it out, and the gradient is then biased"
            )
        if self.corrector_steps and self.control_variate != "none":
            raise InputError(
                f"{self.id}: control_variate must be 'none' with corrector_steps, got {self.control_variate!r}: the "
                f"score of log q(h|v) has mean 0 for samples of q alone"
            )

    def unsupported(self, model: Any) -> str | None:
        if self.corrector_steps and isinstance(model.latent, Bernoulli):
            return "corrector_steps differentiate in h, and this model's h is discrete: use corrector_steps=0"
        return super().unsupported(model)

    @property
    def passes(self) -> float:
        return super().passes + 0.5 * self.particles

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        apart = self.groups == "independent" and self.covariance != "none"
        samples = ((3 if apart else 2) * self.particles, batch_shape[0])
        return {
            "visible": self.draw(batch_shape, rng),
            "hidden": model.latent.noise(rng, samples),
            "corrector": [model.latent.noise(rng, samples) for _ in range(self.corrector_steps)],
        }

    def lower_objective(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> Tensor:
        return self.lower_loss(state.bind(), batches[0], {**noise, "hidden": noise["hidden"][:1]}, hyper)

    def samples(self, params: Any, v: Tensor, noise: Any, hyper: Hyper) -> tuple[Tensor, Tensor, Tensor]:
        """h for the residual, the second derivative and the covariance, each [L, batch, m]."""
        h = vmap(lambda eps: params.posterior.sample_hard(v, eps))(noise["hidden"]).detach()
        h = corrected(params.model, v, h, noise["corrector"], hyper["corrector_step_size"], hyper["corrector_noise"])
        return h[: self.particles], h[self.particles : 2 * self.particles], h[-self.particles :]

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        """F at the estimated score, with the gradient of VaGES.

        The value has half the estimate's variance in it, so it falls with L: of the same method, it is no measure by
        which to choose L or the control variate.
        """
        fixed, posterior = frozen(params.model), frozen(params.posterior)
        v, drawn = self.points(batch, noise["visible"], hyper), noise["visible"]
        for_residual, for_second, for_covariance = self.samples(params, v, noise, hyper)

        def log_joint(x: Tensor, h: Tensor, model: Any = params.model) -> Any:
            return -model.energy(x, h)

        fixed_joint = partial(log_joint, model=fixed)
        scored = partial(log_ratio, fixed, posterior) if self.control_variate == "posterior" else fixed_joint
        s = mean_score(scored, v, for_residual)
        z, values = residual(lambda log_density: self.objective(log_density, batch, drawn, hyper), s)
        surrogate = second_surrogate(log_joint, v, for_second, z)
        if self.covariance != "none":
            biased = self.covariance == "biased"
            surrogate = surrogate + covariance_surrogate(log_joint, fixed_joint, v, for_covariance, z, biased)
        return (values + (surrogate - surrogate.detach())).mean(), carry, {}
