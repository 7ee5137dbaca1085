"""What a GPU trains by, tried without one: programs that check how their tensors lie, in a replay's buffers."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.codecache import PyCodeCache
from torch.utils._pytree import tree_map

from baselines import CD, DSM
from bism import Estimator, compiler, engine, threefry
from bism.capture import CapturedSteps
from bism.engine import Trainer
from bism.stream import TOGETHER, Block, Stream
from tests.contracts.cases import (
    ALIKE,
    PROGRAMS_ALIKE,
    Case,
    cases,
    data,
    discovered,
    distance,
    one_seed,
    same,
    small,
    trainer,
)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Training goes the way it goes on a GPU, but for the graph itself: what is recorded is called instead."""
    monkeypatch.setattr(engine, "captures", lambda device: True)
    monkeypatch.setattr(engine, "capture_on_cuda", lambda: lambda function: function)
    compile_there = compiler._compiled

    def checking(function: Any, example: Any, options: dict[str, Any]) -> Any:
        return compile_there(function, example, {**options, "cpp_wrapper": False})  # Python's checks strides

    monkeypatch.setattr(compiler, "_compiled", checking)
    forget()
    yield
    forget()


def forget() -> None:
    """Programs that were made here are not to be taken for those that others make, nor the other way round."""
    threefry._compiled.cache_clear()
    PyCodeCache.cache_clear()


def run_through(mine: Trainer) -> Tensor:
    """Trains over the ends of blocks and asks in between; returns the answer."""
    mine.stream.block_steps = 23
    mine.run(1)
    mine.run(2 * TOGETHER + 4)
    held_out = mine.objective_on(data(50))
    mine.run(TOGETHER)
    return held_out


QUICK = ("dsm",)
WITH_STREAM = ("bidsm", "pcd")  # whose minibatches and noise are drawn by a compiled program, too


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, id=kind.id, marks=() if kind.id in QUICK else pytest.mark.long)
        for kind in discovered()
        if kind.id not in PROGRAMS_ALIKE
    ],
)
def test_compiled_steps_are_plain_steps(kind: type[Estimator], monkeypatch: pytest.MonkeyPatch) -> None:
    """And each is given tensors that lie as those do for which it was compiled."""
    if kind.id not in WITH_STREAM:
        monkeypatch.setattr(Stream, "compile", lambda stream: None)
    seeds = (0, 1, 2)
    mine, plain = trainer(small(kind), seeds, compile=True), trainer(small(kind), seeds)
    torch.testing.assert_close(run_through(mine), run_through(plain))
    assert mine.compiled
    assert mine.captured
    assert distance(mine._tensors, plain._tensors) < 1e-10

    # and a seed that is not a number leaves the others as they were, to the last bit
    at, healthy, sick = mine.step, tree_map(torch.clone, mine._tensors), tree_map(torch.clone, mine._tensors)
    next(iter(sick["state"]["params"]["model"].values()))[1] = float("nan")
    mine.run(5)
    expected, mine._tensors, mine.step = mine._tensors, sick, at
    mine.run(5)
    assert mine.diverged_at == [None, at, None]
    for seed, wanted in enumerate((expected, healthy, expected)):
        assert same(*(one_seed(tensors, seed)["state"]["optimiser"] for tensors in (wanted, mine._tensors)))


# --- what fails is left out, and said ---------------------------------------------------------------------------------


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("not on this card\nand more")


@pytest.mark.usefixtures("as_on_a_gpu")
def test_without_a_capture_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "capture_on_cuda", broken)
    mine = trainer(small(DSM))
    with pytest.warns(UserWarning, match=r"training runs step by step, without CUDA graphs .*: not on this card$"):
        mine.run(3)
    mine.run(4)
    monkeypatch.undo()
    plain = trainer(small(DSM))
    plain.run(7)
    assert not mine.captured
    assert distance(mine._tensors, plain._tensors) == 0


