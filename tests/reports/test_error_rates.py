"""How often verdicts are wrong."""

import math

import pytest

from reports.claims.claim import (
    Place,
)
from tests.reports.error_rates import COUNTS, simulate

AT = Place("grbm", "paper", "board", 1000)


@pytest.mark.parametrize("seeds", COUNTS)
def test_wrong_verdicts_of_the_whole_ledger_are_rare(seeds: int) -> None:
    """All claims false at the edge of their margins, and all true at the edge."""
    repeats = 1000
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)
    assert simulate(seeds, "false", repeats).some_supported < allowed
    assert simulate(seeds, "true", repeats).some_contradicted < allowed


@pytest.mark.long
@pytest.mark.parametrize("shape", ["normal", "t with 3 degrees of freedom"])
@pytest.mark.parametrize("seeds", COUNTS)
def test_wrong_verdicts_are_rare_whatever_the_values_are(seeds: int, shape: str) -> None:
    repeats = 10_000
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)
    assert simulate(seeds, "false", repeats, shape=shape).some_supported < allowed
    assert simulate(seeds, "true", repeats, shape=shape).some_contradicted < allowed


def test_true_claims_are_supported_where_seeds_are_many_or_alike() -> None:
    assert simulate(5, "inside", 200, deviation=0.1).supported > 0.9
    assert simulate(10, "inside", 200, deviation=0.3).supported > 0.9
    assert simulate(3, "inside", 200, deviation=0.1).supported < 0.5  # three seeds decide little: nobody should hope so
