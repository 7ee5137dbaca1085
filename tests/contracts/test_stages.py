"""Methods that train in stages. What holds for every method holds for them too: ``Staged`` is one of its cases."""

import dataclasses
import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bism import GRBM, InputError, engine
from bism.cohort import Cohort
from bism.engine import Trainer
from bism.estimator import Hyper
from bism.progress import Shown
from bism.rng import Rng, StoredRng, generator
from bism.stages import Stage, stage_ends
from bism.state import State
from bism.stream import Stream
from tests.contracts.cases import data, same
from tests.contracts.staged import Staged
from tests.maths.exact import relative

ALL, BOUNDARY = 12, 6
KIND: dict[str, Any] = {"seeds": (0, 3), "batch_size": 8, "dtype": torch.float64}


def trainer(estimator: Any = None, **options: Any) -> Trainer:
    torch.manual_seed(1)
    return Trainer(estimator or Staged(), GRBM(2, 3), data(), **{**KIND, "iterations": ALL, **options})


def trained(steps: int, *more: int, **options: Any) -> Trainer:
    mine = trainer(**options)
    for count in (steps, *more):
        mine.run(count)
    return mine


# --- the numbers ------------------------------------------------------------------------------------------------------


def by_hand(estimator: Staged, seed: int) -> State:
    """Both stages of one seed, step by step."""
    torch.manual_seed(1)
    start = Rng(generator(seed, 0, "initial state"), torch.float64)
    state = estimator.init(GRBM(2, 3), data(), start, batch_size=8)
    hyper = {name: torch.tensor(value, dtype=torch.float64) for name, value in estimator.hyper.items()}
    ways = (estimator.blur_step, estimator.blur_noise), (estimator.normalise_step, estimator.normalise_noise)
    for index, (step, noise) in enumerate(ways):
        stream = Stream(estimator, state.bind().model, data(), [seed], 8, stage=index)
        state = estimator.normalise_begin(state, hyper) if index else state
        for at in range(BOUNDARY * index, BOUNDARY * (1 + index)):
            batches, uniforms, normals = (x[0] for x in stream.draw(data(), at, "training", 1).at(0))
            assert len(batches) == 1 + index
            drawn = noise(state.bind().model, (8, 2), StoredRng(uniforms, normals))
            state, _ = step(state, batches.clone(), tree_map(torch.clone, drawn), hyper)
    return state


def test_each_stage_is_its_own_steps_from_where_the_one_before_ended() -> None:
    estimator = Staged(lr=0.01)
    fitted = trained(ALL, estimator=estimator).fitted()
    for seed in fitted.seeds:
        expected, state = by_hand(estimator, seed), fitted.state(seed)
        assert relative(state["params"], expected.params) < 1e-12
        assert relative(state["optimiser"], expected.optimiser) < 1e-12
        assert float(state["carry"]["begun"]) == 1


def test_the_first_stage_is_the_method_that_it_is_alone() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Blur(Staged):
        """Its first stage."""

        stages = property(lambda self: Staged.stages.fget(self)[:1])  # type: ignore[attr-defined]

    assert same(trained(BOUNDARY)._tensors, trained(BOUNDARY, estimator=Blur())._tensors)


def test_stages_draw_numbers_of_their_own() -> None:
    """Those of the second are not again those of steps of the first."""
    model, drawn = GRBM(2, 3).double(), []
    for index in (0, 1):
        stream = Stream(Staged(), model, data(), [0], 8, stage=index)
        drawn.append({float(x) for x in stream.draw(data(), 0, "training", 40).normals.flatten() if x})
    assert len(drawn[0] & drawn[1]) < 3


@pytest.mark.parametrize("steps", [(5, 7), (6, 6), (1, 5, 1, 5), (7, 5), (12,)])
def test_where_training_stops_and_goes_on_changes_nothing(steps: tuple[int, ...], tmp_path: Path) -> None:
    """In a stage and exactly between them; in the same trainer and from a checkpoint."""
    whole = trained(ALL)
    whole.mean_objective()
    going = trained(*steps)
    going.mean_objective()
    assert same(whole._tensors, going._tensors)
    for count in steps:
        before = trainer()
        if (tmp_path / "saved").exists():
            before.load(tmp_path / "saved")
        before.run(count)
        before.save(tmp_path / "saved")
    before.mean_objective()
    assert same(whole._tensors, before._tensors)


