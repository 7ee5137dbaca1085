"""The rule from runs to verdicts against closed forms."""

import math

import numpy as np
import pytest
from scipy import stats

from reports.claims import LEDGER
from reports.claims.claim import (
    Claim,
    Place,
    better,
    equivalent,
    lies,
    method_of,
    not_worse,
    order,
    ratio,
    trend,
    value,
)
from reports.claims.measures import (
    FISHER,
    LIKELIHOOD,
    Selected,
)
from reports.claims.shown import command, seeds, would_decide
from reports.claims.verdict import (
    CONTRADICTED,
    FAILS,
    HOLDS,
    NOT_MEASURED,
    OPEN,
    SUPPORTED,
    UNDECIDED,
    Finding,
    Judged,
    examine,
    judge,
    seeds_needed,
    verdict,
)
from reports.sweep import Sweep
from tests.reports.stores import FD, LL, Held, held, look, sweep

AT = Place("grbm", "paper", "board", 1000)


def judged(*findings: Finding, some: bool = False) -> Judged:
    """A claim of these comparisons."""
    claim = Claim("a", "here", "so", "test", "why", [one.comparison for one in findings], some)
    return Judged(claim, verdict([one.state for one in findings], some), findings)


# --- one comparison ---------------------------------------------------------------------------------------------------


def test_a_comparison_is_the_paired_t_interval_of_its_family() -> None:
    (one,) = equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0)
    a, b = [1.0, 2.0, 4.0, 3.0], [0.9, 2.1, 3.7, 3.0]
    found = look(one, held({"A": a, "B": b}), family=7)
    bounds = stats.ttest_rel(a, b).confidence_interval(1 - 0.05 / 7)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high))
    assert found.effect == pytest.approx(np.mean(np.subtract(a, b)))
    assert (found.state, list(found.seeds), len(found.runs)) == (HOLDS, [0, 1, 2, 3], 8)
    np.testing.assert_allclose(found.values, np.subtract(a, b))


@pytest.mark.parametrize(
    ("shift", "state"), [(0.0, HOLDS), (0.97, OPEN), (1.03, OPEN), (1.2, FAILS), (-0.97, OPEN), (-1.2, FAILS)]
)
def test_where_the_interval_lies_decides(shift: float, state: str) -> None:
    (one,) = equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0)
    found = look(one, held({"A": [shift - 0.02, shift, shift + 0.02], "B": [0.0, 0.0, 0.0]}))
    assert found.high - found.effect == pytest.approx(4.302653 * 0.02 / math.sqrt(3))
    assert found.state == state


def test_seeds_in_common_are_compared_and_those_of_others_are_not() -> None:
    (one,) = equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0)
    found = look(one, held({"A": [1.0, 2.0, math.nan, 9.0], "B": [1.0, 2.1, 5.0]}))
    assert (list(found.seeds), found.effect) == ([0, 1], pytest.approx(-0.05))
    assert look(one, held({"A": [1.0, math.nan], "B": [math.nan, 1.0]})).reason == "no seed in common"


def test_of_one_seed_there_is_an_effect_and_no_verdict() -> None:
    (one,) = equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0)
    found = look(one, held({"A": [1.0], "B": [0.9]}))
    assert (found.state, found.effect, found.total) == (OPEN, pytest.approx(0.1), 2)
    assert math.isnan(found.low)
    assert would_decide(found) == "2 seeds at least: of 1 seed no spread is known"


def test_the_seeds_that_are_needed_are_enough() -> None:
    (one,) = equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0)
    rng = np.random.default_rng(0)
    few = rng.normal(size=3)
    few = 0.3 + (few - few.mean()) / few.std(ddof=1)
    needed = look(one, held({"A": few.tolist(), "B": [0.0] * 3}), family=64).total
    for count, state in ((needed, HOLDS), (needed - 1, OPEN)):
        many = rng.normal(size=count)
        many = 0.3 + (many - many.mean()) / many.std(ddof=1)
        assert look(one, held({"A": many.tolist(), "B": [0.0] * count}), family=64).state == state
    assert seeds_needed(1.5, 1.0, 3, -1.0, 1.0, 64) == pytest.approx(seeds_needed(0.5, 1.0, 3, -1.0, 1.0, 64), abs=1)
    assert seeds_needed(1.0, 1.0, 3, -1.0, 1.0, 64) == 0
    assert "more than 1,000 seeds" in would_decide(look(one, held({"A": [0.9, 1.0, 1.1], "B": [0.0] * 3})))


