"""Which jobs run beside each other, and where."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.data.datasets import checkerboard
from benchmark.records.rundir import RunDir
from benchmark.running import executors
from benchmark.running.executors import (
    DeviceSlots,
    Ending,
    LocalExecutor,
    check_precision,
    context,
    places,
    prepare_environment,
)
from benchmark.running.job import JobSettings
from benchmark.running.supervisor import Supervisor
from benchmark.tasks import registry
from benchmark.tasks.jobs import Job, jobs
from benchmark.tasks.plan import Choices, plan
from benchmark.tasks.suite_file import load_suite
from bism import InputError
from tests.harness.tiny import write

DATA = checkerboard(Path("nowhere"), 500, 200, 200)


class Events:
    """What a supervisor says, in order."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def started(self, job: Job) -> None:
        self.said.append("started")

    def stepped(self, job: Job, step: int, stage: str = "") -> None:
        pass

    def ended(self, job: Job, state: str, seconds: float, text: str | None) -> None:
        self.said.append(state)

    def printed(self, job: Job, where: str) -> None:
        pass

    def note(self, text: str) -> None:
        self.said.append(text)


def supervised(folder: Path, executor: LocalExecutor) -> list[str]:
    """The events of the tiny suite's two jobs."""
    suite, methods, events = load_suite(str(write(folder)), registry.methods()), registry.methods(), Events()
    cells = plan(suite, Choices(), methods, {"board": DATA})
    with contextlib.closing(RunDir(folder / "runs")) as runs:
        runs.plan(cell.record for cell in cells)
        Supervisor({"board": DATA}, runs, executor, events).run(jobs(cells))
    return events.said


def run(folder: Path, *available: DeviceSlots) -> list[str]:
    return supervised(folder, LocalExecutor(folder / "runs", JobSettings(), available))


def test_jobs_run_beside_each_other(tmp_path: Path) -> None:
    assert run(tmp_path, DeviceSlots("cpu", 2, 1e12)) == ["started", "started", "done", "done"]


@pytest.mark.parametrize(
    "place", [pytest.param(DeviceSlots("cpu", 1, 1e12), marks=pytest.mark.long), DeviceSlots("cpu", 2, 6e8)]
)
def test_jobs_wait_for_a_slot_and_for_memory(tmp_path: Path, place: DeviceSlots) -> None:
    assert run(tmp_path, place) == ["started", "done", "started", "done"]


def test_a_job_that_needs_more_than_there_is_runs_alone(tmp_path: Path) -> None:
    assert run(tmp_path, DeviceSlots("cpu", 2, 1.0)) == ["started", "done", "started", "done"]


def test_a_job_takes_the_memory_that_was_measured(tmp_path: Path) -> None:
    """Peak memory in docs/performance.md: 457 MB for ten seeds of BiDSM-5, 557 for a hundred, 1,601 for a thousand."""
    suite, methods = load_suite("grbm", registry.methods()), registry.methods()
    for count, measured in ((10, 457e6), (100, 557e6), (1000, 1601e6)):
        chosen = Choices(preset="paper", tasks=["checkerboard"], methods=["bidsm"], seeds=range(count))
        (job,) = [
            job
            for job in jobs(plan(suite, chosen, methods, {"checkerboard": DATA}))
            if job.config["variant"] == "BiDSM-5"
        ]
        assert 0.8 * measured < job.memory < 1.7 * measured


def test_places_are_slots_on_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "cores", lambda: 5)
    assert [(place.device, place.slots) for place in places("cpu", threads=2)] == [("cpu", 2)]
    assert places("cpu", threads=9)[0].slots == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (1000 + number, 5000))
    assert places("cuda", jobs_per_device=3) == [DeviceSlots("cuda:0", 3, 1000.0), DeviceSlots("cuda:1", 3, 1001.0)]
    assert places("cuda:1,1") == [DeviceSlots("cuda:1", 1, 1001.0)]
    with pytest.raises(InputError, match="there is no GPU 2 here"):
        places("cuda:0,2")


def test_no_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="--devices cuda: there is no GPU here"):
        places("cuda")


class Lost:
    """A job that was sent to a node which is gone."""

    began = False
    ending = Ending("its node was lost", True)

    def take(self) -> list[Any]:
        return []

    def stop(self) -> None: ...
    def kill(self) -> None: ...


class Forgetful(LocalExecutor):
    """Loses the first five jobs that it starts."""

    lost = 0

    def start(self, *arguments: Any) -> Any:
        self.lost += 1
        return Lost() if self.lost <= 5 else super().start(*arguments)

    def wait(self, workers: Sequence[Any], seconds: float) -> None:
        super().wait([worker for worker in workers if worker.began], seconds)


def test_a_job_that_never_began_is_sent_again_however_often(tmp_path: Path) -> None:
    events = supervised(tmp_path, Forgetful(tmp_path / "runs", JobSettings(), [DeviceSlots("cpu", 1, 1e12)]))
    assert events == ["started", "retry"] * 5 + ["started", "done"] * 2


@pytest.mark.parametrize(("cards", "device"), [(1, "cuda:0"), (1, "cpu"), (0, "cpu")])
def test_nothing_is_forked_from_a_process_that_may_have_touched_cuda(
    cards: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # importing torch's compiler, which the server of forks does beforehand, initialises CUDA where there is a GPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    started_by = context([DeviceSlots(device, 1, 1e9)]).get_start_method()
    assert started_by == ("spawn" if cards else "forkserver")


def test_cores_beside_a_gpu_compile_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "cores", lambda: 16)
    for available, compilers in (
        ([DeviceSlots("cpu", 16, 1e9)], "1"),
        ([DeviceSlots("cuda:0", 1, 1e9)], "16"),
        ([DeviceSlots("cuda:0", 3, 1e9), DeviceSlots("cuda:1", 3, 1e9)], "2"),
        ([DeviceSlots("cuda:0", 40, 1e9)], "1"),
    ):
        monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
        prepare_environment(available)
        assert os.environ["TORCHINDUCTOR_COMPILE_THREADS"] == compilers


def test_tf32_is_refused_where_there_is_none() -> None:
    configs = [{"variant": "A", "precision": "bf16"}, {"variant": "B", "precision": "tf32"}]
    check_precision(configs, [DeviceSlots("cuda:0", 1, 1e9)])
    check_precision(configs[:1], [DeviceSlots("cpu", 1, 1e9)])
    with pytest.raises(InputError, match="B has precision tf32, which GPUs have: --devices cuda"):
        check_precision(configs, [DeviceSlots("cpu", 1, 1e9)])
