"""The rules by which a cell's numbers are chosen."""

import math

import pytest

from benchmark.records.rundir import Measurement
from benchmark.records.selection import RULES, better, selected
from benchmark.tasks.suite import Task

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


def test_the_mean_of_the_last_tenth() -> None:
    """Of 50 evaluations the last six, from 90% of the iterations on; one that is noisy does not decide."""
    values = [math.nan] * 45 + [1.0, 2.0, 3.0, 4.0, 5.0, -15.0]
    curve = journal(*[(2 * i, {"test/x": value, "time/train_seconds": float(i)}) for i, value in enumerate(values)])
    assert RULES["last_tenth"](curve, LIKELIHOOD) == [90, 92, 94, 96, 98, 100]
    assert selected(curve, "last_tenth", LIKELIHOOD) == (100, {"test/x": 0.0, "time/train_seconds": 50.0})
    assert RULES["last_tenth"](curve[:2], LIKELIHOOD) == [2]  # of few evaluations the last alone


def test_what_was_not_measured_all_along_the_last_tenth_has_its_last_value() -> None:
    """Annealing at the best checkpoint and the last: a mean of the two would be that of neither."""
    curve = journal((90, {"test/x": 1.0}), (95, {"test/x": 2.0}), (100, {"test/x": 6.0}), (95, {"y": 1.0}),
                    (100, {"y": 5.0}), (100, {"test/x": 3.0}))  # fmt: skip
    assert selected(curve, "last_tenth", LIKELIHOOD) == (100, {"test/x": 2.0, "y": 5.0})


def test_no_rule_looks_at_the_test_data() -> None:
    """Whatever the test values are, the same iterations are taken."""
    other = [
        Measurement(line.step, 0, {k: -v if "test" in k else v for k, v in line.metrics.items()}) for line in CURVE
    ]
    for rule in RULES.values():
        assert rule(CURVE, DIVERGENCE) == rule(other, DIVERGENCE)


def test_the_default_is_the_mean_of_the_last_tenth() -> None:
    assert Task.model_fields["rule"].default == "last_tenth" == next(iter(RULES))


def test_likelihoods_are_to_be_high() -> None:
    curve = journal((0, {LIKELIHOOD: 1.0}), (10, {LIKELIHOOD: 3.0}), (20, {LIKELIHOOD: 2.0}))
    assert selected(curve, "best_validation", LIKELIHOOD) == (10, {LIKELIHOOD: 3.0})
    assert better(LIKELIHOOD, 1.0) > better(LIKELIHOOD, 0.0)
    assert better(DIVERGENCE, 1.0) < better(DIVERGENCE, 0.0)


def test_nan_is_never_the_best_and_the_earliest_of_equals_is() -> None:
    curve = journal((0, {DIVERGENCE: math.nan}), (10, {DIVERGENCE: 1.0}), (20, {DIVERGENCE: 1.0}))
    assert RULES["best_validation"](curve, DIVERGENCE) == [10]
    assert RULES["best_validation"](curve[:1], DIVERGENCE) == []


@pytest.mark.parametrize("rule", RULES)
def test_nothing_measured(rule: str) -> None:
    assert selected([], rule, DIVERGENCE) is None


def test_without_what_it_selects_by_the_last_stands_for_a_cell() -> None:
    """FID without its network's weights: the run still has a result."""
    found = selected(CURVE, "best_validation", "val/fid")
    assert found is not None
    assert found[0] == 20
    assert found[1]["test/log_likelihood"] == 90.0
