"""``compare``: trains methods alone and places them among results that were trained elsewhere."""

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from benchmark.commands import standing
from benchmark.commands.placed import Placing, unlikes
from benchmark.commands.run_directory import Planned, Setup, carry_out, inspected
from benchmark.data.datasets import DataSet, data_folder
from benchmark.measures import placing
from benchmark.records import reference
from benchmark.records.looking import looked_at
from benchmark.records.reference import Reference
from benchmark.records.results import Variant
from benchmark.records.rundir import FINISHED
from benchmark.system import tables
from benchmark.system.invocation import call
from benchmark.tasks import registry
from benchmark.tasks.models import build_model
from benchmark.tasks.plan import Cell, Choices, choose_preset, load_data, model_config, plan
from benchmark.tasks.plan import variants as entries
from benchmark.tasks.registry import find
from benchmark.tasks.suite import ModelEntry, Suite, lacking, with_methods
from benchmark.tasks.suite_file import load_suite
from bism import Estimator
from bism.checks import check_model
from bism.errors import InputError, nearest


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
        chosen: where it leaves preset, tasks or seeds open, they are the reference's, seeds task by task.
        file: of results; by default what ships with the package.
        train: else what is finished is placed, and nothing trained.
    """
    methods = registry.methods(place.settings.plugins)
    shipped = load_suite(suite_name, methods)
    path = file or _shipped(shipped, chosen.preset)
    found = reference.read(path)
    any_seed = chosen.seeds is None
    chosen = _settled(shipped, chosen, found, path, registry.of_plugins(methods, place.settings.plugins))
    data = load_data(shipped, chosen.tasks or (), data_folder(place.data_dir))
    suite = with_own(shipped, chosen, methods, data, console)
    cells = plan(suite, chosen, methods, data)
    if any_seed:  # a task may have fewer in the reference than another
        cells = [cell for cell in cells if cell.config["seed"] in found.seeds([cell.config["task"]])]
    others = _comparable(cells, found, path)
    _introduce(console, found, path, cells, others)
    shown = Placing(console, found, cells, others, _speed(suite_name, suite, chosen, methods, place, others))
    if train:
        planned = Planned(suite, chosen, methods, data, cells, of=shipped)
        report = " --reference" + (f" {shlex.quote(str(file))}" if file else "")  # without a file what ships is drawn
        return carry_out(planned, console, place, dry_run=dry_run, rerun=rerun, show=shown, of_report=report)
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
        if preset:
            choose_preset(suite, Choices(preset=preset))
        others = ", ".join(ours) or ", ".join(f"{of} {one}" for of, one in there) or "none"
        what = f"suite {suite.suite}" + (f", preset {preset}," if preset else "")
        raise InputError(
            f"no results of {what} ship with this version ({'of its presets ' if ours else ''}there are: {others}); "
            f"--reference names a file"
        )
    return ours[name]


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
    there = [task for task in suite.presets[header.preset].tasks if found.seeds([task])]
    if not there:
        raise InputError(f"{path}: has no results of a task that the preset {header.preset} of this suite has")
    for task in chosen.tasks or ():
        if task not in there:
            raise InputError(f"{path}: has no results of the task '{task}': {nearest(task, there)}")
    tasks = [task for task in there if not chosen.tasks or task in chosen.tasks]
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


def with_own(
    suite: Suite, chosen: Choices, methods: dict[str, type[Estimator]], data: Mapping[str, DataSet], console: Console
) -> Suite:
    """The suite with an entry for each chosen method that a chosen task of the preset has none of."""
    models = _models(suite, chosen, methods, data, console)
    return with_methods(suite, chosen.preset or "", chosen.tasks or (), chosen.methods or (), models)


def _models(
    suite: Suite, chosen: Choices, methods: dict[str, type[Estimator]], data: Mapping[str, DataSet], console: Console
) -> dict[tuple[str, str], ModelEntry]:
    """By task and method, where the method cannot train the task's model, the first of its variants' models that it can
    train; it is said.

    Raises:
        InputError: it can train none of them.
    """
    found = dict[tuple[str, str], ModelEntry]()
    for task in chosen.tasks or ():
        of = suite.presets[chosen.preset or ""].tasks[task]
        own = suite.tasks[task].model
        for method in lacking(of, chosen.methods or ()):
            estimator = find(method, methods)()
            refused = _refused(estimator, own, data[task])
            if not refused:
                continue
            others = (one.model for one in of.variants if one.model and not _refused(estimator, one.model, data[task]))
            if (other := next(others, None)) is None:
                raise InputError(
                    f"task {task}: {refused}, nor can it train another of the models there: leave the method out by "
                    f"--methods, take other --tasks, or give it a model in a suite file (docs/adding_a_method.md)"
                )
            sizes = ", ".join(f"{name} {value}" for name, value in other.sizes.items())
            tables.say(console, f"note: task {task}: {refused}; so it trains {other.name} ({sizes}), as others here do")
            found[task, method] = other
    return found


def _refused(estimator: Estimator, model: ModelEntry, data: DataSet) -> str:
    """Why a method cannot train a model; nothing where it can."""
    try:
        check_model(estimator, build_model(model_config(model, data)))
    except InputError as error:
        return str(error)
    return ""


def _speed(
    given: str,
    suite: Suite,
    chosen: Choices,
    methods: dict[str, type[Estimator]],
    place: Setup,
    others: Mapping[str, Sequence[Variant]],
) -> dict[str, str]:
    """For each task the command that times ours here, and beside them one of the reference's that there is: of a method
    that ours is derived from, else the first."""
    found, settings = dict[str, str](), place.settings
    for task, theirs in others.items():
        there = {name: entry.method for entry, _, name in entries(suite.presets[chosen.preset or ""].tasks[task],
                                                                   Choices(), methods)}  # fmt: skip
        ours = [name for name, method in there.items() if method in (chosen.methods or ())]
        own = tuple(methods[there[name]] for name in ours)
        other = [one.variant for one in theirs if one.variant in there and one.variant not in ours]
        other.sort(key=lambda name: not any(issubclass(one, methods[there[name]]) for one in own))
        named = [*ours, *other[:1]]
        words = ["speed", "--suite", given, "--preset", chosen.preset or "", "--tasks", task, "--methods",
                 *dict.fromkeys(there[name] for name in named), "--variants", *named]  # fmt: skip
        words += ["--num-seeds", str(len(chosen.seeds or ()))]
        words += [] if settings.threads == 1 else ["--threads", str(settings.threads)]
        words += [] if place.devices == "cpu" else ["--devices", place.devices]
        for method, key, value in chosen.overrides:
            words += ["--set", f"{method}.{key}={json.dumps(value)}"]
        found[task] = call("benchmark", shlex.join(words)) + place.sources
    return found


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
        trained = {str(cell.config["variant"]) for cell in cells if cell.config["task"] == task}
        ways = dict[tuple[str, str], list[str]]()  # what is said alike of several of ours is said once
        for name, unlike in unlikes(task, cells, variants).items():
            for what, names in unlike.items():
                which = "all of it" if len(names) == len(variants) else ", ".join(names)
                ways.setdefault((what, which), []).append(name)
        for (what, which), ours in ways.items():
            of = f"{task}: " if several else ""
            mine = "" if len(ours) == len(trained) else f", for {' and '.join(ours)}"
            tables.say(console, f"note: {of}not a fair comparison{mine}: in the reference {what} ({which})")


def _provenance(variants: Sequence[Variant]) -> str:
    parts = []
    for name, before in (("machine", ""), ("device", ""), ("torch_version", "torch "), ("git_commit", "commit ")):
        values = dict.fromkeys(getattr(one, name) for one in variants if getattr(one, name))
        parts += (
            [before + " and ".join(value[:12] if name == "git_commit" else value for value in values)] if values else []
        )
    return ", ".join(parts) or "it does not say where it was trained"
