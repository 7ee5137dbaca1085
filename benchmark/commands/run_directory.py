"""The commands that touch a run directory: run, status, sync."""

import contextlib
import dataclasses
import functools
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.commands import standing
from benchmark.data.datasets import DataSet, data_folder
from benchmark.records import integrity
from benchmark.records.looking import looked_at, planned_in, written_where_it_can_be
from benchmark.records.rundir import DAMAGED, FINISHED, Record, RunDir
from benchmark.running import timing
from benchmark.running.executors import Executor, LocalExecutor, check_precision, places
from benchmark.running.job import JobSettings
from benchmark.running.progress import display
from benchmark.running.supervisor import Supervisor
from benchmark.system import limits, tables
from benchmark.system.credentials import unsecret
from benchmark.system.invocation import call, python
from benchmark.system.signals import ended_as_by_ctrl_c
from benchmark.tasks import registry
from benchmark.tasks.advice import advice
from benchmark.tasks.plan import (
    Cell,
    Choices,
    Job,
    choose_preset,
    choose_tasks,
    differences,
    jobs,
    load_data,
    plan,
    shard,
)
from benchmark.tasks.suite import Suite, parse_seeds
from benchmark.tasks.suite_file import load_suite
from benchmark.tracking.store import is_usual, resolve
from benchmark.tracking.writer import Writer, project
from bism import Estimator
from bism.errors import InputError, shown

_PARTS = 10_000  # of a plan
_UNDER_WAY = ("planned", "running", "stopped", "failed")


def parse_shard(text: str) -> tuple[int, int]:
    """``1/4`` as the first of four parts."""
    number, _, count = text.partition("/")
    part, parts = limits.whole(number), limits.whole(count)
    if part is None or parts is None or not 1 <= part <= parts <= _PARTS:
        raise InputError(f"--shard must look like 1/4, the first of four parts, got {shown(text)}")
    return part, parts


def choices(
    preset: str | None,
    tasks: Sequence[str] | None,
    methods: Sequence[str] | None,
    seeds: str | None,
    steps: int | None,
    overrides: Sequence[tuple[str, str, Any]],
    data_parallel: int = 1,
) -> Choices:
    """The command line's selection, checked."""
    limits.check_count("--steps", steps, most=limits.STEPS)
    limits.check_count("--data-parallel", data_parallel, most=1024)
    return Choices(preset, tasks, methods, chosen_seeds(seeds), steps, overrides, data_parallel)


def chosen_seeds(text: str | None) -> list[int] | None:
    """The seeds of ``--seeds``; None where it is not given."""
    try:
        return None if text is None else parse_seeds(text)
    except ValueError as error:
        raise InputError(f"--seeds {error}") from None


@dataclasses.dataclass(frozen=True)
class Setup:
    """Where a run keeps and finds things, and what it runs on.

    store: the tracking store, or None.
    executor: ``local``, or ``ray`` for the cluster at ``address``.
    stall_seconds: without a sign of life, after which a job is ended.
    """

    run_dir: Path
    data_dir: Path | None
    store: str | None
    executor: str
    address: str | None
    devices: str
    jobs_per_device: int
    settings: JobSettings
    stall_seconds: float
    log_models: str


def run(
    suite_name: str,
    chosen: Choices,
    console: Console,
    place: Setup,
    *,
    part: tuple[int, int] = (1, 1),
    dry_run: bool = False,
    rerun: str | None = None,
    tuned: tuple[str, Sequence[str]] | None = None,
) -> int:
    """Plans, trains what is not done, tracks, and prints the ranking.

    part: which of how many shards of the plan is ours.
    rerun: ``all`` cells that have finished, from the start, or those that are ``damaged``.
    tuned: a storage and the names of studies, whose best trials are what is trained.
    """
    methods = registry.methods(place.settings.plugins)
    suite = load_suite(suite_name, methods)
    if tuned:
        from benchmark.tuning.export import check_seeds, tuned_suite  # Optuna, which nothing else here needs

        found = tuned_suite(*tuned, methods)
        if found.suite != suite.suite:
            raise InputError(f"--tuned {' '.join(tuned[1])}: tuned on the suite {found.suite}, not {suite.suite}")
        suite = found
        check_seeds(*tuned, choose_preset(suite, chosen)[1].seeds if chosen.seeds is None else chosen.seeds)
    preset_name, preset = choose_preset(suite, chosen)
    data = load_data(suite, choose_tasks(preset, chosen), data_folder(place.data_dir))
    cells = shard(plan(suite, chosen, methods, data), *part)
    _check_weights(cells, place.settings)
    for text in advice({task: data[task] for task in dict.fromkeys(cell.config["task"] for cell in cells)}):
        tables.say(console, f"note: {text}")
    with (
        contextlib.closing(_executor(place, console)) as executor,
        contextlib.closing(planned_in(place.run_dir) if dry_run else RunDir(place.run_dir)) as runs,
        ended_as_by_ctrl_c(),
    ):
        check_precision((cell.config for cell in cells), executor.places)
        standing.recovered(console, runs)
        orphans = runs.repair()
        records = {record.id: record for record in _inspected(runs, cells).records}
        damaged = [cell for cell, record in records.items() if record.state == DAMAGED]
        ended = () if rerun == "all" else (*FINISHED, *(() if rerun else (DAMAGED,)))
        todo = [cell for cell in cells if cell.id not in records or records[cell.id].state not in ended]
        under_way = {} if rerun == "all" else {cell: one for cell, one in records.items() if one.state in _UNDER_WAY}
        work = jobs(todo, _company(under_way))
        begun = {cell: record.progress for cell, record in under_way.items() if record.progress}
        at_once = sum(one.slots for one in executor.places)
        if dry_run:  # first, so that what it comes to is what is seen last
            _show_plan(console, work, begun)
        _announce(console, suite, preset_name, chosen, cells, work, begun, at_once, 0 if rerun else len(damaged))
        where = timing.Conditions(_device(executor), place.settings.threads, max(1, at_once))
        measured = _measured(suite, methods, data) if todo else []
        outlook = timing.Outlook(where, runs.timings, measured, jobs(cells), begun)
        if todo:
            estimate = timing.estimate(work, begun, where, runs.timings(), measured, outlook.whole)
            console.print(timing.said(estimate), highlight=False)
        if dry_run:
            return 0
        if rerun:
            runs.reset(damaged)
        runs.plan(cell.record for cell in cells)
        with _writer(place, dict.fromkeys([*(cell.id for cell in cells), *orphans]), console) as writer:
            _train(work, data, runs, executor, place, console, writer, rerun == "all", outlook)
        known = _inspected(runs, cells)
        code = _finish(console, runs, known, writer)
        if all(record.state in FINISHED for record in known.records):
            about = (
                None if tuned else functools.partial(_about_the_default, suite_name, suite, methods, runs, place, where)
            )
            _show_next(console, suite, preset_name, writer, about)
        return code


