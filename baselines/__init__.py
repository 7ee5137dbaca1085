"""The methods that BiSM is compared with, one file each. Needs torch and ``bism`` alone."""

from baselines.cd import CD
from baselines.dbm import TrainDBM
from baselines.dbn import TrainDBN
from baselines.dsm import DSM
from baselines.langevin_cd import LangevinCD, LangevinPCD
from baselines.mdsm import MDSM
from baselines.nce import NCE
from baselines.pcd import PCD
from baselines.persistent_vi import PersistentVI
from baselines.pseudo_likelihood import PseudoLikelihood
from baselines.sm import SM
from baselines.ssm import SSM
from baselines.unbiased_cd import UnbiasedCD
from baselines.vages_dsm import VaGESDSM
from baselines.vages_ksd import VaGESKSD
from baselines.vages_mdsm import VaGESMDSM
from baselines.vnce import VNCE

__all__ = [
    "CD",
    "DSM",
    "MDSM",
    "NCE",
    "PCD",
    "SM",
    "SSM",
    "VNCE",
    "LangevinCD",
    "LangevinPCD",
    "PersistentVI",
    "PseudoLikelihood",
    "TrainDBM",
    "TrainDBN",
    "UnbiasedCD",
    "VaGESDSM",
    "VaGESKSD",
    "VaGESMDSM",
]
