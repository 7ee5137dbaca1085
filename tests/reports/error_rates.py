"""How often verdicts of the ledger are wrong, and how often there are any: by simulation.

    python -m tests.reports.error_rates

Experiments are whole ledgers: of each claim its comparisons with their regions, and values by seed that are normal
around an effect. The tests take few of them, this command many.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from reports.claims import LEDGER
from reports.claims.claim import Claim, Comparison
from reports.claims.verdict import CONTRADICTED, SUPPORTED, interval, states, verdict

COUNTS = (2, 3, 5, 10)  # of seeds
REPEATS = 20_000
SHAPES = ("normal", "t with 3 degrees of freedom", "exponential")


@dataclasses.dataclass(frozen=True)
class Rates:
    """Shares of experiments in which some verdict of the ledger was this, and of all verdicts that were."""

    some_supported: float
    some_contradicted: float
    supported: float
    contradicted: float


def simulate(
    seeds: int,
    kind: str,
    repeats: int,
    deviation: float | None = None,
    shape: str = "normal",
    looks: Sequence[int] = (),
    ledger: Sequence[Claim] = LEDGER,
) -> Rates:
    """Verdicts of made-up experiments.

    Args:
        kind: "false": every claim is false, by one comparison at the edge of its region, the others far inside (of one
            with ``some`` all of them at the edge); "true": every claim is true with all its comparisons at the edge (of
            one with ``some`` one of them, the others far outside); "inside": every claim is true, its comparisons in
            the middle of their regions, or a margin inside where these have one end.
        deviation: over seeds, in margins; of each comparison another by default, from 0.001 to 10.
        looks: numbers of seeds after which one looks, and stops at the first verdict.
    """
    rng = np.random.default_rng([seeds, repeats, len(kind)])
    found = {SUPPORTED: np.zeros((repeats, len(ledger)), bool), CONTRADICTED: np.zeros((repeats, len(ledger)), bool)}
    for place, claim in enumerate(ledger):
        several, family = len(claim.comparisons), len(ledger) * len(claim.comparisons)
        by_look = [np.empty((repeats, several), dtype="U12") for _ in looks or (seeds,)]
        edges = rng.integers(several, size=repeats)
        for number, one in enumerate(claim.comparisons):
            effect = _effects(claim, one, kind, edges == number)
            spread = one.margin * (10 ** rng.uniform(-3, 1) if deviation is None else deviation)
            values = effect[:, None] + spread * _noise(rng, shape, (repeats, seeds))
            for states_, count in zip(by_look, looks or (seeds,), strict=True):
                states_[:, number] = states(*interval(values[:, :count], family), one.low, one.high)
        decided = np.zeros(repeats, bool)
        for states_ in by_look:
            combinations, which = np.unique(states_, axis=0, return_inverse=True)
            verdicts = np.array([verdict(list(row), claim.some) for row in combinations])[which.reshape(-1)]
            for name, share in found.items():
                share[:, place] |= (verdicts == name) & ~decided
            decided |= np.isin(verdicts, list(found))
    return Rates(
        *(float(found[name].any(1).mean()) for name in (SUPPORTED, CONTRADICTED)),
        *(float(found[name].mean()) for name in (SUPPORTED, CONTRADICTED)),
    )


def _effects(claim: Claim, one: Comparison, kind: str, chosen: np.ndarray) -> np.ndarray:
    """Of a comparison in each experiment, at the edge where it was chosen or where all are."""
    edge, outwards = (one.high, one.margin) if np.isfinite(one.high) else (one.low, -one.margin)
    inside = edge - outwards  # the middle, of a region with two ends
    if kind == "inside":
        return np.full(len(chosen), inside)
    if kind == "false":  # one at the edge is enough, of ``some`` all have to be
        return np.where(chosen | claim.some, edge, inside)
    return np.where(chosen | (not claim.some), edge, edge + 20 * outwards)


def _noise(rng: np.random.Generator, shape: str, size: tuple[int, int]) -> np.ndarray:
    """Of mean 0 and standard deviation 1."""
    if shape == "exponential":
        return rng.exponential(size=size) - 1
    return rng.normal(size=size) if shape == "normal" else rng.standard_t(3, size) / np.sqrt(3)


def least_room(seeds: int, comparisons: int, power: float = 0.8, repeats: int = 4000) -> float:
    """How many standard deviations the effect must be from the nearest end of the region for so much power."""
    rng = np.random.default_rng(seeds)
    z = rng.normal(size=(repeats, seeds))
    mean, half = interval(z, len(LEDGER) * comparisons)
    return float(np.quantile(mean + half, power))  # holds where the room is at least that


def main() -> None:
    """Prints the tables of docs/statistics.md."""
    print(
        f"{len(LEDGER)} claims, {sum(len(claim.comparisons) for claim in LEDGER)} comparisons, {REPEATS:,} experiments"
    )
    for shape in SHAPES:
        for seeds in COUNTS:
            false, true = (simulate(seeds, kind, REPEATS, shape=shape) for kind in ("false", "true"))
            print(f"{shape}, {seeds} seeds: some wrong 'supported' {false.some_supported:.1%}, "
                  f"some wrong 'contradicted' {true.some_contradicted:.1%}")  # fmt: skip
    looked = [simulate(10, kind, REPEATS, looks=(3, 5, 10)) for kind in ("false", "true")]
    print(f"looking at 3, 5, 10: {looked[0].some_supported:.1%}, {looked[1].some_contradicted:.1%}")
    for deviation in (0.01, 0.03, 0.1, 0.3):
        shares = [simulate(seeds, "inside", REPEATS // 10, deviation).supported for seeds in COUNTS]
        print(f"true, deviation {deviation} margins: supported " + ", ".join(f"{share:.0%}" for share in shares))
    for comparisons in (1, 3):
        rooms = [least_room(seeds, comparisons) for seeds in (*COUNTS, 20)]
        print(f"room for 80%, {comparisons} comparisons: " + ", ".join(f"{room:.2g}" for room in rooms))


if __name__ == "__main__":
    main()
