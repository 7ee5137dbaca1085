"""MLflow holds what a study holds: one run each, whoever writes, whatever fails and however often it is written."""

import functools
import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any

import optuna
import pytest
from mlflow.exceptions import MlflowException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.study import StudyDirection
from optuna.trial import TrialState

from benchmark.system.invocation import call
from benchmark.tracking.studies import StudyTracker, Unreachable
from bism import InputError

BEGAN = datetime(2026, 1, 2, 3, 4, 5)
SPACE: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "inner_steps": IntDistribution(0, 20, step=5),
    "divergence": CategoricalDistribution(["kl", "fisher"]),
}
PARAMS = {"learning_rate": 0.001, "inner_steps": 5, "divergence": "fisher"}
OBJECTIVES = ["val/log_likelihood", "time/train_seconds"]


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests, because MLflow takes ten seconds to make one."""
    made = f"sqlite:///{tmp_path_factory.mktemp('studies')}/mlflow.db"
    StudyTracker(made)
    return made


class Calls:
    """MLflow's client, counted; before the ``at``-th call something else happens."""

    def __init__(self, client: Any) -> None:
        self.client, self.names = client, list[str]()
        self.at = 0
        self.happens: Callable[[], Any] = lambda: None

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.names.append(name)
            if len(self.names) == self.at:
                self.happens()
            return getattr(self.client, name)(*args, **kwargs)

        return call


class Watched(StudyTracker):
    """A tracker whose calls are counted. It has no lock, like one of a server."""

    def __init__(self, uri: str, at: int = 0, happens: Callable[[], Any] = lambda: None) -> None:
        super().__init__(uri)
        self.calls = Calls(self._client)
        self.calls.at, self.calls.happens = at, happens
        self._client, self._lock = self.calls, nullcontext()  # type: ignore[assignment]


class Made:
    """A study with trials made by hand. Suite = test, so that tests do not meet in the store."""

    def __init__(self, suite: str, objectives: int = 2, **about: Any) -> None:
        self.suite = suite
        directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][:objectives]
        self.study = optuna.create_study(study_name=f"{suite}.checkerboard.bidsm", directions=directions)
        self.about = {
            "suite": suite,
            "preset": "quick",
            "task": "checkerboard",
            "method": "bidsm",
            "steps": 20,
            "seeds": [1000, 1001, 1002],
            "objectives": OBJECTIVES[:objectives],
            "space": {name: distribution_to_json(space) for name, space in SPACE.items()},
            "data": {"name": "checkerboard", "hash": "0123456789abcdef" * 4, "train": 600},
            "sampler": "TPESampler",
            "pruner": "MedianPruner",
            "paper": PARAMS,
            **about,
        }
        self.study.set_user_attr("benchmark", self.about)

    def add(self, state: TrialState = TrialState.COMPLETE, values: list[float] | None = None, **more: Any) -> None:
        """A trial of 30 seconds, by default one that completed."""
        complete = state == TrialState.COMPLETE
        default = [-1.5, 30.25][: len(self.study.directions)] if complete else None
        number = len(self.study.trials)
        trial = optuna.create_trial(state=state, values=values or default, params=PARAMS, distributions=SPACE, **more)
        trial.datetime_start = BEGAN + timedelta(minutes=number)
        trial.datetime_complete = trial.datetime_start + timedelta(seconds=30) if state.is_finished() else None
        self.study.add_trial(trial)


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Made:
    return Made(request.node.name)


def ms(minutes: int = 0, seconds: int = 0) -> int:
    return int((BEGAN + timedelta(minutes=minutes, seconds=seconds)).timestamp() * 1000)


def stored(tracker: StudyTracker, suite: str) -> tuple[Any, dict[int, Any]]:
    """The one parent run of the one study in a suite, and the one run of each of its trials."""
    found = tracker._search(suite)
    (parent,) = (run for run in found if run.data.tags["kind"] == "study")
    trials = {int(run.data.tags["trial"]): run for run in found if run.data.tags["kind"] == "trial"}
    assert len(trials) == len(found) - 1
    assert {run.data.tags["mlflow.parentRunId"] for run in trials.values()} <= {parent.info.run_id}
    return parent, trials


def history(tracker: StudyTracker, run: Any, metric: str) -> list[tuple[int, float]]:
    points = tracker._client.get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def die() -> None:
    raise KeyboardInterrupt


def told(tracker: StudyTracker, run: Any) -> tuple[Any, ...]:
    """All that the store says of a run."""
    points = {name: history(tracker, run, name) for name in run.data.metrics}
    inputs = [item.dataset.digest for item in run.inputs.dataset_inputs]
    return run.info.status, run.info.end_time, run.data.tags, run.data.params, points, inputs


