"""What happens inside the process that trains one job."""

import dataclasses
import math
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmark import registry
from benchmark.datasets import DataSet
from benchmark.evaluation import evaluate, evaluation_steps, picture_steps
from benchmark.models import build_model
from benchmark.pictures import can_picture, picture
from benchmark.plan import Job
from benchmark.probes import PROBES, Subject
from benchmark.rundir import CellFolder
from benchmark.selection import better, selected
from bism.engine import Trainer, pays
from bism.fitted import Fitted

_CHUNK = 500  # steps between reports


@dataclasses.dataclass(frozen=True)
class Settings:
    """How jobs are trained, whatever they are: nothing here changes a result by more than rounding.

    threads: of one process on the CPU. Toy models want one thread per process and one process per core.
    compile: True, False, or None for where the run is long enough to pay for it.
    """

    plugins: tuple[Path, ...] = ()
    threads: int = 1
    compile: bool | None = None


def run_job(job: Job, data: DataSet, device: str, folders: list[Path], settings: Settings, report: Connection) -> None:
    """Trains a job, writes its cells' files and says on ``report`` how it goes.

    Messages: ("step", step), ("note", text), ("cell", id, state, text), at the end ("done", train_seconds), or
    ("failed", last line of the traceback).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
    if device == "cpu":
        torch.set_num_threads(settings.threads)
    cells = [CellFolder(folder) for folder in folders]
    try:
        for cell, planned in zip(cells, job.cells, strict=True):
            cell.begin({**planned.config, "device": device, "threads": settings.threads})
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *_, **__: report.send(("note", f"{job.title}: {message}"))
            trainer = make_trainer(job, data, device, settings)
            _train(trainer, job, data, cells, settings.plugins, report)
        report.send(("done", trainer.train_seconds))
    except Exception:  # whatever a method or a plug-in raises is recorded; the other jobs go on
        text = traceback.format_exc()
        for cell in cells:
            cell.path.mkdir(parents=True, exist_ok=True)
            (cell.path / "error.txt").write_text(text)
        report.send(("failed", text.strip().splitlines()[-1]))


def make_trainer(job: Job, data: DataSet, device: str, settings: Settings) -> Trainer:
    """The trainer of a job, compiled where that is wanted."""
    config = job.config
    estimator = registry.methods(settings.plugins)[config["method"]](**config["hyper"])
    seeds = [cell.config["seed"] for cell in job.cells]
    return Trainer(
        estimator,
        build_model(config["model"]),
        data.train,
        seeds=seeds,
        batch_size=config["batch_size"],
        device=device,
        data_noise=config["data_noise"],
        compile=pays(config["steps"]) if settings.compile is None else settings.compile,
    )


def _train(
    trainer: Trainer,
    job: Job,
    data: DataSet,
    cells: list[CellFolder],
    plugins: tuple[Path, ...],
    report: Connection,
) -> None:
    """Trains from evaluation to evaluation."""
    steps, evaluations = job.config["steps"], job.config["evaluations"]
    started = time.perf_counter()
    journal = _Journal(trainer, job, data, cells, plugins)
    evaluated, pictured = evaluation_steps(steps, evaluations), picture_steps(steps, evaluations)
    probed = {at for probe in job.config["probes"] for at in probe["at"] if isinstance(at, int)}
    for at in sorted({*evaluated, *probed}):
        while trainer.step < at:
            trainer.run(min(_CHUNK, at - trainer.step))
            report.send(("step", trainer.step))
        journal.measure(time.perf_counter() - started)
        if at in probed:
            journal.probe()
        if at in pictured:
            journal.picture()
    journal.finish(report)


class _Journal:
    """Writes what is measured to the cells of a job, and keeps the best checkpoint of each."""

    def __init__(
        self, trainer: Trainer, job: Job, data: DataSet, cells: list[CellFolder], plugins: tuple[Path, ...]
    ) -> None:
        self.trainer, self.config, self.data, self.cells, self.job = trainer, job.config, data, cells, job
        self.plugins = plugins
        self.best = [-math.inf] * len(cells)
        self.closed = [False] * len(cells)  # a seed that diverged writes one last line and no more

    def measure(self, wall_seconds: float) -> None:
        """Adds a line to every journal and saves the checkpoints that are the best so far."""
        trainer, seeds = self.trainer, len(self.cells)
        training, validation = trainer.mean_objective(), trainer.objective_on(self.data.val)
        scores = evaluate(trainer.fitted(), self.data, self.config["metrics"])
        for i, cell in enumerate(self.cells):
            if self.closed[i]:
                continue
            cost = {
                "time/train_seconds": trainer.train_seconds / seeds,
                "time/wall_seconds": wall_seconds / seeds,
                "time/compile_seconds": trainer.compile_seconds / seeds,
                "memory/peak_bytes": _peak_bytes(trainer.device),
            }
            if trainer.step:
                objectives = {"train/objective": float(training[i])}
                cost["time/ms_per_step"] = 1000 * trainer.train_seconds / trainer.step / seeds
            else:
                objectives = {}
            cell.append(trainer.step, {**objectives, "val/objective": float(validation[i]), **scores[i], **cost})
            self.closed[i] = trainer.diverged_at[i] is not None
            self._keep_best(i, scores[i])

    def _keep_best(self, index: int, scores: dict[str, float]) -> None:
        value = better(self.config["select"], scores[self.config["select"]])
        if value > self.best[index] and not self.closed[index]:
            self.best[index] = value
            self.trainer.save(self.cells[index].artifacts / "best.pt", seed=self.trainer.seeds[index])

    def picture(self) -> None:
        """Pictures of the first seed."""
        fitted = self.trainer.fitted()
        for cell, planned in zip(self.cells, self.job.cells, strict=True):
            if planned.config["pictures"] and can_picture(self.data, fitted):
                title = f"{planned.config['variant']}, step {fitted.step:,}"
                picture(fitted, planned.config["seed"], self.data, cell.artifacts, title)

    def probe(self) -> None:
        """What is measured at this iteration alone."""
        fitted = self.trainer.fitted()
        for i, closed in enumerate(self.closed):
            if not closed:
                self._take(self._probes_at(fitted.step), fitted, i)

    def _probes_at(self, at: int | str) -> list[dict[str, Any]]:
        return [probe for probe in self.config["probes"] if at in probe["at"]]

    def _take(self, probes: Iterable[dict[str, Any]], fitted: Fitted, index: int) -> None:
        cell, seed = self.cells[index], self.trainer.seeds[index]
        for probe in probes:
            settings = PROBES[probe["name"]].model_validate(probe["options"])
            cell.append(fitted.step, settings.measure(Subject(fitted, seed, self.data, cell.artifacts)))

    def _probe_checkpoints(self, index: int) -> None:
        """What is measured of the best and of the last checkpoint; once where these are the same."""
        steps = dict[str, int]()
        for name in ("best", "last"):
            probes = self._probes_at(name)
            if not probes:
                continue
            job = Job((self.job.cells[index],))
            trainer = make_trainer(job, self.data, str(self.trainer.device), Settings(self.plugins, compile=False))
            trainer.load(self.cells[index].artifacts / f"{name}.pt")
            self._take((p for p in probes if steps.get(p["name"]) != trainer.step), trainer.fitted(), index)
            steps |= {probe["name"]: trainer.step for probe in probes}

    def _name_selected(self, cell: CellFolder) -> None:
        """Repeats the numbers that stand for the cell where MLflow's UI compares runs: in their last values."""
        found = selected(cell.measurements(), self.config["rule"], self.config["select"])
        if found and self.config["rule"] != "last":
            tested = {f"selected/{name}": value for name, value in found[1].items() if name.startswith("test/")}
            cell.append(self.trainer.step, {"selected/step": float(found[0]), **tested})

    def finish(self, report: Connection) -> None:
        """The last checkpoints, what is measured of them, and the state of every cell."""
        for i, (cell, planned) in enumerate(zip(self.cells, self.job.cells, strict=True)):
            self.trainer.save(cell.artifacts / "last.pt", seed=self.trainer.seeds[i])
            if not self.closed[i]:
                self._probe_checkpoints(i)
                self._name_selected(cell)
            diverged = self.trainer.diverged_at[i]
            state, text = ("done", None) if diverged is None else ("diverged", f"not finite at step {diverged}")
            report.send(("cell", planned.id, state, text))


def _peak_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
