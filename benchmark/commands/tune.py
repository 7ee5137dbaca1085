"""``python -m benchmark tune``: makes the studies, starts the processes that work on them, and says how it went."""

import contextlib
import dataclasses
import re
import threading
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from rich.console import Console

from benchmark.commands.run_directory import command_line
from benchmark.data.datasets import DataSet, data_folder, load
from benchmark.running.executors import places, prepare_environment
from benchmark.system import tables
from benchmark.system.credentials import unsecret
from benchmark.system.invocation import call, python
from benchmark.system.limits import SECONDS, check_positive
from benchmark.system.signals import ended_as_by_ctrl_c
from benchmark.tasks import registry
from benchmark.tasks.advice import advice
from benchmark.tasks.plan import Cell, Choices, choose_preset, choose_tasks, for_model, load_data, plan
from benchmark.tasks.suite_file import load_suite
from benchmark.tracking.check import brief
from benchmark.tracking.store import DEFAULT_STUDIES
from benchmark.tuning import leases
from benchmark.tuning.crew import Crew
from benchmark.tuning.show import of_state, summary
from benchmark.tuning.storage import FAILURES, StorageAway, open_storage, patiently, read_storage
from benchmark.tuning.study import (
    StudySettings,
    find_method,
    find_studies,
    full_name,
    is_measured,
    open_study,
    read,
    settings_of,
)
from benchmark.tuning.tuner import Assignment, Limits
from bism import Estimator
from bism.errors import InputError, shown

