"""``compare``: trains methods alone and places them among results that were trained elsewhere."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.commands import standing
from benchmark.commands.run_directory import Planned, Setup, carry_out, inspected
from benchmark.data.datasets import data_folder
from benchmark.measures import placing, ranking
from benchmark.measures.statistics import LEVEL, written
from benchmark.records import reference
from benchmark.records.integrity import Inspected
from benchmark.records.looking import looked_at
from benchmark.records.metrics import metric_of, ranked_by
from benchmark.records.reference import Reference
from benchmark.records.results import Variant
from benchmark.records.rundir import FINISHED, RunDir
from benchmark.system import tables
from benchmark.system.invocation import call
from benchmark.tasks import registry
from benchmark.tasks.plan import Cell, Choices, load_data, plan
from benchmark.tasks.suite import Suite, with_methods
from benchmark.tasks.suite_file import load_suite
from bism.errors import InputError, nearest

YOURS = " (yours)"  # follows the names of variants that are not the reference's


def compare(
    suite_name: str,
    chosen: Choices,
    console: Console,
    place: Setup,
    *,
    file: Path | None = None,
    train: bool = True,
    dry_run: bool = False,
    rerun: str | None = None,
) -> int:
    """Trains what is not done of these methods as the reference's preset has it, and places them in it.

    Args:
        chosen: where it leaves preset, tasks or seeds open, they are the reference's.
        file: of results; by default what ships with the package.
        train: else what is finished is placed, and nothing trained.
    """
    methods = registry.methods(place.settings.plugins)
    shipped = load_suite(suite_name, methods)
    path = file or _shipped(shipped, chosen.preset)
    found = reference.read(path)
    chosen = _settled(shipped, chosen, found, path, _of_plugins(methods, place.settings.plugins))
    suite = with_methods(shipped, chosen.preset or "", chosen.tasks or (), chosen.methods or ())
    data = load_data(suite, chosen.tasks or (), data_folder(place.data_dir))
    cells = plan(suite, chosen, methods, data)
    others = _comparable(cells, found, path)
    _introduce(console, found, path, cells, others)
    shown = _Shown(console, found, cells, others)
    if train:
        planned = Planned(suite, chosen, methods, data, cells, of=shipped)
        return carry_out(planned, console, place, dry_run=dry_run, rerun=rerun, show=shown)
    with contextlib.closing(looked_at(place.run_dir)) as runs:
        known = inspected(runs, cells)
        if not any(record.state in FINISHED for record in known.records):
            raise InputError(
                f"{place.run_dir} has no finished cell of {', '.join(chosen.methods or ())} in this preset, and "
                f"--no-train was given: leave it out to train them"
            )
        shown(runs, known)
        missing = len(cells) - sum(record.state in FINISHED for record in known.records)
        if missing:
            tables.say(console, f"{tables.counted(missing, 'cell')} not finished, and left out")
        return standing.print_problems(console, runs, known) or int(missing > 0)


def _shipped(suite: Suite, preset: str | None) -> Path:
    """The file that ships with the package: of the preset asked for, else of the suite's default, else the only one."""
    there = reference.shipped()
    ours = {name: path for (of, name), path in there.items() if of == suite.suite}
    name = preset or (suite.default_preset if suite.default_preset in ours else next(iter(ours), ""))
    if name not in ours:
        others = ", ".join(f"{of} {one}" for of, one in there) or "none"
        what = f"suite {suite.suite}" + (f", preset {preset}," if preset else "")
        raise InputError(f"no results of {what} ship with this version (there are: {others}); --reference names a file")
    return ours[name]


def _of_plugins(methods: Mapping[str, Any], plugins: Sequence[Path]) -> list[str]:
    """The ids of the methods that plug-ins have."""
    files = {str(path.resolve()) for path in plugins}
    return [name for name, one in methods.items() if registry.file_of(one) in files]


