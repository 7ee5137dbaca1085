"""Who works on a study: each worker holds a lease, and trials of workers without one are given to others.

Optuna's own heartbeats are for databases and for its own loop; these work on every storage. A worker of this machine
is known to be dead when its process is gone, one of another when it has not renewed its lease. The clocks of machines
that share a study must agree to within a lease.
"""

import contextlib
import datetime
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import optuna
import psutil
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

LEASE_SECONDS = 60.0
_RENEWALS = 4  # in the length of a lease
_TRIES = 3  # a trial whose workers have died so often is at fault
_KEY = "bism:worker:"


class Lease:
    """A worker's lease on the study that it works on; as a context manager it is renewed by a thread of its own."""

    def __init__(self, storage: BaseStorage, seconds: float = LEASE_SECONDS) -> None:
        self.worker = uuid.uuid4().hex[:12]
        self.storage, self._seconds = storage, seconds
        self._study: int | None = None
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # the storage may be away; then the lease runs out by itself
            self.give_up()

    def take(self, study: optuna.Study) -> None:
        """Holds a lease on this study, and on no other."""
        number = self.storage.get_study_id_from_name(study.study_name)
        if number != self._study:
            self.give_up()
            with self._lock:
                self._study = number
            self._write(number, time.time() + self._seconds)

    def give_up(self) -> None:
        """Holds none."""
        with self._lock:
            number, self._study = self._study, None
        if number is not None:
            self._write(number, 0.0)

    def _keep(self) -> None:
        while not self._ended.wait(self._seconds / _RENEWALS):
            with self._lock, contextlib.suppress(Exception):  # a storage that is away is tried at the next renewal
                if self._study is not None:
                    self._write(self._study, time.time() + self._seconds)

    def _write(self, study: int, until: float) -> None:
        me = psutil.Process()
        content: dict[str, Any] = {
            "host": socket.gethostname(),
            "process": me.pid,
            "began": me.create_time(),
            "until": until,
        }
        self.storage.set_study_system_attr(study, _KEY + self.worker, content)


def is_live(lease: dict[str, Any] | None) -> bool:
    """Whether a worker is still there: on this machine, whether its process is, whatever kept it from renewing."""
    if lease is None or not lease["until"]:  # it gave up
        return False
    if lease["host"] != socket.gethostname():
        return bool(lease["until"] > time.time())
    try:
        return abs(psutil.Process(lease["process"]).create_time() - lease["began"]) < 1
    except psutil.NoSuchProcess:
        return False


def workers(storage: BaseStorage, study: optuna.Study) -> dict[str, dict[str, Any]]:
    """The leases on a study, by worker, live or not."""
    attrs: Any = storage.get_study_system_attrs(storage.get_study_id_from_name(study.study_name))
    return {key.removeprefix(_KEY): value for key, value in attrs.items() if key.startswith(_KEY)}


def reclaim(
    storage: BaseStorage, study: optuna.Study, seconds: float = LEASE_SECONDS, total: int | None = None
) -> list[str]:
    """Fails the running trials of workers that are gone and enqueues their parameters again; says of which.

    Of a study that has its ``total`` without one, as when its worker was killed before it saw that, or when the storage
    went away between making a trial and saying so, that trial is not tried again.

    Of several processes that do it at once, the one that fails a trial enqueues it; and a trial that failed so a lease
    ago, with nobody having enqueued it (that process was killed in between), is enqueued as well.
    """
    leases, found = workers(storage, study), list[str]()
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.state != TrialState.RUNNING:
            continue
        worker = trial.user_attrs.get("worker")
        if is_live(leases.get(worker or "")) or (worker is None and _age(trial.datetime_start) < seconds):
            continue
        if is_surplus(trials, trial, total):
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                _drop(storage, trial, "not needed: the study has its trials")
        elif give_back(storage, study, trial, "its worker died", died=True):
            given_up = trial.user_attrs.get("tries", 1) >= _TRIES
            what = "is given up: its workers died" if given_up else "is tried again: its worker died"
            found.append(f"trial {trial.number} {what}")
    again = {trial.user_attrs.get("retry_of") for trial in trials}
    for trial in trials:
        lost = _died(trial) and _age(trial.datetime_complete) > seconds
        if lost and trial.number not in again and trial.user_attrs.get("tries", 1) < _TRIES:
            _enqueue(study, trial)
    _drop_doubles(storage, study)
    return found