def test_without_a_compiler_training_goes_on_and_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "captures", lambda device: True)
    monkeypatch.setattr(engine, "capture_on_cuda", lambda: lambda function: function)
    monkeypatch.setattr(engine, "compile_program", broken)
    with pytest.warns(UserWarning, match=r"training runs uncompiled .*: not on this card$"):
        mine = trainer(small(DSM), compile=True)
    mine.run(7)
    assert mine.captured
    assert not mine.compiled
    assert mine.step == 7


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_want_of_memory_is_not_passed_over(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where the compiler wraps it: it is the supervisor's to start the job again where there is more of it."""

    def compiler(*_: Any) -> None:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("the compiler failed") from cause

    monkeypatch.setattr(engine, "compile_program", compiler)
    with pytest.raises(RuntimeError, match="the compiler failed"):
        trainer(small(DSM), compile=True)


# --- the buffers ------------------------------------------------------------------------------------------------------


def test_steps_are_replayed_together_where_they_are_short_and_alone_at_the_end() -> None:
    """Each replay is of the steps that it should be of, and copies what it is given to where it was recorded."""
    count, said = 5, list[int]()
    state, seen = [torch.zeros(2)], torch.arange(2 * 7.0).reshape(2, 7)
    block = Block(seen[:, :, None], torch.zeros(2, 7, 0), torch.zeros(2, 7, 0))

    def program(total: Tensor, batches: Tensor, uniforms: Tensor, normals: Tensor, factor: Tensor) -> list[Tensor]:
        return [total + factor * batches[:, 0]]

    def capture(function: Callable[[], None]) -> Callable[[], None]:
        number = len(said)
        said.append(0)

        def replay() -> None:
            said[number] += 1
            function()

        return replay

    steps = CapturedSteps(program, state, block.at(0), [torch.tensor(2.0)], capture, together=count)
    assert steps(state, block)[0].tolist() == [2 * float(row.sum()) for row in seen]
    assert said == [2, 1]
    assert steps(state, block.part(6, 1))[0].tolist() == [2 * float(row[6]) for row in seen]


def test_which_examples_the_minibatches_are_is_replayed_too() -> None:
    examples = torch.arange(6).reshape(1, 6, 1, 1)
    block = Block(torch.zeros(1, 6, 1, 1, 2), torch.zeros(1, 6, 0), torch.zeros(1, 6, 0), examples)

    def program(total: Tensor, batches: Tensor, uniforms: Tensor, normals: Tensor, rows: Tensor) -> list[Tensor]:
        return [2 * total + rows[:, 0, 0]]

    steps = CapturedSteps(program, [torch.zeros(1)], block.at(0), [], lambda function: function, together=4)
    assert steps([torch.zeros(1)], block)[0].tolist() == [sum(row * 2.0 ** (5 - row) for row in range(6))]


TRACED = {kind.id for kind in discovered()} - ALIKE


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=[] if case.name in TRACED else pytest.mark.long) for case in cases()],
)
def test_a_traced_step_gives_the_same_bits(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    traced, plain = trainer(case), trainer(case)
    plain.run(8)
    monkeypatch.setattr(engine, "_TRACE_PAYS", 2)
    made: list[Any] = []
    monkeypatch.setattr(
        engine, "traced_program", lambda *given: made.append(compiler.traced_program(*given)) or made[0]
    )
    traced._expected = 0  # nothing says how many are to come: the first two are plain
    for steps in (1, 6, 1):
        traced.run(steps)
    assert len(made) == 1
    assert traced._program is made[0]
    assert same(plain._tensors, traced._tensors)
    assert torch.equal(plain.objective_on(data(50)), traced.objective_on(data(50)))


@pytest.mark.parametrize(("iterations", "first"), [(None, 2), (5, 2), (6, 0), (60, 0)])
def test_steps_are_traced_at_once_where_enough_are_to_come(
    iterations: int | None, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_TRACE_PAYS", 2)
    one = trainer(small(CD), iterations=iterations)
    monkeypatch.setattr(engine, "traced_program", lambda step, example: made.append(one.step) or step)
    made: list[int] = []
    for _ in range(4):
        one.run(1)
    assert made == [first]


def test_where_a_block_is_cut_changes_nothing() -> None:
    whole, pieces = trainer(small(CD)), trainer(small(CD))
    whole.run(30)
    pieces.stream.block_steps = 7
    for count in (1, 6, 2, 11, 10):
        pieces.run(count)
    assert same(whole._tensors, pieces._tensors)
