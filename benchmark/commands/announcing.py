"""What a command that trains says beforehand, and what to look at next."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.data.datasets import DataSet, data_folder
from benchmark.records.rundir import RunDir
from benchmark.running import timing
from benchmark.system import tables
from benchmark.system.invocation import call
from benchmark.tasks.jobs import Job, jobs
from benchmark.tasks.plan import Cell, Choices, choose_preset, differences, load_data, plan
from benchmark.tasks.suite import Suite
from benchmark.tracking.store import is_usual, resolve
from benchmark.tracking.writer import Writer
from bism import Estimator
from bism.errors import InputError


def announce(
    console: Console,
    suite: Suite,
    chosen: Choices,
    cells: Sequence[Cell],
    work: Sequence[Job],
    begun: Mapping[str, int],
    at_once: int,
    damaged: int,
) -> None:
    """What a plan is of, and how much of it is left."""
    preset_name, preset = choose_preset(suite, chosen)
    label = f" ({preset.label})" if preset.label else ""
    todo = [cell for job in work for cell in job.cells]
    going_on = sum(cell.id in begun for cell in todo)
    console.print(f"suite {suite.suite}, preset {preset_name}{label}: {preset.description}")
    if differs := differences(preset, chosen):
        tables.say(console, f"in place of the preset's: {'; '.join(differs)}")
    if chosen.steps and (falls := _falls(cells) - {chosen.steps}):
        over = " and ".join(f"{count:,}" for count in sorted(falls))
        tables.say(console, f"learning rates fall over {over} iterations all the same: --set METHOD.decay_steps=N")
    console.print(
        f"{tables.counted(len(cells), 'cell')}, {len(cells) - len(todo) - damaged} done already, "
        + (f"{damaged} damaged, " if damaged else "")
        + (f"{going_on} to go on with, " if going_on else "")
        + f"{len(todo) - going_on} to train in {tables.counted(len(work), 'job')}, {at_once} at once"
    )


def _falls(cells: Sequence[Cell]) -> set[int]:
    """Over how many iterations learning rates fall, where they do."""
    return {int(cell.config["hyper"].get("decay_steps", 0)) for cell in cells} - {0}


def measured(
    suite: Suite, methods: dict[str, type[Estimator]], data: dict[str, DataSet]
) -> list[tuple[float, list[Job]]]:
    """What the suite's author measured: the minutes of each preset's task, and its jobs."""
    measured = list[tuple[float, list[Job]]]()
    for name, preset in suite.presets.items():
        for task in data:
            minutes = preset.tasks[task].minutes if task in preset.tasks else None
            if minutes is not None:
                measured.append((minutes, jobs(plan(suite, Choices(preset=name, tasks=[task]), methods, data))))
    return measured


def show_plan(
    console: Console, work: Sequence[Job], begun: Mapping[str, int], methods: Mapping[str, type[Estimator]]
) -> None:
    """A row for each job: what it trains, from where, with which hyper-parameters. Of those the ones that are not the
    method's default in some job of it, where a plan of many jobs is read for what it changes and compares."""
    usual = {name: methods[name]() for name in {job.config["method"] for job in work}}
    changed = {
        (job.config["method"], key)
        for job in work
        for key, value in job.config["hyper"].items()
        if value != getattr(usual[job.config["method"]], key)
    }
    table = Table("task", "variant", "seeds")
    table.add_column("steps", justify="right")
    table.add_column("from", justify="right")
    table.add_column("hyper-parameters, but for defaults")
    for job in work:
        hyper = ", ".join(
            f"{key}={value}" for key, value in job.config["hyper"].items() if (job.config["method"], key) in changed
        )
        seeds = tables.ranges(cell.config["seed"] for cell in job.cells)
        start = min(begun.get(cell.id, 0) for cell in job.cells)
        table.add_row(
            job.config["task"],
            Text(job.config["variant"]),
            seeds,
            f"{job.config['steps']:,}",
            f"{start:,}" if start else "the start",
            hyper,
        )
    tables.show(console, table)


def show_next(
    console: Console,
    suite: Suite,
    preset: str,
    writer: Writer | None,
    about_the_default: Callable[[], str] | None,
    more: str = "",
) -> None:
    """What one would look at now: the runs, the report, and the suite's main preset with what it takes here.

    more: options of the report.
    """
    lines = []
    if writer is not None and writer.tracked.hint is not None:
        at = "" if is_usual(resolve(writer.store)) else f" --tracking-uri {writer.store}"
        lines.append(f"compare the runs in MLflow: {writer.tracked.hint}")
        build = call("reports", f"build --suite {suite.suite} --preset {preset}{at}{more}")
        lines.append(f"draw the report, report/report.html: {build}")
    if preset != suite.default_preset and about_the_default is not None:
        lines.append(about_the_default())
    for line in [*(["what to look at next:"] if lines else []), *(f"  {line}" for line in lines)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def about_the_default(
    given: str,
    suite: Suite,
    methods: dict[str, type[Estimator]],
    runs: RunDir,
    data_dir: Path | None,
    where: timing.Conditions,
    options: str,
) -> str:
    """The command that trains the suite's main preset with these options, and how long it takes here."""
    name = suite.default_preset
    called = call("benchmark", f"run --suite {given} --preset {name}{options}")
    command = f"train {suite.presets[name].description}: {called}"
    try:
        data = load_data(suite, suite.presets[name].tasks, data_folder(data_dir))
    except InputError:  # other data than that of this preset, which are not there
        return command
    work = jobs(plan(suite, Choices(preset=name), methods, data))
    estimate = timing.estimate(work, {}, where, runs.timings(), measured(suite, methods, data))
    return f"{command} ({timing.said(estimate)})"