def _settled(suite: Suite, chosen: Choices, found: Reference, path: Path, own: Sequence[str]) -> Choices:
    """The choices with all that was left open as the reference has it.

    Raises:
        InputError: the reference is of something else.
    """
    header = found.header
    if header.suite != suite.suite:
        raise InputError(f"{path}: holds results of the suite {header.suite}, not of {suite.suite}")
    if chosen.preset not in (None, header.preset):
        raise InputError(f"{path}: holds results of the preset {header.preset}, not of {chosen.preset}")
    if header.preset not in suite.presets:
        raise InputError(f"{path}: is of the preset {header.preset}, which this suite has no more")
    there = [task for task in suite.presets[header.preset].tasks if found.of(task)]
    for task in chosen.tasks or ():
        if task not in there:
            raise InputError(f"{path}: has no results of the task '{task}': {nearest(task, there)}")
    tasks = [task for task in there if not chosen.tasks or task in chosen.tasks]
    if not tasks:
        raise InputError(f"{path}: has no task that the preset {header.preset} of this suite has")
    known = found.seeds(tasks)
    seeds = list(chosen.seeds if chosen.seeds is not None else known)
    if not set(seeds) & set(known):
        raise InputError(
            f"--seeds: the reference has the seeds {tables.ranges(known)}, and none in common with "
            f"{tables.ranges(seeds)}: pairs of one seed are compared"
        )
    methods = list(chosen.methods or own)
    if not methods:
        raise InputError("--methods must name what is to be compared, with --plugin FILE.py where it is your own")
    return dataclasses.replace(chosen, preset=header.preset, tasks=tasks, methods=methods, seeds=seeds)


def _comparable(cells: Sequence[Cell], found: Reference, path: Path) -> dict[str, list[Variant]]:
    """The variants of each task whose numbers can stand beside ours.

    Raises:
        InputError: a task has none.
    """
    kept = dict[str, list[Variant]]()
    for task in dict.fromkeys(str(cell.config["task"]) for cell in cells):
        config = next(cell.config for cell in cells if cell.config["task"] == task)
        kept[task] = [one for one in found.of(task) if not placing.incomparable(config, one)]
        if not kept[task]:
            reason = placing.incomparable(config, found.of(task)[0])
            raise InputError(f"{path}: task {task} cannot be compared: {reason}")
    return kept


def _introduce(
    console: Console, found: Reference, path: Path, cells: Sequence[Cell], others: Mapping[str, Sequence[Variant]]
) -> None:
    """What the reference is, and what in it is not like what is trained here."""
    header, several = found.header, len(others) > 1
    tables.say(
        console,
        f"reference: {path.name}, suite {header.suite}, preset {header.preset}"
        + (f" ({header.label})" if header.label else "")
        + f": {_provenance([one for variants in others.values() for one in variants])}"
        + (f"; trained {' to '.join(dict.fromkeys(header.trained))}" if header.trained else ""),
    )
    for task, variants in others.items():
        left_out = len(found.of(task)) - len(variants)
        if left_out:
            tables.say(console, f"note: {task}: {left_out} variants have other data or another rule, and are left out")
        for what, names in unlikes(task, cells, variants).items():
            which = "all of it" if len(names) == len(variants) else ", ".join(names)
            of = f"{task}: " if several else ""
            tables.say(console, f"note: {of}not a fair comparison: in the reference {what} ({which})")


def unlikes(task: str, cells: Sequence[Cell], variants: Sequence[Variant]) -> dict[str, list[str]]:
    """What is not alike in a task, and of which variants of the reference."""
    found = dict[str, list[str]]()
    configs = {str(cell.config["variant"]): cell.config for cell in cells if cell.config["task"] == task}
    for one in variants:
        for what in dict.fromkeys(placing.unlike(config, one) for config in configs.values()):
            if what:
                found.setdefault(what, []).append(one.variant)
    return found


def _provenance(variants: Sequence[Variant]) -> str:
    parts = []
    for name, before in (("machine", ""), ("device", ""), ("torch_version", "torch "), ("git_commit", "commit ")):
        values = dict.fromkeys(getattr(one, name) for one in variants if getattr(one, name))
        parts += (
            [before + " and ".join(value[:12] if name == "git_commit" else value for value in values)] if values else []
        )
    return ", ".join(parts) or "it does not say where it was trained"


