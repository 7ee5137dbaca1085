"""What breaks while real cells train: nothing that was trained is lost, and the end is that of an undisturbed run."""

import contextlib
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from tests.harness.faults import (
    CELLS,
    RUN,
    STEPS,
    SUITE,
    ended,
    exactly_once,
    finish,
    killed_after_a_checkpoint,
    left_alone,
    progress,
    same_end,
    started,
    tracked,
    tracks,
    until,
    workers,
)
from tests.harness.tiny import called, cell, command, records, replaced, states, write


def children(process: "subprocess.Popen[str]", word: str) -> list[psutil.Process]:
    """The command's own processes with this word on their command line."""
    found = []
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.Error):  # it has ended
            if word in " ".join(child.cmdline()):
                found.append(child)
    return found


# --- killed, stopped --------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_killed_jobs_go_on_by_themselves(tmp_path: Path, whole: Path) -> None:
    write(tmp_path, SUITE)
    with started(tmp_path) as process:
        until(process, lambda: progress(tmp_path) > 0)
        for worker in workers(process):
            worker.kill()
        said = ended(process)
    assert (said.code, said.err) == (0, "")
    assert "the process ended with signal SIGKILL; it goes on from its last checkpoint" in said.out
    assert "goes on from iteration" in said.out
    same_end(tmp_path, whole)


def test_a_killed_run_goes_on_with_the_same_command(tmp_path: Path, whole: Path) -> None:
    killed_after_a_checkpoint(tmp_path)
    assert set(states(tmp_path).values()) == {"running"}
    at = progress(tmp_path)
    dry = command(tmp_path, *RUN, "--dry-run")
    assert "4 cells, 0 done already, 4 to go on with, 0 to train in 2 jobs" in dry.out
    assert set(states(tmp_path).values()) == {"running"}  # who only looks mends nothing
    assert "goes on from iteration" in finish(tmp_path).out
    assert 0 < at < 4 * STEPS
    same_end(tmp_path, whole)


def test_ctrl_c_stops_after_a_checkpoint_and_the_same_command_goes_on(tmp_path: Path, whole: Path) -> None:
    write(tmp_path, SUITE)
    with started(tmp_path, "--checkpoint-every", "1000") as process:
        until(process, lambda: len(list(tmp_path.glob("runs/cells/*/metrics.jsonl"))) == len(CELLS))
        os.killpg(process.pid, signal.SIGINT)
        said = ended(process)
    assert (said.code, said.err) == (130, "interrupted\n")
    assert said.out.splitlines()[-2] == "stopped; the same command goes on from here:"
    assert said.out.splitlines()[-1].startswith(f"  {called(tmp_path, 'run --suite tiny.yaml')}")
    assert set(states(tmp_path).values()) == {"stopped"}
    assert all(record.progress > 0 for record in records(tmp_path))
    status = command(tmp_path, "status")
    assert status.code == 1
    assert "stopped: board CD-1 seed 0: at iteration" in status.out
    finish(tmp_path)
    same_end(tmp_path, whole)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
@pytest.mark.parametrize(
    ("number", "more"),
    [(signal.SIGTERM, ()), (signal.SIGHUP, ()), (signal.SIGTERM, ("--methods", "cd", "--data-parallel", "2"))],
)
def test_what_a_batch_system_and_a_closed_terminal_send_is_ctrl_c(
    tmp_path: Path, number: signal.Signals, more: tuple[str, ...]
) -> None:
    write(tmp_path, SUITE)
    longer = ("--steps", "2900")  # and not so long that it were compiled
    with started(tmp_path, *longer, "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", *more) as process:
        until(process, lambda: progress(tmp_path) > 0)
        os.killpg(process.pid, number)  # jobs and the writer hear it as well
        assert ended(process).code == 130
    assert set(states(tmp_path).values()) == {"stopped"}
    assert {run.info.status for run in tracked(f"sqlite:///{tmp_path}/mlflow.db").values()} == {"KILLED"}


@pytest.mark.long
def test_a_run_whose_fork_server_is_killed(tmp_path: Path, whole: Path) -> None:
    write(tmp_path, SUITE)
    with started(tmp_path) as process:
        until(process, lambda: progress(tmp_path) > 0)
        for child in children(process, "forkserver"):
            child.kill()
        said = ended(process)
    assert (said.code, said.err) == (0, "")
    same_end(tmp_path, whole)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
@pytest.mark.parametrize("when", ["at its start", "later"])
def test_a_writer_that_is_killed_is_replaced(tmp_path: Path, when: str) -> None:
    write(tmp_path, SUITE)
    store = f"sqlite:///{tmp_path}/mlflow.db"

    with started(tmp_path, "--tracking-uri", store) as process:
        writers = functools.partial(children, process, "spawn_main")
        until(process, lambda: bool(writers()) and (when == "at its start" or progress(tmp_path) > 0))
        writers()[0].kill()
        said = ended(process)
    assert (said.code, said.err) == (0, "")
    assert ("another goes on" in said.out) == (when == "later")
    exactly_once(tmp_path, store)