def test_a_study_is_one_run_that_says_how_it_searches(uri: str, made: Made) -> None:
    made.add()
    tracker = StudyTracker(uri)
    assert tracker.sync(made.study, command="python -m benchmark tune --suite x")
    parent, _ = stored(tracker, made.suite)
    tags = parent.data.tags
    expected = {
        "kind": "study",
        "study": made.study.study_name,
        "suite": made.suite,
        "preset": "quick",
        "task": "checkerboard",
        "method": "bidsm",
        "steps": "20",
        "seeds": "1000,1001,1002",
        "objectives": '["val/log_likelihood", "time/train_seconds"]',
        "directions": '["maximize", "minimize"]',
        "sampler": "TPESampler",
        "pruner": "MedianPruner",
        "mlflow.source.name": "python -m benchmark tune --suite x",
    }
    assert {name: tags.get(name) for name in expected} == expected
    assert json.loads(tags["space"]) == {
        "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True, "step": None},
        "inner_steps": {"type": "int", "low": 0, "high": 20, "log": False, "step": 5},
        "divergence": {"type": "categorical", "choices": ["kl", "fisher"]},
    }
    assert {"git_commit", "mlflow_version", "python_version", "torch_version", "host"} <= set(tags)
    assert (parent.info.run_name, parent.info.status) == (made.study.study_name, "FINISHED")
    assert (parent.info.start_time, parent.info.end_time) == (ms(), ms(seconds=30))
    (data,) = parent.inputs.dataset_inputs
    assert json.loads(data.dataset.profile) == made.about["data"]


def test_a_trial_is_one_nested_run_with_labels_parameters_and_values(uri: str, made: Made) -> None:
    attributes = {"origin": "paper", "variant": "BiDSM-5", "retry_of": 3, "train_seconds": 29.0, "worker": "w"}
    made.add(intermediate_values={10: -3.0, 20: -1.0}, user_attrs=attributes)
    made.add(TrialState.PRUNED, intermediate_values={10: -9.0}, user_attrs={"reason": "slow", "train_seconds": 7.5})
    made.add(TrialState.FAIL, user_attrs={"reason": "x" * 20_000})
    tracker = StudyTracker(uri)
    assert tracker.sync(made.study)
    _, trials = stored(tracker, made.suite)

    tags = {name: value for name, value in trials[0].data.tags.items() if not name.startswith("mlflow.")}
    labels = {"study": made.study.study_name, "suite": made.suite, "task": "checkerboard", "method": "bidsm"}
    assert tags == {
        **labels, "kind": "trial", "trial": "0", "state": "complete", "origin": "paper", "variant": "BiDSM-5",
        "retry_of": "3",
    }  # fmt: skip
    assert (trials[0].info.run_name, trials[0].info.status) == ("trial 0", "FINISHED")
    assert (trials[0].info.start_time, trials[0].info.end_time) == (ms(), ms(seconds=30))
    assert trials[0].data.params == {"learning_rate": "0.001", "inner_steps": "5", "divergence": "fisher"}
    assert history(tracker, trials[0], "val/log_likelihood") == [(10, -3.0), (20, -1.5), (20, -1.0)]
    assert history(tracker, trials[0], "time/train_seconds") == [(20, 30.25)]  # the objective's, where it is one
    assert trials[0].data.metrics == {"val/log_likelihood": -1.5, "time/train_seconds": 30.25}  # the final ones

    assert (trials[1].info.status, trials[1].data.tags["state"]) == ("KILLED", "pruned")
    assert trials[1].data.tags["reason"] == "slow"
    assert history(tracker, trials[1], "val/log_likelihood") == [(10, -9.0)]
    assert history(tracker, trials[1], "time/train_seconds") == [(10, 7.5)]
    assert trials[1].info.end_time == ms(minutes=1, seconds=30)

    assert (trials[2].info.status, trials[2].data.tags["state"], trials[2].data.metrics) == ("FAILED", "failed", {})
    assert 1000 < len(trials[2].data.tags["reason"]) <= 8000
    assert "origin" not in trials[2].data.tags


def test_values_of_one_objective(uri: str, request: pytest.FixtureRequest) -> None:
    """A pruned trial's, which Optuna sets to the last on the way, is not taken for one at the end."""
    made = Made(request.node.name, objectives=1)
    made.add(intermediate_values={10: -3.0, 20: -1.5}, user_attrs={"train_seconds": 29.0})
    made.add(TrialState.PRUNED, values=[-9.0], intermediate_values={10: -9.0})
    tracker = StudyTracker(uri)
    tracker.sync(made.study)
    _, trials = stored(tracker, made.suite)
    assert history(tracker, trials[0], "val/log_likelihood") == [(10, -3.0), (20, -1.5)]
    assert history(tracker, trials[0], "time/train_seconds") == [(20, 29.0)]
    assert history(tracker, trials[1], "val/log_likelihood") == [(10, -9.0)]


