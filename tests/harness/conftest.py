"""What tests share: a trained suite, servers on this machine with small data sets on them, a tracking store."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.records.rundir import RunDir
from benchmark.tracking import cells as tracking
from tests.harness import synthetic
from tests.harness.faults import RUN, SUITE
from tests.harness.hand_made import ENVIRONMENT, Cells
from tests.harness.postgres import PostgreSQL
from tests.harness.server import Server, serve
from tests.harness.synthetic import CIFAR_ARCHIVE, MNIST_FILES
from tests.harness.tiny import Said, command, write


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder, SUITE)
    said = command(folder, *RUN)
    assert (said.code, said.err) == (0, "")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """The tiny suite, trained once for all tests that only look at it."""
    folder = tmp_path_factory.mktemp("trained")
    write(folder)
    return folder, command(folder, "run", "--suite", "tiny.yaml")


@pytest.fixture
def folder(trained: tuple[Path, Said], tmp_path: Path) -> Path:
    """A copy of it, to go on from."""
    return Path(shutil.copytree(trained[0], tmp_path / "copy"))


@pytest.fixture
def database() -> Iterator[PostgreSQL]:
    """A running PostgreSQL; where it is not installed, the test is skipped."""
    running = PostgreSQL()
    yield running
    running.stop()
    shutil.rmtree(running.folder)


@pytest.fixture
def server() -> Iterator[Server]:
    """A running server."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def mnist(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that has the small MNIST at its official address and in /mirror/."""
    bases = [serve(server, MNIST_FILES, base) for base in ("/official", "/mirror")]
    synthetic.use(monkeypatch, synthetic.small_mnist(*bases))
    return server


@pytest.fixture
def cifar(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that has the small CIFAR-10."""
    base = serve(server, {"cifar-10-binary.tar.gz": CIFAR_ARCHIVE})
    synthetic.use(monkeypatch, synthetic.small_cifar(f"{base}cifar-10-binary.tar.gz"))
    return server


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests, because MLflow takes ten seconds to make one. Two processes race to make it."""
    folder = tmp_path_factory.mktemp("tracking store")
    code = (
        "import sys; from benchmark.records.rundir import RunDir; from benchmark.tracking.cells import Tracker\n"
        "Tracker('sqlite:///new/mlflow.db', RunDir('runs' + sys.argv[1]))._experiment('raced')"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(i)],
            cwd=folder,
            env=ENVIRONMENT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert ([process.returncode for process in both], said) == ([0, 0], ["", ""])  # and no chatter
    return f"sqlite:///{folder}/new/mlflow.db"


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[RunDir]:
    opened = RunDir(tmp_path / "runs")
    yield opened
    opened.close()


@pytest.fixture
def cells(run_dir: RunDir, request: pytest.FixtureRequest) -> Cells:
    return Cells(run_dir, request.node.name)


@pytest.fixture
def tracker(store: str, run_dir: RunDir) -> tracking.Tracker:
    return tracking.Tracker(store, run_dir)
