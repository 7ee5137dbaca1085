"""The MLflow projection of Optuna studies: imported only when tracking is on.

Experiment = suite; one parent run per study; one nested run per finished trial, found by its tags. Optuna's storage is
the truth: everything is written from it, any number of times and from any number of machines with the same result.
"""

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from optuna import Study
from optuna.distributions import CategoricalDistribution, IntDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from benchmark.tracking.check import Unreachable
from benchmark.tracking.store_writer import StoreWriter

# After the store's writer, which keeps MLflow quiet while it is imported.
from benchmark.tracking import labels  # isort: skip
from mlflow.entities import Metric, Run  # isort: skip
from mlflow.exceptions import MlflowException  # isort: skip

__all__ = ["StudyTracker", "Unreachable"]
_STATE = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
_STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
_PARENT = "mlflow.parentRunId"
_SECONDS = "time/train_seconds"
_AT_A_TIME = 100  # trials written between two looks at the store, and while others wait for its file
_LONGEST = 5000  # characters of a reason; MLflow takes 8,000


class StudyTracker(StoreWriter):
    """Writes studies to an MLflow store.

    Two machines that make a run of the same thing at the same time both see it when they look again, keep the same one
    of the two (the first by time and id) and delete the other. So every pass looks until there is nothing to do.
    """

    _KIND = "trial"
    _MEANWHILE = "Tuning goes on and the study's storage keeps everything; the next 'tune' of the study catches up."
    _INSTEAD = "Give another --tracking-uri, or --tracking-uri none."

    def sync(self, study: Study, command: str | None = None, last: bool = False) -> bool:
        """Brings the runs of a study up to date; repeating it changes nothing.

        A store that fails is a warning, once: nothing is lost, as every later call writes what is missing. After a
        failure that took long, calls return at once for a while, unless it is the ``last``.

        Returns:
            Whether the store now holds everything that has finished.
        """
        if not last and time.monotonic() < self._retry_at:
            return False
        wanted = _Wanted.of(study)
        with self._tolerating_failures():
            while self._look(wanted, command):
                pass
        return not self.behind

    def _look(self, wanted: "_Wanted", command: str | None) -> bool:
        """Looks at what the store has of a study and writes of what it lacks; whether to look again."""
        with self._lock:
            found = self._search(wanted.suite, study=wanted.name)
            parent = self._one_each(found, "study").get(wanted.name)
            if parent is None:
                self._make_parent(wanted, command)
                return True
            held = self._one_each(found, "trial")
            self._adopt(held.values(), parent)
            missing = [trial for trial in wanted.finished if not _is_written(held.get(str(trial.number)))]
            for trial in missing[:_AT_A_TIME]:
                self._write(wanted, trial, held.get(str(trial.number)), parent)
            if not missing:
                self._set_parent_status(wanted, parent)
            return bool(missing)

    def _one_each(self, found: Iterable[Run], kind: str) -> dict[str, Run]:
        """The runs of a kind by the tag of that name. Of several with one name, all but the first are deleted.

        Which one is first never changes and is the same for everybody, so that it is deleted by nobody.
        """
        runs: dict[str, Run] = {}
        ours = (run for run in found if run.data.tags.get("kind") == kind)
        for run in sorted(ours, key=lambda run: (run.info.start_time, run.info.run_id)):
            if runs.setdefault(run.data.tags[kind], run) is not run:
                self._client.delete_run(run.info.run_id)
        return runs

    @contextmanager
    def _unless_deleted(self, run: str) -> Iterator[None]:
        """A run that somebody has deleted meanwhile, who kept another, need not be written."""
        try:
            yield
        except MlflowException:
            if self._client.get_run(run).info.lifecycle_stage != "deleted":
                raise

    def _make_parent(self, wanted: "_Wanted", command: str | None) -> None:
        tags = {**wanted.tags(), **labels.provenance(command)}
        self._client.create_run(self._experiment(wanted.suite), wanted.started, tags, wanted.name)

    def _adopt(self, runs: Iterable[Run], parent: Run) -> None:
        """Nests runs whose parent was deleted, by a person or because another machine had made one too."""
        for run in runs:
            if run.data.tags.get(_PARENT) != parent.info.run_id:
                with self._unless_deleted(run.info.run_id):
                    self._client.set_tag(run.info.run_id, _PARENT, parent.info.run_id)

    def _write(self, wanted: "_Wanted", trial: FrozenTrial, begun: Run | None, parent: Run) -> None:
        """Writes a trial, or the rest of one that was begun. Its status comes last and says that all of it is there."""
        if begun is None:
            tags = {**wanted.trial_tags(trial), _PARENT: parent.info.run_id}
            begun = self._client.create_run(
                self._experiment(wanted.suite), _started(trial), tags, f"trial {trial.number}"
            )
        run = begun.info.run_id
        with self._unless_deleted(run):
            self._log(run, wanted.metrics(trial), {name: str(value) for name, value in trial.params.items()}, {})
            self._set_status(run, _STATUS[trial.state], _ended(trial))

    def _set_parent_status(self, wanted: "_Wanted", parent: Run) -> None:
        run = parent.info.run_id
        with self._unless_deleted(run):
            if wanted.data and not (parent.inputs and parent.inputs.dataset_inputs):
                self._client.log_inputs(run, [labels.dataset(wanted.data)])
            if parent.info.status != wanted.status:
                self._set_status(run, wanted.status, wanted.ended)


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What the store is to hold of a study, as it is now.

    Args:
        name: the study's.
        about: what the tuner says of it.
        directions: of each objective.
        trials: all of them.
    """

    name: str
    about: dict[str, Any]
    directions: list[str]
    trials: list[FrozenTrial]

    @classmethod
    def of(cls, study: Study) -> "_Wanted":
        directions = [direction.name.lower() for direction in study.directions]
        return cls(study.study_name, study.user_attrs["benchmark"], directions, study.get_trials(deepcopy=False))

    @property
    def suite(self) -> str:
        return str(self.about["suite"])

    @property
    def data(self) -> dict[str, Any] | None:
        return self.about.get("data")

    @property
    def finished(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.state.is_finished()]

    @property
    def status(self) -> str:
        return "FINISHED" if len(self.finished) == len(self.trials) else "RUNNING"

    @property
    def started(self) -> int | None:
        return min((_started(trial) for trial in self.trials if trial.datetime_start), default=None)

    @property
    def ended(self) -> int | None:
        return max((_ended(trial) for trial in self.finished), default=None)

    def tags(self) -> dict[str, str]:
        """What the study's run is searched by, and what a report says of it."""
        return {
            **self._labels("suite", "preset", "task", "method", "steps", "sampler", "pruner"),
            "kind": "study",
            "study": self.name,
            "seeds": ",".join(map(str, self.about["seeds"])),
            "objectives": json.dumps(self.about["objectives"]),
            "directions": json.dumps(self.directions),
            "space": json.dumps({name: _ranges(text) for name, text in self.about["space"].items()}),
            **labels.of_method(self.about.get("config", {})),
        }

    def trial_tags(self, trial: FrozenTrial) -> dict[str, str]:
        """What a trial's run is searched by, and why it is there or ended."""
        names = ("origin", "variant", "reason", "retry_of")
        said = {name: str(trial.user_attrs[name])[:_LONGEST] for name in names if name in trial.user_attrs}
        return {
            **self._labels("suite", "task", "method"),
            **said,
            "kind": "trial",
            "study": self.name,
            "trial": str(trial.number),
            "state": _STATE[trial.state],
        }

    def _labels(self, *names: str) -> dict[str, str]:
        return {name: str(self.about[name]) for name in names}

    def metrics(self, trial: FrozenTrial) -> list[Metric]:
        """The values on the way, then the final ones, a millisecond later: MLflow shows the last as the run's.

        A trial that did not complete has no final values; what it took is said at the last iteration that it reached.
        """
        complete, ended = trial.state == TrialState.COMPLETE, _ended(trial)
        objectives, steps = self.about["objectives"], int(self.about["steps"])
        final = dict(zip(objectives, trial.values if complete else (), strict=complete))
        last = steps if complete else trial.last_step or 0
        if "train_seconds" in trial.user_attrs:
            final.setdefault(_SECONDS, trial.user_attrs["train_seconds"])
        way = [
            Metric(objectives[0], float(value), ended - 1, step)
            for step, value in trial.intermediate_values.items()
            if (step, value) != (last, final.get(objectives[0]))  # once is enough
        ]
        return way + [Metric(name, float(value), ended, last) for name, value in final.items()]


def _is_written(run: Run | None) -> bool:
    """Whether a trial's run is there and complete."""
    return run is not None and run.info.status != "RUNNING"


def _ranges(text: str) -> dict[str, Any]:
    """A distribution as a report reads it."""
    space = json_to_distribution(text)
    if isinstance(space, CategoricalDistribution):
        return {"type": "categorical", "choices": list(space.choices)}
    names = ("low", "high", "log", "step")
    return {
        "type": "int" if isinstance(space, IntDistribution) else "float",
        **{name: getattr(space, name) for name in names},
    }


def _started(trial: FrozenTrial) -> int:
    """When a trial began; one that failed before it did, when it ended. In milliseconds."""
    return _milliseconds(trial.datetime_start or trial.datetime_complete)


def _ended(trial: FrozenTrial) -> int:
    return _milliseconds(trial.datetime_complete)


def _milliseconds(time_: datetime | None) -> int:
    """Optuna's local time as MLflow's."""
    assert time_ is not None  # a finished trial has ended, and one that runs has begun
    return int(time_.timestamp() * 1000)