def test_what_is_missing_is_counted_and_what_is_lacking_is_named() -> None:
    (one,) = equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0)
    found = look(one, held({"A": [1.0, 1.1, "failed"], "B": [1.0, 1.0, 1.0]}))  # type: ignore[list-item]
    assert (found.missing, list(found.seeds)) == (1, [0, 1])
    found = look(one, held({"A": [1.0, 1.1], "B": ["planned", "planned"]}))  # type: ignore[list-item]
    assert (found.state, found.lacking) == (NOT_MEASURED, ["B"])
    assert look(one, held({"A": [1.0], "B": [1.0]}, metric=FD)).lacking == ["A", "B"]
    assert examine(one, None, 1).lacking == ["A", "B"]


def test_a_value_that_is_none_is_counted() -> None:
    """Such a seed is neither missing nor diverged, and whoever reads a verdict should know of it."""
    (one,) = equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0)
    runs = held({"A": [1.0, 1.1, 1.2], "B": [1.0, 1.0, 1.0]})
    runs.rows[1][LL] = math.nan
    found = look(one, runs)
    assert (found.valueless, found.missing, list(found.seeds)) == (1, 0, [0, 2])
    assert seeds(judged(found)) == "2, 1 cell without a value"
    assert look(one, held({"A": [1.0, 1.1], "B": [1.0, 1.0]})).valueless == 0


def test_nothing_is_compared_of_different_data_or_rules() -> None:
    (one,) = equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0)
    runs = held({"A": [1.0, 1.1], "B": [1.0, 1.1]}, data_hash="a" * 36)
    assert look(one, runs).state == HOLDS
    runs.rows[0]["data_hash"] = ""
    assert would_decide(look(one, runs)).startswith(
        "they were trained on different data (A on data not known; A, B on aaaaaaaaaaaa)"
    )
    runs.rows[0]["data_hash"] = runs.rows[1]["data_hash"] = "b" * 36
    found = look(one, runs)
    assert (found.state, math.isnan(found.effect)) == (OPEN, True)
    assert would_decide(found) == (
        "they were trained on different data (A on bbbbbbbbbbbb; B on aaaaaaaaaaaa), and nothing is compared"
    )
    runs = held({"A": [1.0, 1.1], "B": [1.0, 1.1]})
    runs.rows[0]["select"] = "best_validation val/log_likelihood"
    found = look(one, runs)
    assert (found.state, math.isnan(found.low)) == (OPEN, True)
    assert would_decide(found) == (
        "seeds are represented by different rules: best_validation val/log_likelihood and last val/log_likelihood"
    )
    runs.rows[0]["select"] = ""
    assert would_decide(look(one, runs)).endswith("last val/log_likelihood and one not known")
    runs.rows[1]["state"] = "diverged"  # no value is needed to see that the rules differ
    assert look(one, runs).reason.endswith("last val/log_likelihood and one not known")


def test_nothing_is_compared_where_data_or_rules_are_known_of_none() -> None:
    (one,) = equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0)
    for name, said in (("data_hash", "of which data they are"), ("select", "by which rule seeds are represented")):
        runs = held({"A": [1.0, 1.1], "B": [1.0, 1.1]}, **{name: ""})
        assert (look(one, runs).state, look(one, runs).reason) == (OPEN, f"it is not known {said}")


def test_the_runs_of_a_verdict_are_those_of_its_seeds() -> None:
    (one,) = equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0)
    found = look(one, held({"A": [1.0, 1.1, 1.2], "B": [1.0, 1.1]}))
    assert [run[-3:] for run in found.runs] == ["A-0", "A-1", "B-0", "B-1"]
    apart = held({"A": ["diverged", "planned"], "B": ["planned", 1.0]})  # type: ignore[list-item]
    found = look(one, apart)
    assert (found.state, list(found.seeds)) == (FAILS, [])
    assert [run[-3:] for run in found.runs] == ["A-0", "B-1"]


# --- seeds that diverged ----------------------------------------------------------------------------------------------


