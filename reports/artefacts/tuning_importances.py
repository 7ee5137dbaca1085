"""Which hyper-parameters decided, by Optuna's estimate."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import methods, style, terms
from reports.artefact import Artefact, Table
from reports.studies import Studies, Study

FEWEST = 10  # complete trials
_SHARE, _TOP = 0.1, 5  # the trials that count as good: a tenth of them, and at least so many
_COLUMNS = 3


def build(studies: Studies) -> Iterator[Artefact]:
    """One for each task with a study that has trials enough; those that have not are named with the reason."""
    for task in studies.tasks:
        of_task = studies.of(task)
        found = {study.label: importances(study) for study in of_task}
        known = {label: values for label, values in found.items() if not isinstance(values, str)}
        left_out = [f"{label} ({said})" for label, said in found.items() if isinstance(said, str)]
        if not known:
            continue
        frame = _frame(known, of_task)
        yield Artefact(
            name=f"importances-{task}",
            title=f"Importance of the hyper-parameters ({task})",
            caption=f"How much each hyper-parameter decided whether a complete trial was among the best tenth (or the "
            f"best {_TOP}, if that is more), by PED-ANOVA (Watanabe et al., IJCAI 2023); the importances of a method "
            f"sum to 1. Of few trials they are rough."
            + (f" Left out: {', '.join(left_out)}." if left_out else ""),
            alt="Importances: " + "; ".join(
                f"{study.label}: " + ", ".join(f"{terms.symbol(name, study.symbols)} {value:.2f}"
                                               for name, value in known[study.label].items())
                for study in of_task if study.label in known) + ".",
            numbers=frame,
            runs=[run for study in of_task if study.label in known for run in study.complete["run"]],
            figure=draw([(study, known[study.label]) for study in of_task if study.label in known]),
            table=_table(frame, methods.agreed(study.symbols for study in of_task)),
        )  # fmt: skip


def _frame(known: Mapping[str, Mapping[str, float]], studies: Sequence[Study]) -> pd.DataFrame:
    """method, complete trials, hyper-parameter, importance."""
    complete = {study.label: len(study.complete) for study in studies}
    return pd.DataFrame([{"method": label, "complete": complete[label], "name": name, "importance": value}
                         for label, values in known.items() for name, value in values.items()])  # fmt: skip


def _table(frame: pd.DataFrame, symbols: Mapping[str, str]) -> Table:
    """A row for each method, a column for each hyper-parameter."""
    names = list(dict.fromkeys(frame["name"]))
    wide = frame.pivot(index="method", columns="name", values="importance")
    wide = wide.loc[list(dict.fromkeys(frame["method"])), names]
    heads = [terms.symbol(name, symbols) for name in names]
    wide.columns = pd.Index([head if heads.count(head) == 1 else name for head, name in zip(heads, names, strict=True)])
    complete = frame.groupby("method")["complete"].first()
    wide.insert(0, "complete trials", complete.loc[wide.index])
    formats = dict.fromkeys((str(name) for name in wide.columns[1:]), "{:.2f}")
    return Table(wide.reset_index(names="method"), formats)


def importances(study: Study) -> dict[str, float] | str:
    """Of every hyper-parameter that was searched, largest first; or why they cannot be said.

    Trials are compared by rank alone: one that diverged counts as worse than all that did not.
    """
    import optuna

    space = {name: _distribution(searched) for name, searched in study.space.items()}
    trials = []
    costs = _costs(study)
    for row, cost in zip(study.complete.to_dict("records"), costs, strict=True):
        values = {name: row[f"param.{name}"] for name in space if row[f"param.{name}"] is not None}
        try:
            trials.append(optuna.trial.create_trial(
                params=values, distributions={name: space[name] for name in values}, value=float(cost)))  # fmt: skip
        except ValueError:  # the preset's values may lie outside of what was searched
            continue
    if len(trials) < FEWEST:
        return f"{terms.counted(len(trials), 'complete trial')}, and {FEWEST} are needed"
    if len({trial.value for trial in trials}) == 1:
        return "all values are equal"
    share = max(_SHARE, _TOP / len(trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental functions, and of equal importances
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        rebuilt = optuna.create_study(direction="minimize")
        rebuilt.add_trials(trials)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
        found = optuna.importance.get_param_importances(rebuilt, evaluator=evaluator)
        optuna.logging.set_verbosity(before)
    if not all(math.isfinite(value) for value in found.values()):
        return "not finite"
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _costs(study: Study) -> np.ndarray:
    """The first objective of the complete trials, lower better, and finite: what is not is worse than all else."""
    costs = -study.sign * study.complete[study.objective].to_numpy(dtype=float)
    finite = costs[np.isfinite(costs)]
    return np.where(np.isfinite(costs), costs, finite.max() + 1.0 if len(finite) else 0.0)


def _distribution(searched: Mapping[str, Any]) -> Any:
    """Optuna's name for where a hyper-parameter was searched."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "choices" in searched:
        return CategoricalDistribution(searched["choices"])
    low, high, log = searched["low"], searched["high"], bool(searched.get("log"))
    if searched["type"] == "int":
        return IntDistribution(int(low), int(high), log=log, step=int(searched.get("step") or 1))
    return FloatDistribution(low, high, log=log, step=searched.get("step"))


def draw(known: Sequence[tuple[Study, Mapping[str, float]]]) -> Figure:
    """A panel of bars for each method."""
    rows = math.ceil(len(known) / _COLUMNS)
    columns = min(len(known), _COLUMNS)
    most = max(len(values) for _, values in known)
    with style.look():
        height = rows * (0.5 + 0.17 * most) + 0.25
        figure = Figure(figsize=(max(style.COLUMN_WIDTH, style.TEXT_WIDTH * columns / _COLUMNS), height),
                        layout="constrained")  # fmt: skip
        figure.subplots(rows, columns, squeeze=False)
        for axes, (study, values) in zip(figure.axes, known, strict=False):
            places = range(len(values))
            axes.barh(places, list(values.values()), height=0.65, color=style.colour(study.of))
            axes.set_yticks(places, [terms.symbol(name, study.symbols) for name in values])
            axes.set_ylim(most - 0.4, -0.6)
            axes.set_xlim(0, 1)
            axes.grid(axis="y", visible=False)
            axes.set_title(study.label)
        style.leave(figure, len(known), columns)
        for axes in figure.axes[max(0, len(known) - columns) : len(known)]:
            axes.set_xlabel("importance")
    return figure