def test_values_that_are_no_numbers(uri: str, made: Made) -> None:
    way = {5: math.nan, 10: math.inf, 15: -math.inf}
    made.add(values=[-math.inf, math.inf], intermediate_values=way)
    made.add(TrialState.PRUNED, intermediate_values=way, user_attrs={"train_seconds": math.nan})
    tracker = StudyTracker(uri)
    assert tracker.sync(made.study)
    _, trials = stored(tracker, made.suite)
    largest = 1.7976931348623157e308  # what MLflow makes of infinity
    assert [value for _, value in history(tracker, trials[0], "val/log_likelihood")] == [
        pytest.approx(math.nan, nan_ok=True), largest, -largest, -largest,
    ]  # fmt: skip
    assert history(tracker, trials[0], "time/train_seconds") == [(20, largest)]
    assert math.isnan(trials[1].data.metrics["time/train_seconds"])


def test_a_second_sync_looks_once_and_writes_nothing(uri: str, made: Made) -> None:
    for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
        made.add(state, intermediate_values={10: -3.0})
    assert StudyTracker(uri).sync(made.study)
    again = Watched(uri)
    again._experiment(made.suite)
    again.calls.names.clear()
    assert again.sync(made.study)
    assert again.sync(made.study, last=True)
    assert again.calls.names == ["search_runs"] * 2


def test_a_trial_that_finishes_later_is_added(uri: str, made: Made) -> None:
    tracker = Watched(uri)
    assert tracker.sync(made.study)
    assert stored(tracker, made.suite)[0].info.status == "FINISHED"  # nothing runs, nothing waits
    made.add()
    trial = made.study.ask(SPACE)
    made.study.enqueue_trial(PARAMS)
    assert tracker.sync(made.study)
    parent, trials = stored(tracker, made.suite)
    assert (parent.info.status, list(trials)) == ("RUNNING", [0])
    before = told(tracker, trials[0])

    made.study.tell(trial, state=TrialState.FAIL)
    tracker.calls.names.clear()
    assert tracker.sync(made.study)
    assert tracker.calls.names.count("create_run") == 1
    parent, trials = stored(tracker, made.suite)
    assert (parent.info.status, sorted(trials)) == ("RUNNING", [0, 1])  # one waits
    assert told(tracker, trials[0]) == before

    made.study.tell(made.study.ask(SPACE), [-1.0, 2.0])
    assert tracker.sync(made.study)
    parent, trials = stored(tracker, made.suite)
    assert (parent.info.status, sorted(trials)) == ("FINISHED", [0, 1, 2])


