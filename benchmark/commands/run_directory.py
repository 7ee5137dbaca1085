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

from benchmark.commands import announcing, standing
from benchmark.data.datasets import DataSet, data_folder
from benchmark.records import integrity
from benchmark.records.looking import looked_at, planned_in, written_where_it_can_be
from benchmark.records.rundir import DAMAGED, FINISHED, USUAL, Record, RunDir
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
from benchmark.tasks.jobs import Job, jobs, shard
from benchmark.tasks.plan import Cell, Choices, choose_preset, choose_tasks, load_data, plan
from benchmark.tasks.suite import Suite, parse_seeds
from benchmark.tasks.suite_file import load_suite
from benchmark.tracking.store import is_usual, named, resolve
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
    variants: Sequence[str] | None = None,
) -> Choices:
    """The command line's selection, checked."""
    limits.check_count("--steps", steps, most=limits.STEPS)
    limits.check_count("--data-parallel", data_parallel, most=1024)
    return Choices(preset, tasks, methods, chosen_seeds(seeds), steps, overrides, data_parallel, variants)


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

    @property
    def options(self) -> str:
        """``sources``, and where results are kept, as options; nothing of what is usual."""
        store = "none" if self.store is None else unsecret(self.store)
        usual = named(None) == "none" if self.store is None else is_usual(resolve(self.store))
        given: list[tuple[str, object]] = [] if self.run_dir == USUAL else [("--run-dir", self.run_dir)]
        given += [] if usual else [("--tracking-uri", store)]
        return self.sources + _as_options(given)

    @property
    def sources(self) -> str:
        """Which methods there are, and where data are found, as options; nothing of what is usual."""
        given: list[tuple[str, object]] = [("--plugin", file) for file in self.settings.plugins]
        given += [] if self.data_dir is None else [("--data-dir", self.data_dir)]
        return _as_options(given)


def _as_options(given: Iterable[tuple[str, object]]) -> str:
    return "".join(f" {option} {shlex.quote(str(value))}" for option, value in given)


@dataclasses.dataclass(frozen=True)
class Planned:
    """What is to be trained: cells of a suite, with all that they were planned from.

    given: what the user called the suite; None where it is none that a command could name.
    of: the suite as its author measured it, where it was changed since.
    """

    suite: Suite
    chosen: Choices
    methods: dict[str, type[Estimator]]
    data: dict[str, DataSet]
    cells: list[Cell]
    given: str | None = None
    of: Suite | None = None

    @property
    def published(self) -> Suite:
        """Whose minutes are known."""
        return self.of or self.suite


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
    _, preset = choose_preset(suite, chosen)
    data = load_data(suite, choose_tasks(preset, chosen), data_folder(place.data_dir))
    cells = shard(plan(suite, chosen, methods, data), *part)
    planned = Planned(suite, chosen, methods, data, cells, None if tuned else suite_name)
    return carry_out(planned, console, place, dry_run=dry_run, rerun=rerun)


def carry_out(
    planned: Planned,
    console: Console,
    place: Setup,
    *,
    dry_run: bool = False,
    rerun: str | None = None,
    show: Callable[[RunDir, integrity.Inspected], None] | None = None,
    of_report: str = "",
) -> int:
    """Trains what is not done of a plan, tracks, and shows what came of it.

    show: in place of the ranking.
    of_report: options of the report that shows as much.
    """
    suite, cells = planned.suite, planned.cells
    _check_weights(cells, place.settings)
    for text in advice({task: planned.data[task] for task in dict.fromkeys(cell.config["task"] for cell in cells)}):
        tables.say(console, f"note: {text}")
    with (
        contextlib.closing(_executor(place, console)) as executor,
        contextlib.closing(planned_in(place.run_dir) if dry_run else RunDir(place.run_dir)) as runs,
        ended_as_by_ctrl_c(),
    ):
        check_precision((cell.config for cell in cells), executor.places)
        standing.recovered(console, runs)
        orphans = runs.repair()
        records = {record.id: record for record in inspected(runs, cells).records}
        damaged = [cell for cell, record in records.items() if record.state == DAMAGED]
        ended = () if rerun == "all" else (*FINISHED, *(() if rerun else (DAMAGED,)))
        todo = [cell for cell in cells if cell.id not in records or records[cell.id].state not in ended]
        under_way = {} if rerun == "all" else {cell: one for cell, one in records.items() if one.state in _UNDER_WAY}
        work = jobs(todo, _company(under_way))
        begun = {cell: record.progress for cell, record in under_way.items() if record.progress}
        at_once = sum(one.slots for one in executor.places)
        if dry_run:  # first, so that what it comes to is what is seen last
            announcing.show_plan(console, work, begun, planned.methods)
        left_out = 0 if rerun else len(damaged)
        announcing.announce(console, suite, planned.chosen, cells, work, begun, at_once, left_out)
        where = timing.Conditions(_device(executor), place.settings.threads, max(1, at_once))
        measured = announcing.measured(planned.published, planned.methods, planned.data) if todo else []
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
            _train(work, planned.data, runs, executor, place, console, writer, rerun == "all", outlook)
        known = inspected(runs, cells)
        code = _finish(console, runs, known, writer, show)
        if all(record.state in FINISHED for record in known.records):
            about = None
            if planned.given is not None:
                about = functools.partial(announcing.about_the_default, planned.given, suite, planned.methods, runs,
                                          place.data_dir, where, place.options)  # fmt: skip
            announcing.show_next(console, suite, choose_preset(suite, planned.chosen)[0], writer, about, of_report)
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


def inspected(runs: RunDir, cells: Sequence[Cell]) -> integrity.Inspected:
    """These cells as their folders prove them."""
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


def _device(executor: Executor[Any]) -> str:
    return next((place.device for place in executor.places), "cpu")


def _finish(
    console: Console,
    runs: RunDir,
    known: integrity.Inspected,
    writer: Writer | None,
    show: Callable[[RunDir, integrity.Inspected], None] | None,
) -> int:
    """The ranking, what went wrong, and where to look further."""
    if show is None:
        standing.print_rankings(console, runs, known.records, advised=True)
    else:
        show(runs, known)
    code = standing.print_problems(console, runs, known)
    if writer is not None and not writer.tracked.complete:
        text = f"the tracking store lacks some of it: {call('benchmark', f'sync --tracking-uri {writer.store}')}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    return code


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
