"""What VaGES's authors say (Bao et al. 2021): the gradient of the score needs no bi-level detour."""

from reports.claims.claim import Claim, not_worse, ratio
from reports.claims.ledger.checkerboard import BOARD, COMPARABLE, DIGITS, IMAGE_MARGIN
from reports.claims.ledger.deep import FID
from reports.claims.ledger.frey_faces import FACES
from reports.claims.ledger.reviews import IMAGES
from reports.claims.measures import LIKELIHOOD, Cost

_WHERE = "VaGES (ICML 2021)"

CLAIMS = (
    Claim(
        "vages-checkerboard",
        _WHERE,
        "VaGES-DSM with L = 2, as its authors have it, is not worse than BiDSM with N = 5 (checkerboard)",
        "non-inferiority",
        "0.02 nats, as for what is comparable there",
        not_worse(BOARD, LIKELIHOOD, "VaGES-DSM-2", ["BiDSM-5"], COMPARABLE),
    ),
    Claim(
        "vages-digits",
        _WHERE,
        "VaGES-DSM with L = 5 is not worse than BiDSM with N = 5 (8 × 8 digits)",
        "non-inferiority",
        "1 nat, as for what is comparable there",
        not_worse(DIGITS, LIKELIHOOD, "VaGES-DSM-5", ["BiDSM-5"], IMAGE_MARGIN),
    ),
    Claim(
        "vages-freyface",
        _WHERE,
        "VaGES-DSM with L = 5 is not worse than BiDSM with N = 5 (Frey faces)",
        "non-inferiority",
        "2 nats, as for a number of Table 1 to be met",
        not_worse(FACES, LIKELIHOOD, "VaGES-DSM-5", ["BiDSM-5"], 2.0),
        note="Log-likelihoods are estimates by AIS, which errs upwards; its bounds are in the report.",
    ),
    Claim(
        "vages-images",
        _WHERE,
        "VaGES-MDSM with L = 2 is not worse than BiMDSM (CIFAR-10, width 32)",
        "non-inferiority",
        "3 of FID, about the standard deviation of one run that BiSM's paper prints",
        not_worse(IMAGES, FID, "VaGES-MDSM-2", ["BiMDSM-0"], 3.0),
    ),
    Claim(
        "vages-time",
        _WHERE,
        "Without unrolling an iteration costs less: VaGES-DSM-2 at most 0.9 of BiDSM-5's (checkerboard)",
        "value in a range",
        "a tenth less: what nobody would notice is no gain",
        ratio(BOARD, Cost(), "VaGES-DSM-2", ["BiDSM-5"], None, 0.9),
    ),
)
