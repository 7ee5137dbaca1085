"""The studies of a suite as they stand in the store: what was searched, every trial, and the best of them.

Their values are on validation data of tuning seeds. No figure or table of results is drawn from them.
"""

import dataclasses
import functools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports import methods, terms
from reports.methods import Method
from reports.results import Results

SECONDS = "time/train_seconds"
ENDED = ("complete", "pruned", "failed")


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """One search: a method on a task.

    Attributes:
        of: the method as figures name and draw it.
        symbols: of its hyper-parameters, by name.
        label: the method, and what the study's name begins with where the task has several of that method.
        seeds: a trial's value is the mean over these.
        objectives: metrics; the first is what trials are pruned and compared by.
        maximise: for each objective, whether more is better.
        space: by hyper-parameter, how it was searched: type, low, high, log, step; or type and choices.
        run: MLflow's run of the whole study.
        trials: one row each, by number: run, trial, state, origin, variant, reason, iteration (of the last value),
            seconds, a column for each objective, and ``param.*``. Pruned ones have their last intermediate value.
    """

    name: str
    of: Method
    symbols: Mapping[str, str]
    label: str
    task: str
    method: str
    preset: str
    steps: str
    seeds: str
    objectives: Sequence[str]
    maximise: Sequence[bool]
    space: Mapping[str, Mapping[str, Any]]
    sampler: str
    pruner: str
    run: str
    trials: pd.DataFrame

    @property
    def objective(self) -> str:
        """The first objective."""
        return self.objectives[0]

    @property
    def sign(self) -> float:
        """1 where more of the first objective is better, else -1."""
        return 1.0 if self.maximise[0] else -1.0

    @property
    def complete(self) -> pd.DataFrame:
        """The trials that were trained to the end; some may have diverged."""
        return self.trials[self.trials["state"] == "complete"]

    def best(self, origin: str | None = None) -> pd.Series | None:
        """The complete trial with the best finite value, of this origin if one is named."""
        found = self.complete if origin is None else self.complete[self.complete["origin"] == origin]
        found = found[np.isfinite(found[self.objective])]
        return None if found.empty else found.loc[(self.sign * found[self.objective]).idxmax()]

    @property
    def runs(self) -> list[str]:
        """Of the study and its trials."""
        return [self.run, *self.trials["run"]]


class Studies:
    """The studies of a suite, of these presets, tasks and methods if any are named."""

    def __init__(
        self,
        store: Results,
        suite: str,
        presets: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        chosen: Sequence[str] | None = None,
        order: Iterable[str] = (),
    ) -> None:
        """``order``: of the suite's tasks; others come after them as they were begun."""
        self.suite = suite
        rows = [
            {str(name): value for name, value in row.items()}
            for row in store.studies(suite).to_dict("records")
            if (presets is None or row["preset"] in presets)
            and (tasks is None or row["task"] in tasks)
            and (chosen is None or row["method"] in chosen)
        ]
        self._tasks = list(dict.fromkeys([*order, *(row["task"] for row in rows)]))
        trials = store.trials(suite) if rows else pd.DataFrame()
        count = Counter((row["task"], row["method"]) for row in rows)
        self._all = [_study(store, row, trials, count[row["task"], row["method"]] > 1) for row in rows]

    @functools.cached_property
    def all(self) -> list[Study]:
        """By task, families of methods together."""
        order = methods.families(study.of for study in self._all)

        def place(study: Study) -> tuple[Any, ...]:
            return self._tasks.index(study.task), order.index(study.of.family), methods.order(study.of), study.name

        return sorted(self._all, key=place)

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the suite's order."""
        return list(dict.fromkeys(study.task for study in self.all))

    def of(self, task: str) -> list[Study]:
        """The studies of a task."""
        return [study for study in self.all if study.task == task]


def _prefix(row: Mapping[str, Any]) -> str:
    """What a study's name has before its task and its method."""
    return str(row["study"]).removesuffix(f".{row['task']}.{row['method']}")


def _study(store: Results, row: Mapping[str, Any], trials: pd.DataFrame, several: bool) -> Study:
    objectives, space = json.loads(row["objectives"]), json.loads(row["space"] or "{}")
    own = trials[trials["study"] == row["study"]] if len(trials) else trials
    of = methods.method(row["method"], row["drawn_as"])
    return Study(
        **{name: row[name] for name in ("task", "method", "preset", "steps", "sampler", "pruner", "run")},
        name=row["study"],
        of=of,
        symbols=methods.symbols(row["symbols"]),
        label=of.label + (f" ({_prefix(row)})" if several else ""),
        seeds=row["seeds"].replace(" ", "").replace(",", ", "),
        objectives=objectives,
        maximise=[direction == "maximize" for direction in json.loads(row["directions"])],
        space=space,
        trials=_trials(store, own, objectives, space),
    )


def _trials(
    store: Results, found: pd.DataFrame, objectives: Sequence[str], space: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """The trials with numbers where the store has texts; of a trial with two runs the first, as ``tune`` keeps it."""
    columns = ("run", "state", "origin", "variant", "reason")
    if found.empty:
        numbers = ["trial", "iteration", "seconds", *objectives]
        empty = pd.DataFrame(columns=[*columns, *dict.fromkeys(numbers), *(f"param.{name}" for name in space)])
        return empty.astype(dict.fromkeys(numbers, float))
    found = found.sort_values(["started", "run"]).drop_duplicates("trial")
    steps = store.histories(list(found["run"]), objectives[0]).groupby("run")["step"].max()
    table = {name: found[name] for name in columns} | {"trial": found["trial"].astype(int)}
    table["iteration"] = found["run"].map(steps)
    for name, metric in (("seconds", SECONDS), *((metric, metric) for metric in objectives)):
        table[name] = found[metric].astype(float) if metric in found else pd.Series(math.nan, found.index)
    used = [str(name)[6:] for name in found if str(name).startswith("param.") and found[name].notna().any()]
    for name in [*space, *(name for name in used if name not in space)]:
        texts = found.get(f"param.{name}", pd.Series(None, found.index, dtype=object))
        values = [value(text, space.get(name, {})) for text in texts]
        table[f"param.{name}"] = pd.Series(values, found.index, dtype=object)
    return pd.DataFrame(table).sort_values("trial", ignore_index=True)


def value(text: Any, searched: Mapping[str, Any]) -> Any:
    """A parameter as it was searched: a number, or one of the choices; None where a trial has none."""
    if text is None or (isinstance(text, float) and math.isnan(text)):
        return None
    if "choices" in searched:
        return next((choice for choice in searched["choices"] if str(choice) == text), text)
    try:
        return int(float(text)) if searched.get("type") == "int" else float(text)
    except ValueError:
        return text


def differing(studies: Iterable[Study], column: str) -> bool:
    """Whether studies do not agree in this attribute: a table then has a column for it."""
    return len({str(getattr(study, column)) for study in studies}) > 1


def basis(studies: Sequence[Study]) -> str:
    """What the values of these studies are, for a caption."""
    names = " or ".join(dict.fromkeys(terms.measure(study.objective) for study in studies))
    seeds = "the tuning seeds" if differing(studies, "seeds") else f"tuning seeds {studies[0].seeds}"
    steps = studies[0].steps
    after = f", after {int(steps):,} iterations" if steps.isdecimal() and not differing(studies, "steps") else ""
    return f"{terms.capital(names)}, mean over {seeds}{after}: no result, since the best of many is chosen by it"