def test_a_seed_that_diverged_is_the_worst_there_is() -> None:
    runs = held({"A": [1.0, "diverged", 1.0], "B": [1.0, 1.0, 1.001]})  # type: ignore[list-item]
    states = {
        "equivalent": (equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0), FAILS),
        "not worse": (not_worse(AT, LIKELIHOOD, "A", ["B"], 1.0), FAILS),
        "the other not worse": (not_worse(AT, LIKELIHOOD, "B", ["A"], 1.0), HOLDS),
        "the other better": (better(AT, LIKELIHOOD, "B", ["A"], 1.0), HOLDS),
        "printed": (value(AT, LIKELIHOOD, "A", 1.0, 0.5), FAILS),
    }
    for said, ((one,), state) in states.items():
        found = look(one, runs)
        assert (found.state, found.diverged) == (state, {"A": 1}), said
        assert math.isinf(found.effect)
    low_is_good = held({"A": [1.0, "diverged"], "B": [1.0, 1.0]}, metric=FD)  # type: ignore[list-item]
    (one,) = not_worse(AT, FISHER, "A", ["B"], 1.0)
    assert (look(one, low_is_good).state, look(one, low_is_good).effect) == (FAILS, math.inf)


def test_seeds_that_end_below_their_start_are_named_and_counted_as_they_are() -> None:
    """On rings two methods ran away to −150,000 and −900,000 nats: undecided, and the reader is told why."""
    runs = Held()
    for seed, (away, well) in enumerate([(-150.0, -2.0), (-900.0, -2.1), (1.0, -2.2)]):
        for variant, end in (("A", away), ("B", well)):
            runs.add(variant, "m", seed, curves={LL: lambda seed, step, end=end: end if step else -7.0})
    (one,) = not_worse(AT, LIKELIHOOD, "A", ["B"], 0.1)
    found = look(one, runs)
    assert (found.state, found.fallen) == (OPEN, {"A": 2})
    assert found.effect == pytest.approx(np.mean([-150 + 2, -900 + 2.1, 1 + 2.2]))
    assert seeds(judged(found)) == "3, A below its start in 2"
    (well,) = not_worse(AT, LIKELIHOOD, "B", ["C"], 0.1)
    runs.rows += held({"C": [-3.0, -3.1, -3.3]}).rows
    assert look(well, runs).state == HOLDS
    assert seeds(judged(found, look(well, runs))) == "3, A below its start in 2"
    assert seeds(judged(look(well, runs), found, some=True)) == "3, A below its start in 2"  # found is not the deciding
    assert would_decide(found).endswith("A below its start in 2: other settings come first")
    (other,) = not_worse(AT, Selected("test/mmd"), "A", ["B"], 0.1)
    assert look(other, runs).fallen == {}


def test_a_mean_between_two_ends_is_called_one() -> None:
    """BiSSM-5 ends above SSM or below it on the checkerboard, and its mean where SSM is: no seed does."""
    (one,) = equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0)
    ends = held({"A": [3.0, -3.1, 3.1, -2.9], "B": [0.0, 0.0, 0.0, 0.0]})
    assert look(one, ends).inside == 0
    assert seeds(judged(look(one, ends))) == "4, 0 of them in the region"
    for a, said in (([0.9, -0.9, 1.1, -1.2], "4"), ([1.1, 1.2, 1.3, 0.5], "4")):  # half of them; the mean is outside
        assert seeds(judged(look(one, held({"A": a, "B": [0.0] * 4})))) == said


def test_no_seed_is_infinitely_good() -> None:
    """One with a bad infinity counts as one that diverged does; one with a good one has no value, and that is said."""
    (one,) = not_worse(AT, LIKELIHOOD, "A", ["B"], 1.0)
    varied = [0.0, 0.1, 0.3]
    for values, state, valueless in (
        (varied, HOLDS, 0),
        ([math.inf, 0.25, 0.1], HOLDS, 1),
        ([-math.inf, 0, 0], FAILS, 0),
    ):
        found = look(one, held({"A": values, "B": [0.0, 0.2, 0.1]}))
        assert (found.state, found.valueless) == (state, valueless)
    assert look(one, held({"A": [math.inf], "B": [0.0]})).state == NOT_MEASURED
    (time,) = not_worse(AT, Selected("test/mmd"), "A", ["B"], 0.5)  # of which low is good
    assert look(time, held({"A": [-math.inf, 0.1, 0.2], "B": varied}, "test/mmd")).valueless == 1


