"""All claims, in a reader's order. One file for each part of the paper, one for its reviews, one for the follow-up."""

from reports.claims.claim import Claim
from reports.claims.ledger import checkerboard, deep, follow_up, frey_faces, reviews, theorems

PARTS: dict[str, tuple[Claim, ...]] = {
    "Checkerboard and digits": checkerboard.CLAIMS,
    "Frey faces": frey_faces.CLAIMS,
    "Theorems": theorems.CLAIMS,
    "Deep models": deep.CLAIMS,
    "Reviews": reviews.CLAIMS,
    "Follow-up": follow_up.CLAIMS,
}
LEDGER: tuple[Claim, ...] = tuple(claim for claims in PARTS.values() for claim in claims)
