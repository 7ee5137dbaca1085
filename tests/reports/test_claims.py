"""Claims and their verdicts on made-up runs."""

import math
import shlex
from collections import Counter
from pathlib import Path

import pytest

from benchmark.tasks import plan
from benchmark.tasks.registry import methods
from benchmark.tasks.suite import Suite
from benchmark.tasks.suite_file import load_suite
from reports.claims import LEDGER, Judged, judge
from reports.claims.claim import Claim, method_of
from reports.claims.shown import commands
from reports.claims.verdict import CONTRADICTED, NOT_MEASURED, SUPPORTED, UNDECIDED
from reports.reference import alone
from tests.reports import made_up
from tests.reports.stores import Held

SIZE, README = len(LEDGER), Path(__file__).parents[2] / "README.md"


def judged(claim: Claim, held: Held) -> Judged:
    (found,) = judge([claim], held, SIZE)
    return found


# --- every claim of the ledger ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", LEDGER, ids=lambda claim: claim.id)
def test_a_claim_is_judged_as_its_runs_are(claim: Claim) -> None:
    for wanted in made_up.WANTED:
        assert judged(claim, made_up.store(claim, wanted)).verdict == wanted
    variant = claim.comparisons[-1].variants[0]
    found = judged(claim, made_up.store(claim, SUPPORTED, without=[variant]))
    if claim.some:  # another holds
        assert found.verdict == SUPPORTED
    else:
        assert found.verdict in (NOT_MEASURED, UNDECIDED)
        assert any(f" {shlex.quote(variant)}" in line for _, line, *_ in commands([found]))


def test_without_runs_nothing_is_measured() -> None:
    ledger = judge(LEDGER, Held(), SIZE)
    assert {found.verdict for found in ledger} == {NOT_MEASURED}
    assert {claim for *_, claims, _ in commands(ledger) for claim in claims} == {claim.id for claim in LEDGER}


def test_the_readme_counts_the_verdicts_of_what_ships() -> None:
    found = Counter(one.verdict for one in judge(LEDGER, alone([]), SIZE))
    text = " ".join(README.read_text().split())
    assert (
        f"By the results that ship {found[SUPPORTED]} are supported, {found[CONTRADICTED]} contradicted, "
        f"{found[UNDECIDED]} undecided and {found[NOT_MEASURED]} not measured."
    ) in text


def test_ids_are_unique_and_everything_is_said() -> None:
    assert len({claim.id for claim in LEDGER}) == SIZE
    for claim in LEDGER:
        assert all([claim.where, claim.says, claim.test, claim.margin, claim.comparisons])
        assert all(0 < one.margin < math.inf and one.low < one.high for one in claim.comparisons)
        assert len({(one.at.suite, one.at.preset) for one in claim.comparisons}) == 1  # one command trains its runs


@pytest.fixture(scope="module")
def suites() -> dict[str, Suite]:
    found = methods()
    return {
        name: load_suite(name, found) for name in dict.fromkeys(suite for claim in LEDGER for suite in claim.suites)
    }


def test_every_claim_can_be_measured_by_the_shipped_suites(suites: dict[str, Suite]) -> None:
    """Its variants are there, by the methods that commands name, with the metrics of the task or of a probe."""
    known = methods()
    for claim in LEDGER:
        for one in claim.comparisons:
            settings = suites[one.at.suite].presets[one.at.preset].tasks[one.at.task]
            assert settings.steps == one.at.steps, claim.id
            there = {name: ours.id for _, ours, name in plan.variants(settings, plan.Choices(), known)}
            for variant in one.variants:
                assert there.get(variant) == method_of(variant), (claim.id, variant, list(there))


def test_commands_ask_for_as_many_seeds_as_a_verdict_takes(suites: dict[str, Suite]) -> None:
    for claim in LEDGER:
        for one in claim.comparisons:
            of_preset = list(suites[one.at.suite].presets[one.at.preset].seeds)
            asked = one.at.seeds or (f"0-{of_preset[-1]}" if len(of_preset) > 1 else "")
            assert asked or one.measure.error, claim.id
