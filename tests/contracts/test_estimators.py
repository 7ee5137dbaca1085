"""What every estimator declares, and what each of its steps keeps to."""

import dataclasses
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves, tree_map

from baselines import SM
from bism import Estimator, InputError
from bism.hyperparameters import Range, resolve, specs
from bism.rng import Rng
from bism.stages import Stage
from tests.contracts.cases import Case, cases, kinds, parameters_of, same, small

KINDS, CASES = kinds(), cases()
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.id)
every_small = pytest.mark.parametrize("case", [small(kind) for kind in KINDS], ids=lambda case: case.name)
every_step = pytest.mark.parametrize(
    ("case", "stage"),
    [
        pytest.param(
            case, stage, id="-".join(filter(None, [case.name, stage.name])), marks=[pytest.mark.long] * case.long
        )
        for case in CASES
        for stage in case.estimator.stages
    ],
)
every_case = pytest.mark.parametrize("case", parameters_of(CASES))


# --- declarations -----------------------------------------------------------------------------------------------------


def test_the_paper_s_estimators_are_discovered() -> None:
    wanted = {
        "bissm",
        "bidsm",
        "bimdsm",
        "cd",
        "pcd",
        "sm",
        "ssm",
        "dsm",
        "mdsm",
        "nce",
        "vnce",
        "unbiased_cd",
        "persistent_vi",
    }
    assert wanted <= {kind.id for kind in KINDS}


def test_ids_are_unique() -> None:
    assert len({kind.id for kind in KINDS}) == len(KINDS)


