"""Names, numbers and counts as people write them."""

import math

import pandas as pd
import pytest

from reports import terms


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("test/log_likelihood", "test log-likelihood (nats)"),
        ("val/fisher_divergence", "validation Fisher divergence (up to a constant)"),
        ("test/fid", "FID"),
        ("mine/measure", "mine/measure"),
    ],
)
def test_measures_have_names_and_units(metric: str, said: str) -> None:
    assert terms.measure(metric) == said


def test_a_rule_says_where_it_stops() -> None:
    assert terms.rule("last val/log_likelihood") == "the last iteration"
    assert terms.rule("best_validation val/fisher_divergence") == (
        "the iteration with the best validation Fisher divergence"
    )
    assert terms.rule("last_tenth val/x") == "the mean of the evaluations in the last tenth of the iterations"
    assert terms.rule("") == "the last iteration"  # a store written before rules were
    assert terms.rule("mine val/x") == "mine val/x"


def test_numbers_have_no_exponents_and_a_true_minus() -> None:
    assert [terms.number(value) for value in (-64.78, 1600.3, 0.006643, 0.0, 20000)] == [
        "−64.8", "1,600", "0.00664", "0", "20,000",
    ]  # fmt: skip
    assert terms.number(math.nan) == "nan"


def test_one_is_not_plural() -> None:
    assert [terms.counted(count, "seed") for count in (1, 2)] == ["1 seed", "2 seeds"]
    assert terms.missing(1) == "INCOMPLETE: 1 cell is missing"
    assert terms.lacking(1) == "INCOMPLETE: 1 planned cell has no result"
    assert terms.lacking(2) == "INCOMPLETE: 2 planned cells have no result"
    assert (terms.missing(0), terms.lacking(0)) == ("", "")
    assert "1 seed" in terms.mean_of(pd.DataFrame({"variant": ["A"], "seed": [0]}))


def test_a_caption_counts_the_seeds_that_are_drawn() -> None:
    curves = pd.DataFrame({"variant": ["A", "A", "B", "B", "B"], "seed": [0, 1, 0, 1, 2]})
    assert terms.mean_of(curves).startswith("mean over 2 to 3 seeds and")
    assert terms.mean_of(curves[curves["variant"] == "A"]).startswith("mean over 2 seeds and")
    assert terms.mean_of(curves[1:]).endswith("none around one seed")


def test_symbols_of_methods_of_one_s_own_stand_in_the_table_of_settings() -> None:
    from reports.artefacts import settings
    from tests.reports.stores import Held, built, learning

    own = {"symbols": '{"eps": "ε", "lr": "β"}', "param.eps": "0.1", "param.tau": "2"}
    held = learning(Held(), {"Mine": ("mine", 0.2)}, **own)
    learning(held, {"CD-1": ("cd", 0.4)}, **{"param.k": "1"})  # of an older store
    assert {"eps ε", "tau"} <= set(built(settings, held)["settings-board"].numbers)
    learning(held, {"Other": ("other", 0.4)}, **own | {"symbols": '{"eps": "e"}'})
    learning(held, {"Bad": ("bad", 0.4)}, **own | {"symbols": "[1"})
    assert "eps" in set(built(settings, held)["settings-board"].numbers)


def test_intervals_of_what_cannot_be_negative_are_explained_where_they_reach_below_0() -> None:
    means, halves = pd.Series([3.0, math.nan]), pd.Series([4.0, math.nan])
    assert "No value is below 0" in terms.below_zero("test/posterior_fisher_divergence", means, halves)
    assert terms.below_zero("test/posterior_fisher_divergence", means, halves / 2) == ""
    assert terms.below_zero("test/log_likelihood", means, halves) == ""
