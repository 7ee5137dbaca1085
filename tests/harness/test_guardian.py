"""The web interface's server ends with the command that started it, however that ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmark.tracking.store import database_file
from tests.harness.tiny import ROOT

SECONDS = 300  # the longest that anything here may take
# A server with a worker of its own, as MLflow's has one; it writes down who they are once both are there.
SERVER = """\
import os, pathlib, subprocess, sys
sleeper = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(300)"], stdout=-1)
sleeper.stdout.read(1)
pathlib.Path("pids.part").write_text(f"{os.getpid()} {sleeper.pid}")
os.rename("pids.part", "pids")
sleeper.wait()
"""
UI = [sys.executable, "-m", "benchmark", "ui"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a store, and a package ``mlflow`` that is the server above."""
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").touch()
    (tmp_path / "mlflow" / "__main__.py").write_text(SERVER)
    file = database_file("sqlite:///mlflow.db")
    assert file
    (tmp_path / file).touch()
    return tmp_path


def usual_signals() -> None:
    """A shell's background jobs ignore Ctrl-C, and those of nohup hang-ups; so would what the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def started(folder: Path) -> tuple["subprocess.Popen[bytes]", list[psutil.Process]]:
    """The command, and its server's processes."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])
    command = subprocess.Popen(UI, cwd=folder, env=environment, stdout=subprocess.PIPE, preexec_fn=usual_signals)
    assert command.stdout
    with command.stdout:
        assert command.stdout.readline().startswith(b"MLflow on http://127.0.0.1:5000")
    while not (folder / "pids").exists():
        assert command.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            command.wait(0.05)
    return command, [psutil.Process(int(pid)) for pid in (folder / "pids").read_text().split()]


def runs(process: psutil.Process) -> bool:
    """Whether a process is more than an entry that nobody has asked for."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGKILL"])
def test_the_server_ends_with_the_command(folder: Path, name: str) -> None:
    command, processes = started(folder)
    command.send_signal(signal.Signals[name])
    code = command.wait(SECONDS)
    assert code == (-signal.SIGKILL if name == "SIGKILL" else 0)
    deadline = time.monotonic() + (SECONDS if name == "SIGKILL" else 0)  # nobody is left to wait for the end
    while (left := [one for one in processes if runs(one)]) and time.monotonic() < deadline:
        pass
    assert not left


def test_a_server_that_ends_by_itself_ends_the_command(folder: Path) -> None:
    command, (server, worker) = started(folder)
    worker.kill()
    assert command.wait(SECONDS) == 0
    assert not runs(server)


def test_a_server_s_failure_is_the_command_s(folder: Path) -> None:
    (folder / "mlflow" / "__main__.py").write_text("raise SystemExit(7)")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(UI, cwd=folder, env=environment, capture_output=True, timeout=SECONDS)
    assert done.returncode == 7
