"""What ends a command, what does not, and whom it does not concern."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.running import executors
from benchmark.running.executors import DeviceSlots, JobProcess, LocalExecutor
from benchmark.running.job import JobSettings
from benchmark.system.signals import deaf, ended_as_by_ctrl_c
from tests.harness.tiny import ROOT, write

BOTH = (signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_DFL) for number in BOTH}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", BOTH)
def test_what_asks_a_command_to_end_is_ctrl_c(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), ended_as_by_ctrl_c():
        signal.raise_signal(number)
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_terminal_goes_only_once() -> None:
    with ended_as_by_ctrl_c():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)  # no second Ctrl-C, which would not wait for checkpoints


def test_what_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    with ended_as_by_ctrl_c():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_nobody_writes_to_a_terminal_that_has_gone(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from benchmark.system.signals import ended_as_by_ctrl_c\n"
        "try:\n"
        "    with ended_as_by_ctrl_c():\n"
        "        print('ready', flush=True)\n"
        "        signal.pause()\n"
        "except KeyboardInterrupt:\n"
        "    print('the last words', flush=True)\n"
        "    open(sys.argv[1], 'w').write('written')\n"
    )
    terminal, other = os.openpty()
    end = tmp_path / "end"
    command = [sys.executable, "-c", program, str(end)]
    with subprocess.Popen(command, stdin=other, stdout=other, stderr=other, start_new_session=True) as process:
        os.close(other)
        assert os.read(terminal, 100).strip() == b"ready"
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    assert end.read_text() == "written"


def test_processes_that_leave_signals_to_us() -> None:
    with deaf():
        status = subprocess.check_output(["cat", "/proc/self/status"], text=True)
    blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
    assert all(blocked & 1 << (number - 1) for number in (signal.SIGINT, signal.SIGHUP))
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGINT, signal.SIGHUP}


@pytest.mark.parametrize(
    ("failures", "methods"), [(0, ["forkserver"]), (2, ["forkserver"] * 3), (3, ["forkserver"] * 3 + ["spawn"])]
)
@pytest.mark.parametrize("kind", [EOFError, BrokenPipeError, ConnectionRefusedError])
def test_a_fork_server_that_is_killed_is_replaced_or_done_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failures: int, methods: list[str], kind: type[Exception]
) -> None:
    used = list[str]()

    def started(self: JobProcess, context: Any, *_: object) -> None:
        used.append(context.get_start_method())
        if len(used) <= failures:
            raise kind

    monkeypatch.setattr(executors, "_STARTING_SECONDS", 0.0)
    monkeypatch.setattr(JobProcess, "__init__", started)
    place = DeviceSlots("cpu", 1, 0.0)
    executor = LocalExecutor(tmp_path, JobSettings(), [place])
    job: Any = None
    executor.start(job, job, place, False, False)
    assert used == methods


def test_a_command_that_is_ended_in_its_first_seconds_says_so(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n", "ends.py")
    run = [sys.executable, "-m", "benchmark", "run", "--suite", "tiny.yaml", "--plugin", "ends.py", "--dry-run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "none"}
    ended = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (130, "interrupted while ends.py was imported\n")


def test_a_job_that_is_killed_leaves_no_semaphore_that_python_warns_of() -> None:
    """A progress bar of tqdm, which PyTorch's compiler makes, has a lock for many processes unless it was given one."""
    code = (
        "import multiprocessing, os\nmultiprocessing.set_start_method('spawn')\n"
        "from benchmark.running.job import leave_no_semaphores\n{}\n"
        "from tqdm import tqdm\ntqdm(disable=True)\nos.kill(os.getpid(), 9)"
    )
    for call, warned in (("leave_no_semaphores()", False), ("", True)):
        command = [sys.executable, "-c", code.format(call)]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert (said.returncode, "leaked semaphore" in said.stderr) == (-9, warned)
