"""What the paper prints (Bao et al., Bi-level Score Matching, NeurIPS 2020)."""

from reports import terms

TABLE1 = {  # Frey face: variant -> test log-likelihood, test Fisher divergence without its constant
    "DSM": (129.23, -5885.09),
    "BiDSM-0": (107.59, -5474.52),
    "BiDSM-1": (110.65, -5516.07),
    "BiDSM-5": (124.0, -5780.18),
    "BiDSM-10": (125.72, -5800.17),
}
TABLE2 = {  # CIFAR-10: label -> FID, FID with early stopping, its standard deviation over 5 runs
    "Flow-CE": (37.3, None, None),
    "VAE-EBLVM": (30.1, None, None),
    "CoopNets": (33.61, None, None),
    "EBM (ensemble)": (38.2, None, None),
    "MDSM": (None, 31.7, None),
    "MDSM (their code)": (39.12, 30.19, 2.6),
    "BiMDSM (20)": (34.55, 26.62, 1.52),
    "BiMDSM (50)": (38.82, 29.43, 2.76),
    "BiMDSM (100)": (36.13, 26.9, 2.14),
}
ANOMALY = {  # MNIST, area under the precision-recall curve by held-out digit (Pang et al. 2020, Table 3)
    "LEBM": {1: 0.336, 4: 0.630, 5: 0.619, 7: 0.463, 9: 0.413},
    "VAE": {1: 0.063, 4: 0.337, 5: 0.325, 7: 0.148, 9: 0.104},
    "MEG": {1: 0.281, 4: 0.401, 5: 0.402, 7: 0.290, 9: 0.342},
    "BiGAN-σ": {1: 0.287, 4: 0.443, 5: 0.514, 7: 0.347, 9: 0.307},
}
FIGURE1_DISTANCE = {0: 1.38, 20: 0.87}  # K -> ‖φ⁰ − φ*‖; the paper does not say where it was measured
_FIGURES = {  # (suite, task): other suites have tasks of these names
    1: (("bias", "freyface"),),
    2: (("grbm", "checkerboard"),),
    3: (("grbm", "checkerboard"),),
    4: (("mnist", "mnist"), ("cifar10", "cifar10")),
    5: (("mnist", "mnist"), ("cifar10", "cifar10")),
}


def has(figure: int, suite: str, task: str) -> bool:
    """Whether a figure of the paper is of this task."""
    return (suite, task) in _FIGURES[figure]


def title(figure: int, suite: str, task: str, text: str) -> str:
    """The title of what the paper's figure shows; named after it in the paper's own tasks alone."""
    return f"Figure {figure}: {text} ({task})" if has(figure, suite, task) else f"{terms.capital(text)} ({task})"
