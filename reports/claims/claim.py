"""What a claim is: where it is made, what it says, and a test that was written down before looking.

Every test comes down to comparisons. Each is one number per seed (a measure of one variant, or a weighted sum of
several variants' measures over their common seeds), the mean of that number over seeds, and the region in which the
claim holds. The kinds of tests are ways to write the weights and the region.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from reports.claims.measures import Measure

_METHODS = {  # how names of variants begin -> the method's id on the command line
    "BiDSM": "bidsm", "BiMDSM": "bimdsm", "BiSSM": "bissm", "CD": "cd", "DSM": "dsm", "Implicit BiDSM": "bidsm",
    "LEBM": "lebm", "MDSM": "mdsm", "NCE": "nce", "PCD": "pcd", "SM": "sm", "SSM": "ssm", "Unbiased CD": "unbiased_cd",
    "VNCE": "vnce", "VaGES-DSM": "vages_dsm", "VaGES-MDSM": "vages_mdsm", "Persistent VI": "persistent_vi",
    "Short run": "short_run", "Langevin PCD": "langevin_pcd", "implicit": "bimdsm", "BiMDSM-0 + GMM": "bimdsm_gmm",
    "LEBM-60, encoder": "lebm_amortised",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Place:
    """A task of a preset of a suite, whose runs a comparison needs.

    Attributes:
        steps: the preset's iterations; runs of others are of another file by the suite's name, and do not count.
        seeds: what to give to ``--seeds`` where the preset has too few for a verdict.
        needs: what else a machine must have, for people.
    """

    suite: str
    preset: str
    task: str
    steps: int
    seeds: str = ""
    needs: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The mean over seeds of a weighted sum of measures, and where it has to lie.

    Attributes:
        what: for people: "BiSSM-5 − SSM".
        weights: by variant.
        low, high: the region, ends included; in logarithms where the measure is one.
    """

    what: str
    at: Place
    measure: Measure
    weights: Mapping[str, float]
    low: float = -math.inf
    high: float = math.inf

    @property
    def variants(self) -> list[str]:
        """Whose runs it needs."""
        return list(self.weights)

    @property
    def margin(self) -> float:
        """Half of the region's width; the size of its end where it has one."""
        ends = [end for end in (self.low, self.high) if math.isfinite(end)]
        return (ends[1] - ends[0]) / 2 if len(ends) == 2 else abs(ends[0])

    @property
    def middle(self) -> float:
        """Of the region; 0 where it has one end."""
        return (self.low + self.high) / 2 if math.isfinite(self.low) and math.isfinite(self.high) else 0.0

    def shown(self, value: float) -> float:
        """As people see it: a ratio in the place of a difference of logarithms."""
        return _exp(value) if self.measure.log else value

    @property
    def region(self) -> str:
        """ "within ±0.02 nats", "at least −0.02 nats", "×1 to ×1.5"."""
        unit = f" {self.measure.unit}" if self.measure.unit else ""
        low, high = (f"{'×' if self.measure.log else ''}{_plain(self.shown(end))}" for end in (self.low, self.high))
        if math.isinf(self.low):
            return f"at most {high}{unit}"
        if math.isinf(self.high):
            return f"at least {low}{unit}"
        if self.low == -self.high:
            return f"within {high}{unit} either way" if self.measure.log else f"within ±{high}{unit}"
        return f"{low} to {high}{unit}"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim and its test.

    Attributes:
        id: in the ledger, on the command line and in files.
        where: the paper's section, table or figure; a review; the follow-up.
        says: in our words.
        test: its kind.
        margin: why the margin is what it is.
        comparisons: all of which have to hold; where ``some`` is set, one of them.
        note: what the test leaves open.
    """

    id: str
    where: str
    says: str
    test: str
    margin: str
    comparisons: Sequence[Comparison]
    some: bool = False
    note: str = ""

    @property
    def suites(self) -> list[str]:
        """Whose runs it needs."""
        return list(dict.fromkeys(one.at.suite for one in self.comparisons))


def method_of(variant: str) -> str:
    """The id of a variant's method; nothing of one that the ledger does not know."""
    fitting = [name for name in _METHODS if variant.startswith(name)]
    return _METHODS[max(fitting, key=len)] if fitting else ""