@dataclasses.dataclass(frozen=True)
class _Shown:
    """What is shown once all is trained: for each task a ranking, the comparisons, the cost; then the verdicts."""

    console: Console
    found: Reference
    cells: Sequence[Cell]
    others: Mapping[str, Sequence[Variant]]

    def __call__(self, runs: RunDir, known: Inspected) -> None:
        ours, verdicts = ranking.results(runs, known.records), list[str]()
        for task, variants in self.others.items():
            own = ours[ours["task"] == task] if len(ours) else ours
            if own.empty:
                verdicts.append(f"{task}: nothing has finished, and nothing can be compared.")
                continue
            own = own.assign(variant=own["variant"] + YOURS)
            verdicts += [f"{task}: {said}" for said in self._task(task, own, placing.rows(variants), variants)]
            configs = [runs.folder(record.id).config for record in known.records
                       if record.task == task and record.state in FINISHED]  # fmt: skip
            tables.say(self.console, _times(configs, variants))
        for text in verdicts:
            tables.say(self.console, text, bold="not a fair comparison")

    def _task(self, task: str, own: pd.DataFrame, theirs: pd.DataFrame, variants: Sequence[Variant]) -> list[str]:
        """Shows the tables of a task; its verdicts."""
        both = pd.concat([own, theirs], ignore_index=True).dropna(axis="columns", how="all")
        sound = [of[of["state"] == "done"].dropna(axis="columns", how="all") for of in (own, theirs)]
        metric = ranked_by({*map(str, sound[0])} & {*map(str, sound[1])})
        if sound[0].empty:
            return [f"{name.removesuffix(YOURS)} diverged with all of its seeds." for name in own["variant"].unique()]
        if metric is None:
            return ["no metric that models are ranked by was measured of both."]
        title = ranking.heading(task, 0, self.found.header.label or None)
        ranked = ranking.ranking(both, metric)
        tables.show(self.console, ranking.table(ranked, title, metric, ranking.rules(both, metric)))
        compared = placing.against(sound[0], sound[1], metric)
        unfair = unlikes(task, self.cells, variants)
        tables.show(self.console, _table(compared, metric, {name for names in unfair.values() for name in names}))
        said = []
        for name in own["variant"].unique():
            mine = own[own["variant"] == name]
            rows = compared[compared["ours"] == name]
            rows.attrs = compared.attrs
            said.append(_unfair(unfair, len(variants)) + _verdict(name, rows, metric, mine))
        return said


def _verdict(name: str, rows: pd.DataFrame, metric: str, mine: pd.DataFrame) -> str:
    plain, gone = name.removesuffix(YOURS), int((mine["state"] == "diverged").sum())
    if rows.empty:
        return f"{plain} diverged with all of its seeds."
    more = f" {gone} of its {len(mine)} seeds diverged and are compared with none." if gone else ""
    return placing.verdict(plain, rows, metric) + more


def _unfair(unfair: Mapping[str, Sequence[str]], variants: int) -> str:
    if not unfair:
        return ""
    which = "the reference" if any(len(names) == variants for names in unfair.values()) else "variants marked *"
    return f"not a fair comparison ({which}: {'; '.join(unfair)}): "


def _table(compared: pd.DataFrame, metric: str, marked: set[str]) -> Table:
    found = metric_of(metric)
    shown = Table(
        title=Text(f"yours minus each of the reference: {found.label}{f' ({found.unit})' if found.unit else ''}"),
        title_justify="left",
        caption=Text(
            f"{'Higher' if found.higher else 'Lower'} is better. Over the seeds that both have, paired; {LEVEL:.0%} "
            f"intervals and p-values of one among {compared.attrs.get('family', 0)} comparisons (Bonferroni): all hold "
            f"at once." + (" * not alike in what is said above." if marked else ""),
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
        half = (row["high"] - row["low"]) / 2
        numbers = [written(row[name], half, "+") for name in ("difference", "low", "high")]
        names = [
            *([row["ours"].removesuffix(YOURS)] if several else []),
            row["variant"] + "*" * (row["variant"] in marked),
        ]
        p = "-" if pd.isna(row["p"]) else f"{row['p']:.3f}"
        shown.add_row(*map(Text, names), str(row["seeds"]), *numbers, p, row["conclusion"])
    return shown


def _times(configs: Sequence[Mapping[str, Any]], variants: Sequence[Variant]) -> str:
    """Where and how times were taken, and whether they can be compared."""
    here = " and ".join(dict.fromkeys(str(one.get("provenance", {}).get("machine", "?")) for one in configs))
    there = " and ".join(dict.fromkeys(one.machine or "?" for one in variants))
    how = ranking.conditions([_timed(one) for one in variants if one.compiled])
    same = here == there and "?" not in here
    return (
        f"times: yours on {here} ({ranking.conditions(configs) or 'not known how'}), the reference's on {there} "
        f"({how or 'not known how'}): "
        + (
            "the same kind of machine"
            if same
            else f"another machine; `{call('benchmark', 'speed')}` times both on this one"
        )
    )


def _timed(variant: Variant) -> dict[str, Any]:
    """As a configuration says it."""
    timing = {"compiled": variant.compiled == "true", "threads": int(variant.threads or 1),
              "jobs_beside": int(variant.jobs_beside or 0)}  # fmt: skip
    return {"device": variant.device, "timing": timing}