def test_a_checkpoint_between_stages_is_the_state_before_the_next(tmp_path: Path) -> None:
    mine = trained(BOUNDARY)
    assert (mine.stage.name, float(mine._tensors["state"]["carry"]["begun"].sum())) == ("blur", 0)
    mine.save(tmp_path / "between")
    mine.run(1)
    assert (mine.stage.name, mine._tensors["state"]["carry"]["begun"].tolist()) == ("normalise", [1, 1])
    after = mine.checkpoint()
    mine.load(tmp_path / "between")  # back into the first stage
    assert (mine.stage.name, mine.step) == ("blur", BOUNDARY)
    mine.run(1)
    assert same(after["tensors"], mine._tensors)


def test_groups_of_seeds_that_take_turns_get_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    together = trained(ALL, seeds=(0, 1, 2))
    monkeypatch.setattr(engine, "_SIDE_BY_SIDE_BYTES", 1)
    apart = trained(ALL, seeds=(0, 1, 2))
    assert (together.width, apart.width) == (3, 1)
    assert relative(apart._tensors["state"]["params"], together._tensors["state"]["params"]) < 1e-12


def test_shards_are_refused_unless_the_method_says_that_it_takes_them() -> None:
    class Sharded(Staged):
        def unshardable(self) -> str | None:
            return None

    with pytest.raises(InputError, match="staged cannot take a minibatch in 2 shards"):
        trainer(accumulate=2)
    sharded = dataclasses.dataclass(frozen=True, kw_only=True)(Sharded)()
    mine = trained(ALL, estimator=sharded, accumulate=2)
    resumed = trainer(sharded, accumulate=2)
    resumed.restore(trained(BOUNDARY, estimator=sharded, accumulate=2).checkpoint(), "checkpoint")
    resumed.run(ALL - BOUNDARY)
    assert same(mine._tensors["state"], resumed._tensors["state"])


