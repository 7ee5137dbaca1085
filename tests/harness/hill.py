"""A suite with a known optimum to tune on, in processes that can be disturbed."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from benchmark.data.datasets import DataSet
from benchmark.tasks import registry
from benchmark.tasks.plan import Choices, plan
from benchmark.tasks.suite_file import load_suite
from benchmark.tuning import leases
from benchmark.tuning import study as studies
from benchmark.tuning.storage import open_storage
from benchmark.tuning.tuner import Assignment, Limits, Tuner
from tests.harness.faults import ENVIRONMENT, hears_ctrl_c, until
from tests.harness.tiny import ROOT, write

PEAK = ROOT / "tests" / "harness" / "peak.py"
SUITE = """\
suite: hill
description: a hill
default_preset: test
tasks:
  board:
    description: points of the checkerboard
    data: {name: checkerboard, train: 500, val: 200, test: 200}
    model: {name: grbm, hidden: 3}
presets:
  test:
    description: a hill and a method
    seeds: 0-1
    evaluations: 4
    tasks:
      board:
        steps: 18
        all: {lr: 0.01}
        variants:
          - {method: peak, set: {x: 2.0}}
          - {method: bidsm, set: {N: [0, 1], K: 2}}
"""
TUNE = ("tune", "--suite", "hill.yaml", "--plugin", str(PEAK))
STUDY = "hill.board.bidsm"
TRIALS = 8
# Long enough to be disturbed, and nothing is pruned.
LONG = ("--methods", "bidsm", "--trials", str(TRIALS), "--steps", "120", "--pruner", "none", "--lease", "5")
ARGUMENTS = (*TUNE, *LONG, "--space", "bidsm.K=0..2")


@dataclasses.dataclass
class Bench:
    """A study and what works on it, in this process."""

    storage: optuna.storages.BaseStorage
    name: str
    data: DataSet
    where: str
    plugins: tuple[Path, ...] = (PEAK,)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def study(self) -> optuna.Study:
        """With a sampler that draws the same in every run of the test, and others when it goes on."""
        found = studies.open_study(self.storage, self.name)
        found.sampler = studies.make_sampler(studies.read(found).sampler, seed=len(found.get_trials(deepcopy=False)))
        return found

    def tuner(self, stop: threading.Event, lease: leases.Lease, limits: Limits) -> Tuner:
        work = Assignment(self.where, (self.name,), (limits,), self.plugins, 1, 1, compile=False)
        return Tuner(self.study, self.data, lease, work, limits, "cpu", stop, self.notes.append)

    def work(self, trials: int | None, budget: float | None = None) -> None:
        with leases.Lease(self.storage) as lease:
            self.tuner(threading.Event(), lease, Limits(trials, budget)).run()

    def trials(self, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
        return self.study.get_trials(states=states or None)


def bench(folder: Path, data: DataSet, method: str = "peak", storage: Any = None, **more: Any) -> Bench:
    plugins = more.pop("plugins", (PEAK,))
    methods = registry.methods(plugins)
    suite = load_suite(str(write(folder, more.pop("text", SUITE), "hill.yaml")), methods)
    cells = plan(suite, Choices(methods=[method], seeds=[1000, 1001]), methods, {"board": data})
    given = {"objectives": None, "sampler": "random", "pruner": "none", "changes": {}, "enqueue": True, **more}
    settings = studies.settings_of(suite, "test", cells, methods[method], **given)
    where = str(folder / "studies.journal")
    opened = storage or open_storage(where)
    studies.open_study(opened, "hill.board." + method, settings)
    return Bench(opened, "hill.board." + method, data, where, plugins)


@contextlib.contextmanager
def tuning(folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, as in a terminal; what is left of it at the end is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark", *ARGUMENTS, *more], cwd=folder,
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=hears_ctrl_c,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def under_way(process: subprocess.Popen[str], where: str) -> optuna.Study:
    """The study, once a trial of it has an intermediate value."""
    storage = open_storage(where)

    def begun() -> bool:
        names = [study.study_name for study in storage.get_all_studies()]
        if STUDY not in names:
            return False
        trials = optuna.load_study(storage=storage, study_name=STUDY).get_trials()
        return any(trial.intermediate_values for trial in trials)

    until(process, begun)
    return optuna.load_study(storage=storage, study_name=STUDY)
