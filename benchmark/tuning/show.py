"""How studies stand, for people."""

import time
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.records.selection import better
from benchmark.running.progress import duration
from benchmark.system import tables
from benchmark.system.credentials import unsecret
from benchmark.tuning import leases
from benchmark.tuning.storage import read_storage
from benchmark.tuning.study import StudySettings, find_studies, read
from benchmark.tuning.tuner import Limits
from bism.errors import InputError

LOOK_SECONDS = 1.0
_SILENCE_SECONDS = 60.0


def best(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the best first objective."""
    settings = read(study)
    return max(
        of_state(study, TrialState.COMPLETE),
        key=lambda trial: better(settings.objectives[0], trial.values[0]),
        default=None,
    )


def of_state(study: optuna.Study, state: TrialState) -> list[FrozenTrial]:
    """The trials that have ended so."""
    return study.get_trials(deepcopy=False, states=(state,))


def summary(study: optuna.Study) -> Table:
    """The best trials of a study, beside the paper's, and how many there are of each kind."""
    settings, trials = read(study), study.get_trials(deepcopy=False)
    counts = [
        f"{sum(trial.state == state for trial in leases.counted(trials))} {text}"
        for state, text in (
            (TrialState.COMPLETE, "complete"),
            (TrialState.PRUNED, "pruned"),
            (TrialState.FAIL, "failed"),
        )
    ]
    seconds = duration(leases.train_seconds(trials))
    title = Text(f"{study.study_name}: {', '.join(counts)}, {seconds} of training")
    table = Table("", "trial", *settings.objectives, *settings.space, title=title, title_justify="left")
    shown = dict[int, str]()
    if len(settings.objectives) > 1:
        shown = {trial.number: "front" for trial in study.best_trials}
    elif (first := best(study)) is not None:
        shown[first.number] = "best"
    for trial in of_state(study, TrialState.COMPLETE):
        if trial.user_attrs.get("origin") == "paper":
            name = trial.user_attrs["variant"]
            shown[trial.number] = f"{shown[trial.number]}, {name}" if trial.number in shown else name
    by_number = {trial.number: trial for trial in trials}
    order = sorted(shown, key=lambda n: -better(settings.objectives[0], by_number[n].values[0]))
    for number in order:
        trial = by_number[number]
        values = [f"{value:.5g}" for value in trial.values]
        found = [_short(trial.params[name]) for name in settings.space]
        table.add_row(Text(shown[number]), str(number), *values, *found)
    reasons = dict[str, int]()
    for trial in leases.counted(trials):
        if trial.state == TrialState.FAIL:
            kind = trial.user_attrs.get("reason", "unknown").split(":")[0]
            reasons[kind] = reasons.get(kind, 0) + 1
    if reasons:
        table.caption = Text("failed: " + ", ".join(f"{count} {kind}" for kind, count in reasons.items()))
    return table


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Standing:
    """Says now and then how far the studies are, and at once when one has a better trial."""

    def __init__(self, console: Console, studies: Mapping[str, optuna.Study], limits: Mapping[str, Limits]) -> None:
        self._console, self._studies, self._limits = console, studies, limits
        self._best: dict[str, float] = {}
        self._begun, self._spoke, self._looked = time.monotonic(), time.monotonic(), 0.0

    def say(self) -> None:
        """Looks, if it has not just looked."""
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        silent = self._looked > self._spoke + _SILENCE_SECONDS
        for name, study in self._studies.items():
            settings, trials = read(study), study.get_trials(deepcopy=False)
            found = best(study)
            value = better(settings.objectives[0], found.values[0]) if found else None
            news = value is not None and value > self._best.get(name, float("-inf"))
            if news or (silent and any(trial.state == TrialState.RUNNING for trial in trials)):
                self._spoke = self._looked
                self._best |= {name: value} if value is not None else {}
                self._console.print(self._line(name, settings, trials, found), markup=False, soft_wrap=True)

    def _line(self, name: str, settings: StudySettings, trials: list[FrozenTrial], found: FrozenTrial | None) -> str:
        ended = sum(trial.state.is_finished() for trial in leases.counted(trials))
        total = self._limits[name].trials
        of = f" of {total}" if total else ""
        text = f"best {settings.objectives[0]} {found.values[0]:.4g} (trial {found.number})" if found else "none yet"
        return f"{name}: {ended}{of} trials after {duration(time.monotonic() - self._begun)}, {text}"


def listing(storage_name: str, console: Console, name: str | None = None) -> int:
    """The studies in a storage, and their best trials."""
    storage = read_storage(storage_name)
    names = (
        find_studies(storage, name, unsecret(storage_name))
        if name
        else sorted(study.study_name for study in storage.get_all_studies())
    )
    for one in names:
        try:
            tables.show(console, summary(optuna.load_study(storage=storage, study_name=one)))
        except InputError as error:  # another's
            console.print(str(error), markup=False, highlight=False, soft_wrap=True)
    if not names:
        console.print(f"{unsecret(storage_name)} has no studies")
    return 0
