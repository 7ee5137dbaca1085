"""Cells made by hand, and what a store has of them."""

import os
import sqlite3
import sys
from typing import Any

import torch

from baselines.dsm import DSM
from benchmark.records.rundir import Record, RunDir
from benchmark.tracking import cells as tracking
from bism import GRBM
from bism.engine import Trainer

DATA_HASH = "0123456789abcdef" * 4
STEPS = (0, 10, 20)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # of other processes


class Cells:
    """Makes cells by hand. Suite = test, so that tests do not meet in the store."""

    def __init__(self, run_dir: RunDir, suite: str) -> None:
        self.run_dir, self.suite = run_dir, suite

    def add(self, seed: int = 0, variant: str = "DSM", lines: int = 3, **config: Any) -> str:
        """A running cell with a journal; its id."""
        cell = f"{self.suite}-{variant}-{seed}"
        self.run_dir.plan([Record(cell, self.suite, "quick", "checkerboard", "dsm", variant, seed, 20, "planned")])
        self.begin(cell, seed, variant, **config)
        for step in STEPS[:lines]:
            metrics = {"val/log_likelihood": -1.0 - step - seed, "train/objective": step / 3}
            self.run_dir.folder(cell).append(step, metrics)
        return cell

    def begin(self, cell: str, seed: int = 0, variant: str = "DSM", **config: Any) -> None:
        self.run_dir.claim([cell], again=True)
        self.run_dir.folder(cell).clear()
        self.run_dir.folder(cell).prepare(
            {
                "suite": self.suite,
                "preset": "quick",
                "task": "checkerboard",
                "method": "dsm",
                "variant": variant,
                "seed": seed,
                "steps": 20,
                "batch_size": 100,
                "data_noise": 0.0,
                "precision": "float32",
                "accumulate": 1,
                "hyper": {"lr": 0.001, "sigma": 0.05},
                "data": {"name": "checkerboard", "hash": DATA_HASH, "train": 600},
                "model": {"name": "grbm", "visible": 2, "hidden": 4},
                "select": "val/log_likelihood",
                "rule": "last",
                "paper": None,
                "reference": "Vincent 2011",
                "description": "Denoising score matching.",
                "device": "cpu",
                "provenance": {"git_commit": "abc", "host": "there", "python_version": "3", "torch_version": "2"},
                **config,
            }
        )

    def end(self, cell: str, state: str, error: str | None = None) -> None:
        if error:
            (self.run_dir.folder(cell).path / "error.txt").write_text(error)
        self.run_dir.set_state(cell, state)

    def train(self, cell: str, seed: int) -> Trainer:
        """Trains a little and saves the checkpoint as the best."""
        trainer = Trainer(DSM(), GRBM(2, 4), torch.rand(100, 2), seeds=[seed])
        trainer.run(5)
        trainer.save(self.run_dir.folder(cell).artifacts / "best.pt")
        return trainer

    def run_of(self, tracker: tracking.Tracker, cell: str) -> Any:
        """The one run that the store has of a cell."""
        (run,) = search(tracker, self.suite, f"tags.cell = '{cell}'")
        return run


def search(tracker: tracking.Tracker, suite: str, condition: str = "") -> list[Any]:
    experiment = tracker._client.get_experiment_by_name(suite)
    return list(tracker._client.search_runs([experiment.experiment_id], condition)) if experiment else []


def history(tracker: tracking.Tracker, run: Any, metric: str) -> list[tuple[int, float, int]]:
    points = tracker._client.get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value, point.timestamp) for point in points)


def journal(run_dir: RunDir, cell: str, metric: str) -> list[tuple[int, float, int]]:
    return [(line.step, line.metrics[metric], line.time_ms) for line in run_dir.folder(cell).measurements()]


def forget(run_dir: RunDir) -> None:
    """Loses what the index remembers of tracking stores."""
    with sqlite3.connect(run_dir.path / "index.sqlite") as index:
        index.execute("DELETE FROM synced")
    index.close()
