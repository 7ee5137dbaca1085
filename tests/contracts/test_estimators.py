"""What every estimator promises, checked on all that the packages define."""

import dataclasses
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves, tree_map

from baselines import CD, SM
from bism import GRBM, RBM, Bernoulli, BiDSM, Estimator, InputError, stream
from bism.capture import CapturedSteps
from bism.checkpoint import load_checkpoint
from bism.engine import Trainer
from bism.hyperparameters import Range, resolve, specs
from bism.rng import Rng
from bism.stages import Stage
from bism.variables import has_binary_v
from tests.contracts.cases import Case, cases, data, fit, kinds, parameters_of, same, small, to_resume, trainer, zoo

KINDS, CASES = kinds(), cases()
ROOT = Path(__file__).parents[2]

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


def distance(x: Any, y: Any) -> float:
    """The largest difference between two trees, relative where the numbers are larger than one."""
    pairs = [(a.double(), b.double()) for a, b in zip(tree_leaves(x), tree_leaves(y), strict=True) if a.numel()]
    return max((float(((a - b).abs() / b.abs().clamp(min=1)).max()) for a, b in pairs), default=0.0)


def one_seed(tensors: Any, index: int) -> Any:
    """A trainer's numbers of one seed."""
    return tree_map(lambda x: x[index], tensors)


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
    assert len(inspect.signature(kind.init).parameters) == 6


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
    assert not same(first.params["model"], state.params["model"])


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


# --- training ---------------------------------------------------------------------------------------------------------


@every_case
def test_training_stays_finite_and_moves_every_parameter(case: Case) -> None:
    mine = trainer(case)
    before = tree_map(torch.clone, mine._tensors)
    mine.run(30)
    assert mine.diverged_at == [None, None]
    assert all(leaf.isfinite().all() for leaf in tree_leaves(mine._tensors))
    # without the covariance the gradient goes through d^2 E / dv dtheta alone, of which the terms in h have none
    still = {"c"} if getattr(case.estimator, "covariance", "") == "none" else set()
    for part, tensors in mine._tensors["state"]["params"].items():
        for name, value in tensors.items():
            assert name in still or not torch.equal(value, before["state"]["params"][part][name]), (
                f"{part}.{name} did not move"
            )
    assert mine.mean_objective().isfinite().all()


@every_small
def test_training_does_not_depend_on_the_global_generator(case: Case) -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        mine = trainer(case)
        mine.run(3)
        results.append(mine._tensors)
        torch.randn(seed)
    assert same(*results)


@every_small
def test_training_leaves_the_given_model_and_data_alone(case: Case) -> None:
    own, given = tree_map(torch.clone, case.model.state_dict()), case.data()
    before = given.clone()
    case.estimator.fit(case.model, given, seeds=(0, 1), steps=2, batch_size=20, dtype=torch.float64, compile=False)
    assert same(dict(case.model.state_dict()), dict(own))
    assert torch.equal(given, before)


@every_small
def test_a_seed_alone_is_the_seed_in_a_group(case: Case) -> None:
    group, alone = trainer(case, seeds=(0, 3, 7)), trainer(case, seeds=(3,))
    group.run(50)
    alone.run(50)
    assert distance(one_seed(group._tensors, 1), one_seed(alone._tensors, 0)) < 1e-10
    first, other = (one_seed(group._tensors, i)["state"]["params"] for i in (0, 1))
    assert distance(first, other) > 1e-3  # seeds differ


@every_small
def test_a_seed_that_diverges_is_frozen_and_harms_no_other(case: Case) -> None:
    healthy, sick = trainer(case, seeds=(0, 1, 2)), trainer(case, seeds=(0, 1, 2))
    healthy.run(5)
    sick.run(5)
    params = tree_map(torch.clone, sick._tensors)
    next(iter(params["state"]["params"]["model"].values()))[1] = float("nan")
    sick._tensors = params
    frozen = tree_map(torch.clone, one_seed(params["state"], 1))
    for mine in (healthy, sick):
        mine.run(6)
    assert sick.diverged_at == [None, 5, None]
    assert sick.fitted().diverged_at == [None, 5, None]
    assert healthy.diverged_at == [None, None, None]
    for index in (0, 2):
        assert same(one_seed(sick._tensors, index), one_seed(healthy._tensors, index))
    pairs = zip(tree_leaves(frozen), tree_leaves(one_seed(sick._tensors["state"], 1)), strict=True)
    assert all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in pairs)
    assert sick.mean_objective()[[0, 2]].isfinite().all()