def test_seeds_that_are_copies_of_one_decide_nothing() -> None:
    """Their interval has no width. Two variants of which every seed is the same are equal, and that is a finding."""
    (one,) = lies(AT, LIKELIHOOD, ["A"], 0.0, 2.0)
    found = look(one, held({"A": [1.0, 1.0, 1.0]}))
    assert (found.state, found.effect, math.isnan(found.low)) == (OPEN, 1.0, True)
    assert would_decide(found) == "all 3 seeds gave one number to its last digit, as copies of one do"
    assert look(one, held({"A": [1.0, 1.0, 1.0 + 1e-9]})).state == HOLDS
    (same,) = equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0)
    assert look(same, held({"A": [0.1, 0.2], "B": [0.1, 0.2]})).state == HOLDS
    assert look(same, held({"A": [0.1, 0.1, 0.1], "B": [0.1, 0.2, 0.3]})).reason.startswith("all 3 seeds gave one")


def test_where_both_sides_diverged_nothing_is_known() -> None:
    (one,) = equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0)
    found = look(one, held({"A": [1.0, "diverged", 1.0], "B": ["diverged", 1.0, 1.0]}))  # type: ignore[list-item]
    assert (found.state, found.reason) == (OPEN, "seeds diverged on both sides")


def test_a_variant_of_which_all_seeds_diverged_is_measured() -> None:
    (one,) = better(AT, LIKELIHOOD, "A", ["B"], 1.0)
    found = look(one, held({"A": [1.0, 1.0], "B": ["diverged", "diverged"]}))  # type: ignore[list-item]
    assert found.state == HOLDS


# --- kinds of tests ---------------------------------------------------------------------------------------------------


def test_better_is_up_or_down_as_the_measure_has_it() -> None:
    for measure, regions in ((LIKELIHOOD, [(0.5, math.inf), (-0.5, math.inf)]),
                             (FISHER, [(-math.inf, -0.5), (-math.inf, 0.5)])):  # fmt: skip
        found = [*better(AT, measure, "A", ["B"], 0.5), *not_worse(AT, measure, "A", ["B"], 0.5)]
        assert [(one.low, one.high) for one in found] == regions
        assert all(one.weights == {"A": 1.0, "B": -1.0} for one in found)


def test_an_order_is_of_neighbours() -> None:
    found = order(AT, FISHER, ["A", "B", "C"], 2.0)
    assert [(one.weights, one.high) for one in found] == [({"B": 1.0, "A": -1.0}, -2.0), ({"C": 1.0, "B": -1.0}, -2.0)]


def test_a_trend_is_the_slope_of_least_squares() -> None:
    places, y = {"A": 0.0, "B": 1.0, "C": 4.0}, [1.0, 2.5, 2.0]
    (one,) = trend(AT, LIKELIHOOD, places, "x", low=0.1)
    slope = stats.linregress(list(places.values()), y).slope
    found = look(one, held({name: [level, level + 7.0] for name, level in zip(places, y, strict=True)}))
    assert found.effect == pytest.approx(slope)


def test_ratios_are_differences_of_logarithms() -> None:
    (one,) = ratio(AT, Selected(LL, log=True), "A", ["B"], 1.0, 1.5)
    assert (one.low, one.high) == pytest.approx((0.0, math.log(1.5)))
    assert one.region == "×1 to ×1.5"
    found = look(one, held({"A": [2.4, 4.8], "B": [2.0, 4.0 + 1e-9]}))
    assert (found.effect, found.state) == (pytest.approx(math.log(1.2)), HOLDS)
    assert equivalent(AT, Selected(LL, log=True), "A", ["B"], 1.25)[0].region == "within ×1.25 either way"


def test_all_have_to_hold_or_some() -> None:
    cases = {
        (HOLDS, HOLDS): (SUPPORTED, SUPPORTED), (HOLDS, FAILS): (CONTRADICTED, SUPPORTED),
        (FAILS, FAILS): (CONTRADICTED, CONTRADICTED), (HOLDS, OPEN): (UNDECIDED, SUPPORTED),
        (FAILS, NOT_MEASURED): (CONTRADICTED, UNDECIDED), (HOLDS, NOT_MEASURED): (UNDECIDED, SUPPORTED),
        (NOT_MEASURED, NOT_MEASURED): (NOT_MEASURED, NOT_MEASURED), (OPEN, NOT_MEASURED): (UNDECIDED, UNDECIDED),
    }  # fmt: skip
    for states, expected in cases.items():
        assert (verdict(states), verdict(states, some=True)) == expected