@pytest.mark.long
@pytest.mark.timeout(900)  # six starts
@pytest.mark.parametrize("whom", ["worker", "main"])
def test_killed_again_and_again(tmp_path: Path, whole: Path, whom: str) -> None:
    write(tmp_path, SUITE)
    chance = random.Random(whom)
    for _ in range(5):
        with started(tmp_path) as process:
            before = progress(tmp_path)
            with contextlib.suppress(AssertionError):  # it may end before
                until(process, lambda before=before: progress(tmp_path) > before)  # type: ignore[misc]
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.random())
                if whom == "main":
                    process.kill()
                else:
                    for worker in workers(process):
                        worker.kill()
                    ended(process)
    finish(tmp_path)
    same_end(tmp_path, whole)


SLOW = SUITE.replace("chains: 5, steps: [3]", "chains: 50, steps: [2000]")  # to measure


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    write(folder, SLOW)
    finish(folder)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("whom", ["worker", "main"])
def test_killed_during_a_probe(tmp_path: Path, measured: Path, whom: str) -> None:
    """What an expensive measurement was at is measured once, and the end is the same."""
    write(tmp_path, SLOW)
    with started(tmp_path) as process:
        until(process, lambda: any(record.progress == 400 for record in records(tmp_path)))  # saved before the probe
        (process if whom == "main" else workers(process)[0]).kill()
        if whom == "main":
            left_alone(tmp_path)
        else:
            assert ended(process).code == 0
    assert "damaged" not in command(tmp_path, "status").out
    finish(tmp_path)
    same_end(tmp_path, measured)


# --- tracking ---------------------------------------------------------------------------------------------------------


def store_of(folder: Path) -> tuple[str, str]:
    return "--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
def test_a_killed_run_is_tracked_once(tmp_path: Path, whole: Path) -> None:
    write(tmp_path, SUITE)
    with started(tmp_path, *store_of(tmp_path)) as process:
        uri = store_of(tmp_path)[1]
        until(process, lambda: progress(tmp_path) > 0 and tracks(tmp_path / "mlflow.db"))  # while it trains
        assert {run.info.status for run in tracked(uri).values()} <= {"RUNNING", "FINISHED"}
        process.kill()
        left_alone(tmp_path)
    said = command(tmp_path, "sync", *store_of(tmp_path))
    assert (said.code, said.err) == (0, "")
    assert {run.info.status for run in tracked(uri).values()} <= {"KILLED", "FINISHED"}
    said = command(tmp_path, *RUN, *store_of(tmp_path))
    assert (said.code, said.err) == (0, "")
    same_end(tmp_path, whole)
    exactly_once(tmp_path, uri)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_unreachable_server_costs_nothing(tmp_path: Path, whole: Path) -> None:
    write(tmp_path, SUITE)
    with socket.socket() as taken:  # and not listening
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        said = command(tmp_path, *RUN, "--tracking-uri", uri)
    assert (said.code, said.err) == (0, "")
    assert f"warning: tracking store {uri} cannot be reached: " in said.out
    assert f"the tracking store lacks some of it: {called(tmp_path, f'sync --tracking-uri {uri}')}" in said.out
    same_end(tmp_path, whole)
    assert command(tmp_path, "sync", *store_of(tmp_path)).code == 0
    exactly_once(tmp_path, store_of(tmp_path)[1])


# --- checkpoints that are no good -------------------------------------------------------------------------------------


def flip_a_bit(file: Path) -> None:
    """Of a number: torch reads such a file as if nothing had happened."""
    with zipfile.ZipFile(file) as archive:
        tensor = next(entry for entry in archive.infolist() if "/data/" in entry.filename)
        number = archive.read(tensor)
    content = bytearray(file.read_bytes())
    content[content.index(number, tensor.header_offset)] ^= 1
    file.write_bytes(content)
    torch.load(file, weights_only=True)


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("broken_off")
    killed_after_a_checkpoint(folder)
    return folder


