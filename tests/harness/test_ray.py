"""A cluster of two nodes on this machine, one of which is lost in the middle."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmark.records.rundir import Record, RunDirError
from benchmark.running.ray_cluster import Mirror, RayWorker
from tests.harness.faults import SUITE, ended, finish, free_port, progress, same_end, started, until
from tests.harness.tiny import cell, command, records, replaced, states, write

pytestmark = pytest.mark.timeout(1800)  # clusters are slow to start
RAY = str(Path(sys.executable).with_name("ray"))
ENVIRONMENT = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "1000",  # a lost node is noticed in seconds, not in a minute
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "30000",  # a killed one refuses at once; a living one may stall where tests compile
    "RAY_health_check_failure_threshold": "3",
    "RAY_worker_niceness": "0",  # by 15, as is usual there, jobs starve for minutes beside other tests
}
PLUGIN = """\
import dataclasses
import os
import signal

from baselines.cd import CD

settings = dataclasses.dataclass(frozen=True, kw_only=True)


@settings
class Raises(CD):
    \"\"\"Its loss raises.\"\"\"
    id, label, reference = "raises", "Raises", "here"

    def loss(self, *arguments):
        raise RuntimeError("no loss here")


@settings
class Killed(CD):
    \"\"\"Is killed from outside, whenever it begins.\"\"\"
    id, label, reference = "killed", "Killed", "here"

    def init_carry(self, *arguments):
        return os.kill(os.getpid(), signal.SIGKILL)
