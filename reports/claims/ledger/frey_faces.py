"""Table 1: the Frey faces."""

from reports import paper
from reports.claims.claim import Claim, Place, not_worse, order, value
from reports.claims.measures import FISHER, LIKELIHOOD, Selected

FACES = Place("freyface", "paper", "freyface", 20_000, seeds="0-4", needs="the Frey faces; hours of a CPU")
_ORDER = ["BiDSM-0", "BiDSM-1", "BiDSM-5", "BiDSM-10"]
_COLUMNS: dict[str, tuple[int, Selected, float, str]] = {  # name -> place in the table, measure, tolerance, why
    "ll": (
        0,
        LIKELIHOOD,
        2.0,
        "about the smallest difference between two rows that the paper reads something into (1.72 nats)",
    ),
    "fisher": (1, FISHER, 20.0, "the smallest difference between two rows that the paper reads something into (19.99)"),
}
_UNBIASED = "Log-likelihoods are estimates by AIS, which errs upwards; its bounds are in the report."


def _printed(variant: str, column: str) -> Claim:
    place, measure, within, why = _COLUMNS[column]
    number = paper.TABLE1[variant][place]
    return Claim(
        f"freyface-{column}-{variant.lower()}",
        "Table 1",
        f"The {measure.name} of {variant} is {number:,}".replace("-5,", "−5,"),
        "printed value",
        f"{within:g}: {why}; the paper prints one number without a spread",
        value(FACES, measure, variant, number, within),
        note=_UNBIASED if column == "ll" else "",
    )


CLAIMS = (
    Claim(
        "freyface-order-ll",
        "Table 1, Section 5.1",
        "As N increases over 0, 1, 5, 10 BiDSM gets better in log-likelihood",
        "order",
        "0.5 nats, the gap of its two bounds at which AIS is content here (the probe's tolerance)",
        order(FACES, LIKELIHOOD, _ORDER, 0.5),
        note=_UNBIASED,
    ),
    Claim(
        "freyface-order-fisher",
        "Table 1, Section 5.1",
        "As N increases over 0, 1, 5, 10 BiDSM gets better in Fisher divergence",
        "order",
        "5, a quarter of the smallest difference between two rows of the table (19.99)",
        order(FACES, FISHER, _ORDER, 5.0),
    ),
    Claim(
        "freyface-dsm",
        "Table 1, Section 5.1",
        "With N ≥ 5 BiDSM is comparable to DSM",
        "non-inferiority",
        "6 nats: the paper calls a model comparable that is 5.23 below (N = 5), and none that is 18.58 below (N = 1)",
        [one for ours in _ORDER[2:] for one in not_worse(FACES, LIKELIHOOD, ours, ["DSM"], 6.0)],
        note=_UNBIASED,
    ),
    *(_printed(variant, column) for column in _COLUMNS for variant in paper.TABLE1),
)
