"""Bi-level score matching (Bao et al. 2020) and the mathematics it stands on. Needs torch alone.

Names are imported when they are first used, so that what needs no torch (``bism.errors``) does not wait for it.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bism.convnet import ConvEBM
    from bism.dbm import DBM
    from bism.dbn import DBN
    from bism.errors import InputError
    from bism.estimator import Estimator
    from bism.fitted import Fitted
    from bism.ising import Ising
    from bism.likelihood import fisher_divergence, log_likelihood, log_partition
    from bism.methods import BiDSM, BiMDSM, BiSM, BiSSM
    from bism.mlp import MLPEBLVM, MLPEBM
    from bism.models import GRBM, RBM
    from bism.phases import Phase
    from bism.posteriors import DiagonalGaussian, RelaxedBernoulli
    from bism.protocols import EnergyModel, Posterior, Sampler
    from bism.resnet import BilinearEBLVM, ResNetEBLVM, ResNetEBM
    from bism.stages import Stage
    from bism.variables import Bernoulli, Gaussian

_MODULES = {
    "convnet": ("ConvEBM",),
    "dbm": ("DBM",),
    "dbn": ("DBN",),
    "errors": ("InputError",),
    "estimator": ("Estimator",),
    "fitted": ("Fitted",),
    "ising": ("Ising",),
    "likelihood": ("fisher_divergence", "log_likelihood", "log_partition"),
    "methods": ("BiDSM", "BiMDSM", "BiSM", "BiSSM"),
    "mlp": ("MLPEBLVM", "MLPEBM"),
    "models": ("GRBM", "RBM"),
    "phases": ("Phase",),
    "posteriors": ("DiagonalGaussian", "RelaxedBernoulli"),
    "protocols": ("EnergyModel", "Posterior", "Sampler"),
    "resnet": ("BilinearEBLVM", "ResNetEBLVM", "ResNetEBM"),
    "stages": ("Stage",),
    "variables": ("Bernoulli", "Gaussian"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "DBM",
    "DBN",
    "GRBM",
    "MLPEBLVM",
    "MLPEBM",
    "RBM",
    "Bernoulli",
    "BiDSM",
    "BiMDSM",
    "BiSM",
    "BiSSM",
    "BilinearEBLVM",
    "ConvEBM",
    "DiagonalGaussian",
    "EnergyModel",
    "Estimator",
    "Fitted",
    "Gaussian",
    "InputError",
    "Ising",
    "Phase",
    "Posterior",
    "RelaxedBernoulli",
    "ResNetEBLVM",
    "ResNetEBM",
    "Sampler",
    "Stage",
    "fisher_divergence",
    "log_likelihood",
    "log_partition",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'bism' has no attribute '{name}'")
    return getattr(importlib.import_module(f"bism.{_HOME[name]}"), name)