def test_more_trials_than_are_written_at_a_time(uri: str, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.tracking.studies._AT_A_TIME", 2)
    for _ in range(5):
        made.add()
    tracker = StudyTracker(uri)
    assert tracker.sync(made.study)
    assert sorted(stored(tracker, made.suite)[1]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("what", ["another writes all", "the writer dies"])
def test_one_run_each_whatever_happens_between_two_calls(uri: str, request: pytest.FixtureRequest, what: str) -> None:
    """Before each call in turn, another tracker does all of it, or this one is lost and another one goes on."""

    def study(at: int) -> Made:
        made = Made(f"{request.node.name}{at}")
        made.add(intermediate_values={10: -3.0, 20: math.nan})
        made.add(TrialState.PRUNED, user_attrs={"reason": "slow"})
        return made

    def all_told(tracker: StudyTracker, made: Made) -> str:
        parent, trials = stored(tracker, made.suite)
        ends = [run.info.status for run in (parent, trials[0], trials[1])]
        return str((ends, [told(tracker, run)[3:] for run in (parent, trials[0], trials[1])]))

    alone, watched = study(0), Watched(uri)
    watched.sync(alone.study)
    calls = len(watched.calls.names)
    assert calls > 10
    expected = all_told(watched, alone)
    for at in range(1, calls + 1):
        made, other = study(at), Watched(uri)
        if what == "another writes all":
            assert Watched(uri, at, functools.partial(other.sync, made.study)).sync(made.study)
        else:
            with pytest.raises(KeyboardInterrupt):
                Watched(uri, at, die).sync(made.study)
        assert other.sync(made.study)
        assert all_told(other, made) == expected


@pytest.mark.parametrize("call", ["log_batch", "set_terminated"])
def test_a_run_that_another_deletes_while_it_is_written_is_not_missed(uri: str, made: Made, call: str) -> None:
    """As one does that has made a run of the trial too, and keeps its own."""
    made.add()
    StudyTracker(uri).sync(Made(made.suite).study)
    tracker, other = Watched(uri), Watched(uri)

    def delete() -> None:
        _, trials = stored(other, made.suite)
        other._client.delete_run(trials[0].info.run_id)
        assert other.sync(made.study)

    names = ["get_experiment_by_name", "search_runs", "create_run", "log_batch", "set_terminated"]
    tracker.calls.at, tracker.calls.happens = names.index(call) + 1, delete
    assert tracker.sync(made.study)
    assert tracker.calls.names[: len(names) - 1] == names[:-1]
    _, trials = stored(tracker, made.suite)
    assert (trials[0].info.status, trials[0].data.metrics["val/log_likelihood"]) == ("FINISHED", -1.5)


@pytest.mark.parametrize("what", ["parent", "trial", "experiment"])
def test_what_is_deleted_in_the_store_comes_back(uri: str, made: Made, what: str) -> None:
    made.add()
    made.add()
    tracker = StudyTracker(uri)
    tracker.sync(made.study)
    parent, trials = stored(tracker, made.suite)
    if what == "experiment":
        tracker._client.delete_experiment(parent.info.experiment_id)
        tracker = StudyTracker(uri)
    else:
        tracker._client.delete_run((parent if what == "parent" else trials[1]).info.run_id)
    assert tracker.sync(made.study)
    new_parent, new = stored(tracker, made.suite)
    assert sorted(new) == [0, 1]
    assert new[0].info.run_id == trials[0].info.run_id
    assert (new_parent.info.run_id == parent.info.run_id) == (what != "parent")


def test_two_studies_share_an_experiment(uri: str, made: Made) -> None:
    made.add()
    other = optuna.create_study(study_name=f"{made.suite}.digits.bidsm", directions=["maximize", "minimize"])
    other.set_user_attr("benchmark", {**made.about, "task": "digits"})
    tracker = StudyTracker(uri)
    assert tracker.sync(made.study)
    assert tracker.sync(other)
    names = [run.info.run_name for run in tracker._search(made.suite, kind="study")]
    assert sorted(names) == sorted([made.study.study_name, other.study_name])
    assert len(tracker._search(made.suite, kind="trial")) == 1


@pytest.mark.parametrize("kind", [MlflowException, ConnectionError])
def test_a_store_that_goes_down_is_one_warning_and_catches_up(uri: str, made: Made, kind: type[Exception]) -> None:
    made.add()
    made.add()
    tracker = Watched(uri)
    assert tracker.sync(made.study)
    made.add()
    made.add()

    def down() -> None:
        tracker.calls.at += 1  # and stays down
        raise kind("refused")

    tracker.calls.at, tracker.calls.happens = len(tracker.calls.names) + 4, down  # in the middle of a trial
    with pytest.warns(UserWarning, match=r"store sqlite.*fails: refused\. Tuning goes on.*catches up") as said:
        assert not tracker.sync(made.study)
    assert len(said) == 1
    assert not tracker.sync(made.study, last=True)  # and no second warning
    assert tracker.behind
    tracker.calls.at, tracker._retry_at = 0, math.inf
    tracker.calls.names.clear()
    assert not tracker.sync(made.study)  # too early
    assert tracker.calls.names == []
    assert tracker.sync(made.study, last=True)
    _, trials = stored(tracker, made.suite)
    assert sorted(trials) == [0, 1, 2, 3]
    assert {run.info.status for run in trials.values()} == {"FINISHED"}
    assert history(tracker, trials[2], "val/log_likelihood") == [(20, -1.5)]


def test_an_error_of_the_store_is_not_taken_for_a_deleted_run(
    uri: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.add()
    tracker = StudyTracker(uri)
    log, said = tracker._client.log_batch, ["no space left"]

    def refuse_once(*args: Any) -> None:
        if said:
            raise MlflowException(said.pop())
        log(*args)

    monkeypatch.setattr(tracker._client, "log_batch", refuse_once)
    with pytest.warns(UserWarning, match="no space left"):
        assert not tracker.sync(made.study)
    assert tracker.sync(made.study, last=True)


def test_a_store_that_cannot_be_used(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="refuse plain folders"):
        StudyTracker(str(tmp_path))
    with pytest.raises(Unreachable, match="cannot be reached"):
        StudyTracker("postgresql+psycopg2://user:secret@127.0.0.1:1/mlflow")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be used.*--tracking-uri none\.$"):
        StudyTracker(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_the_command_for_the_interface(uri: str) -> None:
    assert (
        StudyTracker(uri).ui_hint()
        == f"{call('benchmark', 'ui')} --tracking-uri {uri}, then open http://127.0.0.1:5000"
    )