def test_a_diverged_seed_s_objective_is_that_of_the_steps_before() -> None:
    healthy, sick = trainer(small(SM)), trainer(small(SM))
    for mine in (healthy, sick):
        mine.run(5)
    sick._tensors["state"]["params"]["model"]["b"][1] = float("nan")
    sick.run(20)
    torch.testing.assert_close(sick.mean_objective()[1], healthy.mean_objective()[1])
    sick.run(2)
    assert sick.mean_objective().isnan().tolist() == [False, True]


def test_a_seed_that_overflows_is_frozen_with_its_last_finite_numbers() -> None:
    mine = trainer(small(SM, lr=1e200), seeds=(0, 1))
    mine.run(5)
    assert all(step is not None for step in mine.diverged_at)
    assert all(leaf.isfinite().all() for leaf in tree_leaves(mine._tensors["state"]))


@pytest.mark.long
def test_60_steps_are_23_steps_a_new_process_and_37_steps(tmp_path: Path) -> None:
    for case in to_resume():
        fit(case, 60).save(tmp_path / f"{case.name}.whole")
        fit(case, 23).save(tmp_path / f"{case.name}.begun")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-m", "tests.contracts.cases", str(tmp_path), "60"]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    for case in to_resume():
        whole, resumed = (load_checkpoint(tmp_path / f"{case.name}.{end}") for end in ("whole", "resumed"))
        assert same(whole["tensors"], resumed["tensors"]), case.name
        assert resumed["step"] == whole["step"] == 60


@every_small
def test_stopping_between_and_inside_blocks_changes_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_LONGEST_BLOCK", 4)
    whole, parts = trainer(case), trainer(case)
    whole.run(12)
    for steps in (1, 3, 4, 0, 3, 1):
        parts.run(steps)
    assert same(whole._tensors, parts._tensors)
    assert parts.step == 12


def test_asking_for_results_changes_nothing() -> None:
    case = small(BiDSM)
    plain, asked = trainer(case), trainer(case)
    plain.run(8)
    asked.run(4)
    held_out = asked.objective_on(data(50))
    fitted = asked.fitted()
    parameters = fitted.parameters(1)
    fitted.sample(data(5), sweeps=3)
    fitted.log_likelihood(data(5))
    assert torch.equal(held_out, asked.objective_on(data(50)))
    asked.run(4)
    assert same(plain._tensors, asked._tensors)
    assert same(parameters, fitted.parameters(1))  # training on does not change what was handed out
    assert not same(parameters, asked.fitted().parameters(1))


def test_results_of_a_seed_are_those_of_its_model() -> None:
    fitted, v = fit(small(BiDSM), 3), data(5)
    for row, seed in enumerate(fitted.seeds):
        model = fitted.model(seed)
        assert torch.equal(fitted.energy(v)[row], model.free_energy(v))
        torch.testing.assert_close(fitted.score(v)[row], model.score_and_laplacian(v)[0])
        bias = fitted.parameters(seed)["posterior"]["network.1.bias"]
        assert torch.equal(fitted.posterior(seed).network[1].bias, bias)
        assert torch.equal(fitted.sample(v, 4)[row], fitted.sample_seed(seed, v, 4))
    with pytest.raises(InputError, match=r"seed 9 .* 0, 1"):
        fitted.model(9)
    with pytest.raises(InputError, match="sm trains no posterior"):
        fit(small(SM), 1).posterior(0)


def record(trainer: Trainer, program: Any, together: int) -> None:
    """Trains by the buffers of a CUDA graph's replay, without the graph."""
    steps = CapturedSteps(
        program, trainer._leaves, trainer._drawn(data(), 0, "x"), trainer._hyper_of(0), lambda step: step, together
    )
    trainer._advance = lambda leaves, block, _: steps(leaves, block)


