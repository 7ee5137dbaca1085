"""The rules by which a cell's numbers are chosen."""

import math

import pytest

from benchmark.rundir import Measurement
from benchmark.selection import RULES, better, selected

DIVERGENCE, LIKELIHOOD = "val/fisher_divergence", "val/log_likelihood"


def journal(*lines: tuple[int, dict[str, float]]) -> list[Measurement]:
    """Lines in the order they were written."""
    return [Measurement(step, 0, metrics) for step, metrics in lines]


CURVE = journal(
    (0, {DIVERGENCE: 5.0, "test/fisher_divergence": 5.5, "time/train_seconds": 0.0}),
    (10, {DIVERGENCE: -2.0, "test/fisher_divergence": -1.5, "time/train_seconds": 1.0}),
    (20, {DIVERGENCE: -1.0, "test/fisher_divergence": -9.0, "time/train_seconds": 2.0}),
    (10, {"test/log_likelihood": 100.0}),  # measured of the best checkpoint, after the training
    (20, {"test/log_likelihood": 90.0}),
)


def test_the_best_on_the_validation_data_with_the_cost_of_all() -> None:
    found = selected(CURVE, "best_validation", DIVERGENCE)
    assert found == (
        10,
        {
            DIVERGENCE: -2.0,
            "test/fisher_divergence": -1.5,  # though the last is better on the test data
            "test/log_likelihood": 100.0,
            "time/train_seconds": 2.0,
        },
    )


def test_the_last() -> None:
    found = selected(CURVE, "last", DIVERGENCE)
    assert found is not None
    assert found[0] == 20
    assert found[1]["test/log_likelihood"] == 90.0
    assert found[1]["test/fisher_divergence"] == -9.0


def test_likelihoods_are_to_be_high() -> None:
    curve = journal((0, {LIKELIHOOD: 1.0}), (10, {LIKELIHOOD: 3.0}), (20, {LIKELIHOOD: 2.0}))
    assert selected(curve, "best_validation", LIKELIHOOD) == (10, {LIKELIHOOD: 3.0})
    assert better(LIKELIHOOD, 1.0) > better(LIKELIHOOD, 0.0)
    assert better(DIVERGENCE, 1.0) < better(DIVERGENCE, 0.0)


def test_nan_is_never_the_best_and_the_earliest_of_equals_is() -> None:
    curve = journal((0, {DIVERGENCE: math.nan}), (10, {DIVERGENCE: 1.0}), (20, {DIVERGENCE: 1.0}))
    assert RULES["best_validation"](curve, DIVERGENCE) == 10
    assert RULES["best_validation"](curve[:1], DIVERGENCE) is None


@pytest.mark.parametrize("rule", RULES)
def test_nothing_measured(rule: str) -> None:
    assert selected([], rule, DIVERGENCE) is None


def test_without_what_it_selects_by_the_last_stands_for_a_cell() -> None:
    """FID without its network's weights: the run still has a result."""
    found = selected(CURVE, "best_validation", "val/fid")
    assert found is not None
    assert found[0] == 20
    assert found[1]["test/log_likelihood"] == 90.0
