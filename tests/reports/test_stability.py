"""The table of what diverged, and of how stable the rest is."""

import math

import pytest

from reports.artefacts import stability
from tests.reports.stores import BOTH, LL, Held, built, learning


def test_what_diverged_stands_with_its_first_and_last_step() -> None:
    held = learning(Held(), BOTH)
    for seed, step in ((3, 700), (4, 90)):
        held.add("CD-5", "cd", seed, "diverged", error=f"not finite at step {step}")
    held.add("BiDSM-5", "bidsm", 3, "diverged")  # of which nothing more is known
    artefact = built(stability, held)["stability-board"]
    table = artefact.numbers.set_index("variant")
    assert list(table.index) == ["CD-5", "BiDSM-5"]
    assert table.loc["CD-5"].tolist() == [5, 2, 90, 700]
    assert table.loc["BiDSM-5", ["seeds", "diverged"]].tolist() == [4, 1]
    assert math.isnan(table.loc["BiDSM-5", "first step"])
    assert artefact.caption.startswith("3 seeds became not finite")
    assert "energy gap" not in artefact.caption
    assert len(artefact.runs) == 9


def test_what_was_measured_is_averaged_over_the_seeds_that_are_done() -> None:
    held = Held()
    for seed in range(2):
        curves = {
            "stability/energy_gap": lambda seed, step: seed + step / 1000,
            "stability/slope_of_data": lambda *_: 2.5,
        }
        held.add("IGEBM-20", "igebm", seed, curves=curves)
    held.add("IGEBM-20", "igebm", 2, "diverged", error="not finite at step 5", **{"stability/energy_gap": 1e9})
    held.add("CD-5", "cd", 0)
    artefact = built(stability, held)["stability-board"]
    (row,) = artefact.numbers.to_dict("records")
    assert row == pytest.approx(
        {"variant": "IGEBM-20", "seeds": 3, "diverged": 1, "first step": 5, "last step": 5,
         "energy gap": 1.5, "slope at data": 2.5}
    )  # fmt: skip
    assert "energy gap" in artefact.caption


def test_what_ends_below_its_start_is_counted_though_finite() -> None:
    held = learning(Held(), BOTH)  # CD-5 and BiDSM-5 rise from 0
    ends = {0: -5.0, 1: 0.4, 2: -math.inf}

    def risen_first(seed: int, step: int) -> float:
        return ends[seed] if step == 1000 else min(step, 1.0)

    for seed in ends:
        held.add("PCD-1", "pcd", seed, curves={LL: risen_first})
    artefact = built(stability, held)["stability-board"]
    table = artefact.numbers.set_index("variant")
    assert table["below start"].to_dict() == {"PCD-1": 2}
    assert "2 seeds ended below the start: finite" in artefact.caption
    assert artefact.caption.startswith("No seed became not finite")


def test_a_store_where_nothing_of_it_happened_has_no_such_table() -> None:
    assert built(stability, learning(Held(), BOTH)) == {}