def _check_weights(cells: Sequence[Cell], settings: JobSettings) -> None:
    """Reads the networks that samples will be judged by: a damaged file is to be known before anything trains."""
    if any(probe["options"].get("metrics") for cell in cells for probe in cell.config["probes"]):
        from benchmark.measures.sample_quality import check

        check(settings.judges.inception, settings.judges.resnet56)


def _executor(place: Setup, console: Console) -> Executor[Any]:
    if place.executor == "local":
        if place.address is not None:
            raise InputError("--address names a cluster and needs --executor ray")
        available = places(place.devices, place.settings.threads, place.jobs_per_device, place.settings.data_parallel)
        return LocalExecutor(place.run_dir, place.settings, available)
    if place.settings.data_parallel > 1:
        raise InputError("--data-parallel needs --executor local: the processes of a job share a machine")
    from benchmark.running.ray_cluster import RayExecutor

    def note(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    return RayExecutor(place.address, place.devices, place.jobs_per_device, place.run_dir, place.settings, note)


def _company(records: Mapping[str, Record]) -> dict[str, str | None]:
    """What cells that are under way were trained beside."""
    return {cell: record.job for cell, record in records.items() if record.progress}


def _inspected(runs: RunDir, cells: Sequence[Cell]) -> integrity.Inspected:
    return integrity.inspect(runs, runs.records(cell.id for cell in cells))


@contextlib.contextmanager
def _writer(place: Setup, ids: Iterable[str], console: Console) -> Iterator[Writer | None]:
    """What tracks these cells; None where tracking is off. At the end all is written, whatever happened inside."""
    if place.store is None:
        yield None
        return

    def note(text: str) -> None:
        if text:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    with Writer(place.store, place.run_dir, list(ids), command_line(), place.log_models, note) as writer:
        yield writer


def _train(
    work: list[Job],
    data: dict[str, DataSet],
    runs: RunDir,
    executor: Executor[Any],
    place: Setup,
    console: Console,
    writer: Writer | None,
    rerun: bool,
    outlook: timing.Outlook,
) -> None:
    shown = display(console, work, lambda steps: outlook.left(supervisor.left, steps))
    listen = writer.listen if writer else None
    supervisor = Supervisor(data, runs, executor, shown, rerun, place.stall_seconds, listen)
    try:
        with shown:
            supervisor.run(work)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here:")
        console.print(f"  {command_line(python())}", markup=False, highlight=False, soft_wrap=True)
        raise


def command_line(interpreter: str = "python") -> str:
    """What the user called, without passwords: as it is recorded, or to be called again (``interpreter``)."""
    return f"{interpreter} -m benchmark {shlex.join(map(unsecret, sys.argv[1:]))}"


def _announce(
    console: Console,
    suite: Suite,
    preset_name: str,
    chosen: Choices,
    cells: Sequence[Cell],
    work: Sequence[Job],
    begun: Mapping[str, int],
    at_once: int,
    damaged: int,
) -> None:
    preset = suite.presets[preset_name]
    label = f" ({preset.label})" if preset.label else ""
    todo = [cell for job in work for cell in job.cells]
    going_on = sum(cell.id in begun for cell in todo)
    console.print(f"suite {suite.suite}, preset {preset_name}{label}: {preset.description}")
    if differs := differences(preset, chosen):
        tables.say(console, f"in place of the preset's: {'; '.join(differs)}")
    console.print(
        f"{tables.counted(len(cells), 'cell')}, {len(cells) - len(todo) - damaged} done already, "
        + (f"{damaged} damaged, " if damaged else "")
        + (f"{going_on} to go on with, " if going_on else "")
        + f"{len(todo) - going_on} to train in {tables.counted(len(work), 'job')}, {at_once} at once"
    )


def _device(executor: Executor[Any]) -> str:
    return next((place.device for place in executor.places), "cpu")


def _measured(
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


def _show_plan(console: Console, work: Sequence[Job], begun: Mapping[str, int]) -> None:
    table = Table("task", "variant", "seeds")
    table.add_column("steps", justify="right")
    table.add_column("from", justify="right")
    table.add_column("hyper-parameters")
    for job in work:
        hyper = ", ".join(f"{key}={value}" for key, value in job.config["hyper"].items())
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


def _finish(console: Console, runs: RunDir, known: integrity.Inspected, writer: Writer | None) -> int:
    """The ranking, what went wrong, and where to look further."""
    standing.print_rankings(console, runs, known.records, advised=True)
    code = standing.print_problems(console, runs, known)
    if writer is not None and not writer.tracked.complete:
        text = f"the tracking store lacks some of it: {call('benchmark', f'sync --tracking-uri {writer.store}')}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    return code


def _show_next(
    console: Console, suite: Suite, preset: str, writer: Writer | None, about_the_default: Callable[[], str] | None
) -> None:
    """What one would look at now: the runs, the report, and the suite's main preset with what it takes here."""
    lines = []
    if writer is not None and writer.tracked.hint is not None:
        at = "" if is_usual(resolve(writer.store)) else f" --tracking-uri {writer.store}"
        lines.append(f"compare the runs in MLflow: {writer.tracked.hint}")
        build = call("reports", f"build --suite {suite.suite} --preset {preset}{at}")
        lines.append(f"draw the report, report/report.html: {build}")
    if preset != suite.default_preset and about_the_default is not None:
        lines.append(about_the_default())
    for line in [*(["what to look at next:"] if lines else []), *(f"  {line}" for line in lines)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _about_the_default(
    given: str, suite: Suite, methods: dict[str, type[Estimator]], runs: RunDir, place: Setup, where: timing.Conditions
) -> str:
    """The command that trains the suite's main preset, and how long it takes here."""
    name = suite.default_preset
    command = f"train {suite.presets[name].description}: {call('benchmark', f'run --suite {given} --preset {name}')}"
    try:
        data = load_data(suite, suite.presets[name].tasks, data_folder(place.data_dir))
    except InputError:  # other data than that of this preset, which are not there
        return command
    work = jobs(plan(suite, Choices(preset=name), methods, data))
    estimate = timing.estimate(work, {}, where, runs.timings(), _measured(suite, methods, data))
    return f"{command} ({timing.said(estimate)})"


def status(console: Console, run_dir: Path) -> int:
    """Where the cells of a run directory stand; nothing of it is written."""
    if os.path.lexists(run_dir) and not run_dir.is_dir():
        raise InputError(f"{run_dir}: is no folder; --run-dir names another")
    if not RunDir.exists(run_dir):
        raise InputError(
            f"{run_dir}: no run directory; `{call('benchmark', 'run')}` makes one, --run-dir names another"
        )
    with contextlib.closing(looked_at(run_dir)) as runs:
        unknown = standing.recovered(console, runs)
        runs.repair()
        known = integrity.inspect(runs, runs.records())
        if not known.records:
            tables.say(console, f"{run_dir}: no cells")
        for suite, preset in dict.fromkeys((record.suite, record.preset) for record in known.records):
            group = [record for record in known.records if (record.suite, record.preset) == (suite, preset)]
            counts = Counter(record.state for record in group)
            states = ", ".join(f"{n} {state}" for state, n in counts.items())
            console.print(f"suite {suite}, preset {preset}: {states}", markup=False, highlight=False, soft_wrap=True)
            standing.print_stages(console, runs, group)
            standing.print_rankings(console, runs, group, f"preset {preset}")
        return standing.print_problems(console, runs, known) or int(bool(unknown))


def sync(console: Console, run_dir: Path, store: str, log_models: str) -> int:
    """Brings the tracking store up to the run directory, but for what is damaged in it."""
    if not RunDir.exists(run_dir):
        raise InputError(f"{run_dir}: no run directory to bring to {unsecret(store)}")
    from benchmark.tracking.cells import Tracker

    with contextlib.closing(written_where_it_can_be(run_dir)) as runs:
        unknown = standing.recovered(console, runs)
        runs.repair()
        known, started = integrity.inspect(runs, runs.records()), time.monotonic()
        complete = project(Tracker(store, runs), known.sound, command_line(), log_models)
        brought, seconds = tables.counted(len(known.sound), "cell"), time.monotonic() - started
        console.print(f"{brought} brought to {unsecret(store)} in {seconds:.0f} s")
        standing.print_damage(console, known)
        return 0 if complete and not known.damage and not unknown else 1
