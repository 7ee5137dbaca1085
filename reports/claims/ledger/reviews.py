"""What the reviewers of the paper asked, and one of those of LEBM (Pang et al. 2020), whose questions are the same."""

import math

from reports.claims.claim import Claim, Place, better, equivalent, not_worse, ratio, trend
from reports.claims.ledger.checkerboard import BOARD, COMPARABLE, DIGITS, IMAGE_MARGIN
from reports.claims.ledger.frey_faces import FACES
from reports.claims.measures import LIKELIHOOD, Cost, EqualTime, Selected

INNER = Place("ablations", "inner_batches", "freyface", 5_000, needs="the Frey faces")
GRID = Place("ablations", "grid", "freyface", 5_000, seeds="0-2", needs="the Frey faces; hours of a CPU")
DEEP_COST = Place("bias", "cost_deep", "deep_digits", 3_000, needs="hours of a CPU")
IMAGES = Place("cifar10", "methods", "width32", 50_000, seeds="0-4", needs="a GPU, CIFAR-10 and Inception's weights")
CODES = Place("latent", "paper", "toy", 4_000, seeds="0-4")
PLANE = [Place("toy2d", "paper", task, 5_000) for task in ("eight_gaussians", "rings", "pinwheel", "checkerboard")]
_STEPS = 11  # gradients in an iteration of BiSM with K = N = 5
_TIMES = f"1 + K + N = {_STEPS} gradients are made in the place of one; above that ratio the method wastes time"
_NATS = "0.02 nats on the checkerboard and 1 nat on the digits, as for what is comparable there"
_PLANE = "0.05 nats of points whose best likelihoods are between −2.2 and −1.4"
_FACES_FISHER = "20, the smallest difference between two rows of Table 1 that the paper reads something into"
_K = (0, 1, 2, 5, 10, 20)
_LOG2 = {k: math.log2(1 + k) for k in (0, 1, 2, 5, 10, 20)}


def _beside(id_: str, name: str, theirs: list[str], where: str) -> Claim:
    return Claim(
        id_,
        where,
        f"BiDSM-5 is not worse than {name}, on the checkerboard and on the digits",
        "non-inferiority",
        _NATS,
        [
            *not_worse(BOARD, LIKELIHOOD, "BiDSM-5", theirs, COMPARABLE),
            *not_worse(DIGITS, LIKELIHOOD, "BiDSM-5", theirs, IMAGE_MARGIN),
        ],
        note="BiDSM learns a density of data with DSM's noise, and may lose by that alone: see DSM beside it.",
    )


def _pays(more: str, less: str) -> Claim:
    return Claim(
        f"pays-{more.partition('-')[2]}-{less.partition('-')[2]}",
        "First and second review",
        f"More unrolled steps pay per second: in equal time {more} is better than {less} (Frey faces)",
        "superiority",
        _FACES_FISHER,
        better(FACES, EqualTime("val/fisher_divergence"), more, [less], 20.0),
    )


CLAIMS = (
    Claim(
        "inner-minibatch",
        "First review",
        "It does not matter whether the inner steps take the outer step's minibatch or fresh ones "
        "(Frey faces, 5,000 iterations)",
        "equivalence",
        "2 nats, as for a number of Table 1 to be met",
        [
            one
            for n in (0, 5)
            for one in equivalent(
                INNER, LIKELIHOOD, f"BiDSM-{n} [inner_batches=same]", [f"BiDSM-{n} [inner_batches=fresh]"], 2.0
            )
        ],
    ),
    Claim(
        "inner-steps",
        "First review",
        "More inner steps K make a better model (Frey faces, N = 5, K from 0 to 20, 5,000 iterations)",
        "trend",
        "0.45 nats for every doubling of 1 + K: 2 nats, by which a number of Table 1 is met, over the whole range",
        trend(GRID, LIKELIHOOD, {f"BiDSM-5 [K={k}]": _LOG2[k] for k in _K}, "log2(1 + K)", low=0.45),
        note="A slope over all K, which says nothing of the larger ones where K = 0 is far below.",
    ),
    _pays("BiDSM-5", "BiDSM-0"),
    _pays("BiDSM-10", "BiDSM-5"),
    Claim(
        "time-checkerboard",
        "Third review",
        f"An iteration of BiSM (K = N = 5) costs at most {_STEPS} of one of SM, DSM, CD or PCD (checkerboard)",
        "value in a range",
        _TIMES,
        ratio(BOARD, Cost(), "BiDSM-5", ["SM", "DSM", "CD-1", "PCD-1"], None, _STEPS),
    ),
    Claim(
        "time-freyface",
        "Third review",
        f"The same on the Frey faces: at most {_STEPS} times DSM, CD or PCD",
        "value in a range",
        _TIMES,
        ratio(FACES, Cost(), "BiDSM-5", ["DSM", "CD-1 [data_noise=0.3]", "PCD-1 [data_noise=0.3]"], None, _STEPS),
    ),
    Claim(
        "time-implicit",
        "Section 4",
        "Implicit gradients are impractical in a deep model: five iterations take twice as long as five unrolled steps",
        "value in a range",
        "twice: a method that gives as good a gradient could be afforded at less",
        ratio(DEEP_COST, Cost(), "implicit-5", ["BiMDSM-5"], 2.0, None),
    ),
    Claim(
        "noise-levels",
        "First review",
        "One noise level is not enough for images: BiMDSM's samples are better than BiDSM's (CIFAR-10, width 32)",
        "superiority",
        "5 of FID, a sixth to a fifth of the paper's values and twice the standard deviation of one of its runs",
        better(IMAGES, Selected("test/fid"), "BiMDSM-0", ["BiDSM-0"], 5.0),
    ),
    _beside("unbiased-cd", "unbiased CD", ["Unbiased CD-1"], "First review"),
    _beside(
        "persistent-vi",
        "persistent VI with either prior",
        ["Persistent VI [prior=gaussian]", "Persistent VI [prior=horseshoe]"],
        "Third review",
    ),
    Claim(
        "nce-images",
        "Section 4; second review",
        "With noise that is easily told from images (a Gaussian fit) NCE and VNCE fall behind BiDSM on 8 × 8 digits",
        "superiority",
        "1 nat of an image of 64 pixels, as for what is comparable there",
        better(DIGITS, LIKELIHOOD, "BiDSM-5", ["NCE", "VNCE"], IMAGE_MARGIN),
        note="With stronger noise, a flow's, see the suites of images: FCE is in their presets `rivals`.",
    ),
    Claim(
        "persistent-prior",
        "Fourth review of LEBM",
        "Persistent chains on the prior make a better LEBM than short runs (eight Gaussians, exact likelihoods)",
        "superiority",
        _PLANE,
        better(CODES, LIKELIHOOD, "LEBM-60, persistent prior", ["LEBM-60, short"], 0.05),
    ),
    Claim(
        "persistent-energies",
        "Fourth review of LEBM",
        "Persistent chains make better energies of points in the plane than short runs from noise",
        "superiority",
        _PLANE,
        [one for at in PLANE for one in better(at, LIKELIHOOD, "Langevin PCD-10", ["Short run-50"], 0.05)],
    ),
    Claim(
        "amortised-posterior",
        "Fourth review of LEBM",
        "An encoder does what chains on the posterior do: LEBM with one is not worse (eight Gaussians)",
        "non-inferiority",
        _PLANE,
        not_worse(
            CODES,
            LIKELIHOOD,
            "LEBM-60, encoder",
            ["LEBM-60, persistent prior"],
            0.05,
        ),
    ),
)
