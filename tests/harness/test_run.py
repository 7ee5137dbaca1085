"""Runs of a tiny suite through the command line: what they write, and what happens when something goes wrong."""

import contextlib
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from baselines import CD
from benchmark.data.datasets import checkerboard
from benchmark.measures.density import limits
from benchmark.measures.statistics import interval, written
from benchmark.records.rundir import CellFolder, Record, RunDir
from benchmark.tasks.models import MODELS
from bism import GRBM, BiDSM, log_likelihood
from bism.checkpoint import load_checkpoint
from bism.estimator import Estimator
from bism.fitted import Fitted
from bism.likelihood import grid_density
from tests.harness.tiny import (
    CORES,
    ROOT,
    TINY,
    Said,
    called,
    cell,
    command,
    journal,
    numbers,
    records,
    replaced,
    states,
    write,
)

RUN = ("run", "--suite", "tiny.yaml")
CELLS = [(variant, seed) for variant in ("CD-1", "BiDSM-5") for seed in (0, 1)]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "none"}  # of other processes
DATA = checkerboard(Path("nowhere"), 500, 200, 200)
SECONDS = 120  # the longest that anything here may take


def contents(folder: Path) -> dict[str, bytes]:
    """All files of the cells."""
    return {str(file): file.read_bytes() for file in sorted((folder / "runs" / "cells").rglob("*")) if file.is_file()}


# --- what a run writes ------------------------------------------------------------------------------------------------


def test_a_run_ends_well_and_says_what_it_did(trained: tuple[Path, Said]) -> None:
    folder, said = trained
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "suite tiny, preset test: two methods"
    assert lines[1] == f"4 cells, 0 done already, 4 to train in 2 jobs, {CORES} at once"
    ended = sorted(line.split("] ")[1].split(" in ")[0] for line in lines if line.startswith("["))
    assert ended == ["board BiDSM-5: done", "board CD-1: done"]
    table = [line.split("│")[1:6] for line in lines if line.startswith("│")]
    assert sorted(row[0].strip() for row in table) == ["BiDSM-5", "CD-1"]
    assert [row[4].strip() for row in table] == ["2", "2"]
    for name, mean, *_ in table:
        last = [journal(folder, name.strip(), seed)[-1]["metrics"]["test/log_likelihood"] for seed in (0, 1)]
        assert mean.strip() == written(*interval(last))
    assert states(folder) == dict.fromkeys(CELLS, "done")


@pytest.mark.parametrize(("variant", "seed"), CELLS)
def test_a_journal_has_every_metric_at_every_evaluation(trained: tuple[Path, Said], variant: str, seed: int) -> None:
    lines = journal(trained[0], variant, seed)
    scores = {f"{split}/{metric}" for split in ("val", "test") for metric in ("log_likelihood", "fisher_divergence")}
    cost = {"time/train_seconds", "time/wall_seconds", "time/compile_seconds", "memory/peak_bytes"}
    begun = {"train/objective", "time/ms_per_step", "time/processor_ms_per_step"}
    levels = {"val/objective"} | ({"val/lower_objective"} if variant.startswith("Bi") else set())
    assert [line["step"] for line in lines] == [0, 5, 10, 15, 20]
    assert set(lines[0]["metrics"]) == scores | cost | levels
    for line in lines[1:]:
        assert set(line["metrics"]) == scores | cost | levels | begun
    assert all(np.isfinite(list(line["metrics"].values())).all() for line in lines)
    times = [line["metrics"]["time/train_seconds"] for line in lines]
    assert times[0] == 0
    assert times == sorted(times)
    stamps = [line["time_ms"] for line in lines]
    assert stamps == sorted(stamps)
    assert abs(stamps[0] / 1000 - time.time()) < 3600
    record = next(each for each in records(trained[0]) if (each.variant, each.seed) == (variant, seed))
    assert record.train_seconds == pytest.approx(times[-1])


def test_a_cell_s_folder_says_how_to_train_it_again(trained: tuple[Path, Said]) -> None:
    for variant, seed in CELLS:
        config = cell(trained[0], variant, seed).config
        assert (config["variant"], config["seed"], config["device"]) == (variant, seed, "cpu")
        assert config["hyper"]["lr"] == 0.01
        assert config["data"]["hash"] == DATA.hash
        assert config["model"] == {"name": "grbm", "visible": 2, "hidden": 3}
        assert cell(trained[0], variant, seed).error is None


def resumed(trained: tuple[Path, Said], estimator: Estimator, seed: int, file: str, steps: int) -> Fitted:
    """Training that goes on from a checkpoint of a run."""
    path = cell(trained[0], estimator.name, seed).artifacts / file
    return estimator.fit(GRBM(2, 3), DATA.train, seeds=[seed], steps=steps, resume=path)