@pytest.mark.parametrize(
    "how", ["flipped", *(pytest.param(how, marks=pytest.mark.long) for how in ("truncated", "both", "gone"))]
)
def test_a_bad_checkpoint_is_said_and_left_out(tmp_path: Path, broken_off: Path, whole: Path, how: str) -> None:
    folder = Path(shutil.copytree(broken_off, tmp_path / "copy"))
    command(folder, "status")
    newest, previous = cell(folder, "CD-1", 1).checkpoints
    if how in ("flipped", "both"):
        flip_a_bit(newest)
    if how == "truncated":
        os.truncate(newest, newest.stat().st_size // 2)
    if how == "both":
        flip_a_bit(previous)
    if how == "gone":
        newest.unlink()
        previous.unlink()
    said = finish(folder)
    lines = [line for line in said.out.splitlines() if line.startswith("board CD-1: ")]
    if how != "gone":
        assert "a checkpoint is left out" in lines[0]
        assert str(newest.name) in lines[0]
    if how == "both":
        assert lines[2] == "board CD-1: no whole checkpoint is left: starts again"
    elif how != "gone":
        assert lines[1].startswith("board CD-1: goes on from iteration")
    same_end(folder, whole)


@pytest.mark.long
def test_a_journal_that_has_lost_lines_is_not_gone_on_with(tmp_path: Path, broken_off: Path, whole: Path) -> None:
    folder = Path(shutil.copytree(broken_off, tmp_path / "copy"))
    (cell(folder, "DSM", 0).path / "metrics.jsonl").write_text("")
    said = finish(folder)
    assert "its journal has lost lines since" in said.out
    assert "board DSM: no whole checkpoint is left: starts again" in said.out
    same_end(folder, whole)


# --- memory, hangs ----------------------------------------------------------------------------------------------------

PLUGIN = '''\
"""Methods that need too much memory, or hang."""
import dataclasses, itertools, signal

from baselines.cd import CD

settings = dataclasses.dataclass(frozen=True, kw_only=True)
made = itertools.count(1)


@settings
class Large(CD):
    """Has memory for one seed alone."""
    id, label, reference = "large", "Large", "here"

    def init_carry(self, *arguments):
        if next(made) > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
        return {}


@settings
class Huge(CD):
    """Has memory for no seed."""
    id, label, reference = "huge", "Huge", "here"

    def init_carry(self, *arguments):
        raise MemoryError("not even one")


@settings
class Hangs(CD):
    """Never gets anywhere."""
    id, label, reference = "hangs", "Hangs", "here"

    def loss(self, *arguments):
        while True:
            signal.pause()
'''


def with_method(folder: Path, name: str) -> tuple[str, ...]:
    write(folder, PLUGIN, "mine.py")
    variants = "          - {method: cd}\n          - {method: bidsm}"
    write(folder, replaced((variants, f"          - {{method: {name}}}")))
    return *RUN, "--plugin", "mine.py"


def test_out_of_memory_is_tried_with_fewer_seeds(tmp_path: Path) -> None:
    said = command(tmp_path, *with_method(tmp_path, "large"), "--seeds", "0-2")
    assert said.code == 0
    assert said.out.count("tried again with half") == 2  # three seeds, one and two, one and one
    assert states(tmp_path) == {("Large", seed): "done" for seed in range(3)}


def test_out_of_memory_with_one_seed_is_a_failure(tmp_path: Path) -> None:
    said = command(tmp_path, *with_method(tmp_path, "huge"))
    assert said.code == 1
    assert [f"failed: board Huge seed {seed}: MemoryError: not even one" in said.out for seed in (0, 1)] == [True] * 2


def test_a_job_that_hangs_is_ended(tmp_path: Path) -> None:
    said = command(tmp_path, *with_method(tmp_path, "hangs"), "--stall-limit", "0.05")
    assert said.code == 1
    reason = "gave no sign of life for 0.05 minutes and was ended (--stall-limit)"
    assert f"failed: board Hangs seed 0: {reason}" in said.out
    assert set(states(tmp_path).values()) == {"failed"}


@pytest.mark.long
def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    arguments = with_method(tmp_path, "hangs")
    with started(tmp_path, *arguments[len(RUN) :]) as process:
        until(process, lambda: len(list(tmp_path.glob("runs/cells/*/config.json"))) == 2)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout is not None
        while "Ctrl-C again stops at once" not in process.stdout.readline():
            pass
        os.killpg(process.pid, signal.SIGINT)
        said = ended(process)
    assert (said.code, said.err) == (130, "interrupted\n")
    assert set(states(tmp_path).values()) == {"stopped"}


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_two_runs_of_one_suite_share_the_work(tmp_path: Path, whole: Path) -> None:
    write(tmp_path, SUITE)
    with started(tmp_path) as one, started(tmp_path) as other:
        for process in (one, other):
            said = ended(process)
            assert said.err == ""
    assert "another process's" in said.out or said.code == 0
    same_end(tmp_path, whole)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system in memory, where that is allowed."""
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if mount.returncode:
        pytest.skip(f"mount: {mount.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.long
def test_a_full_disk(tmp_path: Path, whole: Path) -> None:
    write(tmp_path, SUITE)
    runs = tmp_path / "runs"
    runs.mkdir()
    with mounted(runs, "size=400k"):
        said = command(tmp_path, *RUN)
        assert said.code == 1
        assert "no space left on device" in said.out.lower() or "full" in said.err
        assert "Traceback" not in said.out + said.err
        kept = Path(shutil.copytree(runs, tmp_path / "kept"))
    shutil.copytree(kept, runs, dirs_exist_ok=True)
    finish(tmp_path)
    same_end(tmp_path, whole)


@pytest.mark.long
def test_a_run_directory_that_cannot_be_written(tmp_path: Path) -> None:
    write(tmp_path, SUITE)
    runs = tmp_path / "runs"
    runs.mkdir()
    with mounted(runs, "size=4m,ro"):
        said = command(tmp_path, *RUN)
    assert said.code == 2
    assert said.err == "error: run directory runs cannot be written: runs/cells: read-only file system\n"
    assert said.err.count("\n") == 1