@every_kind
def test_estimators_are_frozen_dataclasses(kind: type[Estimator]) -> None:
    assert "__dataclass_params__" in vars(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().lr = 1.0  # type: ignore[misc]
    assert kind() == kind()
    assert hash(kind()) == hash(kind())


@every_kind
def test_estimators_say_what_they_are(kind: type[Estimator]) -> None:
    assert kind.id == kind.id.lower()
    assert kind.id.isidentifier()
    assert all(text.strip() for text in (kind.label, kind.reference))
    assert kind.__doc__
    assert not kind.__doc__.startswith(kind.__name__ + "(")  # written, not made by dataclass
    name = kind().name
    assert name
    assert "{" not in name
    assert len(inspect.signature(kind.init).parameters) == 7


@every_kind
def test_every_field_is_a_declared_hyper_parameter(kind: type[Estimator]) -> None:
    declared = specs(kind)
    assert list(declared) == [field.name for field in dataclasses.fields(kind)]
    assert all(spec.help.strip() for spec in declared.values())
    symbols = [spec.symbol for spec in declared.values() if spec.symbol]
    assert len(set(symbols)) == len(symbols)
    assert all(resolve(kind, symbol) in declared for symbol in symbols)
    assert set(kind().hyper) == {name for name, spec in declared.items() if spec.continuous}


@every_step
def test_every_random_number_of_a_step_is_drawn_for_itself(case: Case, stage: Stage) -> None:
    """Examples, particles, chains and inner steps share none: each number of continuous noise is there once."""
    rng = Rng(torch.Generator().manual_seed(3), torch.float64)
    drawn, numbers = tree_flatten_with_path(stage.draw(case.model, (20, 2), rng))[0], [torch.zeros(0)]
    for path, x in drawn:
        spaced = keystr(path).endswith("['level']") and getattr(case.estimator, "levels", "") == "spaced"
        signs = isinstance(x, Tensor) and bool((x.abs() == 1).all())
        if isinstance(x, Tensor) and x.is_floating_point() and not spaced and not signs:
            numbers.append(x.flatten())
    found = torch.cat(numbers)
    assert len(found.unique()) == len(found)


@every_kind
def test_what_maps_codes_says_so(kind: type[Estimator]) -> None:
    """Those whose samplers have codes: one v for each, which moves with its own code alone."""
    case = small(kind)
    fitted = case.estimator.fit(case.model, case.data(30), steps=0, batch_size=10, dtype=torch.float64)
    sampler: Any = fitted.sampler(0)
    assert kind.maps_codes == (hasattr(sampler, "codes") and hasattr(sampler, "decode"))
    if not kind.maps_codes:
        return
    z = sampler.codes(3, Rng(torch.Generator().manual_seed(1), torch.float64)).requires_grad_()
    v = sampler.decode(z)
    assert v.shape == (3, *case.model.visible_shape)
    (slope,) = torch.autograd.grad(v[1].sum(), z)
    assert [bool(row.any()) for row in slope.flatten(1)] == [False, True, False]


@every_kind
def test_the_search_space_lies_in_the_allowed_values(kind: type[Estimator]) -> None:
    space = kind.search_space()
    assert space
    for name, tune in space.items():
        assert name in specs(kind)
        values = (tune.low, tune.high) if isinstance(tune, Range) else tune
        for value in values:
            assert getattr(kind(**{name: value}), name) == value
        if isinstance(tune, Range):
            assert tune.low < tune.high
            assert tune.low > 0 or not tune.log


def wrong_values(kind: type[Estimator]) -> list[tuple[str, Any]]:
    """For each hyper-parameter values that it cannot have."""
    found: list[tuple[str, Any]] = []
    for field in dataclasses.fields(kind):
        if isinstance(field.default, str):
            found += [(field.name, value) for value in ("nonsense", 3, None)]
        elif isinstance(field.default, int):
            found += [(field.name, value) for value in (-1, 1.5, "2", True, None)]
        else:
            found += [(field.name, value) for value in (-1.0, float("nan"), float("inf"), "0.1", True, None)]
    return found


@every_kind
def test_a_wrong_value_is_refused_by_name(kind: type[Estimator]) -> None:
    for name, value in wrong_values(kind):
        with pytest.raises(InputError) as error:
            kind(**{name: value})
        assert name in str(error.value), str(error.value)
        assert repr(value) in str(error.value), str(error.value)
        assert kind.id in str(error.value), str(error.value)


def test_bounds_of_hyper_parameters() -> None:
    for options in ({"beta1": 1.0}, {"beta2": 1.0}, {"lr": 0.0}):
        with pytest.raises(InputError, match=next(iter(options))):
            SM(**options)
    assert SM(beta1=0, lr=1) == SM(beta1=0.0, lr=1.0)
    assert isinstance(SM(lr=1).lr, float)


def test_contradicting_noise_levels_are_refused() -> None:
    kinds = [kind for kind in KINDS if {"sigma_min", "sigma_max"} <= set(specs(kind))]
    assert kinds
    for kind in kinds:
        with pytest.raises(InputError, match=r"sigma_min.*0\.5.*2"):
            kind(sigma_min=2.0, sigma_max=0.5)


# --- one step ---------------------------------------------------------------------------------------------------------


def one_step(case: Case, stage: Stage, size: int = 20) -> tuple[Any, Tensor, Any, dict[str, Tensor]]:
    """What ``step`` takes: a state, minibatches, noise and hyper-parameters."""
    rng = Rng(torch.Generator().manual_seed(3), torch.float64)
    state = case.estimator.init(case.model, case.data(), rng, batch_size=size)
    batches = case.data(size * stage.all_minibatches).reshape(-1, size, 2)
    if case.estimator.uses_examples:
        state = state.replace(examples=torch.arange(batches[..., 0].numel()).reshape(-1, size))
    noise = stage.draw(case.model, (size, 2), rng)
    return state, batches, noise, {k: torch.tensor(x).double() for k, x in case.estimator.hyper.items()}


@every_step
def test_a_step_is_pure(case: Case, stage: Stage) -> None:
    state, batches, noise, hyper = one_step(case, stage)
    given = (state.params, state.optimiser, state.carry, batches, noise, hyper)
    before = tree_map(torch.clone, given)
    own = tree_map(torch.clone, dict(case.model.named_parameters()))
    torch.manual_seed(1)
    first, info = stage.whole(state, batches, noise, hyper)
    torch.manual_seed(2)  # nothing is drawn inside
    second, again = stage.whole(state, batches, noise, hyper)
    assert same(given, before)
    assert same(dict(case.model.named_parameters()), own)
    for a, b in ((first.params, second.params), (first.optimiser, second.optimiser), (first.carry, second.carry)):
        assert same(a, b)
    assert same(info, again)
    assert info["objective"].shape == ()
    assert not same(first.params, state.params)


@every_step
def test_a_step_keeps_structure_and_types(case: Case, stage: Stage) -> None:
    state, batches, noise, hyper = one_step(case, stage)
    after, _ = stage.whole(state, batches, noise, hyper)
    for x, y in ((state.params, after.params), (state.optimiser, after.optimiser), (state.carry, after.carry)):
        assert tree_map(lambda t: (t.shape, t.dtype), x) == tree_map(lambda t: (t.shape, t.dtype), y)
        assert all(leaf.isfinite().all() for leaf in tree_leaves(y))


@every_step
def test_a_step_takes_minibatches_of_any_size(case: Case, stage: Stage) -> None:
    for size in (20, 7):
        state, batches, noise, hyper = one_step(case, stage, size)
        after, info = stage.whole(state, batches, noise, hyper)
        assert info["objective"].isfinite()
        assert all(leaf.dtype == torch.float64 for leaf in tree_leaves(noise))
        assert all(leaf.isfinite().all() for leaf in tree_leaves(after.params))
