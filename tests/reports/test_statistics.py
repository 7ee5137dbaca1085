"""Intervals and comparisons against closed forms, and how often they hold: by simulation."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports import statistics
from reports.artefacts.ranking import against_best

REPEATS = 1000
Spread = Callable[[int], np.ndarray]


def test_the_interval_is_students() -> None:
    """0, 1, 2: deviation 1, and a t quantile of 4.303 with 2 degrees of freedom."""
    assert statistics.interval([0, 1, 2]) == pytest.approx((1.0, 4.302653 / math.sqrt(3)))
    mean, half_width = statistics.interval([3.0])
    assert mean == 3.0
    assert math.isnan(half_width)
    assert all(map(math.isnan, statistics.interval([])))


def test_a_band_has_an_interval_at_every_step() -> None:
    rows = [{"variant": "A", "step": step, "value": seed + step / 1000} for step in (0, 500) for seed in (0, 1, 2)]
    band = statistics.bands(pd.DataFrame(rows))
    assert band["mean"].tolist() == [1.0, 1.5]
    assert band["half_width"].tolist() == pytest.approx([4.302653 / math.sqrt(3)] * 2)
    assert band["seeds"].tolist() == [3, 3]
    assert statistics.bands(pd.DataFrame(rows[:1]))["half_width"].isna().all()


def test_the_share_of_pairs_won_counts_pairs() -> None:
    assert statistics.improvement([1, 2], [0, 1]) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert statistics.improvement([0], [1]) == 0.0


# --- differences of pairs ---------------------------------------------------------------------------------------------


def test_one_pair_is_the_paired_t_test() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 6))
    expected = stats.ttest_rel(x, y)
    bounds = expected.confidence_interval(statistics.LEVEL)
    mean, half_width, p = statistics.paired(x - y)
    assert (mean - half_width, mean + half_width, p) == pytest.approx((bounds.low, bounds.high, expected.pvalue))


def test_a_family_divides_the_error_among_its_members() -> None:
    differences = np.random.default_rng(1).normal(1.0, size=(4, 5))
    bounds = stats.ttest_1samp(differences, 0, axis=1).confidence_interval(1 - 0.05 / 10)
    alone, (mean, half_width, p) = statistics.paired(differences), statistics.paired(differences, 10)
    np.testing.assert_allclose(np.stack([mean - half_width, mean + half_width]), np.stack(bounds))
    np.testing.assert_allclose(p, np.minimum(1, 10 * alone[2]))
    assert ((p <= 0.05) == (np.abs(mean) >= half_width)).all()


def test_seeds_that_one_of_a_pair_lacks_are_left_out() -> None:
    differences = np.array([[1.0, 2.0, 4.0, math.nan], [math.nan, math.nan, math.nan, 3.0]])
    mean, half_width, p = statistics.paired(differences, 3)
    assert [mean[0], half_width[0], p[0]] == pytest.approx([float(x) for x in statistics.paired(differences[0, :3], 3)])
    assert np.isnan([mean[1], half_width[1], p[1]]).all()


def test_differences_without_any_spread_are_certain() -> None:
    mean, half_width, p = statistics.paired(np.array([[-1.0] * 3, [0.0] * 3]), 3)
    assert (mean.tolist(), half_width.tolist(), p.tolist()) == ([-1.0, 0.0], [0.0, 0.0], [0.0, 1.0])


# --- how often they hold ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_an_interval_covers_the_mean_at_its_level(seeds: int) -> None:
    values = np.random.default_rng(seeds).normal(2.0, 3.0, (REPEATS, seeds))
    frame = pd.DataFrame({"variant": "A", "step": np.arange(REPEATS).repeat(seeds), "value": values.ravel()})
    band = statistics.bands(frame)
    covered = ((band["mean"] - 2.0).abs() <= band["half_width"]).mean()
    assert covered == pytest.approx(0.95, abs=3.5 * error(0.95))
    one = [statistics.interval(each) for each in values[:50]]
    np.testing.assert_allclose(np.array(one), band[["mean", "half_width"]].to_numpy()[:50])


def error(share: float) -> float:
    """The standard error of a share of so many repetitions."""
    return math.sqrt(share * (1 - share) / REPEATS)


def equal(variants: int) -> np.ndarray:
    return np.ones(variants)


def unequal(variants: int) -> np.ndarray:
    """From a hundredth to a hundred."""
    return np.logspace(-2, 2, variants)


def one_wild(variants: int) -> np.ndarray:
    return np.r_[np.ones(variants - 1), 1000.0]


def experiments(seeds: int, spread: np.ndarray, means: np.ndarray, lost: float = 0.0) -> np.ndarray:
    """Values [REPEATS, variants, seeds] that share what belongs to a seed; NaN for a share ``lost`` of them."""
    source = np.random.default_rng([seeds, len(spread), int(100 * spread[0]), int(100 * lost)])
    noise = source.normal(size=(REPEATS, len(spread), seeds)) * spread[:, None]
    values = means[:, None] + noise + source.normal(size=(REPEATS, 1, seeds))
    return np.where(source.random(values.shape) < lost, np.nan, values)


def all_pairs(values: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Whether the intervals of all pairs hold at once, [REPEATS]."""
    first, second = np.triu_indices(len(means), 1)
    held = []
    for part in np.array_split(values, max(1, values[0].size * len(means) * REPEATS // 20_000_000)):
        mean, half_width, _ = statistics.paired(part[:, first] - part[:, second], len(first))
        missed = np.abs(mean - (means[first] - means[second])) > half_width * (1 + 1e-12)
        held.append(~missed.any(1))
    return np.concatenate(held)


@pytest.mark.parametrize("spread", [equal, unequal, one_wild])
@pytest.mark.parametrize("variants", [3, 5, 15, 30])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_all_comparisons_hold_at_once(seeds: int, variants: int, spread: Spread) -> None:
    """Without a true difference, where a choice of the best misleads most, and so whichever pair is looked at.

    Where spreads are equal little more is covered than is promised: the intervals are not wide without need.
    """
    means = np.zeros(variants)
    covered = all_pairs(experiments(seeds, spread(variants), means), means).mean()
    assert covered > 0.95 - 3 * error(0.95)
    if spread is equal:
        assert covered < 0.95 + 3 * error(0.95)


@pytest.mark.parametrize("lost", [0.0, 0.2])
@pytest.mark.parametrize("variants", [3, 15, 30])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_to_the_best_cover_though_it_was_chosen_by_the_same_data(
    seeds: int, variants: int, lost: float
) -> None:
    """Against the best mean, among means that are near to one another; with a fifth of the seeds lost, too."""
    means = np.linspace(0, 0.5, variants)
    values = experiments(seeds, np.linspace(0.5, 1.5, variants), means, lost)
    missed, excluded = to_the_best(values, means)
    assert missed < 0.05 + 3 * error(0.05)
    missed, excluded = to_the_best(values - means[:, None], 0 * means)
    assert missed == excluded < 0.05 + 3 * error(0.05)  # without a true difference none is claimed


def to_the_best(values: np.ndarray, means: np.ndarray) -> tuple[float, float]:
    """In what share of the experiments some interval to the best mean does not hold, and some p is at most 0.05."""
    several = (~np.isnan(values)).sum(2) > 1
    with np.errstate(invalid="ignore"):
        of_each = np.where(several, np.nansum(values, 2) / (~np.isnan(values)).sum(2).clip(1), -np.inf)
    best, each = of_each.argmax(1), np.arange(len(values))
    mean, half_width, p = statistics.paired(values - values[each, best][:, None], math.comb(len(means), 2))
    p[each, best], half_width[each, best] = 1, np.inf
    return float((np.abs(mean - (means - means[best][:, None])) > half_width).any(1).mean()), float(
        (p <= 0.05).any(1).mean()
    )


def test_the_table_is_what_was_simulated() -> None:
    """Its intervals and p-values are those of all pairs."""
    values = experiments(5, np.ones(4), np.zeros(4), 0.1)[0]
    cells = pd.DataFrame(
        [{"variant": f"V{i}", "seed": s, "value": x} for i, row in enumerate(values) for s, x in enumerate(row)]
    )
    found = against_best(cells.dropna(), high=True)
    best = int(np.nanmean(values, 1).argmax())
    mean, half_width, p = statistics.paired(values - values[best], 6)
    assert found.attrs == {"best": f"V{best}", "pairs": 6}
    at = found["variant"].str.removeprefix("V").astype(int)
    np.testing.assert_allclose(found["low"], (mean - half_width)[at])
    np.testing.assert_allclose(found["high"], (mean + half_width)[at])
    np.testing.assert_allclose(found["p"], p[at])