@every_small
def test_a_captured_step_is_the_step(case: Case, tmp_path: Path) -> None:
    # what is handed out and taken in must not be mixed up, whether steps are replayed by threes or one by one
    plain, captured = trainer(case), trainer(case)
    record(captured, captured._program, together=3)
    plain.run(7)
    captured.run(7)
    assert same(plain._tensors, captured._tensors)
    handed_out = captured.checkpoint()["tensors"]
    before = tree_map(torch.clone, handed_out)
    captured.save(tmp_path / "seven.pt")
    assert torch.equal(plain.mean_objective(), captured.mean_objective())
    assert torch.equal(plain.objective_on(data(50)), captured.objective_on(data(50)))
    plain.run(7)
    captured.run(7)
    assert same(plain._tensors, captured._tensors)
    assert same(before, handed_out)
    captured.load(tmp_path / "seven.pt")
    captured.run(7)
    assert same(plain._tensors["state"], captured._tensors["state"])


@pytest.mark.long
@every_small
def test_compiled_uncompiled_alone_and_together_agree(case: Case) -> None:
    seeds = tuple(range(10))
    plain, compiled, alone = trainer(case, seeds), trainer(case, seeds, compile=True), trainer(case, (3,), compile=True)
    for each in (plain, compiled, alone):
        each.run(50)
    assert compiled.compiled
    assert alone.compiled
    assert compiled.compile_seconds > 0
    assert distance(plain._tensors, compiled._tensors) < 1e-10
    assert distance(one_seed(compiled._tensors, 3), one_seed(alone._tensors, 0)) < 1e-10

    # and a seed that is not a number leaves the others as they were, to the last bit
    healthy = tree_map(torch.clone, compiled._tensors)
    sick = tree_map(torch.clone, compiled._tensors)
    next(iter(sick["state"]["params"]["model"].values()))[1] = float("nan")
    compiled.run(5)
    expected, compiled._tensors, compiled.step = compiled._tensors, sick, 50
    compiled.run(5)
    assert compiled.diverged_at == [50 if seed == 1 else None for seed in seeds]
    for seed in seeds:
        wanted = healthy if seed == 1 else expected
        others = [x["state"]["optimiser"] for x in (one_seed(wanted, seed), one_seed(compiled._tensors, seed))]
        assert same(*others)


# --- errors -----------------------------------------------------------------------------------------------------------


class Visible(nn.Module):
    """A model without latent variables, known by its energy alone."""

    visible_shape, latent = (2,), None

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(2))

    def energy(self, v: Tensor) -> Tensor:
        return (self.a * v.square()).sum(-1)


@every_kind
def test_an_unsupported_model_is_refused_with_the_reason(kind: type[Estimator]) -> None:
    reason = kind().unsupported(Visible())
    assert reason
    with pytest.raises(InputError) as error:
        kind().fit(Visible(), data(), steps=1)
    assert str(error.value) == f"{kind.id} cannot train Visible: {reason}"


