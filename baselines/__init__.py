"""The methods that BiSM is compared with, one file each. Needs torch and ``bism`` alone."""

from baselines.advil import AdVIL
from baselines.bimdsm_gmm import BiMDSMMixture
from baselines.cd import CD
from baselines.coopnets import CoopNets
from baselines.dbm import TrainDBM
from baselines.dbn import TrainDBN
from baselines.dsm import DSM
from baselines.dvae import DVAE
from baselines.energy_discrepancy import EnergyDiscrepancy
from baselines.flow_contrast import FlowContrast
from baselines.generative_convnet import GenerativeConvNet
from baselines.hoffman import Hoffman
from baselines.igebm import IGEBM
from baselines.langevin_cd import LangevinCD, LangevinPCD
from baselines.lebm import LEBM
from baselines.lebm_amortised import AmortisedLEBM
from baselines.mdsm import MDSM
from baselines.mpf import MPF, BiMPF
from baselines.nce import NCE
from baselines.nvil import NVIL
from baselines.pcd import PCD
from baselines.persistent_vi import PersistentVI
from baselines.pseudo_likelihood import BiPseudoLikelihood, PseudoLikelihood
from baselines.rae import RAE
from baselines.ratio_matching import BiRatioMatching, RatioMatching
from baselines.short_run import ShortRun
from baselines.sm import SM
from baselines.ssm import SSM
from baselines.two_stage_vae import TwoStageVAE
from baselines.unbiased_cd import UnbiasedCD
from baselines.vae import VAE
from baselines.vae_ebm import VAEEBM
from baselines.vae_gmm import VAEMixture
from baselines.vages_dsm import VaGESDSM
from baselines.vages_ksd import VaGESKSD
from baselines.vages_mdsm import VaGESMDSM
from baselines.vnce import VNCE

__all__ = [
    "CD",
    "DSM",
    "DVAE",
    "IGEBM",
    "LEBM",
    "MDSM",
    "MPF",
    "NCE",
    "NVIL",
    "PCD",
    "RAE",
    "SM",
    "SSM",
    "VAE",
    "VAEEBM",
    "VNCE",
    "AdVIL",
    "AmortisedLEBM",
    "BiMDSMMixture",
    "BiMPF",
    "BiPseudoLikelihood",
    "BiRatioMatching",
    "CoopNets",
    "EnergyDiscrepancy",
    "FlowContrast",
    "GenerativeConvNet",
    "Hoffman",
    "LangevinCD",
    "LangevinPCD",
    "PersistentVI",
    "PseudoLikelihood",
    "RatioMatching",
    "ShortRun",
    "TrainDBM",
    "TrainDBN",
    "TwoStageVAE",
    "UnbiasedCD",
    "VAEMixture",
    "VaGESDSM",
    "VaGESKSD",
    "VaGESMDSM",
]
