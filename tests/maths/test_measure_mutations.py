"""The tests of what methods are judged by can fail: quadrature and the comparisons of samples, each with a sign, factor
or term changed in its source, are noticed by a test that is named beside the change."""

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from benchmark.measures import two_samples
from bism import likelihood, quadrature
from tests.harness import test_two_samples as of_samples
from tests.maths import test_quadrature as of_quadrature

Patch = pytest.MonkeyPatch
MIXTURES = of_quadrature.MIXTURES


def alone(test: Callable[..., None], *given: Any) -> Callable[[Patch], None]:
    """A test that patches nothing."""
    return lambda _: test(*given)


def mixture(number: int) -> Callable[[Patch], None]:
    return alone(of_quadrature.test_mixtures_of_gaussians, *MIXTURES[number])


PLANE, FAR, FARTHER = (mixture(number) for number in (2, 4, 5))
PAIRS = of_samples.test_sums_over_pairs_by_their_definitions_in_blocks
CLASSIFIER = alone(of_samples.test_a_classifier_tells_laws_apart)
SCALED = alone(of_quadrature.test_an_rbm_by_quadrature_is_that_by_enumeration, 0)
PERIOD = alone(of_quadrature.test_a_density_with_the_lattice_s_own_period_is_known_to_be_doubtful)
PHASES = alone(of_quadrature.test_lattices_do_not_lie_along_the_axes)
NARROW = alone(of_quadrature.test_narrow_modes_far_from_the_widest_are_found_at_the_data, [24.0, 18.0])
ROUGH = alone(of_quadrature.test_a_density_with_features_too_narrow_is_said_to_be_rough)
LOST = alone(of_quadrature.test_a_density_that_was_not_resolved_has_no_log_z)
ENDLESS = alone(of_quadrature.test_what_does_not_fall_off_is_refused)

# of each function: what is changed, into what, and who notices
MUTATIONS: dict[Any, list[tuple[str, str, Callable[[Patch], None]]]] = {
    two_samples.squared_mmd: [
        ("- 2 * total", "- total", PAIRS),
        (" - len(one)) /", ") /", PAIRS),
        ("/ b**2", "/ b", PAIRS),
        (".mean(0)", ".sum(0)", PAIRS),
        (".square()", "", PAIRS),
        ("(len(one) - 1)", "len(one)", PAIRS),
    ],
    two_samples.squared_ksd: [
        ("s_i @ score.T", "-s_i @ score.T", PAIRS),
        ("score.T + (", "score.T - (", PAIRS),
        ("x.shape[1] / b - s", "1 / b - s", PAIRS),
        ("- squares / b**2", "+ squares / b**2", PAIRS),
        ("squares / b**2", "squares / b", PAIRS),
        ("(-0.5 * squares", "(-squares", PAIRS),
        (" - itself)", ")", PAIRS),
        ("bandwidth**2", "bandwidth", PAIRS),
    ],
    two_samples._in_blocks: [("torch.split(one, height)", "torch.split(one, height)[:-1]", PAIRS)],
    two_samples.c2st: [
        ("labels[test]).", "labels[train]).", CLASSIFIER),
        ("predict(points[test])", "predict(points[train])", CLASSIFIER),
        ("/ len(test)", "/ len(points)", CLASSIFIER),
        ("x.double() / scale", "x.double()", CLASSIFIER),
        ("y.double().std(0)", "y.double().std(0) * 0 + 1", CLASSIFIER),
        ("2 * (math.isqrt(len(train)) // 2) + 1", "1", CLASSIFIER),
        (
            "torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))",
            "torch.arange(len(points))",
            CLASSIFIER,
        ),
    ],
    two_samples.median_distance: [(".median()", ".mean()", CLASSIFIER)],
    quadrature.Lattice.sum: [
        ("self.dimensions * math.log(self.h)", "math.log(self.h)", PLANE),
        ("apart.abs().max() + beyond", "beyond", FAR),
        ("apart.abs().max() + beyond", "apart.abs().max()", PLANE),
        ("+ self.dimensions * math.log(2) -", "-", PLANE),
    ],
    quadrature.Lattice.significant: [("values + rise", "values", FAR)],
    quadrature.Lattice.border: [
        ("values.diff(dim=0) > 0", "values.diff(dim=0) > math.inf", FARTHER),
    ],
    quadrature.Lattice._values: [
        (" @ self.axes", "", PHASES),
        ("(part + self.offset)", "(part + 0 * self.offset)", LOST),
    ],
    quadrature.Lattice.grown: [("range(self.rounds)", "range(1)", NARROW)],
    quadrature.Lattice.around: [("@ self.axes.T", "@ self.axes", NARROW), ("/ self.h", "", NARROW)],
    quadrature._log_integral: [
        ("torch.cat([k, lattice.around(places)])", "k", NARROW),
        ("max(highest, lattice.highest)", "-math.inf", LOST),
        ("error=math.inf)", "error=found.error)", LOST),
        ("error=abs(found.log_z - before)", "error=found.error", PERIOD),
    ],
    quadrature.log_integral: [
        (" + float(unit.log().sum())", "", SCALED),
        ("(data - centre) / unit", "data / unit", NARROW),
    ],
    likelihood._told: [
        ("found.error > _ROUGH", "found.error > math.inf", ROUGH),
        ("known else math.nan", "known else found.log_z", LOST),
        ("<= _UNKNOWN", "<= math.inf", LOST),
        ("math.isinf(found.log_z)", "False", ENDLESS),
    ],
}


def broken(function: Any, old: str, new: str) -> Any:
    """The code of ``function`` with ``new`` in the place of ``old``, which stands in it once or more."""
    source = textwrap.dedent(inspect.getsource(function))
    assert old in source, f"{function.__name__} has no more: {old}"
    made: dict[str, Any] = {}
    exec(source.replace(old, new), function.__globals__, made)
    return made[function.__name__].__code__


CASES = [
    pytest.param(function, *change, id=f"{function.__qualname__}: {change[0]} -> {change[1]}")
    for function, changes in MUTATIONS.items()
    for change in changes
]


@pytest.mark.parametrize(("function", "old", "new", "test"), CASES)
def test_a_mutation_is_noticed(
    function: Any, old: str, new: str, test: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    monkeypatch.setattr(function, "__code__", broken(function, old, new))
    with pytest.raises((AssertionError, UserWarning, pytest.fail.Exception)):
        test(monkeypatch)
