"""The supervisor: a process for each job, one per core or device; one that dies takes only its job along."""

import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import platformdirs

from benchmark.datasets import DataSet
from benchmark.plan import Job
from benchmark.provenance import cores
from benchmark.rundir import RunDir
from benchmark.worker import Settings, run_job
from bism.errors import InputError


class Progress(Protocol):
    """Who is told how the jobs go."""

    def started(self, job: Job) -> None: ...
    def stepped(self, job: Job, step: int) -> None: ...
    def ended(self, job: Job, state: str, seconds: float, text: str | None) -> None: ...
    def note(self, text: str) -> None: ...


@dataclasses.dataclass
class _Running:
    job: Job
    device: str
    process: Any
    messages: Connection | None  # None once the job has said its last
    started: float
    outcome: tuple[Any, ...] | None = None
    states: dict[str, tuple[str, str | None]] = dataclasses.field(default_factory=dict)


def devices(text: str, threads: int = 1) -> list[str]:
    """``cpu`` as one place per so many cores that this process may use; ``cuda:0,1`` as one place per named GPU.

    Raises:
        InputError: not of this form, or a GPU that is not there.
    """
    import torch

    if text == "cpu":
        return ["cpu"] * max(1, cores() // threads)
    kind, _, numbers = text.partition(":")
    if kind != "cuda" or not all(part.isdigit() for part in numbers.split(",")):
        raise InputError(f"--devices must be cpu or like cuda:0,1, got {text!r}")
    for number in numbers.split(","):
        if int(number) >= torch.cuda.device_count():
            raise InputError(f"--devices {text}: there is no GPU {number} here ({torch.cuda.device_count()} found)")
    return [f"cuda:{number}" for number in numbers.split(",")]


def prepare_environment() -> None:
    """What is read when a job's process starts: one thread for each, and compiled code kept from run to run.

    And glibc keeps the memory that a step frees: given back to the system it would be asked for anew, page by page, in
    the next step (5,600 page faults and 15% of the time of a step of BiDSM-5 on the Frey faces).
    """
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # compile in the job's own process, on its own core
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(platformdirs.user_cache_path("bism") / "compiled"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 30))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 32))


def run(
    jobs: Sequence[Job],
    data: dict[str, DataSet],
    run_dir: RunDir,
    places: Sequence[str],
    settings: Settings,
    progress: Progress,
    after: Callable[[Job], None],
    again: bool = False,
) -> None:
    """Runs all jobs, at most one at a time on each place; ``after`` is called when the files of a job are complete.

    A job's cells are claimed when it starts: what another process trains or has finished meanwhile is left out.
    Ctrl-C stops the running jobs, marks their cells stopped, and goes on to the caller as KeyboardInterrupt.
    """
    prepare_environment()
    context = multiprocessing.get_context(
        "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    )
    if hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload(["benchmark.worker", "torch._inductor.compile_fx"])  # imported once, not per job
    waiting, free, running = list(jobs), list(places), list[_Running]()
    try:
        while waiting or running:
            while waiting and free:
                job = _claim(waiting.pop(0), run_dir, again, progress)
                if job is not None:
                    running.append(_start(job, free.pop(0), data, run_dir, settings, context))
                    progress.started(job)
            if running:  # none where others have taken all that was waiting
                _listen(running, progress)
            for ended in [one for one in running if one.messages is None]:
                running.remove(ended)
                free.append(ended.device)
                _settle(ended, run_dir, progress)
                after(ended.job)
    except KeyboardInterrupt:
        _stop(running, run_dir)
        for one in running:
            after(one.job)
        raise


def _claim(job: Job, run_dir: RunDir, again: bool, progress: Progress) -> Job | None:
    """The job with the cells that are free, or None where none is."""
    claimed = set(run_dir.claim([cell.id for cell in job.cells], again))
    if len(claimed) < len(job.cells):
        progress.note(f"{job.title}: {len(job.cells) - len(claimed)} cells are another process's")
    return Job(tuple(cell for cell in job.cells if cell.id in claimed)) if claimed else None


def _start(
    job: Job, device: str, data: dict[str, DataSet], run_dir: RunDir, settings: Settings, context: Any
) -> _Running:
    receiver, sender = context.Pipe(duplex=False)
    folders = [run_dir.folder(cell.id).path for cell in job.cells]
    process = context.Process(
        target=run_job, daemon=True, args=(job, data[job.config["task"]], device, folders, settings, sender)
    )
    process.start()
    sender.close()
    return _Running(job, device, process, receiver, time.monotonic())


def _listen(running: Sequence[_Running], progress: Progress) -> None:
    """Waits for messages or the end of a process, and takes in what has come."""
    wait([one.messages for one in running if one.messages])
    for one in running:
        try:
            while one.messages and one.messages.poll():
                _take(one, one.messages.recv(), progress)
        except EOFError:  # the process has ended, however it did, and everything it said is taken
            one.process.join()
            one.messages = None


def _take(one: _Running, message: tuple[Any, ...], progress: Progress) -> None:
    match message:
        case ("step", step):
            progress.stepped(one.job, step)
        case ("note", text):
            progress.note(text)
        case ("cell", cell, state, text):
            one.states[cell] = (state, text)
        case _:
            one.outcome = message


def _settle(one: _Running, run_dir: RunDir, progress: Progress) -> None:
    """Writes the final states of a job that has ended by itself."""
    seconds = time.monotonic() - one.started
    if one.outcome is not None and one.outcome[0] == "done":
        share = one.outcome[1] / len(one.job.cells)
        for cell in one.job.cells:
            state, text = one.states[cell.id]
            run_dir.set_state(cell.id, state, text, share)
        bad = [text for state, text in one.states.values() if state != "done"]
        progress.ended(
            one.job, "diverged" if bad else "done", seconds, f"{len(bad)} of {len(one.states)} seeds" if bad else None
        )
        return
    text = one.outcome[1] if one.outcome else f"the process ended with {_ending(one.process.exitcode)}"
    for cell in one.job.cells:
        folder = run_dir.folder(cell.id)
        if folder.error is None and folder.path.is_dir():
            (folder.path / "error.txt").write_text(text + "\n")
        run_dir.set_state(cell.id, "failed", text)
    progress.ended(one.job, "failed", seconds, text)


def _ending(code: int | None) -> str:
    return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def _stop(running: Sequence[_Running], run_dir: RunDir) -> None:
    for one in running:
        one.process.terminate()
    for one in running:
        one.process.join(timeout=10)
        for cell in one.job.cells:
            run_dir.set_state(cell.id, "stopped", "interrupted")