@pytest.mark.parametrize("estimator", [CD(lr=0.01), BiDSM(lr=0.01)], ids=["cd", "bidsm"])
def test_a_run_s_checkpoints_go_on(trained: tuple[Path, Said], estimator: Estimator) -> None:
    on = resumed(trained, estimator, 1, "last.pt", 25)
    whole = estimator.fit(GRBM(2, 3), DATA.train, seeds=[1], steps=25)
    assert on.step == whole.step == 25
    torch.testing.assert_close(on.parameters(1), whole.parameters(1), rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(on.parameters(1), resumed(trained, estimator, 1, "last.pt", 20).parameters(1))


@pytest.mark.parametrize("estimator", [CD(lr=0.01), BiDSM(lr=0.01)], ids=["cd", "bidsm"])
def test_the_best_checkpoint_is_the_one_of_the_best_validation(
    trained: tuple[Path, Said], estimator: Estimator
) -> None:
    values = {line["step"]: line["metrics"]["val/log_likelihood"] for line in journal(trained[0], estimator.name, 0)}
    best = max(values, key=lambda step: values[step])
    assert load_checkpoint(cell(trained[0], estimator.name, 0).artifacts / "best.pt")["step"] == best > 0
    fitted = resumed(trained, estimator, 0, "best.pt", best)
    assert float(fitted.log_likelihood(DATA.val).mean()) == pytest.approx(values[best], abs=1e-6)


def test_densities_of_the_first_seed_alone(trained: tuple[Path, Said]) -> None:
    wanted = [f"density_step_{step:08d}.{end}" for step in (0, 10, 20) for end in ("npz", "png")]
    for variant, seed in CELLS:
        files = sorted(file.name for file in cell(trained[0], variant, seed).artifacts.iterdir())
        assert files == sorted(["best.pt", "last.pt", *(wanted if seed == 0 else [])])


def test_a_density_is_that_of_the_model(trained: tuple[Path, Said]) -> None:
    model = resumed(trained, CD(lr=0.01), 0, "last.pt", 20).model(0)
    with np.load(cell(trained[0], "CD-1", 0).artifacts / "density_step_00000020.npz") as saved:
        first, second, points = saved["first"], saved["second"], saved["points"]
        density, step = saved["density"], int(saved["step"])
    assert step == 20
    np.testing.assert_array_equal(points, DATA.train[:2000])
    for axis, values in ((first, DATA.train[:, 0].numpy()), (second, DATA.train[:, 1].numpy())):
        assert (axis[0], axis[-1]) == pytest.approx(limits(values))
    mass = density.sum() * (first[1] - first[0]) * (second[1] - second[0])
    assert 0.05 < mass < 1
    point = torch.tensor([[first[150], second[40]]])  # v_1 is along the second axis, as in an image
    assert density[40, 150] == pytest.approx(float(log_likelihood(model, point).exp()), rel=1e-4)
    assert density[150, 40] != pytest.approx(density[40, 150], rel=1e-4)
    wide = torch.linspace(-10, 11, 401, dtype=torch.float64)
    assert float(grid_density(model, wide, wide).sum()) * (21 / 400) ** 2 == pytest.approx(1, abs=1e-3)


def test_a_density_s_picture_shows_it(trained: tuple[Path, Said]) -> None:
    import matplotlib.image

    folder = cell(trained[0], "BiDSM-5", 0).artifacts
    first, last = (matplotlib.image.imread(folder / f"density_step_000000{step}.png") for step in ("00", "20"))
    assert first.shape[:2] == (450, 840)
    assert np.abs(first - last).max() > 0.1


# --- running again ----------------------------------------------------------------------------------------------------


def test_the_same_command_again_trains_nothing(folder: Path) -> None:
    before = contents(folder)
    said = command(folder, *RUN)
    assert said.code == 0
    assert said.out.splitlines()[1] == f"4 cells, 4 done already, 0 to train in 0 jobs, {CORES} at once"
    assert "] board" not in said.out
    assert "about" not in said.out
    assert contents(folder) == before
    assert "│ BiDSM-5 │" in said.out  # the ranking is shown all the same


def test_more_seeds_train_what_is_missing_with_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    more = command(folder, *RUN, "--seeds", "0-3", "--methods", "cd")
    assert more.code == 0
    assert more.out.splitlines()[1] == "in place of the preset's: seeds 0-3 (for 0-1)"
    assert more.out.splitlines()[2] == f"4 cells, 2 done already, 2 to train in 1 job, {CORES} at once"
    assert before.items() <= contents(folder).items()
    write(tmp_path)
    assert command(tmp_path, *RUN, "--seeds", "0-3", "--methods", "cd").code == 0
    for seed in range(4):
        parts, whole = (numbers(place, "CD-1", seed) for place in (folder, tmp_path))
        for one, other in zip(parts, whole, strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert numbers(folder, "CD-1", 2) != pytest.approx(numbers(folder, "CD-1", 3)[0])


def test_rerun_trains_finished_cells_again(folder: Path) -> None:
    first = journal(folder, "CD-1", 0)
    said = command(folder, *RUN, "--methods", "cd", "--rerun")
    assert said.code == 0
    assert said.out.splitlines()[1] == f"2 cells, 0 done already, 2 to train in 1 job, {CORES} at once"
    again = journal(folder, "CD-1", 0)
    assert [line["step"] for line in again] == [0, 5, 10, 15, 20]
    assert again[0]["time_ms"] > first[-1]["time_ms"]
    assert numbers(folder, "CD-1", 0)[0]["val/objective"] == first[0]["metrics"]["val/objective"]


def test_a_dry_run_trains_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    said = command(tmp_path, *RUN, "--dry-run", "--set", "bidsm.K=10", "--steps", "7")
    assert (said.code, said.err) == (0, "")
    assert [name in said.out for name in ("BiDSM-5 [K=10,", "CD-1 [steps=7]", "inner_steps=10", "0-1")] == [True] * 4
    assert records(tmp_path) == []
    assert contents(tmp_path) == {}
    assert {file.name.split("-")[0] for file in (tmp_path / "runs").iterdir()} == {"cells", "owners", "index.sqlite"}


def test_what_differs_from_the_preset_is_said_under_its_description(tmp_path: Path) -> None:
    write(tmp_path)
    plain = command(tmp_path, *RUN, "--dry-run", "--steps", "20", "--seeds", "0-1").out
    assert "in place of" not in plain
    changed = ("--steps", "7", "--seeds", "3,5-6", "--set", "bidsm.K=10")
    said = command(tmp_path, *RUN, "--dry-run", *changed).out
    first, second = said.split("two methods\n")[0], said.split("two methods\n")[1].splitlines()[0]
    assert first.endswith("suite tiny, preset test: ")
    assert second == "in place of the preset's: 7 iterations (for 20); seeds 3,5-6 (for 0-1); bidsm.K=10"
    assert "learning rates fall" not in said
    falling = command(
        tmp_path, *RUN, "--dry-run", "--steps", "7", "--set", "cd.decay_steps=20", "--set", "bidsm.decay_steps=7"
    ).out
    assert "learning rates fall over 20 iterations all the same: --set METHOD.decay_steps=N" in falling


def test_a_task_without_a_metric_to_rank_by_says_what_it_has(tmp_path: Path) -> None:
    write(tmp_path, replaced(("    model:", "    metrics: []\n    select: val/objective\n    model:")))
    ran = command(tmp_path, *RUN, "--steps", "4", "--methods", "cd")
    for said in (ran, command(tmp_path, "status")):
        assert "board, 4 iterations" in said.out
        assert (
            "no ranking: of 2 cells no metric was measured that models are ranked by; what was: val/objective; the "
            "report" in " ".join(said.out.split())
        )


# --- things that go wrong ---------------------------------------------------------------------------------------------

PLUGIN = '''\
"""Methods that fail, each in its own way, while there is a file called broken."""
import dataclasses, itertools, os, signal
from pathlib import Path

import torch

from baselines.cd import CD
from bism.hyperparameters import number

settings = dataclasses.dataclass(frozen=True, kw_only=True)
made = itertools.count()


def broken():
    return Path("broken").exists()


@settings
class Raises(CD):
    """Its loss raises."""
    id, label, reference = "raises", "Raises", "here"

    def loss(self, *arguments):
        if broken():
            raise RuntimeError("the loss [of this method] refuses")
        return super().loss(*arguments)


@settings
class Exits(CD):
    """Ends its process."""
    id, label, reference = "exits", "Exits", "here"

    def init_carry(self, *arguments):
        return os._exit(3) if broken() else {}


@settings
class Killed(CD):
    """Is killed from outside."""
    id, label, reference = "killed", "Killed", "here"

    def init_carry(self, *arguments):
        return os.kill(os.getpid(), signal.SIGKILL) if broken() else {}


@settings
class Diverges(CD):
    """Of every two seeds the second has no finite loss at step 7."""
    id, label, reference = "diverges", "Diverges", "here"

    def init_carry(self, *arguments):
        return {"step": torch.zeros(()), "sound": torch.tensor(next(made) % 2 == 0)}

    def loss(self, params, batch, noise, carry, hyper):
        value, _, info = super().loss(params, batch, noise, carry, hyper)
        value = torch.where((carry["step"] == 7) & ~carry["sound"], torch.nan, value)
        return value, {**carry, "step": carry["step"] + 1}, info
'''
WRONG = ("raises", "exits", "killed", "diverges")
VARIANTS = "          - {method: cd}\n          - {method: bidsm}\n"


def with_methods(folder: Path, *methods: str) -> None:
    """The plug-in, and the tiny suite with these methods."""
    write(folder, replaced((VARIANTS, "".join(f"          - {{method: {name}}}\n" for name in methods))))
    write(folder, PLUGIN, "wrong.py")
    write(folder, "", "broken")


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A run in which every method but one goes wrong."""
    folder = tmp_path_factory.mktemp("failed")
    with_methods(folder, *WRONG, "cd")
    return folder, command(folder, *RUN, "--plugin", "wrong.py")


def problems(said: Said) -> list[str]:
    """What a command says of cells that ended badly."""
    return [line for line in said.out.splitlines() if line.startswith(("failed:", "diverged:", "stopped:"))]


def test_failures_stop_nothing_else(failed: tuple[Path, Said]) -> None:
    folder, said = failed
    assert (said.code, said.err) == (1, "")
    wrong = {(variant, seed): "failed" for variant in ("Raises", "Exits", "Killed") for seed in (0, 1)}
    sound = {("CD-1", 0): "done", ("CD-1", 1): "done", ("Diverges", 0): "done"}
    assert states(folder) == {**wrong, **sound, ("Diverges", 1): "diverged"}
    assert len(journal(folder, "CD-1", 1)) == 5


def test_failures_are_listed_with_their_reasons(failed: tuple[Path, Said]) -> None:
    folder, said = failed
    reasons = {
        "Raises": "RuntimeError: the loss [of this method] refuses",
        "Exits": "the process ended with exit code 3",
        "Killed": "the process ended with signal SIGKILL",
    }
    wanted = [
        f"failed: board {variant} seed {seed}: {reason}; "
        f"see {cell(folder, variant, seed).path.relative_to(folder) / 'error.txt'}"
        for variant, reason in reasons.items()
        for seed in (0, 1)
    ]
    assert problems(said) == [*wanted, "diverged: board Diverges seed 1: not finite at step 7"]
    status = command(folder, "status")
    assert status.code == 1
    assert problems(status) == problems(said)
    assert status.out.splitlines()[0] == "suite tiny, preset test: 6 failed, 3 done, 1 diverged"


def test_a_failed_cell_has_the_traceback(failed: tuple[Path, Said]) -> None:
    folder, _ = failed
    line = 1 + PLUGIN.splitlines().index('            raise RuntimeError("the loss [of this method] refuses")')
    for seed in (0, 1):
        text = cell(folder, "Raises", seed).error or ""
        assert text.startswith("Traceback (most recent call last):")
        assert f'wrong.py", line {line}, in loss' in text
        assert text.strip().endswith("RuntimeError: the loss [of this method] refuses")
        assert cell(folder, "Exits", seed).error == "the process ended with exit code 3\n"
        assert cell(folder, "Killed", seed).error == "the process ended with signal SIGKILL\n"


def test_a_diverged_seed_ends_its_journal_and_is_not_averaged(failed: tuple[Path, Said]) -> None:
    folder, said = failed
    sound, diverged = (journal(folder, "Diverges", seed) for seed in (0, 1))
    assert [line["step"] for line in sound] == [0, 5, 10, 15, 20]
    assert [line["step"] for line in diverged] == [0, 5, 10]
    (row,) = [line.split("│")[1:] for line in said.out.splitlines() if line.startswith("│ Diverges")]
    assert row[4].strip() == "1 (+1 diverged)"
    assert float(row[1]) == pytest.approx(sound[-1]["metrics"]["test/log_likelihood"], abs=6e-4)
    assert row[2].strip() == "-"
    names = [line.split("│")[1].strip() for line in said.out.splitlines() if line.startswith("│")]
    assert sorted(names) == ["CD-1", "Diverges"]  # what failed is not in the ranking


def test_a_diverged_seed_does_not_touch_the_others(failed: tuple[Path, Said]) -> None:
    sound, plain = (numbers(failed[0], variant, 0) for variant in ("Diverges", "CD-1"))
    for one, other in zip(sound, plain, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_failed_cells_are_tried_again_and_finished_ones_are_not(failed: tuple[Path, Said], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(failed[0], tmp_path / "copy"))
    (folder / "broken").unlink()
    diverged = journal(folder, "Diverges", 1)
    said = command(folder, *RUN, "--plugin", "wrong.py", "--methods", "raises", "killed", "diverges")
    assert said.out.splitlines()[1] == f"6 cells, 2 done already, 4 to train in 2 jobs, {CORES} at once"
    assert said.code == 1  # for the diverged one
    assert {states(folder)[variant, seed] for variant in ("Raises", "Killed") for seed in (0, 1)} == {"done"}
    assert problems(said) == ["diverged: board Diverges seed 1: not finite at step 7"]
    assert cell(folder, "Raises", 0).error is None
    assert journal(folder, "Diverges", 1) == diverged


def test_a_run_of_diverged_seeds_alone(tmp_path: Path) -> None:
    with_methods(tmp_path, "diverges")
    write(tmp_path, PLUGIN.replace("% 2 == 0", "< 0"), "wrong.py")
    said = command(tmp_path, *RUN, "--plugin", "wrong.py")
    assert said.code == 1
    assert set(states(tmp_path).values()) == {"diverged"}
    (row,) = [line.split("│")[1:] for line in said.out.splitlines() if line.startswith("│ Diverges")]
    assert [text.strip() for text in row[:5]] == ["Diverges", "-", "-", "-", "0 (+2 diverged)"]


# --- several processes ------------------------------------------------------------------------------------------------


def claim_and_die(folder: Path, cell: str) -> None:
    """A process takes a cell, finished or not, and ends without a word."""
    code = (
        "import os, sys; from benchmark.records.rundir import RunDir\n"
        "RunDir(sys.argv[1]).claim(sys.argv[2:], True); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), cell], env=ENVIRONMENT, timeout=SECONDS)


@contextlib.contextmanager
def held(folder: Path, cell: str) -> Iterator[None]:
    """Inside, another process holds a cell."""
    code = (
        "import sys; from benchmark.records.rundir import RunDir\n"
        "runs = RunDir(sys.argv[1]); runs.claim(sys.argv[2:], True)\n"
        "print('held', flush=True); sys.stdin.readline()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), cell],
        env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield
    finally:
        process.communicate("\n", timeout=SECONDS)


def a_record(cell: str) -> Record:
    return Record(cell, "tiny", "test", "board", "cd", "CD-1", 0, 20, "planned")


def test_two_claims_do_not_overlap(tmp_path: Path) -> None:
    ids = [f"cell{i}" for i in range(6)]
    with contextlib.closing(RunDir(tmp_path)) as mine, contextlib.closing(RunDir(tmp_path)) as theirs:
        mine.plan(map(a_record, ids))
        theirs.plan(map(a_record, ids))
        assert len(mine.records()) == 6
        assert mine.claim(ids[:4]) == ids[:4]
        assert theirs.claim(ids) == ids[4:]
        assert mine.claim(ids, again=True) == []
        mine.set_state("cell0", "done")
        mine.set_state("cell1", "failed", "reason")
        assert theirs.claim(ids) == ["cell1"]
        assert theirs.claim(ids, again=True) == ["cell0"]


@pytest.mark.long
def test_claims_of_processes_do_not_overlap(tmp_path: Path) -> None:
    ids = [f"cell{i}" for i in range(200)]
    with contextlib.closing(RunDir(tmp_path)) as runs:
        runs.plan(map(a_record, ids))
    code = (
        "import sys, time; from benchmark.records.rundir import RunDir\n"
        "runs = RunDir(sys.argv[1]); print('ready', flush=True); sys.stdin.readline()\n"
        "print(*[i for i in map('cell{}'.format, range(200)) if runs.claim([i])]); sys.stdout.flush()\n"
        "sys.stdin.readline()"  # a process that has ended holds nothing
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    claimed: list[str] = []
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        assert process.stdout is not None
        claimed += process.stdout.readline().split()
    for process in both:
        process.communicate("\n", timeout=SECONDS)
    assert sorted(claimed) == sorted(ids)


def test_a_running_cell_is_free_once_its_process_has_ended(tmp_path: Path) -> None:
    with contextlib.closing(RunDir(tmp_path)) as runs:
        runs.plan([a_record("one"), a_record("two")])
        claim_and_die(tmp_path, "one")
        with held(tmp_path, "two"):
            assert [record.state for record in runs.records()] == ["running", "running"]
            assert runs.claim(["one", "two"]) == ["one"]
        assert runs.claim(["one", "two"]) == ["two"]


@pytest.mark.parametrize("clock", [0.0, 4e9])
def test_a_clock_that_jumps_frees_and_blocks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: float
) -> None:
    with contextlib.closing(RunDir(tmp_path)) as runs:
        runs.plan([a_record("one"), a_record("two")])
        claim_and_die(tmp_path, "one")
        with held(tmp_path, "two"):
            monkeypatch.setattr(time, "time", lambda: clock)
            assert runs.claim(["one", "two"]) == ["one"]


def test_what_a_dead_process_left_is_repaired(tmp_path: Path) -> None:
    with contextlib.closing(RunDir(tmp_path)) as runs, contextlib.closing(RunDir(tmp_path)) as others:
        runs.plan(map(a_record, ("one", "two", "three", "four")))
        claim_and_die(tmp_path, "one")
        assert runs.claim(["two"]) == ["two"]
        with held(tmp_path, "three"):
            assert others.repair() == ["one"]
        assert [record.state for record in runs.records()] == ["stopped", "running", "running", "planned"]
        assert runs.repair() == ["three"]
        assert runs.records()[0].message == "its process ended without a word"


def test_an_index_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "index.sqlite")) as index, index:
        index.execute(
            "CREATE TABLE cells (id TEXT PRIMARY KEY, suite TEXT, preset TEXT, task TEXT, method TEXT, variant TEXT, "
            "seed INTEGER, steps INTEGER, state TEXT, owner TEXT, updated REAL, message TEXT, train_seconds REAL)"
        )
        index.execute("INSERT INTO cells VALUES ('one','s','p','t','m','v',0,20,'done','h:1',0.0,NULL,1.5)")
    with contextlib.closing(RunDir(tmp_path)) as runs:
        (record,) = runs.records()
        assert (record.id, record.state, record.progress, record.job) == ("one", "done", 0, None)
        runs.set_progress(["one"], 5)
        assert runs.records()[0].progress == 5


def id_of(folder: Path, variant: str, seed: int) -> str:
    (found,) = [record.id for record in records(folder) if (record.variant, record.seed) == (variant, seed)]
    return found


def test_a_cell_of_a_dead_process_is_trained_again(folder: Path) -> None:
    cell(folder, "CD-1", 0).proof.unlink()  # as whoever trains it again does first
    claim_and_die(folder / "runs", id_of(folder, "CD-1", 0))
    assert states(folder)["CD-1", 0] == "running"
    said = command(folder, *RUN)
    assert said.code == 0
    assert said.out.splitlines()[1] == f"4 cells, 3 done already, 1 to train in 1 job, {CORES} at once"
    assert states(folder) == dict.fromkeys(CELLS, "done")


def test_a_cell_of_a_live_process_is_left_to_it(folder: Path) -> None:
    before = contents(folder)
    with held(folder / "runs", id_of(folder, "CD-1", 0)):
        said = command(folder, *RUN)
        assert said.code == 1
        assert "board CD-1: 1 cells are another process's\n" in said.out
        assert states(folder)["CD-1", 0] == "running"
    assert contents(folder) == before


def test_a_journal_cut_short_by_a_crash_is_read_up_to_there(tmp_path: Path) -> None:
    path = CellFolder(tmp_path)
    path.append(0, {"x": 1.0})
    path.append(5, {"x": float("nan")})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "ti')
    assert [line.step for line in path.measurements()] == [0, 5]
    assert [line.step for line in path.measurements(skip=1)] == [5]
    assert np.isnan(path.measurements()[1].metrics["x"])


# --- data and models of the user's own --------------------------------------------------------------------------------


def test_data_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "points.npy", np.random.RandomState(0).normal(size=(100, 5)))
    entry = "name: checkerboard, train: 500, val: 200, test: 200"
    write(tmp_path, replaced((entry, "file: points.npy, split: [0.6, 0.2, 0.2]")))
    said = command(tmp_path, *RUN, "--methods", "cd", "--seeds", "0")
    assert (said.code, said.err) == (0, "")
    config = cell(tmp_path, "CD-1", 0).config
    sizes = {"train": 60, "val": 20, "test": 20, "shape": [5]}
    assert {key: config["data"][key] for key in ("name", *sizes)} == {"name": "points", **sizes}
    assert config["model"]["visible"] == 5
    evaluated = [line["step"] for line in journal(tmp_path, "CD-1", 0)]
    assert len(evaluated) == 5
    shown = {file.name for file in cell(tmp_path, "CD-1", 0).artifacts.iterdir()} - {"best.pt", "last.pt"}
    assert shown == {f"marginals_step_{step:08d}.{kind}" for step in evaluated[::2] for kind in ("npz", "png")}


def test_a_missing_data_file_stops_everything(tmp_path: Path) -> None:
    write(tmp_path, replaced(("name: checkerboard, train: 500, val: 200, test: 200", "file: points.npy")))
    said = command(tmp_path, *RUN)
    assert said.code == 2
    assert (
        said.err
        == "error: points.npy: no such file; data.file must name an .npy file with an array [n, D] or of images\n"
    )
    assert not (tmp_path / "runs").exists()


def test_a_model_that_a_plug_in_names(tmp_path: Path) -> None:
    write(
        tmp_path,
        replaced(("name: grbm, hidden: 3", "name: centred, hidden: 3"), ("  - {method: cd}", "  - {method: sm}")),
    )
    write(tmp_path, '''\
import dataclasses
from baselines.cd import CD
from benchmark.tasks.models import MODELS
from bism import GRBM

class Centred(GRBM):
    def reset_parameters(self):
        super().reset_parameters()
        self.b.data.fill_(0.5)

MODELS["centred"] = Centred

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(CD):
    """A plug-in has a method."""
    id, label, reference = "mine", "Mine", "here"
''', "mine.py")  # fmt: skip
    with mock.patch.dict(MODELS):  # this process imports the plug-in too
        said = command(tmp_path, *RUN, "--plugin", "mine.py", "--methods", "sm", "--seeds", "0")
    assert (said.code, said.err) == (0, "")
    assert cell(tmp_path, "SM", 0).config["model"]["name"] == "centred"


# --- the other commands -----------------------------------------------------------------------------------------------


def test_status_of_a_finished_run(trained: tuple[Path, Said]) -> None:
    said = command(trained[0], "status")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "suite tiny, preset test: 4 done"
    assert lines[1].strip() == "board: preset test"
    rows = [line for line in lines if line.startswith("│")]
    assert rows == [line for line in trained[1].out.splitlines() if line.startswith("│")]


def test_status_of_several_presets(folder: Path) -> None:
    other = TINY + TINY[TINY.index("  test:") :].replace("  test:", "  more:", 1)
    write(folder, other)
    assert command(folder, *RUN, "--preset", "more", "--methods", "cd", "--seeds", "4").code == 0
    said = command(folder, "status")
    assert said.code == 0
    assert "suite tiny, preset test: 4 done\n" in said.out
    assert "suite tiny, preset more: 1 done\n" in said.out


def test_status_ranks_other_numbers_of_iterations_apart_and_keeps_the_label(folder: Path) -> None:
    write(folder, replaced(("two methods", "two methods\n    label: a smoke ranking, [not] a result")))
    assert command(folder, *RUN, "--methods", "cd", "--steps", "5").code == 0
    said = command(folder, "status")
    titles = [line.strip() for line in said.out.splitlines() if line.strip().startswith("board")]
    assert titles == ["board: preset test", "board, 5 iterations: preset test, a smoke ranking, [not] a result"]
    first, second = said.out.split(titles[1])
    assert "steps=5" not in first
    assert "CD-1 [steps=5]" in second
    assert "BiDSM" not in second


def test_status_does_not_average_what_a_changed_suite_file_trained(folder: Path) -> None:
    write(folder, replaced(("{lr: 0.01}", "{lr: 0.02}")))
    assert command(folder, *RUN, "--methods", "cd").code == 0
    said = command(folder, "status")
    rows = [line.split("│")[1:] for line in said.out.splitlines() if line.startswith("│ CD-1")]
    assert [row[4].strip() for row in rows] == ["2", "2"]


@pytest.mark.parametrize("arguments", [[], ["--run-dir", "elsewhere"]])
def test_status_of_no_run_directory(tmp_path: Path, arguments: list[str]) -> None:
    said = command(tmp_path, "status", *arguments)
    place = arguments[-1] if arguments else "runs"
    assert (said.code, said.out) == (2, "")
    makes = called(tmp_path, "run")
    assert said.err == f"error: {place}: no run directory; `{makes}` makes one, --run-dir names another\n"
    assert not (tmp_path / place).exists()


def test_sync_and_ui_need_a_store(folder: Path) -> None:
    assert command(folder, "sync").err == "error: sync needs a tracking store, and --tracking-uri is none\n"
    assert command(folder, "ui").err == "error: ui needs a tracking store, and --tracking-uri is none\n"
    assert command(folder, "sync").code == command(folder, "ui").code == 2


def test_list_shows_suites_methods_and_hyper_parameters(tmp_path: Path) -> None:
    write(tmp_path, PLUGIN, "wrong.py")
    said = command(tmp_path, "list", "--plugin", "wrong.py")
    assert (said.code, said.err) == (0, "")
    for text in (
        "suite grbm: Gaussian restricted Boltzmann machines",
        "  task checkerboard: The paper's 2 x 2 checkerboard",
        "  preset paper (default): the paper's settings",
        "  preset quick: one variant per method",
        "Bao et al. 2020, eq. 4 and 8-15",
        "unroll_steps (N) = 5: unrolled steps on the",
        "sigma (σ) = 0.05: standard deviation of the",
        "│ raises ",
    ):
        assert text in said.out, text
    assert "searched" not in said.out
    shared = ("beta1 = 0.9", "learning rate of the model")
    assert [said.out.count(text) for text in shared] == [1, 1]


@pytest.mark.parametrize("columns", ["60", "80", "140"])
def test_list_shows_a_suite_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    without = "        steps: 20\n        without: {nce: its noise is far from these points}"
    more = "- {method: cd, set: {k: [1, 20]}}\n          - {method: cd, set: {lr: [0.03, 0.1]}}"
    write(tmp_path, replaced(("        steps: 20", without), ("- {method: cd}", more)))
    said = command(tmp_path, "list", "tiny.yaml")
    assert (said.code, said.err) == (0, "")
    assert max(map(len, said.out.splitlines())) <= int(columns)
    text = " ".join(said.out.replace("│", " ").split())
    for part in ("suite tiny: a tiny suite", "task board: points of the checkerboard", "model grbm hidden=3", "0-1",
                 "preset test (default): two methods", "CD-1", "CD-20", "k=20", "[β=0.03]", "[β=0.1]", "BiDSM-5",
                 "β=0.01", "20",                 "board: without nce: its noise is far from these points"):  # fmt: skip
        assert part in text, part
    assert "methods" not in text.replace("two methods", "")


def test_list_names_the_choices_of_a_hyper_parameter_and_the_model_of_a_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write(tmp_path, replaced(("- {method: bidsm}", "- {method: bidsm, model: {name: mlp_eblvm, hidden: 2, width: 3}}"),
                             ("hidden: 3}", "hidden: 3}\n    metrics: [log_likelihood]")))  # fmt: skip
    assert "model=mlp_eblvm, hidden=2, width=3" in command(tmp_path, "list", "tiny.yaml").out
    text = " ".join(command(tmp_path, "list").out.replace("│", " ").split())
    assert "hypergradient = unroll (or implicit, neumann): through N" in text
    assert "covariance = unbiased (or biased, none): of the scores" in text


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmark.commands.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("bism-benchmark ")


def test_a_run_says_what_to_look_at_next(tmp_path: Path) -> None:
    other = TINY[TINY.index("  test:\n") :].replace("  test:", "  small:").replace("steps: 20", "steps: 3")
    write(tmp_path, TINY + other)
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--preset", "small")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[-2:] == [
        "what to look at next:",
        f"  train two methods: {called(tmp_path, 'run --suite tiny.yaml --preset test')} "
        + said.out.splitlines()[-1].partition("--preset test ")[2],
    ]
    assert re.search(r"\(about \d+ s, by what has been trained here\)$", said.out.splitlines()[-1])
    elsewhere = ("--run-dir", "the other", "--tracking-uri", "sqlite:///mine.db")
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--preset", "small", *elsewhere)
    assert f"run --suite tiny.yaml --preset test {shlex.join(elsewhere)} (" in said.out.splitlines()[-1]
    main_preset = command(tmp_path, "run", "--suite", "tiny.yaml", "--methods", "cd")
    assert "what to look at next" not in main_preset.out


def test_list_shows_the_search_spaces(tmp_path: Path) -> None:
    said = command(tmp_path, "list", "--spaces")
    rows = {tuple(part.strip() for part in line.split("│")[1:5]) for line in said.out.splitlines()}
    wanted = {
        ("bidsm", "lr", "β", "0.0001 to 0.1, logarithmic"),
        ("bidsm", "inner_steps", "K", "0 to 20"),
        ("bidsm", "unroll_steps", "N", "0, 1, 2, 5, 10"),
        ("cd", "k", "k", "1, 2, 5, 10, 20"),
    }
    assert wanted <= rows


def test_the_doctor_says_what_works(tmp_path: Path) -> None:
    said = command(tmp_path, "doctor", "--data-dir", str(tmp_path / "data"), "--run-dir", "there")
    found = {
        line[4:26].strip(): (line[:4].strip(), line[26:].strip()) for line in said.out.splitlines() if line[:4].strip()
    }
    assert (said.code, said.err) == (0, "")
    assert found["torch"] == ("ok", torch.__version__)
    assert found["cores"] == ("ok", f"{CORES} for this process, so as many jobs at once")
    assert found["tracking store"] == ("ok", "none: the run directory alone")
    assert found["run directory"][0] == "ok"
    assert found["data set digits"] == ("ok", "1297/250/250, sha256 58d7e865c6ec, bundled with scikit-learn")
    for name in ("freyface", "mnist", "cifar10"):
        assert found[f"data set {name}"][0] == "no"
        assert found[f"data set {name}"][1].startswith("missing; to fetch it: ")
        assert called(tmp_path, f"data download {name}") in " ".join(said.out.split())  # over two lines
    assert not (tmp_path / "there").exists()


def test_the_doctor_finds_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.commands import doctor

    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "a-package-that-is-not-there"))
    monkeypatch.setenv("CXX", "no-compiler")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(doctor, "CATALOGUE", {})
    lines = {what: (works, detail) for what, works, detail in doctor.examine(None, tmp_path, "none")}
    missing = "a-package-that-is-not-there"
    assert lines[missing] == (False, f"not installed: pip install {missing}")
    assert lines["C++ compiler"][0] is False


def test_mlflow_is_not_imported_where_tracking_is_off(trained: tuple[Path, Said]) -> None:
    code = (
        "import json, sys; from benchmark.commands.cli import main\n"
        "code = main(['run', '--suite', 'tiny.yaml', '--tracking-uri', 'none'])\n"
        "print(json.dumps([code, 'mlflow' in sys.modules, 'benchmark.running.supervisor' in sys.modules]))"
    )
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=trained[0], env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.stderr == ""
    assert json.loads(done.stdout.splitlines()[-1]) == [0, False, True]
    assert not list(trained[0].glob("mlflow*"))