"""


class Cluster:
    """A head without cores, and nodes of one core each; their processes do not know our code."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets in it: its name must be short
        self.address = f"127.0.0.1:{free_port()}"
        self._nodes = list[subprocess.Popen[str]]()
        self._started = 0
        port = self.address.partition(":")[2]
        head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self.folder}")
        self._start(*head, "--num-cpus=0", "--num-gpus=1")

    def _start(self, *options: str) -> None:
        self._started += 1
        log = self.folder / f"node{self._started}.log"
        with log.open("w") as out:
            node = subprocess.Popen([RAY, "start", "--block", *options], cwd=self.folder, env=ENVIRONMENT, stdout=out,
                                    stderr=out, text=True)  # fmt: skip
        self._nodes.append(node)
        until(node, lambda: "Ray runtime started" in log.read_text())

    def add(self) -> None:
        """Starts a node."""
        self._start(f"--address={self.address}", "--num-cpus=1")

    def lose(self) -> None:
        """Kills all processes of the newest node at once, and those of the jobs there."""
        node = self._nodes.pop()
        for process in [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()

    def one_node(self) -> None:
        """Makes sure that there is one node with a core."""
        if len(self._nodes) == 1:
            self.add()

    def end(self) -> None:
        while self._nodes:
            self.lose()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    pytest.importorskip("ray")
    cluster = Cluster()
    try:
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """A running cluster with one core."""
    running.one_node()
    return running


def ray(cluster: Cluster) -> tuple[str, ...]:
    return "--executor", "ray", "--address", cluster.address


def found(folder: Path) -> list[Record]:
    return records(folder) if (folder / "runs" / "index.sqlite").exists() else []


@pytest.mark.long
def test_a_lost_node_costs_what_came_after_the_last_checkpoint(cluster: Cluster, tmp_path: Path, whole: Path) -> None:
    """The job goes on where there is room: on a node that comes later."""
    write(tmp_path, SUITE)
    with started(tmp_path, *ray(cluster)) as process:
        until(process, lambda: any(record.progress > 0 for record in found(tmp_path)))
        cluster.lose()
        cluster.add()
        said = ended(process)
    assert (said.code, said.err) == (0, "")
    assert "4 cells, 0 done already, 4 to train in 2 jobs" in said.out
    assert "its node was lost" in said.out  # again, where the engine sends the job there once more before it notices
    assert said.out.count("goes on from iteration") == 1
    same_end(tmp_path, whole)


@pytest.mark.long
def test_what_is_stopped_in_a_cluster_goes_on_anywhere(cluster: Cluster, tmp_path: Path, whole: Path) -> None:
    """One job runs, the other waits for room, here or in the cluster; both are to be ended."""
    write(tmp_path, SUITE)
    with started(tmp_path, *ray(cluster), "--checkpoint-every", "1000") as process:
        until(process, lambda: any(tmp_path.glob("runs/cells/*/metrics.jsonl")))
        os.kill(process.pid, signal.SIGINT)
        said = ended(process)
    assert (said.code, said.err) == (130, "interrupted\n")
    assert sorted(states(tmp_path).values())[2:] == ["stopped", "stopped"]
    assert set(states(tmp_path).values()) <= {"planned", "stopped"}  # the other job may have been asked for already
    assert progress(tmp_path) > 0
    assert "goes on from iteration" in finish(tmp_path).out
    same_end(tmp_path, whole)


@pytest.mark.long
def test_a_gpu_is_shared_by_as_many_jobs_as_are_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    """The node only says that it has one: nothing trains."""
    write(tmp_path)
    with started(tmp_path, *ray(cluster), "--devices", "cuda", "--jobs-per-device", "3", "--dry-run") as process:
        said = ended(process)
    assert (said.code, said.err) == (0, "")
    assert "4 to train in 2 jobs, 3 at once" in said.out


@pytest.mark.long
def test_a_method_of_the_users_own_fails_there_as_here(cluster: Cluster, tmp_path: Path) -> None:
    """Its file is sent to the nodes, which work side by side; its traceback comes back."""
    methods = "          - {method: raises}\n          - {method: killed}\n          - {method: cd}\n"
    write(tmp_path, replaced(("          - {method: cd}\n          - {method: bidsm}\n", methods)))
    write(tmp_path, PLUGIN, "mine.py")
    cluster.add()
    with started(tmp_path, "--plugin", "mine.py", "--seeds", "0", *ray(cluster)) as process:
        said = ended(process)
    cluster.lose()
    assert (said.code, said.err) == (1, "")
    assert "3 to train in 3 jobs, 2 at once" in said.out
    assert states(tmp_path) == {("Raises", 0): "failed", ("Killed", 0): "failed", ("CD-1", 0): "done"}
    assert said.out.count("the process ended with signal SIGKILL; it goes on from its last checkpoint") == 2
    assert "failed: board Killed seed 0: the process ended with signal SIGKILL" in said.out
    assert "failed: board Raises seed 0: RuntimeError: no loss here" in said.out
    assert 'raise RuntimeError("no loss here")' in (cell(tmp_path, "Raises", 0).error or "")


# --- without a cluster ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--executor", "ray", "--devices", "cuda:0"), "--devices must be cpu or cuda, Ray chooses which"),
        (("--executor", "ray", "--address", "127.0.0.1:1"), "no Ray cluster to use at 127.0.0.1:1"),
        (("--address", "127.0.0.1:1"), "--address names a cluster and needs --executor ray"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_trains(
    tmp_path: Path, options: tuple[str, ...], text: str
) -> None:
    pytest.importorskip("ray")
    write(tmp_path)
    said = command(tmp_path, "run", "--suite", "tiny.yaml", *options)
    assert said.code == 2
    assert said.err.startswith("error: ")
    assert text in said.err
    assert not records(tmp_path)


@pytest.mark.parametrize(
    ("error", "text", "killed"),
    [
        (lambda known: known.ActorDiedError(), "its node was lost", True),
        (lambda known: known.NodeDiedError("gone"), "its node was lost", True),
        (lambda known: known.RayActorError(None, "failed\nNo module torch", True), "No module torch", False),
        (lambda known: known.RuntimeEnvSetupError("no room for the code"), "no room for the code", False),
    ],
)
def test_only_what_may_go_well_elsewhere_is_tried_again(tmp_path: Path, error: Any, text: str, killed: bool) -> None:
    exceptions = pytest.importorskip("ray.exceptions")
    raised = error(exceptions)

    def get(answer: object) -> object:
        raise raised

    engine = types.SimpleNamespace(
        exceptions=exceptions, get=get, wait=lambda refs, timeout: (refs, []), kill=lambda actor: None
    )
    actor = types.SimpleNamespace(begin=types.SimpleNamespace(remote=lambda files: "answer"))
    worker = RayWorker(engine, actor, Mirror(tmp_path, []), {}, "a job", print)
    assert worker.take() == []
    assert worker.ending is not None
    assert text in worker.ending.text
    assert worker.ending.killed == killed


def test_a_full_disk_here_is_said(tmp_path: Path) -> None:
    """What came from the node cannot be written where the command runs."""
    exceptions = pytest.importorskip("ray.exceptions")
    answers = [None, ([], {"c1": {"metrics.jsonl": b""}}, None)]
    engine = types.SimpleNamespace(
        exceptions=exceptions, get=lambda answer: answers.pop(0), wait=lambda refs, timeout: (refs, [])
    )
    call = types.SimpleNamespace(remote=lambda *_: "answer")
    (tmp_path / "cells").write_text("no folder can be here")
    actor = types.SimpleNamespace(begin=call, listen=call)
    worker = RayWorker(engine, actor, Mirror(tmp_path, ["c1"]), {}, "a job", print)
    worker.take()
    with pytest.raises(RunDirError, match="what a job wrote in the cluster cannot be written here"):
        worker.take()


def test_a_mirror_holds_what_the_other_place_has(tmp_path: Path) -> None:
    """Files that are new, changed, renamed and gone; those that are being written are left out."""
    here, there = (tmp_path / name / "cells" / "c1" for name in ("here", "there"))
    (there / "artifacts").mkdir(parents=True)
    theirs, ours = Mirror(tmp_path / "there", ["c1"]), Mirror(tmp_path / "here", ["c1"])
    (there / "checkpoint.pt").write_bytes(b"first")
    (there / "checkpoint.next.pt").write_bytes(b"half")
    (there / "artifacts" / "best.pt").write_bytes(b"best")
    (there / "metrics.jsonl").write_bytes(b"1\n")
    ours.apply(theirs.changes())
    assert contents(here) == {"checkpoint.pt": b"first", "artifacts/best.pt": b"best", "metrics.jsonl": b"1\n"}
    assert theirs.changes() == {}
    (there / "checkpoint.pt").rename(there / "checkpoint.previous.pt")
    (there / "checkpoint.next.pt").rename(there / "checkpoint.pt")
    (there / "metrics.jsonl").write_bytes(b"1\n2\n")
    (there / "artifacts" / "best.pt").unlink()
    changes = theirs.changes()
    assert list(changes["c1"])[-2:] == ["metrics.jsonl", "artifacts/best.pt"]  # read after the checkpoints
    ours.apply(changes)
    assert contents(here) == contents(there)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