def test_each_stage_is_recorded_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the graph: what is recorded is called instead."""
    monkeypatch.setattr(engine, "captures", lambda device: True)
    recorded: list[Any] = []
    monkeypatch.setattr(engine, "capture_on_cuda", lambda: lambda function: recorded.append(function) or function)
    mine = trained(BOUNDARY)
    count = len(recorded)
    mine.run(ALL - BOUNDARY)
    assert mine.captured
    assert len(recorded) > count > 0
    monkeypatch.undo()
    assert same(mine._tensors, trained(ALL)._tensors)


def test_each_stage_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(engine, "compile_program", lambda function, example: compiled.append(function) or function)
    monkeypatch.setattr(Stream, "compile", lambda stream: None)
    mine = trainer(compile=True)
    mine.run(BOUNDARY)
    assert len(compiled) == 1
    mine.run(ALL - BOUNDARY)
    assert len(compiled) == 2
    assert mine.compiled
    assert same(mine._tensors, trained(ALL)._tensors)


@pytest.mark.long
def test_compiled_stages_give_the_same_numbers() -> None:
    compiled = trained(ALL, compile=True)
    assert compiled.compiled
    assert relative(compiled._tensors["state"]["params"], trained(ALL)._tensors["state"]["params"]) < 1e-10


# --- divergence -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Starting(Staged):
    """Whose second stage begins in its own way."""

    def normalise_begin(self, state: State, hyper: Hyper) -> State:
        state = super().normalise_begin(state, hyper)
        b = state.params["model"]["b"]
        c = torch.where(b[0] > 0, torch.nan, b.sum())
        return state.replace(params={**state.params, "normaliser": {"c": c}})


def test_a_seed_that_cannot_begin_is_frozen_as_the_stage_before_left_it() -> None:
    mine, healthy = trainer(Starting()), trainer(Starting())
    for one, first in ((mine, 1.0), (healthy, -1.0)):
        params = one._tensors
        params["state"]["params"]["model"]["b"][0] = torch.tensor([first, 0.1])
        params["state"]["params"]["model"]["b"][1] = torch.tensor([-1.0, 0.1])
        one._tensors = params
        one.run(BOUNDARY)
    before = tree_map(lambda x: x[0].clone(), mine._tensors["state"])
    for one in (mine, healthy):
        one.run(3)
    assert mine.diverged_at == [BOUNDARY, None]
    assert same(before, tree_map(lambda x: x[0], mine._tensors["state"]))
    assert same(*(tree_map(lambda x: x[1], one._tensors["state"]) for one in (mine, healthy)))
    assert mine.mean_objective().isnan().tolist() == [True, False]


def test_a_seed_that_has_diverged_is_not_begun_again() -> None:
    mine = trained(3)
    mine._tensors["state"]["params"]["model"]["b"][1] = math.nan
    mine.run(ALL - 3)
    assert mine.diverged_at == [None, 3]
    assert mine._tensors["state"]["carry"]["begun"].tolist() == [1, 0]


# --- what is said of it -----------------------------------------------------------------------------------------------


def test_objectives_of_different_stages_are_not_averaged() -> None:
    mine, single = trainer(), list[Tensor]()
    for _ in range(ALL):
        mine.run(1)
        single.append(mine.mean_objective())
    asked = trained(4, 5)  # a stage ends in between
    found = asked.mean_objective()
    torch.testing.assert_close(found, torch.stack(single[BOUNDARY:9]).mean(0))
    torch.testing.assert_close(trained(4, 2).mean_objective(), torch.stack(single[:BOUNDARY]).mean(0))
    resumed = trainer()
    resumed.restore(trained(4).checkpoint(), "checkpoint")
    resumed.run(5)
    assert torch.equal(resumed.mean_objective(), found)


def test_what_is_asked_between_stages_is_asked_of_the_one_that_ends() -> None:
    between, first = trained(BOUNDARY), trained(BOUNDARY, iterations=100)
    assert torch.equal(between.objective_on(data(50)), first.objective_on(data(50)))
    between.run(1)
    assert not torch.allclose(between.objective_on(data(50)), first.objective_on(data(50)))


def test_the_running_mean_starts_anew_where_a_stage_begins_with_other_parameters() -> None:
    mine = trained(BOUNDARY, estimator=Staged(ema=0.9, lr=0.05))
    before, ended = mine._tensors["average"], mine._tensors["state"]["params"]["model"]["b"]
    mine.run(1)
    means, params = mine._tensors["average"], mine._tensors["state"]["params"]
    going_on = tree_map(lambda mean, x: 0.9 * mean + 0.1 * x, before["model"], params["model"])
    assert relative(means["model"], going_on) < 1e-12
    begun = ended.square().sum(1) + 0.5
    assert relative(means["normaliser"]["c"], 0.9 * begun + 0.1 * params["normaliser"]["c"]) < 1e-12


def test_the_line_of_progress_names_the_stage() -> None:
    said = io.StringIO()
    shown = Shown("Staged", said)
    shown.stage = lambda: "blur"
    shown(5, 5)
    assert said.getvalue().startswith("Staged, blur: 5 of 5 iterations")


# --- how the iterations are shared ------------------------------------------------------------------------------------


def stages(*shares: float) -> list[Stage]:
    return [Stage(str(i), share, Staged().blur_step, Staged().blur_noise) for i, share in enumerate(shares)]


@pytest.mark.parametrize(
    ("shares", "iterations", "ends"),
    [((1, 1), 10, [5]), ((0.3, 0.7), 10, [3]), ((2, 1, 1), 8, [4, 6]), ((1, 1, 1), 1, [0, 1]), ((1,), 7, [])],
)
def test_ends_of_stages(shares: tuple[float, ...], iterations: int, ends: list[int]) -> None:
    found = stage_ends(stages(*shares), iterations)
    assert found[:-1] == ends
    assert found[-1] > 10**9


def test_stages_without_iterations_are_begun_on_the_way() -> None:
    mine = trained(1, iterations=1, estimator=Staged(share=0.1))
    assert mine.stage.name == "normalise"
    assert mine._tensors["state"]["carry"]["begun"].tolist() == [1, 1]
    assert trained(0, iterations=0).fitted().step == 0


def test_the_whole_number_of_iterations_must_be_known_and_stay(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"staged trains in stages \(blur, normalise\): iterations must say how many"):
        trainer(iterations=None)
    with pytest.raises(InputError, match="iterations must be at least 0, got -1"):
        trainer(iterations=-1)
    trained(3).save(tmp_path / "saved")
    with pytest.raises(InputError, match="saved: checkpoint has iterations = 12, this run has 13"):
        trainer(iterations=13).load(tmp_path / "saved")


def test_fit_shares_its_steps_or_those_to_come(tmp_path: Path) -> None:
    def fit(steps: int, **more: Any) -> Any:
        torch.manual_seed(1)
        return Staged().fit(GRBM(2, 3), data(), steps=steps, compile=False, **{**KIND, **more})

    whole = fit(ALL)
    assert same(whole._tensors, trained(ALL).fitted()._tensors)
    fit(4, iterations=ALL).save(tmp_path / "saved")
    assert same(whole._tensors, fit(ALL, resume=tmp_path / "saved")._tensors)
    with pytest.raises(InputError, match="iterations must be at least 4, got 3"):
        fit(4, iterations=3)


# --- what is refused --------------------------------------------------------------------------------------------------

FIRST = stages(1)[0]
WRONG: dict[str, tuple[Any, str]] = {
    "no tuple": ([FIRST], "stages must be a tuple of one or more Stage"),
    "none": ((), "stages must be a tuple of one or more Stage"),
    "no stage": ((FIRST, "x"), "stages must be a tuple of one or more Stage"),
    "one name": ((FIRST, FIRST), "each stage needs a name of its own, got '0', '0'"),
    "no name": ((FIRST, dataclasses.replace(FIRST, name="")), "each stage needs a name of its own, got '0', ''"),
    "no share": (
        (dataclasses.replace(FIRST, share=0.0),),
        "share of stage '0' must be a number above 0, 1,000,000 at most",
    ),
    "no minibatch": ((dataclasses.replace(FIRST, minibatches=0),), "stage '0': ``minibatches`` must be a whole"),
    "list": ((FIRST, dataclasses.replace(FIRST, name=["x"])), "a stage's name must be a text of 60"),
    "many": (101 * (FIRST,), "there can be 100 stages, got 101"),
    "huge": ((dataclasses.replace(FIRST, share=10**400),), "must be a number above 0, 1,000,000 at most"),
    "no step": ((dataclasses.replace(FIRST, step=None),), "step of stage '0' must be a function, got None"),
    "lower": ((dataclasses.replace(FIRST, lower_objective=5),), "lower_objective of stage '0' must be a function"),
    "begun": ((dataclasses.replace(FIRST, begin=lambda s, h: s),), "the first stage, '0', cannot have a ``begin``"),
}


@pytest.mark.parametrize(("given", "said"), WRONG.values(), ids=WRONG.keys())
def test_stages_that_are_none_are_refused(given: Any, said: str) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wrong(Staged):
        """With these."""

        stages = property(lambda self: given)

    with pytest.raises(InputError) as error:
        trainer(Wrong())
    assert said in str(error.value)


def test_a_beginning_of_another_shape_is_refused_and_nothing_is_lost() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wrong(Staged):
        """A beginning with one number too many."""

        def normalise_begin(self, state: State, hyper: Hyper) -> State:
            return state.replace(carry={"begun": state.carry["begun"].expand(2)})

    mine = trainer(Wrong())
    said = r"stage 'normalise': begin\(\) must give .*: state\.carry\['begun'\] is a tensor \[2\]"
    with pytest.raises(InputError, match=said):
        mine.run(ALL)
    assert mine.step == BOUNDARY
    assert same(mine._tensors, trained(BOUNDARY)._tensors)


def test_a_cohort_leaves_them_to_trainers() -> None:
    with pytest.raises(InputError, match="staged trains in stages"):
        Cohort(Staged(), GRBM(2, 3), data(), places=2, **KIND)


@pytest.mark.parametrize("given", [None, (None, {}), 5])
def test_a_beginning_that_is_no_state_is_refused(given: Any) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wrong(Staged):
        """A beginning that gives something else."""

        def normalise_begin(self, state: State, hyper: Hyper) -> Any:
            return given

    with pytest.raises(InputError, match=r"stage 'normalise': begin\(\) must give the next state"):
        trainer(Wrong()).run(ALL)


@pytest.mark.parametrize("step", [3, -5, "x", 10**30])
def test_a_checkpoint_that_says_another_iteration_than_its_seeds_is_refused(step: Any) -> None:
    mine = trainer(Staged())
    mine.run(2)
    with pytest.raises(
        InputError, match=re.escape(f"here: damaged: it says iteration {step}, and its seeds are at {{2}}")
    ):
        trainer(Staged()).restore({**mine.checkpoint(), "step": step}, "here")
    assert mine.step == 2
