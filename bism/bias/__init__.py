"""The bias of the bi-level gradient on a model where the truth is known: Theorem 2 and Figure 1.

The bias after N unrolled steps is eq. (14) minus the gradient of the marginal objective, eq. (7). On a GRBM with one
linear layer as posterior both ends are known: phi*(theta) = (W, c) is p(h|v) itself, whatever the data, so that by
Theorem 1 the true gradient is that of DSM on the free energy. Three studies, at one point theta, phi of a training:

``theorem1``   the gradient at phi* itself, as a function of theta and as a constant.
``theorem2``   nothing is random: fixed points, the exact KL, gradient descent. The theorem speaks of this.
``practical``  the algorithm as it trains (Adam's running state, relaxed samples, minibatches), averaged over draws.
"""

from bism.bias.closed_forms import bernoulli_kl, exact_posterior, largest_curvature, logit_curvature, spectrum
from bism.bias.in_practice import Draw, practical, practical_draw
from bism.bias.in_theory import Theorem1, Theorem2, theorem1, theorem2
from bism.bias.of_methods import ExpectedBias, TrueDSM, expected_bias, reference_states
from bism.bias.paths import hypergradients, trajectory
from bism.bias.point import INNER, UNROLL, Bias, Trained
from bism.bias.vectors import GROUPS, Moments, NormOfMean, distance, flat

__all__ = [
    "GROUPS",
    "INNER",
    "UNROLL",
    "Bias",
    "Draw",
    "ExpectedBias",
    "Moments",
    "NormOfMean",
    "Theorem1",
    "Theorem2",
    "Trained",
    "TrueDSM",
    "bernoulli_kl",
    "distance",
    "exact_posterior",
    "expected_bias",
    "flat",
    "hypergradients",
    "largest_curvature",
    "logit_curvature",
    "practical",
    "practical_draw",
    "reference_states",
    "spectrum",
    "theorem1",
    "theorem2",
    "trajectory",
]
