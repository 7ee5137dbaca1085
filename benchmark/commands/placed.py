"""What ``compare`` shows: a ranking of yours and theirs, yours against each of theirs, times, and the verdicts."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.measures import placing, ranking
from benchmark.measures.statistics import LEVEL
from benchmark.records.integrity import Inspected
from benchmark.records.metrics import metric_of, ranked_by
from benchmark.records.reference import Reference
from benchmark.records.results import ENDED, Variant
from benchmark.records.rundir import FINISHED, RunDir
from benchmark.system import tables
from benchmark.tasks.plan import Cell

_LEAST_P = 0.001
YOURS, THEIRS = " (yours)", " (reference)"  # follow names: of yours all, of theirs those that yours have, too


@dataclasses.dataclass(frozen=True)
class Placing:
    """What is shown once all is trained: for each task a ranking, the comparisons, the cost; then the verdicts.

    speed: by task, the command that times ours and one of theirs here.
    """

    console: Console
    found: Reference
    cells: Sequence[Cell]
    others: Mapping[str, Sequence[Variant]]
    speed: Mapping[str, str]

    def __call__(self, runs: RunDir, known: Inspected) -> None:
        ours, verdicts = ranking.results(runs, known.records), list[str]()
        for task, variants in self.others.items():
            own = ours[ours["task"] == task] if len(ours) else ours
            if own.empty:
                verdicts.append(f"{task}: nothing has finished, and nothing can be compared.")
                continue
            theirs = placing.rows(variants)
            names = theirs["variant"]
            alike = names.isin(own["variant"]) | names.str.endswith((YOURS, THEIRS))  # some have these words of theirs
            theirs["variant"] = names.mask(alike, names + THEIRS)
            own = own.assign(variant=own["variant"] + YOURS)
            verdicts += [f"{task}: {said}" for said in self._task(task, own, theirs, variants)]
            configs = [runs.folder(record.id).config for record in known.records
                       if record.task == task and record.state in FINISHED]  # fmt: skip
            if (own["state"] == "done").any():
                tables.say(self.console, _times(configs, variants, self.found.header.trained))
                self.console.print(f"  {self.speed[task]}", markup=False, highlight=False, soft_wrap=True)
        for text in verdicts:
            tables.say(self.console, text, bold="not a fair comparison")

    def _task(self, task: str, own: pd.DataFrame, theirs: pd.DataFrame, variants: Sequence[Variant]) -> list[str]:
        """Shows the tables of a task; its verdicts."""
        both = pd.concat([own, theirs], ignore_index=True).dropna(axis="columns", how="all")
        sound = [of[of["state"] == "done"].dropna(axis="columns", how="all") for of in (own, theirs)]
        metric = ranked_by({*map(str, sound[0])} & {*map(str, sound[1])})
        if sound[0].empty:
            return [f"{name.removesuffix(YOURS)} diverged with all of its seeds." for name in own["variant"].unique()]
        if sound[1].empty:
            return ["all seeds of the reference diverged, and nothing can be compared."]
        if metric is None:
            return ["no metric that models are ranked by was measured of both."]
        title = ranking.heading(task, 0, self.found.header.label or None)
        ranked = ranking.ranking(both, metric, ranking.clock(both[both["state"] == "done"]))
        rule = ranking.rules(both[both["state"] == "done"], metric)
        tables.show(self.console, ranking.table(ranked, title, metric, rule))
        compared = placing.against(sound[0], sound[1], metric)
        unfair = unlikes(task, self.cells, variants)
        marked = {(name, of) for name, ways in unfair.items() for names in ways.values() for of in names}
        tables.show(self.console, _table(compared, metric, marked))
        said = []
        for name in own["variant"].unique():
            mine = own[own["variant"] == name]
            rows = compared[compared["ours"] == name]
            rows.attrs = compared.attrs
            said.append(
                _unfair(unfair.get(name.removesuffix(YOURS), {}), len(variants))
                + _verdict(name, rows, metric, mine)
                + _below_start(mine[mine["state"] == "done"])
            )
        return said


def _verdict(name: str, rows: pd.DataFrame, metric: str, mine: pd.DataFrame) -> str:
    plain, gone = name.removesuffix(YOURS), mine["state"] == "diverged"
    if rows.empty:
        return f"{plain} diverged with all of its seeds."
    said = placing.verdict(plain, rows, metric)
    for seeds, what in ((gone, "diverged"), (~gone & ~np.isfinite(mine[metric].astype(float)), "gave no finite value")):
        said += f" {seeds.sum()} of its {len(mine)} seeds {what} and are compared with none." if seeds.any() else ""
    return said


def _below_start(done: pd.DataFrame) -> str:
    below = int(done["below_start"].sum())
    return f" {below} of its {tables.counted(len(done), 'seed')} ended below the untrained model." if below else ""


def _unfair(unfair: Mapping[str, Sequence[str]], variants: int) -> str:
    if not unfair:
        return ""
    which = "the reference" if any(len(names) == variants for names in unfair.values()) else "variants marked *"
    return f"not a fair comparison ({which}: {'; '.join(unfair)}): "


def _table(compared: pd.DataFrame, metric: str, marked: set[tuple[str, str]]) -> Table:
    found, family, seeds = metric_of(metric), compared.attrs.get("family", 0), len(compared.attrs.get("common", ()))
    least = placing.detectable(seeds, family) if family and seeds > 1 else math.nan
    shown = Table(
        title=Text(f"yours minus each of the reference: {found.label}{f' ({found.unit})' if found.unit else ''}"),
        title_justify="left",
        caption=Text(
            f"{'Higher' if found.higher else 'Lower'} is better. Over the seeds that both have, paired; {LEVEL:.0%} "
            f"intervals and p-values of one among {tables.counted(family, 'comparison')} (Bonferroni): all hold."
            + (
                f" With {seeds} seeds a difference is found from {least:.2g} of its standard deviations on."
                if least > 0
                else ""
            )
            + (" * not alike in what is said above." if marked else ""),
            "table.caption",
        ),
        caption_justify="left",
    )
    several = compared["ours"].nunique() > 1
    for head in [*(["yours"] if several else []), "reference"]:
        shown.add_column(head)
    for head in ("seeds", "difference", "from", "to", "p"):
        shown.add_column(head, justify="right")
    shown.add_column("yours is")
    for row in compared.to_dict("records"):
        ours = row["ours"].removesuffix(YOURS)
        names = [
            *([ours] if several else []),
            row["variant"] + "*" * ((ours, row["variant"].removesuffix(THEIRS)) in marked),
        ]
        p = "-" if pd.isna(row["p"]) else f"{row['p']:.3f}" if row["p"] >= _LEAST_P else f"< {_LEAST_P}"
        shown.add_row(*map(Text, names), str(row["seeds"]), *placing.numbers(row), p, row["conclusion"])
    return shown


def _times(configs: Sequence[Mapping[str, Any]], variants: Sequence[Variant], trained: Sequence[str]) -> str:
    """Where, when and how times were taken, and that they cannot be compared: not even on one kind of processor, for
    what else ran there is not known."""
    here = " and ".join(dict.fromkeys(str(one.get("provenance", {}).get("machine", "?")) for one in configs))
    days = " to ".join(dict.fromkeys(trained))
    there = " and ".join(dict.fromkeys(one.machine or "?" for one in variants))
    how = ranking.conditions(
        _timed(one) for one in variants if one.compiled for seed in one.seeds if seed.state in ENDED
    )
    same = "?" not in here and _processors(here) == _processors(there)
    return (
        f"times: yours on {here} ({ranking.conditions(configs) or 'not known how'}), the reference's on {there} "
        f"({how or 'not known how'}{f', trained {days}' if days else ''}): "
        f"{'at another time, though on the same kind of processor' if same else 'on another machine'}. So the two are "
        "not comparable; to time both here, alone:"
    )


def _processors(machines: str) -> list[str]:
    """Without how many cores a process had."""
    return [one.rpartition(", ")[0] or one for one in machines.split(" and ")]


def _timed(variant: Variant) -> dict[str, Any]:
    """As a configuration says it."""
    timing = {"compiled": variant.compiled == "true", "threads": int(variant.threads or 1),
              "jobs_beside": int(variant.jobs_beside or 0)}  # fmt: skip
    return {"device": variant.device, "timing": timing}


def unlikes(task: str, cells: Sequence[Cell], variants: Sequence[Variant]) -> dict[str, dict[str, list[str]]]:
    """For each variant that is trained here what is not alike in a task, and of which variants of the reference."""
    found = dict[str, dict[str, list[str]]]()
    configs = {str(cell.config["variant"]): cell.config for cell in cells if cell.config["task"] == task}
    for name, config in configs.items():
        for one in variants:
            if what := placing.unlike(config, one):
                found.setdefault(name, {}).setdefault(what, []).append(one.variant)
    return found
