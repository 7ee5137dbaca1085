"""Bi-level score matching (Bao et al. 2020) and the mathematics it stands on. Needs torch alone."""

from bism.errors import InputError
from bism.estimator import Estimator
from bism.fitted import Fitted
from bism.likelihood import fisher_divergence, log_likelihood, log_partition
from bism.methods import BiDSM, BiMDSM, BiSM, BiSSM
from bism.models import GRBM, EnergyModel
from bism.posteriors import DiagonalGaussian, RelaxedBernoulli
from bism.variables import Bernoulli, Gaussian

__all__ = [
    "GRBM",
    "Bernoulli",
    "BiDSM",
    "BiMDSM",
    "BiSM",
    "BiSSM",
    "DiagonalGaussian",
    "EnergyModel",
    "Estimator",
    "Fitted",
    "Gaussian",
    "InputError",
    "RelaxedBernoulli",
    "fisher_divergence",
    "log_likelihood",
    "log_partition",
]
