"""Several processes on one study: leases, who dies, what is given back, storages that go away."""

import dataclasses
import io
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from benchmark.commands.tune import _Tracking
from benchmark.data.datasets import DataSet, load
from benchmark.tracking import studies as tracking
from benchmark.tracking.store_writer import MlflowClient
from benchmark.tuning import leases
from benchmark.tuning import study as studies
from benchmark.tuning.storage import StorageAway, open_storage, patiently
from benchmark.tuning.tuner import Limits
from tests.harness.faults import ended, free_port
from tests.harness.hill import ARGUMENTS, STUDY, SUITE, TRIALS, Bench, bench, tuning, under_way
from tests.harness.postgres import PostgreSQL
from tests.harness.tiny import command, write


@pytest.fixture(scope="module")
def data() -> DataSet:
    return load({"name": "checkerboard", "train": 500, "val": 200, "test": 200}, Path("none"))


def test_the_total_is_the_study_s_and_the_same_call_goes_on(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data)
    one.work(5)
    one.work(5)
    assert len(one.trials()) == 5
    one.work(8)
    assert [trial.number for trial in one.trials(TrialState.COMPLETE)] == list(range(8))


def test_who_is_stopped_gives_back_what_is_under_way(tmp_path: Path, data: DataSet) -> None:
    one, stop = bench(tmp_path, data), threading.Event()
    with leases.Lease(one.storage) as lease:
        tuner = one.tuner(stop, lease, Limits(6))
        tuner._fill()
        begun = [lane.trial.params for lane in tuner.lanes]
        stop.set()
        tuner.run()
    assert len(begun) == 6
    assert {trial.user_attrs["reason"] for trial in one.trials(TrialState.FAIL)} == {"interrupted"}
    one.work(6)
    again = one.trials(TrialState.COMPLETE)
    assert [trial.params for trial in again] == begun
    assert [trial.user_attrs["retry_of"] for trial in again] == list(range(6))
    assert again[0].user_attrs["origin"] == "paper"  # and is one still


