"""What happens inside the process that trains one job."""

import contextlib
import dataclasses
import functools
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from benchmark.data.datasets import DataSet
from benchmark.measures.evaluation import evaluation_steps, picture_steps
from benchmark.measures.probes import NO_JUDGES, Judges, Subject
from benchmark.records.provenance import trained_with
from benchmark.records.rundir import CellFolder, cell_folder, company, holding
from benchmark.running.parallel import Group, LeadingTrainer
from benchmark.running.recorder import Recorder
from benchmark.system import output
from benchmark.system.credentials import clean
from benchmark.tasks import registry
from benchmark.tasks.jobs import Job
from benchmark.tasks.models import build_model
from bism.engine import Trainer, pays
from bism.errors import described, out_of_memory, shortened
from bism.errors import message as said_by
from bism.precision import computing

_PIECE_SECONDS = 2.0  # between signs of life, about; no number depends on it
_FIRST_PIECE = 100  # iterations
_PREDECESSOR_SECONDS = 120  # for a process that is being ended to let go of the cells
_ORPHAN_SECONDS = 30  # for a checkpoint, where the supervisor has gone
_NOTES = 20  # different warnings of a job that are passed on


@dataclasses.dataclass(frozen=True)
class JobSettings:
    """How jobs are trained, whatever they are: nothing here changes a result by more than rounding.

    threads: of one process on the CPU. Toy models want one thread per process and one process per core.
    compile: True, False, or None for where the run is long enough to pay for it.
    checkpoint_seconds: between checkpoints; what a crash may cost.
    commit: of our code, for a process that has a copy of it without its history.
    judges: weights of networks that judge images.
    data_dir: folder of the data sets, for probes that compare with others.
    data_parallel: processes that train a job together.
    """

    plugins: tuple[Path, ...] = ()
    threads: int = 1
    compile: bool | None = None
    checkpoint_seconds: float = 300.0
    commit: str | None = None
    judges: Judges = NO_JUDGES
    data_dir: Path | None = None
    data_parallel: int = 1


class Stopped(Exception):
    """The supervisor has asked for an end; the checkpoint is written."""


class Messenger:
    """What the process says to its supervisor: nothing, once that has gone.

    Messages: ("step", step), of a method with stages ("step", step, stage), ("doing", what, done, total),
    ("saved", step), ("note", text), ("importing", files or ""), ("cell", id, state, text),
    ("timed", how and how long), at the end one of ("done", train_seconds), ("stopped", step), ("memory", text),
    ("failed", last line of the traceback).
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __call__(self, *message: Any) -> None:
        with contextlib.suppress(OSError):
            self._connection.send(message)


def run_job(
    job: Job,
    data: DataSet,
    device: str,
    run_dir: Path,
    settings: JobSettings,
    again: bool,
    connection: Connection,
    group: Group | None = None,
) -> None:
    """Trains a job from its checkpoints (``again``: from the start), writes its cells' files and says how it goes."""
    stop = threading.Event()
    output.redirect(cell_folder(run_dir, job.cells[0].id).output, again)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_end_with_the_supervisor, args=(stop,), daemon=True).start()
    leave_no_semaphores()
    report, cells = Messenger(connection), [cell_folder(run_dir, cell.id) for cell in job.cells]
    if device == "cpu":
        torch.set_num_threads(settings.threads)
    try:
        with holding(run_dir, [cell.id for cell in job.cells], _PREDECESSOR_SECONDS), warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _noting(job, report)
            if group:
                group.join(device)
            with computing(torch.device(device)):  # what is measured is in float32, whatever the training's products
                _train(job, data, cells, device, settings, again, report, stop, group)
            if group:
                group.leave()
    except Stopped as stopped:
        report("stopped", str(stopped))
    except BaseException as error:  # whatever a method or a plug-in raises, sys.exit too; the other jobs go on
        text = clean(_traceback())
        with contextlib.suppress(OSError):  # the disk may be full
            for cell in cells:
                cell.path.mkdir(parents=True, exist_ok=True)
                (cell.path / "error.txt").write_text(text, errors="backslashreplace")
        report("memory" if out_of_memory(error) else "failed", described(error))


def leave_no_semaphores() -> None:
    """PyTorch's compiler has a progress bar of tqdm, and that a lock for many processes: of one that is killed while it
    compiles it would stay, and the command end with a warning. A lock for threads is enough."""
    with contextlib.suppress(ImportError):
        from tqdm import tqdm

        tqdm.set_lock(threading.RLock())


def _traceback() -> str:
    """Of the error that is being handled; the middle of a very long one is left out."""
    text, half = traceback.format_exc(), output.LIMIT // 2
    return text if len(text) <= 2 * half else f"{text[:half]}\n[... left out ...]\n{text[-half:]}"


def _noting(job: Job, report: Messenger) -> Callable[..., None]:
    """Passes warnings on as notes, each text once: what holds for every seed of a job is said for all of them. Of many
    different ones the first are passed on, and the others printed."""
    said = set[str]()

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        text = said_by(message) if isinstance(message, Warning) else message
        if text in said:
            return
        if len(said) < _NOTES:
            said.add(text)
            report("note", f"{job.title}: {shortened(text)}")
        else:
            print(f"warning: {text}")

    return note