TRIALS = 100
_LIMITS = "limits"  # a study's attribute
SEEDS = (1000, 1001, 1002)  # nobody reports on these
_SYNC_SECONDS = 10.0
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command line asks for.

    suite: None to join studies that are there.
    changes: of spaces, by method.
    store: the tracking store, or None.
    """

    suite: str | None
    choices: Choices
    study: str | None
    storage: str
    trials: int | None
    budget: float | None
    timeout: float | None
    sampler: str
    pruner: str
    objectives: Sequence[str] | None
    changes: Mapping[str, Mapping[str, Any]]
    enqueue: bool
    devices: str
    threads: int
    plugins: tuple[Path, ...]
    data_dir: Path | None
    store: str | None
    lease: float = leases.LEASE_SECONDS


def seconds_of(option: str, text: str) -> float:
    """ "10m", "600", "1.5h" in seconds."""
    parts = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text.strip())
    if not parts or not float(parts[1]):
        raise InputError(f"{option} must look like 90s, 10m or 1.5h, got {shown(text)}")
    seconds = float(parts[1]) * _UNITS[parts[2]]
    check_positive(option, min(seconds, 1e300), SECONDS)
    return seconds


def tune(request: Request, console: Console) -> int:
    """Brings studies to their totals; the exit code: 1 where one has no complete trial, or a process failed."""
    methods = registry.methods(request.plugins)
    asked, data = _join(request, methods) if request.suite is None else _make(request, methods)
    storage = open_storage(request.storage)  # made now that nothing stands against it
    for text in advice(data):
        tables.say(console, f"note: {text}")
    studies = {name: open_study(storage, name, settings) for name, settings in asked.items()}
    _announce(console, request, studies)
    available = places(request.devices, request.threads)
    devices = [place.device for place in available for _ in range(place.slots)]
    limits = _limits(request, studies.values())
    deadline = time.time() + request.timeout if request.timeout else None
    work = Assignment(
        storage=request.storage,
        names=tuple(studies),
        limits=tuple(limits),
        deadline=deadline,
        plugins=request.plugins,
        threads=request.threads,
        together=max(1, -(-len(devices) // len(studies))),
        lease=request.lease,
    )
    prepare_environment(available)
    with ended_as_by_ctrl_c(), _Tracking(request.store, console) as tracking:
        crew = Crew(work, data, devices, console)
        try:
            failed = crew.watch(studies, lambda: tracking.sync_now_and_then(studies.values()))
        except KeyboardInterrupt:
            console.print("stopped: trials under way are given back; the same command goes on from here:")
            console.print(f"  {command_line(python())}", markup=False, highlight=False, soft_wrap=True)
            crew.stop()
            crew.close()
            with contextlib.suppress(*FAILURES):
                tracking.sync(studies.values(), last=True)
            raise
        crew.close()
        try:
            patiently(lambda: tracking.sync(studies.values(), last=True), threading.Event())
            for study in studies.values():
                tables.show(console, summary(study))
            complete = all(of_state(study, TrialState.COMPLETE) for study in studies.values())
        except (StorageAway, *FAILURES) as error:
            away = f"studies at {unsecret(request.storage)} do not answer: {brief(error)} The same command goes on."
            console.print(away, markup=False, highlight=False, soft_wrap=True)
            return 1
    _hints(console, request, studies, tracking)
    return 1 if failed or not complete else 0


def _make(
    request: Request, methods: dict[str, type[Estimator]]
) -> tuple[dict[str, StudySettings | None], dict[str, DataSet]]:
    """The studies that the command asks for, by name, and the data of their tasks."""
    assert request.suite is not None
    suite = load_suite(request.suite, methods)
    choices = request.choices
    if choices.methods and "all" in choices.methods:
        choices = dataclasses.replace(choices, methods=None)
    steps, choices = choices.steps, dataclasses.replace(choices, seeds=choices.seeds or SEEDS, steps=None)
    preset_name, preset = choose_preset(suite, choices)
    tasks = choose_tasks(preset, choices)
    data = load_data(suite, tasks, data_folder(request.data_dir))
    cells = plan(suite, choices, methods, data)
    if choices.methods is None:  # not named one by one
        left_out = {one.config["method"] for one in cells if not _measured(one, methods)}
        for method in sorted(left_out) if any(_measured(one, methods) for one in cells) else ():
            warnings.warn(f"{method} is left out: nothing that it could be tuned by is measured", stacklevel=2)
            cells = [cell for cell in cells if cell.config["method"] != method]
    unknown = set(request.changes) - {cell.config["method"] for cell in cells}
    if unknown:
        raise InputError(f"--space {min(unknown)}: this method is not among what this tunes")
    found = dict[str, StudySettings | None]()
    for task, method in dict.fromkeys((cell.config["task"], cell.config["method"]) for cell in cells):
        settings = settings_of(
            suite,
            preset_name,
            [cell for cell in cells if (cell.config["task"], cell.config["method"]) == (task, method)],
            methods[method],
            steps=steps,
            objectives=request.objectives,
            sampler=request.sampler,
            pruner=request.pruner,
            changes=request.changes.get(method, {}),
            enqueue=request.enqueue,
        )
        found[full_name(request.study or suite.suite, settings)] = settings
    return found, data


def _measured(cell: Cell, methods: dict[str, type[Estimator]]) -> bool:
    return bool(is_measured(cell.config["metrics"], methods[cell.config["method"]]))


def _join(
    request: Request, methods: dict[str, type[Estimator]]
) -> tuple[dict[str, StudySettings | None], dict[str, DataSet]]:
    """Studies that are there, by name, and the data of their tasks."""
    if request.study is None:
        raise InputError("tune needs --suite, or --study to join one that is there")
    unlike = dataclasses.replace(
        request, choices=Choices(), sampler="tpe", pruner="none", objectives=None, changes={}, enqueue=True
    )
    if unlike != dataclasses.replace(
        request, choices=dataclasses.replace(request.choices, overrides=tuple(request.choices.overrides))
    ):
        raise InputError(
            "a study that is joined by --study alone goes on as it was made: only --trials, --budget, --timeout, "
            "--storage and where to run can be given; with --suite the others can"
        )
    storage, data = read_storage(request.storage), dict[str, DataSet]()
    names = find_studies(storage, request.study, unsecret(request.storage))
    for name in names:
        settings = read(optuna.load_study(storage=storage, study_name=name))
        find_method(settings.method, methods)
        if settings.task not in data:
            found = load(settings.section["data"], data_folder(request.data_dir))
            data[settings.task] = for_model(settings.task, settings.config["model"]["name"], found)
    return dict.fromkeys(names), data


def _limits(request: Request, studies: Iterable[optuna.Study]) -> list[Limits]:
    """What is asked for, of each study, kept in them for those who join by their name alone."""
    limits = Limits(request.trials or (None if request.budget else TRIALS), request.budget)
    found = list[Limits]()
    for study in studies:
        kept = study.user_attrs.get(_LIMITS)
        if kept and request.suite is None and not request.trials and not request.budget:
            found.append(Limits(kept["trials"], kept["budget"]))
        else:
            study.set_user_attr(_LIMITS, {"trials": limits.trials, "budget": limits.budget})
            found.append(limits)
    return found


class _Tracking:
    """The MLflow projection, where tracking is on."""

    def __init__(self, store: str | None, console: Console) -> None:
        self._store, self._console, self._next = store, console, 0.0
        self._tracker: Any = None

    def __enter__(self) -> "_Tracking":
        if self._store is not None:
            from benchmark.tracking.studies import Unreachable

            try:
                self._open(self._store)
            except Unreachable as error:
                away = f"warning: {error} Tuning goes on, and the store is tried again."
                self._console.print(away, markup=False, highlight=False, soft_wrap=True)
        return self

    def _open(self, store: str) -> None:
        from benchmark.tracking.studies import StudyTracker

        self._tracker = StudyTracker(store)

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def complete(self) -> bool:
        """Whether the store has all there is, where there is to be one."""
        return self._store is None or (self._tracker is not None and not self._tracker.behind)

    def sync_now_and_then(self, studies: Any) -> None:
        """At most a tenth of the time."""
        if time.monotonic() > self._next:
            started = time.monotonic()
            self.sync(studies)
            self._next = time.monotonic() + max(_SYNC_SECONDS, 9 * (time.monotonic() - started))

    def sync(self, studies: Any, last: bool = False) -> None:
        """Writes what has finished."""
        if self._store is not None and self._tracker is None:
            with contextlib.suppress(InputError):  # it is still away
                self._open(self._store)
        for study in studies if self._tracker else ():
            self._tracker.sync(study, command_line(), last=last)

    @property
    def hint(self) -> str | None:
        """How to look at it."""
        return self._tracker.ui_hint() if self._tracker else None


def _announce(console: Console, request: Request, studies: Mapping[str, optuna.Study]) -> None:
    for name, study in studies.items():
        settings, trials = read(study), leases.counted(study.get_trials(deepcopy=False))
        ended = sum(trial.state.is_finished() for trial in trials)
        searched = ", ".join(settings.space)
        console.print(
            f"study {name}: {ended} trials done; {settings.steps:,} iterations, seeds "
            f"{', '.join(map(str, settings.seeds))}, by {' and '.join(settings.objectives)}; searches {searched}",
            markup=False,
        )


def _hints(console: Console, request: Request, studies: Mapping[str, optuna.Study], tracking: _Tracking) -> None:
    prefix = request.study or read(next(iter(studies.values()))).suite
    suite = read(next(iter(studies.values()))).suite
    storage = "" if request.storage == DEFAULT_STUDIES else f" --storage {unsecret(request.storage)}"
    lines = [
        "train the best on the report's seeds: "
        + call("benchmark", f"run --suite {request.suite or suite} --tuned {prefix}{storage}"),
        f"look at the studies: optuna-dashboard {unsecret(request.storage)}",
    ]
    if not tracking.complete:
        lines.append("the tracking store lacks some of it: once it is there, the same command writes what is missing")
    lines += [f"compare the trials in the MLflow UI: {tracking.hint}"] if tracking.hint else []
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