def storages(tmp_path: Path) -> dict[str, str]:
    return {"journal": str(tmp_path / "studies.journal"), "database": f"sqlite:///{tmp_path / 'studies.db'}"}


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_trials_of_a_dead_worker_are_enqueued_again_on_every_storage(
    tmp_path: Path, data: DataSet, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(storages(tmp_path)[kind])
    one = bench(tmp_path, data, storage=storage)
    lease = leases.Lease(storage)
    tuner = one.tuner(threading.Event(), lease, Limits(4))
    lease.take(one.study)
    tuner._fill()  # and dies here: its lease is live
    assert leases.reclaim(storage, one.study) == []
    monkeypatch.setattr(leases.socket, "gethostname", lambda: "elsewhere")  # where its process cannot be looked for
    assert leases.reclaim(storage, one.study) == []
    now = leases.time.time()
    monkeypatch.setattr(leases.time, "time", lambda: now + 1000)
    again = [f"trial {number} is tried again: its worker died" for number in range(4)]
    assert leases.reclaim(storage, one.study) == again
    assert leases.reclaim(storage, one.study) == []
    assert {trial.user_attrs["reason"] for trial in one.trials(TrialState.FAIL)} == {"its worker died"}
    one.work(4)
    assert [trial.user_attrs["retry_of"] for trial in one.trials(TrialState.COMPLETE)] == [0, 1, 2, 3]
    assert len(one.trials()) == 8


def test_a_process_that_is_gone_is_dead_at_once(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data)
    lease = leases.Lease(one.storage)
    lease.take(one.study)
    (held,) = leases.workers(one.storage, one.study).values()
    assert leases.is_live(held)
    assert leases.is_live({**held, "until": 1.0})  # the storage was away, and it could not renew
    assert not leases.is_live({**held, "process": 2**22 + 1})
    assert not leases.is_live({**held, "began": held["began"] - 100})  # another process has its number now
    lease.give_up()
    (held,) = leases.workers(one.storage, one.study).values()
    assert not leases.is_live(held)


def test_a_trial_whose_workers_die_again_and_again_is_given_up(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data)
    for attempt in range(3):
        trial = one.study.ask(studies.read(one.study).distributions)
        trial.set_user_attr("worker", "nobody")
        what = "is tried again: its worker died" if attempt < 2 else "is given up: its workers died"
        assert leases.reclaim(one.storage, one.study) == [f"trial {trial.number} {what}"]
    assert not one.trials(TrialState.WAITING)
    assert one.trials()[-1].user_attrs["reason"] == "its worker died, 3 times"
    assert len(leases.counted(one.trials())) == 1  # it counts: it will not be tried again


def test_what_nobody_enqueued_again_is_found_later(
    tmp_path: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who failed a dead worker's trial was killed before it enqueued it."""
    one = bench(tmp_path, data)
    trial = one.study.ask(studies.read(one.study).distributions)
    trial.set_user_attr("worker", "nobody")
    with monkeypatch.context() as patch:
        patch.setattr(leases, "_enqueue", lambda *_: None)
        leases.reclaim(one.storage, one.study)
    leases.reclaim(one.storage, one.study)
    assert not one.trials(TrialState.WAITING)  # its worker may be about to
    for _ in range(2):
        leases.reclaim(one.storage, one.study, seconds=-1)
    (waiting,) = one.trials(TrialState.WAITING)
    assert waiting.user_attrs["retry_of"] == 0


@pytest.mark.parametrize("asked", [False, True])
def test_a_lost_trial_that_two_enqueued_is_trained_once(
    tmp_path: Path, data: DataSet, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is seen to be there twice before somebody asks for the second, or then."""
    one = bench(tmp_path, data)
    for _ in range(2):
        trial = one.study.ask(studies.read(one.study).distributions)
        trial.set_user_attr("worker", "nobody")
    leases.reclaim(one.storage, one.study)
    lost = one.trials(TrialState.FAIL)
    leases._enqueue(one.study, lost[0])  # as another process does at the same moment
    assert len(one.trials(TrialState.WAITING)) == 3
    assert len(leases.counted(one.trials())) == 2
    if asked:
        monkeypatch.setattr(leases, "_drop_doubles", lambda *_: None)
    one.work(3)
    assert len(one.trials(TrialState.COMPLETE)) == len(leases.counted(one.trials())) == 3
    assert not one.trials(TrialState.WAITING)
    (double,) = [trial for trial in one.trials() if trial.user_attrs.get("surplus")]
    assert (double.state, double.user_attrs["retry_of"]) == (TrialState.FAIL, lost[0].number)


@pytest.mark.long
def test_processes_that_find_a_dead_worker_at_once_try_its_trials_once(tmp_path: Path, data: DataSet) -> None:
    """On SQLite, which locks no rows: without what drops doubles, three studies of five had some."""
    found, name = list[tuple[str, Bench]](), ""
    for attempt in range(6):
        where = f"sqlite:///{tmp_path}/{attempt}.db"
        one = bench(tmp_path, data, storage=open_storage(where))
        for _ in range(6):
            one.study.ask(studies.read(one.study).distributions).set_user_attr("worker", "nobody")
        found, name = [*found, (where, one)], one.name
    context = multiprocessing.get_context("spawn")
    gate, places = context.Barrier(2), [where for where, _ in found]
    finders = [context.Process(target=find_dead, args=(places, name, gate)) for _ in range(2)]
    for finder in finders:
        finder.start()
    for finder in finders:
        finder.join()
    for _, one in found:
        waiting = one.trials(TrialState.WAITING)
        assert sorted(trial.user_attrs["retry_of"] for trial in waiting) == list(range(6))
        assert len(leases.counted(one.trials())) == 6


def find_dead(places: list[str], name: str, gate: Any) -> None:
    """Looks for trials of dead workers in studies, in each at the same moment as another process."""
    for where in places:
        storage = open_storage(where)
        study = optuna.load_study(storage=storage, study_name=name)
        gate.wait(timeout=300)
        leases.reclaim(storage, study)


def test_a_trial_that_was_taken_away_is_dropped(tmp_path: Path, data: DataSet) -> None:
    """A worker that had stopped for so long that its trials were given to others goes on with the rest."""
    one = bench(tmp_path, data)
    with leases.Lease(one.storage) as lease:
        tuner = one.tuner(threading.Event(), lease, Limits(3))
        tuner._fill()
        leases.give_back(one.storage, one.study, one.trials()[1], "its worker died", died=True)
        tuner.run()
    states = [trial.state.name for trial in one.trials()]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_processes_that_ask_at_once_do_not_exceed_the_total(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data)
    with leases.Lease(one.storage) as first, leases.Lease(one.storage) as second:
        for lease in (first, second):
            lease.take(one.study)
        tuners = [one.tuner(threading.Event(), lease, Limits(3)) for lease in (first, second)]
        wanted = [tuner._wanted() for tuner in tuners]
        assert wanted == [3, 3]
        for tuner in tuners:
            tuner._wanted = lambda: 3  # type: ignore[method-assign]  # as if both had looked before either asked
            tuner._fill()
    assert [len(tuner.lanes) for tuner in tuners] == [3, 0]
    assert len(leases.counted(one.trials())) == 3


@pytest.mark.parametrize("known", [False, True])
def test_a_trial_beyond_the_total_is_not_tried_again(tmp_path: Path, data: DataSet, known: bool) -> None:
    """Two processes asked at once for the last; one was killed, or its storage went away, before it saw that: whether
    or not it had written down who it was."""
    one = bench(tmp_path, data)
    one.work(3)
    trial = one.study.ask(studies.read(one.study).distributions)
    if known:
        trial.set_user_attr("worker", "nobody")
    assert leases.reclaim(one.storage, one.study, seconds=-1, total=3) == []
    assert one.trials()[3].state == TrialState.FAIL
    assert len(one.trials()) == 4
    assert len(leases.counted(one.trials())) == 3
    one.work(4)
    assert len(one.trials(TrialState.COMPLETE)) == len(leases.counted(one.trials())) == 4


def test_the_place_of_a_lost_trial_is_kept(tmp_path: Path, data: DataSet) -> None:
    """What one process asks for too much is too much, also after another has enqueued a lost one in the meantime."""
    one = bench(tmp_path, data)
    one.work(2)
    for _ in range(2):  # the total's last, whose worker dies, and one too many
        one.study.ask(studies.read(one.study).distributions)
    leases.give_back(one.storage, one.study, one.trials()[2], "its worker died", died=True)
    trials = one.trials()
    assert [leases.is_surplus(trials, trial, 3) for trial in trials] == [False, False, True, True, False]


def test_what_a_killed_writer_left_of_a_line_is_no_obstacle(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data)
    one.work(2)
    with open(one.where, "ab") as file:
        file.write(b'{"op_code": 4, "work')
    again = dataclasses.replace(one, storage=open_storage(one.where))
    assert len(again.trials()) == 2
    again.work(3)
    assert len(dataclasses.replace(one, storage=open_storage(one.where)).trials(TrialState.COMPLETE)) == 3


def test_a_storage_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, asked = threading.Event(), list[int]()
    monkeypatch.setattr(stop, "wait", lambda seconds: False)

    def away(times: int) -> int:
        asked.append(1)
        if len(asked) <= times:
            raise optuna.exceptions.StorageInternalError("gone")
        return 7

    assert patiently(lambda: away(3), stop) == 7
    asked.clear()
    with pytest.raises(StorageAway, match="gone"):
        patiently(lambda: away(1000), stop)
    assert len(asked) == 30


def all_is_there(study: optuna.Study) -> None:
    """The total, nothing left over, and for each trial that was lost another."""
    trials = study.get_trials()
    assert len(leases.counted(trials)) == TRIALS
    assert not [trial for trial in trials if trial.state in (TrialState.RUNNING, TrialState.WAITING)]
    lost = {trial.number for trial in trials if trial.user_attrs.get("died")}
    assert {trial.user_attrs["retry_of"] for trial in trials if "retry_of" in trial.user_attrs} == lost


@pytest.mark.long
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_two_commands_on_one_study_of_which_one_is_ended(tmp_path: Path, ending: signal.Signals) -> None:
    """Whatever ends it: what it had under way is trained by the other, and nothing else is lost."""
    write(tmp_path, SUITE, "hill.yaml")
    with tuning(tmp_path) as first:
        study = under_way(first, str(tmp_path / "studies.journal"))
        with tuning(tmp_path) as second:
            first.send_signal(ending)
            said = ended(second)
            assert (said.code, said.err) == (0, "")
        assert first.wait(timeout=300) == (-signal.SIGKILL if ending == signal.SIGKILL else 130)
    all_is_there(study)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
@pytest.mark.timeout(900)  # three starts
def test_all_is_killed_while_the_tracking_store_is_away(tmp_path: Path) -> None:
    """The same command brings the study to its total, and later the store up to the study."""
    write(tmp_path, SUITE, "hill.yaml")
    where = storages(tmp_path)["database"]
    asked = ("--storage", where)
    away, there = f"http://127.0.0.1:{free_port()}", f"sqlite:///{tmp_path / 'mlflow.db'}"
    with tuning(tmp_path, *asked, "--tracking-uri", away) as first:
        study = under_way(first, where)
        os.killpg(first.pid, signal.SIGKILL)
    before = {trial.number: trial.values for trial in study.get_trials() if trial.state == TrialState.COMPLETE}
    with tuning(tmp_path, *asked, "--tracking-uri", away) as second:
        said = ended(second)
    assert (said.code, said.err) == (0, "")
    assert "Tuning goes on, and the store is tried again." in said.out
    assert "the tracking store lacks some of it" in said.out
    all_is_there(study)
    trials = study.get_trials()
    assert before.items() <= {trial.number: trial.values for trial in trials}.items()
    said = command(tmp_path, *ARGUMENTS, *asked, "--tracking-uri", there)
    assert (said.code, said.err) == (0, "")
    assert len(study.get_trials()) == len(trials)
    client = MlflowClient(there)
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()], "tags.kind = 'trial'")
    held = {int(run.data.tags["trial"]): run for run in runs}
    assert sorted(int(run.data.tags["trial"]) for run in runs) == sorted(trial.number for trial in trials)
    best = study.best_trial
    assert held[best.number].data.metrics["val/log_likelihood"] == best.value


@pytest.mark.long
def test_a_process_that_is_killed_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, SUITE, "hill.yaml")
    where = str(tmp_path / "studies.journal")
    with tuning(tmp_path) as first:
        study = under_way(first, where)
        worker = next(trial.user_attrs["worker"] for trial in study.get_trials() if "worker" in trial.user_attrs)
        os.kill(leases.workers(open_storage(where), study)[worker]["process"], signal.SIGKILL)
        said = ended(first)
    assert said.code == 0, said.err
    assert "a process was ended by signal 9; another takes its place" in said.out
    assert "is tried again: its worker died" in said.out
    all_is_there(study)


@pytest.mark.long
def test_a_database_that_goes_away_while_a_process_is_killed(tmp_path: Path, database: PostgreSQL) -> None:
    write(tmp_path, SUITE, "hill.yaml")
    with tuning(tmp_path, "--storage", database.uri) as first:
        study = under_way(first, database.uri)
        worker = next(trial.user_attrs["worker"] for trial in study.get_trials() if "worker" in trial.user_attrs)
        os.kill(leases.workers(open_storage(database.uri), study)[worker]["process"], signal.SIGKILL)
        database.stop()
        database.start()
        said = ended(first)
    assert said.code == 0, said
    all_is_there(optuna.load_study(storage=open_storage(database.uri), study_name=STUDY))


def test_a_tracking_store_that_is_away_at_first_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Store:
        """Away when it is asked for the first two times."""

        asked, written, behind = 0, list[str](), False

        def __init__(self, uri: str) -> None:
            Store.asked += 1
            if Store.asked < 3:
                raise tracking.Unreachable(f"tracking store {uri} cannot be reached: Connection refused.")

        def sync(self, study: Any, command: str, last: bool = False) -> None:
            Store.written.append(study)

    monkeypatch.setattr(tracking, "StudyTracker", Store)
    said = io.StringIO()
    with _Tracking("http://host", Console(file=said, width=200)) as kept:
        assert said.getvalue().startswith("warning: tracking store http://host cannot be reached: Connection refused.")
        assert not kept.complete
        kept.sync(["study"])
        assert Store.written == []
        kept.sync(["study"], last=True)
    assert Store.written == ["study"]
    assert kept.complete