@every_kind
def test_what_v_is_decides_what_can_be_trained(kind: type[Estimator]) -> None:
    """Of binary v by the methods that say so alone, and of real v by none that does not."""
    binary = {"noise_distribution": "bernoulli"} if "noise_distribution" in specs(kind) else {}
    own = [m for m in zoo() if has_binary_v(m) and kind(**binary).unsupported(m) is None]  # which need not be the RBM
    reason = kind(**binary).unsupported(own[0] if own else RBM(2, 3))
    assert (reason is None) == (Bernoulli in kind.visible_units)
    if reason:
        assert reason == "it needs real v, to differentiate in or to add noise to, and v of RBM is binary"
        with pytest.raises(InputError, match=f"{kind.id} cannot train RBM: it needs real v"):
            kind().fit(RBM(2, 3), (data() > 0).double(), steps=1)
    if binary:
        assert "must be 'bernoulli'" in str(kind().unsupported(RBM(2, 3)))
        assert "must be 'standard_normal' or 'gaussian'" in str(kind(**binary).unsupported(GRBM(2, 3)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinaryAlone(CD):
    """CD of binary v alone."""

    visible_units = (Bernoulli,)


def test_a_method_of_binary_v_alone() -> None:
    assert BinaryAlone().unsupported(RBM(2, 3)) is None
    assert BinaryAlone().unsupported(GRBM(2, 3)) == "it needs binary v, and v of GRBM is real"


def test_v_that_is_declared_binary_is_zeros_and_ones() -> None:
    v = torch.zeros(5, 2)
    v[3, 1], v[4, 0] = 0.25, 7
    with pytest.raises(InputError, match=r"v of RBM is binary: row 3, unit 1 is 0.25 \(2 rows in all\)"):
        CD().fit(RBM(2, 3), v, steps=1)
    with pytest.raises(InputError, match=r"data_noise must be 0 where v is binary, as it is in RBM, got 0\.1"):
        CD().fit(RBM(2, 3), v.round().clamp(0, 1), steps=1, data_noise=0.1)
    for units in (Bernoulli(3), "binary", Bernoulli):
        odd = RBM(2, 3)
        odd.visible_units = units  # type: ignore[assignment]
        with pytest.raises(InputError, match=r"RBM.visible_units must be Gaussian\(2\) or Bernoulli\(2\), what its v"):
            CD().fit(odd, v.round(), steps=1)


def test_the_reasons() -> None:
    for estimator, words in (
        (SM(), "free_energy()"),
        (CD(), "no latent variables"),
        (BiDSM(), "no latent variables"),
    ):
        assert words in str(estimator.unsupported(Visible()))
    assert "lower='kl'" in str(BiDSM(lower="fisher").unsupported(GRBM(2, 3)))
    assert BiDSM().unsupported(GRBM(2, 3)) is None


DATA = data(5)
WITH_NAN, WITH_INFINITY = DATA.clone(), DATA.clone()
WITH_NAN[2, 1], WITH_INFINITY[3, 0] = float("nan"), float("inf")
WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "array": ({"data": DATA.numpy()}, ["data", "ndarray", "torch.Tensor"]),
    "list": ({"data": [[0.0, 1.0]]}, ["data", "list", "torch.Tensor"]),
    "none": ({"data": None}, ["data", "NoneType", "torch.Tensor"]),
    "shape": ({"data": torch.zeros(5, 3)}, ["data", "[5, 3]", "[n, 2]"]),
    "one vector": ({"data": torch.zeros(2)}, ["data", "[2]", "[n, 2]"]),
    "one number": ({"data": torch.tensor(1.0)}, ["data", "[]", "[n, 2]"]),
    "images": ({"data": torch.zeros(5, 1, 2)}, ["data", "[5, 1, 2]", "[n, 2]"]),
    "no rows": ({"data": torch.zeros(0, 2)}, ["data", "[0, 2]", "[n, 2]"]),
    "integers": ({"data": torch.zeros(5, 2, dtype=torch.int64)}, ["data", "int64", "floating point"]),
    "booleans": ({"data": torch.zeros(5, 2, dtype=torch.bool)}, ["data", "bool", "floating point"]),
    "complex": ({"data": torch.zeros(5, 2, dtype=torch.complex64)}, ["data", "complex64", "floating point"]),
    "nan": ({"data": WITH_NAN}, ["data", "finite", "row 2"]),
    "infinity": ({"data": WITH_INFINITY}, ["data", "finite", "row 3"]),
    "no seeds": ({"seeds": []}, ["seeds", "[]", "integers"]),
    "equal seeds": ({"seeds": [1, 1]}, ["seeds", "[1, 1]", "distinct"]),
    "negative seed": ({"seeds": [0, -1]}, ["seeds", "-1", "integers >= 0"]),
    "fractional seed": ({"seeds": [0.5]}, ["seeds", "0.5", "integers"]),
    "true as a seed": ({"seeds": [True]}, ["seeds", "True", "integers"]),
    "text as seeds": ({"seeds": "01"}, ["seeds", "'0'", "integers"]),
    "one number as seeds": ({"seeds": 3}, ["seeds", "3", "integers"]),
    "no batch": ({"batch_size": 0}, ["batch_size", "0", "at least 1"]),
    "fractional batch": ({"batch_size": 2.5}, ["batch_size", "2.5", "integer"]),
    "negative steps": ({"steps": -1}, ["steps", "-1", "at least"]),
    "fractional steps": ({"steps": 2.5}, ["steps", "2.5", "integer"]),
    "integer dtype": ({"dtype": torch.int64}, ["dtype", "int64", "floating point"]),
    "unknown device": ({"device": "nowhere"}, ["device", "nowhere"]),
    "no module": ({"model": "GRBM"}, ["model", "str", "torch.nn.Module"]),
    "no energy": ({"model": nn.Linear(2, 2)}, ["model", "Linear", "energy"]),
    "posterior": ({"posterior": nn.Linear(2, 3)}, ["posterior", "Linear", "log_prob"]),
}


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG.keys())
def test_wrong_arguments_are_named(change: dict[str, Any], words: list[str]) -> None:
    arguments: dict[str, Any] = {"model": GRBM(2, 3), "data": DATA, "steps": 1, "batch_size": 4, **change}
    with pytest.raises(InputError) as error:
        small(BiDSM).estimator.fit(**arguments)
    for word in words:
        assert word in str(error.value), str(error.value)