# --- kinds of tests: margins are as people see them, ratios where the measure is a logarithm --------------------------


def equivalent(at: Place, measure: Measure, ours: str, theirs: Sequence[str], within: float) -> list[Comparison]:
    """Ours is neither better nor worse than each of theirs by more than this: two one-sided tests (Schuirmann 1987)."""
    end = _scaled(measure, within)
    return [_difference(at, measure, ours, other, -end, end) for other in theirs]


def not_worse(at: Place, measure: Measure, ours: str, theirs: Sequence[str], by: float) -> list[Comparison]:
    """Non-inferiority: ours is not worse than each of theirs by more than this. Of ratios ``by`` is the largest."""
    end = _scaled(measure, by)
    return [_difference(at, measure, ours, other, *_upwards(measure, -end)) for other in theirs]


def better(at: Place, measure: Measure, ours: str, theirs: Sequence[str], by: float) -> list[Comparison]:
    """Superiority: ours is better than each of theirs by this at least. Of ratios theirs is ``by`` times as much."""
    end = _scaled(measure, by)
    return [_difference(at, measure, ours, other, *_upwards(measure, end)) for other in theirs]


def order(at: Place, measure: Measure, worst_first: Sequence[str], by: float) -> list[Comparison]:
    """Each is better than the one before it, by this at least."""
    return [one for worse, good in itertools.pairwise(worst_first) for one in better(at, measure, good, [worse], by)]


def trend(
    at: Place, measure: Measure, places: Mapping[str, float], along: str, low: float | None, high: float | None = None
) -> list[Comparison]:
    """The slope that least squares fit to a measure along the variants' places on an axis, seed by seed."""
    mean = sum(places.values()) / len(places)
    square = sum((x - mean) ** 2 for x in places.values())
    weights = {variant: (x - mean) / square for variant, x in places.items()}
    return [Comparison(f"slope along {along}", at, measure, weights, *_region(measure, low, high))]


def lies(
    at: Place, measure: Measure, variants: Sequence[str], low: float | None = None, high: float | None = None
) -> list[Comparison]:
    """A measure of each variant by itself is in a region."""
    return [Comparison(one, at, measure, {one: 1.0}, *_region(measure, low, high)) for one in variants]


def value(at: Place, measure: Measure, variant: str, printed: float, within: float) -> list[Comparison]:
    """A printed number is met."""
    return lies(at, measure, [variant], printed - within, printed + within)


def ratio(
    at: Place, measure: Measure, ours: str, theirs: Sequence[str], low: float | None, high: float | None
) -> list[Comparison]:
    """Ours by each of theirs is in a region."""
    ends = _region(measure, low, high)
    return [_difference(at, measure, ours, other, *ends) for other in theirs]


def _difference(at: Place, measure: Measure, ours: str, theirs: str, low: float, high: float) -> Comparison:
    what = f"{ours} / {theirs}" if measure.log else f"{ours} − {theirs}"
    return Comparison(what, at, measure, {ours: 1.0, theirs: -1.0}, low, high)


def _upwards(measure: Measure, end: float) -> tuple[float, float]:
    """From this on to what is better."""
    return (end, math.inf) if measure.higher else (-math.inf, -end)


def _region(measure: Measure, low: float | None, high: float | None) -> tuple[float, float]:
    return (
        -math.inf if low is None else _scaled(measure, low),
        math.inf if high is None else _scaled(measure, high),
    )


def _scaled(measure: Measure, margin: float) -> float:
    return math.log(margin) if measure.log else margin


def _exp(value: float) -> float:
    return math.inf if value >= 700 else math.exp(value)


def _plain(value: float) -> str:
    """A number as somebody would write a margin."""
    return f"{value:,.6g}".replace("-", "−")