def give_back(storage: BaseStorage, study: optuna.Study, trial: FrozenTrial, reason: str, died: bool = False) -> bool:
    """Fails a running trial and enqueues its parameters again, unless its workers ``died`` too often.

    Returns:
        Whether it was this call that failed it.
    """
    tries = trial.user_attrs.get("tries", 1)
    last = died and tries >= _TRIES
    text = f"{reason}, {tries} times" if last else reason
    try:
        storage.set_trial_user_attr(trial._trial_id, "reason", text)
        if not last:
            storage.set_trial_user_attr(trial._trial_id, "died", True)
        ours = storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    except optuna.exceptions.UpdateFinishedTrialError:
        return False
    if ours and not last:
        _enqueue(study, trial, tries + died)
    return bool(ours)


def _enqueue(study: optuna.Study, trial: FrozenTrial, tries: int | None = None) -> None:
    parameters = dict[str, Any](trial.system_attrs.get("fixed_params", {}))
    parameters.update(trial.params)
    kept = [key for key in ("origin", "variant") if key in trial.user_attrs]
    attrs = dict[str, Any]((key, trial.user_attrs[key]) for key in kept)
    attrs |= {"retry_of": trial.number, "tries": tries or trial.user_attrs.get("tries", 1) + 1}
    study.enqueue_trial(parameters, user_attrs=attrs)


def _doubles(trials: Iterable[FrozenTrial]) -> set[int]:
    """The trials that are tried in place of one in whose place an earlier one is: two processes that find a dead
    worker's trial at the same moment both enqueue it where SQLite lets both fail it."""
    found, again = set[int](), set[int]()
    for trial in sorted(trials, key=lambda trial: trial.number):
        lost = trial.user_attrs.get("retry_of")
        if lost in again:
            found.add(trial.number)
        elif lost is not None:
            again.add(lost)
    return found


def _drop_doubles(storage: BaseStorage, study: optuna.Study) -> None:
    """Fails those that nobody has begun; of two who enqueue the same, the later sees both."""
    trials = study.get_trials(deepcopy=False)
    doubles = _doubles(trials)
    for trial in trials:
        if trial.number in doubles and trial.state == TrialState.WAITING:
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                _drop(storage, trial, "not needed: another is tried in its place")


def _drop(storage: BaseStorage, trial: FrozenTrial, reason: str) -> None:
    storage.set_trial_user_attr(trial._trial_id, "surplus", True)
    storage.set_trial_user_attr(trial._trial_id, "reason", reason)
    storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def is_surplus(trials: Sequence[FrozenTrial], trial: FrozenTrial, total: int | None) -> bool:
    """Whether a study has its ``total`` without this trial and those after it, or the same trial twice.

    One that is tried in place of another stands where that stood, so that the order is the same to all who ask,
    whatever is enqueued again meanwhile.
    """
    by_number = {one.number: one for one in trials}

    def place(one: FrozenTrial) -> int:
        while one.user_attrs.get("retry_of") in by_number:
            one = by_number[one.user_attrs["retry_of"]]
        return one.number

    those = counted(trials)
    if all(one.number != trial.number for one in those):
        return True
    return total is not None and sum(place(one) < place(trial) for one in those) >= total


def counted(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Those that count towards a study's total: not those that were given back, once they are enqueued again, nor those
    that two processes asked for, or enqueued, at once when one was wanted."""
    every = list(trials)
    doubles, again = _doubles(every), {trial.user_attrs.get("retry_of") for trial in every}
    return [
        trial
        for trial in every
        if trial.number not in doubles
        and not trial.user_attrs.get("surplus")
        and not (_died(trial) and trial.number in again)
    ]


def _died(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get("died")) and trial.state == TrialState.FAIL


def train_seconds(trials: Iterable[FrozenTrial]) -> float:
    """What training them has taken, those included that were given back."""
    return sum(float(trial.user_attrs.get("train_seconds", 0.0)) for trial in trials)


def _age(moment: datetime.datetime | None) -> float:
    return (datetime.datetime.now() - moment).total_seconds() if moment else 0.0