def other_configuration(change: dict[str, Any]) -> Trainer:
    """A trainer that differs in one thing from the one whose checkpoint is read below."""
    options: dict[str, Any] = {"seeds": (0, 1), "batch_size": 20, "dtype": torch.float64, **change}
    estimator, model = options.pop("estimator", SM()), options.pop("model", GRBM(2, 3))
    return Trainer(estimator, model, data(), **options)


OTHERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "estimator": ({"estimator": small(CD).estimator}, ["estimator", "sm", "cd"]),
    "hyper-parameter": ({"estimator": SM(lr=0.5)}, ["hyper", "0.5"]),
    "seeds": ({"seeds": (0, 2)}, ["seeds", "[0, 1]", "[0, 2]"]),
    "batch size": ({"batch_size": 10}, ["batch_size", "20", "10"]),
    "size of the model": ({"model": GRBM(2, 4)}, ["W", "3", "4"]),
    "precision": ({"dtype": torch.float32}, ["float64", "float32"]),
}


@pytest.mark.parametrize(("change", "words"), OTHERS.values(), ids=OTHERS.keys())
def test_a_checkpoint_of_another_configuration_is_refused(
    change: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    other_configuration({}).save(tmp_path / "saved")
    other_configuration({}).load(tmp_path / "saved")
    with pytest.raises(InputError) as error:
        other_configuration(change).load(tmp_path / "saved")
    for word in [*words, str(tmp_path / "saved")]:
        assert word in str(error.value), str(error.value)


def damaged(kind: str, path: Path) -> None:
    """Writes a checkpoint and spoils it."""
    other_configuration({}).save(path)
    whole = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "another file of torch":
        torch.save({"weights": torch.zeros(3)}, path)
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "part of it lost":
        content = torch.load(path, weights_only=True)
        torch.save({"tensors": content["tensors"]}, path)
    else:
        path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"not a checkpoint"}[kind])


DAMAGES = ["missing", "folder", "another file of torch", "tensor", "part of it lost", "empty", "truncated", "text"]


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "saved"
    damaged(kind, path)
    with pytest.raises(InputError, match=r"saved: .*checkpoint"):
        SM().fit(GRBM(2, 3), data(), seeds=(0, 1), batch_size=20, dtype=torch.float64, steps=5, resume=path)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Spy:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"tensors": {"state": Spy()}}, tmp_path / "saved")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "saved")
    assert not (tmp_path / "ran").exists()


def test_fewer_steps_than_the_checkpoint_has_are_refused(tmp_path: Path) -> None:
    case = small(SM)
    fit(case, 5).save(tmp_path / "saved")
    with pytest.raises(InputError, match=r"steps .* 5, got 4"):
        fit(case, 4, resume=tmp_path / "saved")
    assert fit(case, 5, resume=tmp_path / "saved").step == 5