def _end_with_the_supervisor(stop: threading.Event) -> None:
    """Asks for an end when the supervisor has died, and makes one if that takes long."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        stop.set()
        time.sleep(_ORPHAN_SECONDS)
        os._exit(1)


def make_trainer(job: Job, data: DataSet, device: str, settings: JobSettings, kind: type[Trainer] = Trainer) -> Trainer:
    """The trainer of a job, compiled where that is wanted."""
    config = job.config
    estimator = registry.methods(settings.plugins)[config["method"]](**config["hyper"])
    seeds = [cell.config["seed"] for cell in job.cells]
    return kind(
        estimator,
        build_model(config["model"]),
        data.train,
        seeds=seeds,
        batch_size=config["batch_size"],
        device=device,
        data_noise=config["data_noise"],
        precision=config["precision"],
        accumulate=config["accumulate"],
        iterations=config["steps"],
        compile=pays(config["steps"]) if settings.compile is None else settings.compile,
    )


def _train(
    job: Job,
    data: DataSet,
    cells: list[CellFolder],
    device: str,
    settings: JobSettings,
    again: bool,
    report: Messenger,
    stop: threading.Event,
    group: Group | None,
) -> None:
    """Trains from one action to the next: where something is measured, probed or pictured."""
    steps, beside = job.config["steps"], company(cell.id for cell in job.cells)
    for cell, planned in zip(cells, job.cells, strict=True):
        where = {"device": device, "threads": settings.threads, "provenance": trained_with(settings.commit, device)}
        if again:
            cell.clear()
        note = cell.prepare({**planned.config, **where, "job": beside})
        if note:
            report("note", f"{job.title}: {note}")
    report("importing", ", ".join(map(str, settings.plugins)))
    registry.methods(settings.plugins)
    report("importing", "")
    trainer = make_trainer(job, data, device, settings, LeadingTrainer if group else Trainer)
    if isinstance(trainer, LeadingTrainer) and group:
        trainer.group = group

    def stepped() -> None:
        report("step", trainer.step, *filter(None, [trainer.stage.name]))

    def stopped() -> Stopped:
        stage = trainer.stage.name and f", in stage {trainer.stage.name}"
        return Stopped(f"at iteration {trainer.step:,} of {steps:,}{stage}")

    def alive(*how_far: Any) -> None:
        if how_far:
            report("doing", *how_far)
        else:
            stepped()
        if stop.is_set():
            raise stopped()

    small_trainer = functools.partial(make_trainer, data=data, device=device, settings=_uncompiled(settings))
    make_subject = functools.partial(Subject, judges=settings.judges, data_dir=settings.data_dir, alive=alive)
    recorder = Recorder(trainer, job, data, cells, small_trainer, make_subject)
    actions = _actions(job)
    for note in recorder.begin():
        report("note", f"{job.title}: {note}")
    begun = trainer.step

    def save() -> None:
        recorder.save()
        if trainer.stage.name:
            for cell in cells:
                cell.describe(stage=trainer.stage.name)
        report("saved", trainer.step)

    piece, saved = _FIRST_PIECE, time.monotonic()
    for at, action in actions[recorder.passed :]:
        while trainer.step < at:
            started, before = time.monotonic(), trainer.step
            trainer.run(min(piece, at - before))
            now = time.monotonic()
            piece = max(1, int(_PIECE_SECONDS * (trainer.step - before) / max(now - started, 1e-6)))
            stepped()
            if stop.is_set() or now > saved + settings.checkpoint_seconds:
                save()
                saved = time.monotonic()
            if stop.is_set():
                raise stopped()
        if action is Recorder.probe:
            save()  # it may take longer than the training up to here
        action(recorder)
        recorder.passed += 1
    if job.config["probes"]:
        save()
    for ended in recorder.finish(alive):
        report("cell", *ended)
    for cell in cells:
        cell.describe(took=recorder.took)
    timed = {"device": device, "threads": settings.threads, "compiled": trainer.compiled, "whole": not begun,
             "train_seconds": trainer.train_seconds, "compile_seconds": trainer.compile_seconds}  # fmt: skip
    report("timed", timed)
    report("done", trainer.train_seconds)


def _actions(job: Job) -> list[tuple[int, Callable[[Recorder], None]]]:
    """At which iterations the training stops, and for what; in order."""
    steps, evaluations = job.config["steps"], job.config["evaluations"]
    pictured = picture_steps(steps, evaluations)
    probed = {at for probe in job.config["probes"] for at in probe["at"] if isinstance(at, int)}
    found = list[tuple[int, Callable[[Recorder], None]]]()
    for at in sorted({*evaluation_steps(steps, evaluations), *probed}):
        found.append((at, Recorder.measure))
        found += [(at, Recorder.probe)] if at in probed else []
        found += [(at, Recorder.picture)] if at in pictured else []
    return found


def _uncompiled(settings: JobSettings) -> JobSettings:
    return dataclasses.replace(settings, compile=False)
