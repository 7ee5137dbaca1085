"""What a job's process writes down of a training: journals, pictures, and the best, last and latest checkpoints."""

import math
import resource
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmark.data.datasets import DataSet
from benchmark.measures.evaluation import evaluate, in_own_units
from benchmark.measures.pictures import can_picture, picture
from benchmark.measures.probes import PROBES, Subject
from benchmark.records.metrics import metric_of
from benchmark.records.rundir import CellFolder
from benchmark.records.selection import RULES, better, last, selected
from benchmark.running import checkpoints
from benchmark.tasks.jobs import Job
from bism.checkpoint import merge_checkpoints
from bism.engine import Trainer
from bism.fitted import Fitted


class Recorder:
    """The files of a job's cells while it trains.

    A training that goes on from a checkpoint does again what it did after that checkpoint, with the same numbers. The
    lines that it wrote to its journals then stay as they are, and are neither written nor, where they are expensive,
    computed a second time: a journal has every line once, and what a tracking store holds of it stays true.

    Args:
        small_trainer: makes the trainer of a job of one cell, to look at its checkpoints.
        make_subject: gives a probe its ``Subject`` from the first four of its fields.

    Attributes:
        passed: how many of the training's actions (measuring, probing, picturing) are behind it.
    """

    def __init__(
        self,
        trainer: Trainer,
        job: Job,
        data: DataSet,
        cells: list[CellFolder],
        small_trainer: Callable[[Job], Trainer],
        make_subject: Callable[..., Subject] = Subject,
    ) -> None:
        self.trainer, self.job, self.config, self.data, self.cells = trainer, job, job.config, data, cells
        self.passed = 0
        self._small_trainer, self._make_subject = small_trainer, make_subject
        self._best = [-math.inf] * len(cells)
        self._closed = [False] * len(cells)  # a seed that diverged writes one last line and no more
        self._lines = [0] * len(cells)  # of each journal, up to here
        self._there = [0] * len(cells)  # those that an earlier process has written
        self._saves = 0
        self._started, self._wall_before, self._compile_before = time.perf_counter(), 0.0, 0.0
        self._spent = defaultdict[str, float](float)  # seconds on what is not training, by what
        self._begun_at = 0  # the iteration at which this process has begun
        self._warm: tuple[int, float, float] | None = None  # iterations and both clocks when the first were behind it

    @property
    def _wall_seconds(self) -> float:
        return self._wall_before + time.perf_counter() - self._started

    @property
    def took(self) -> dict[str, float]:
        """Where the seconds of the job went up to here, a seed's share of them: training, tracing or compiling it, what
        is measured, the rest."""
        compiling = self._compile_before + self.trainer.compile_seconds
        known = {"training": self.trainer.train_seconds, "tracing or compiling": compiling, **self._spent}
        known["the rest"] = max(0.0, self._wall_seconds - sum(known.values()))
        return {what: seconds / len(self.cells) for what, seconds in known.items()}

    @contextmanager
    def _spending(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._spent[what] += time.perf_counter() - started

    # --- going on ---------------------------------------------------------------------------------------------------

    def begin(self) -> list[str]:
        """Makes the trainer as it was in the latest checkpoint that all cells have; else all starts from nothing.

        Returns:
            What people should know of it.
        """
        saved, notes = checkpoints.latest(self.cells)
        if saved:
            self._restore(saved)
        else:
            for cell in self.cells:
                cell.clear()
        return notes

    def _restore(self, saved: list[dict[str, Any]]) -> None:
        self.trainer.restore(merge_checkpoints(saved), "checkpoint")
        jobs = [content["job"] for content in saved]
        self._begun_at = self.trainer.step
        share = len(self.cells) / jobs[0]["cells"]  # of the clocks, where the job has been split since
        self.trainer.train_seconds *= share
        self._wall_before, self._compile_before = share * jobs[0]["wall_seconds"], share * jobs[0]["compile_seconds"]
        self._spent |= {what: share * seconds for what, seconds in jobs[0].get("spent", {}).items()}
        self.passed, self._saves = jobs[0]["passed"], jobs[0]["saves"]
        self._best, self._closed = [job["best"] for job in jobs], [job["closed"] for job in jobs]
        self._lines = [job["lines"] for job in jobs]
        self._there = [len(cell.measurements()) for cell in self.cells]

    def save(self) -> None:
        """Writes the checkpoint of every cell; the one before stays beside it."""
        self._saves += 1
        moment = uuid.uuid4().hex  # no two are the same, also where a training has come to the same iteration twice
        for i, cell in enumerate(self.cells):
            job = {
                "saves": self._saves,
                "moment": moment,
                "passed": self.passed,
                "lines": self._lines[i],
                "best": self._best[i],
                "closed": self._closed[i],
                "cells": len(self.cells),
                "wall_seconds": self._wall_seconds,
                "compile_seconds": self._compile_before + self.trainer.compile_seconds,
                "spent": dict(self._spent),
            }
            checkpoints.write(cell, {**self.trainer.checkpoint(self.trainer.seeds[i]), "job": job})

    # --- the journal ------------------------------------------------------------------------------------------------

    def _line(self, index: int, metrics: Callable[[], dict[str, float]]) -> None:
        """Adds a line to a journal, unless an earlier process has."""
        if self._lines[index] >= self._there[index]:
            self.cells[index].append(self.trainer.step, metrics())
        self._lines[index] += 1

    def measure(self) -> None:
        """Adds a line to every journal and saves the checkpoints that are the best so far."""
        trainer = self.trainer
        with self._spending("evaluating"):
            training, validation = trainer.mean_objective(), trainer.reports_on(self.data.val)
            lower = trainer.lower_objective_on(self.data.val)
            scores = evaluate(trainer.fitted(), self.data, self.config["metrics"])
        diverged_at = trainer.diverged_at
        for i in range(len(self.cells)):
            if self._closed[i]:
                continue
            objectives = {"train/objective": float(training[i])} if trainer.step else {}
            objectives |= {f"val/{name}": float(value[i]) for name, value in validation.items()}
            if lower is not None:
                objectives["val/lower_objective"] = float(lower[i])
            line = {**objectives, **scores[i], **self._cost()}
            self._line(i, line.copy)
            self._closed[i] = diverged_at[i] is not None
            self._keep_best(i, line)

    def _cost(self) -> dict[str, float]:
        """A seed's share of what the training has cost up to here."""
        trainer, seeds = self.trainer, len(self.cells)
        cost = {
            "time/train_seconds": trainer.train_seconds / seeds,
            "time/wall_seconds": self._wall_seconds / seeds,
            "time/compile_seconds": (self._compile_before + trainer.compile_seconds) / seeds,
            "memory/peak_bytes": _peak_bytes(trainer.device),
        }
        return cost | {name: 1000 * value / seeds for name, value in self._seconds_per_step().items()}

    def _seconds_per_step(self) -> dict[str, float]:
        """Of the steps after the first evaluation, where there are any: the first ones load and try what later ones
        find ready, which would be most of the time of a short training.

        By the training clock, and by the processor's, which other work on the machine disturbs less."""
        step, seconds, processor = self.trainer.step, self.trainer.train_seconds, self.trainer.processor_seconds
        if not step:
            return {}
        if self._warm is None:
            self._warm = step, seconds, processor
        since = step - self._warm[0]
        here = max(1, step - self._begun_at)
        found = {"time/ms_per_step": (seconds - self._warm[1]) / since if since else seconds / step}
        if self.trainer.device.type == "cpu":
            found["time/processor_ms_per_step"] = (processor - self._warm[2]) / since if since else processor / here
        return found

    def _keep_best(self, index: int, scores: dict[str, float]) -> None:
        value = better(self.config["select"], scores.get(self.config["select"], math.nan))
        if value > self._best[index] and not self._closed[index]:
            self._best[index] = value
            self.trainer.save(self.cells[index].artifacts / "best.pt", seed=self.trainer.seeds[index])

    def picture(self) -> None:
        """Pictures of the first seed."""
        fitted, data = in_own_units(self.trainer.fitted(), self.data)
        for cell, planned in zip(self.cells, self.job.cells, strict=True):
            if planned.config["pictures"] and can_picture(data, fitted):
                title = f"{planned.config['variant']}, step {fitted.step:,}"
                with self._spending("pictures"):
                    picture(fitted, planned.config["seed"], data, cell.artifacts, title)

    # --- probes -----------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """What is measured at this iteration alone."""
        fitted = self.trainer.fitted()
        for i, closed in enumerate(self._closed):
            if not closed:
                for measured in self._take(self._probes_at(fitted.step), fitted, i):
                    if metric_of(self.config["select"]).of_samples:
                        self._keep_best(i, measured)

    def _probes_at(self, at: int | str) -> list[dict[str, Any]]:
        return [probe for probe in self.config["probes"] if at in probe["at"]]

    def _take(self, probes: Iterable[dict[str, Any]], fitted: Fitted, index: int) -> list[dict[str, float]]:
        """Takes probes, or finds in the journal what an earlier process has taken; returns what was measured."""
        found, cell, seed = list[dict[str, float]](), self.cells[index], self.trainer.seeds[index]
        fitted, data = in_own_units(fitted, self.data)
        subject = self._make_subject(fitted, seed, data, cell.artifacts)
        for probe in probes:
            if self._lines[index] >= self._there[index]:
                settings = PROBES[probe["name"]].model_validate(probe["options"])
                with self._spending(f"probe {probe['name']}"):
                    measured = settings.measure(subject)
                cell.append(fitted.step, measured)
            self._lines[index] += 1
            found.append(cell.measurements()[self._lines[index] - 1].metrics)
        return found

    def _probe_checkpoints(self, index: int) -> None:
        """What is measured of the best and of the last checkpoint; once where these are the same."""
        steps = dict[str, int]()
        for name in ("best", "last"):
            probes, file = self._probes_at(name), self.cells[index].artifacts / f"{name}.pt"
            if not probes or not file.exists():  # where the training ended before anything was there to select by
                continue
            trainer = self._small_trainer(Job((self.job.cells[index],)))
            trainer.load(file)
            self._take((p for p in probes if steps.get(p["name"]) != trainer.step), trainer.fitted(), index)
            steps |= {probe["name"]: trainer.step for probe in probes}

    # --- the end ----------------------------------------------------------------------------------------------------

    def finish(self, alive: Callable[[], None]) -> Iterator[tuple[str, str, str | None]]:
        """The last checkpoints and what is measured of them; for every cell its id, state and what there is to say.

        ``alive`` is called between what takes long.
        """
        diverged_at = self.trainer.diverged_at
        for i, (cell, planned) in enumerate(zip(self.cells, self.job.cells, strict=True)):
            self.trainer.save(cell.artifacts / "last.pt", seed=self.trainer.seeds[i])
            if not self._closed[i]:
                self._probe_checkpoints(i)
                self._name_selected(i)
            alive()
            diverged = diverged_at[i]
            yield planned.id, *(("done", None) if diverged is None else ("diverged", f"not finite at step {diverged}"))

    def _name_selected(self, index: int) -> None:
        """Repeats the numbers that stand for the cell where MLflow's UI compares runs: in their last values."""
        cell = self.cells[index]
        journal, rule, metric = cell.measurements(), self.config["rule"], self.config["select"]
        found = selected(journal, rule, metric)
        if found and (rule == "best_validation" or RULES[rule](journal, metric) != last(journal, metric)):
            tested = {f"selected/{name}": value for name, value in found[1].items() if name.startswith("test/")}
            self._line(index, lambda: {"selected/step": float(found[0]), **tested})


def _peak_bytes(device: torch.device) -> float:
    """The most memory that this process has used on the device, or on the CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