def test_a_verdict_does_not_depend_on_what_else_is_there() -> None:
    claims = [claim for claim in LEDGER if claim.id in ("vages-digits", "digits-bidsm-dsm")]
    runs = Held()
    for variant, level in (("VaGES-DSM-5", 29.0), ("BiDSM-5", 28.0), ("DSM", 30.0)):
        for seed in range(5):
            value = level + 0.01 * seed + 0.1 * seed * (variant == "DSM")
            runs.add(variant, method_of(variant), seed, task="digits", steps=20_000, **{LL: value})
    together = judge(claims, runs, len(LEDGER))
    alone = [judge([claim], runs, len(LEDGER))[0] for claim in claims]
    assert [one.findings for one in together] == [one.findings for one in alone]
    (found,) = together[0].findings
    ends = stats.t.interval(1 - 0.05 / len(LEDGER), 4, np.mean(found.values), stats.sem(found.values))
    assert (found.low, found.high) == pytest.approx(ends)


# --- what would decide ------------------------------------------------------------------------------------------------


def test_commands_name_what_is_to_be_run() -> None:
    line = command([Place("freyface", "paper", "freyface", 20_000, "0-4")], ["BiDSM-5", "DSM", "BiDSM-0"])
    assert line.endswith(
        "-m benchmark run --suite freyface --preset paper --tasks freyface --variants BiDSM-5 DSM BiDSM-0 --seeds 0-4"
    )
    assert command([AT], ["BiDSM-0 [K=1]", "DSM", "DSM"]).endswith("--variants 'BiDSM-0 [K=1]' DSM")
    assert command([AT], ["DSM"], total=12).endswith("--seeds 0-11")
    assert command([AT], ["DSM"], total=500) == ""


# --- which runs count -------------------------------------------------------------------------------------------------


def test_simulated_states_are_those_of_runs() -> None:
    """One experiment, by the rule that is simulated and by a store."""
    claim = Claim("x", "x", "x", "x", "x", equivalent(AT, LIKELIHOOD, "A", ["B", "C"], 1.0))
    values = {"A": [0.1, 0.2, 0.4], "B": [0.0, 0.1, 0.2], "C": [1.5, 1.6, 1.7]}
    (found,) = judge([claim], held(values), 1)
    assert [one.state for one in found.findings] == [HOLDS, FAILS]
    assert found.verdict == CONTRADICTED
    assert found.deciding.comparison.what == "A − C"


def test_runs_of_other_iterations_do_not_count() -> None:
    """A file of one's own may have the name of a suite."""
    claim = Claim("x", "x", "x", "x", "x", equivalent(AT, LIKELIHOOD, "A", ["B"], 1.0))
    runs = held({"A": [0.1, 0.2], "B": [0.1, 0.2]})
    assert judge([claim], runs, 1)[0].verdict == SUPPORTED
    for row in runs.rows:
        row["steps"] = 999
    assert judge([claim], runs, 1)[0].verdict == NOT_MEASURED


def test_a_method_of_ones_own_is_not_taken_for_one_of_the_ledgers() -> None:
    """Its label may be what a variant of the ledger is called."""
    for method, found in (("dsm", SUPPORTED), ("mine", NOT_MEASURED)):
        runs = Held()
        for seed in range(3):
            runs.add("DSM", method, seed, **{LL: 1.0 + seed / 100})
        (one,) = judge([Claim("x", "x", "x", "x", "x", lies(AT, LIKELIHOOD, ["DSM"], low=0.5))], runs, 1)
        assert one.verdict == found


def test_a_preset_that_is_not_there_is_not_read() -> None:
    (one,) = lies(Place("grbm", "other", "board", 1000), LIKELIHOOD, ["A"], low=0.5)
    (found,) = judge([Claim("x", "x", "x", "x", "x", [one])], held({"A": [1.0, 1.0]}), 1)
    assert found.verdict == NOT_MEASURED
    assert isinstance(sweep(held({"A": [1.0]})), Sweep)
