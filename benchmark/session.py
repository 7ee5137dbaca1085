"""The commands that touch a run directory: run, status, sync."""

import contextlib
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark import ranking, registry, runner
from benchmark.datasets import DataSet, data_folder
from benchmark.plan import Cell, Choices, Job, choose_preset, choose_tasks, jobs, load_data, plan
from benchmark.progress import display, duration
from benchmark.rundir import FINISHED, Record, RunDir
from benchmark.suite import Preset, Suite, load_suite, parse_seeds
from benchmark.worker import Settings
from bism.errors import InputError


def at_least_one(option: str, value: int | None) -> None:
    """Refuses a count that is not positive."""
    if value is not None and value < 1:
        raise InputError(f"{option} must be at least 1, got {value}")


def choices(
    preset: str | None,
    tasks: Sequence[str] | None,
    methods: Sequence[str] | None,
    seeds: str | None,
    steps: int | None,
    overrides: Sequence[tuple[str, str, Any]],
) -> Choices:
    """The command line's selection, checked."""
    at_least_one("--steps", steps)
    try:
        chosen = None if seeds is None else parse_seeds(seeds)
    except ValueError as error:
        raise InputError(f"--seeds {error}") from None
    return Choices(preset, tasks, methods, chosen, steps, overrides)


def run(
    suite_name: str,
    chosen: Choices,
    console: Console,
    *,
    run_dir: Path,
    data_dir: Path | None,
    store: str | None,
    plugins: Sequence[Path],
    device: str,
    threads: int,
    log_models: str,
    dry_run: bool,
    rerun: bool,
) -> int:
    """Plans, trains what is not done, tracks, and prints the ranking."""
    methods = registry.methods(plugins)
    suite = load_suite(suite_name, methods)
    preset_name, preset = choose_preset(suite, chosen)
    places = runner.devices(device, threads)
    data = load_data(suite, choose_tasks(preset, chosen), data_folder(data_dir))
    cells = plan(suite, chosen, methods, data)
    with contextlib.closing(RunDir(run_dir)) as runs:
        records = {record.id: record for record in runs.records(cell.id for cell in cells)}
        todo = [cell for cell in cells if rerun or cell.id not in records or records[cell.id].state not in FINISHED]
        _announce(console, suite, preset_name, cells, todo, places)
        everything = plan(suite, Choices(preset=preset_name, tasks=chosen.tasks), methods, data)
        estimate = _estimate(suite, preset_name, todo, len(places), runs.records(), everything)
        if todo and estimate is not None:
            console.print(f"about {duration(estimate)}")
        if dry_run:
            _show_plan(console, jobs(todo))
            return 0
        runs.plan(cell.record for cell in cells)
        tracker = _tracker(store, runs)
        with _tracked(tracker, runs, cells, log_models):
            _train(jobs(todo), data, runs, places, Settings(tuple(plugins), threads), console, tracker, rerun)
        return _finish(console, runs, cells, preset, tracker)


def _train(
    work: list[Job],
    data: dict[str, DataSet],
    runs: RunDir,
    places: list[str],
    settings: Settings,
    console: Console,
    tracker: Any,
    rerun: bool,
) -> None:
    shown = display(console, work)

    def after(job: Job) -> None:
        if tracker is not None:
            tracker.sync(runs.records(cell.id for cell in job.cells), command=_command())

    try:
        with shown:
            runner.run(work, data, runs, places, settings, shown, after, rerun)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        raise


@contextlib.contextmanager
def _tracked(tracker: Any, runs: RunDir, cells: Sequence[Cell], log_models: str) -> Iterator[None]:
    """Whatever happens inside, what is in the run directory reaches the tracking store."""
    try:
        yield
    finally:
        if tracker is not None:
            _project(tracker, runs.records(cell.id for cell in cells), log_models)


def _project(tracker: Any, records: Sequence[Record], log_models: str) -> bool:
    """Brings a tracking store up to these records; whether it now holds everything."""
    complete: bool = tracker.sync(records, command=_command(), last=True)
    tracker.log_models(records, log_models)
    for suite, preset in dict.fromkeys((record.suite, record.preset) for record in records):
        tracker.finish(suite, preset)
    return complete


def _tracker(store: str | None, runs: RunDir) -> Any:
    """The tracking store, opened; None where tracking is off (mlflow is not even imported then)."""
    if store is None:
        return None
    from benchmark.tracking import Tracker

    return Tracker(store, runs)


def _command() -> str:
    return shlex.join(["python", "-m", "benchmark", *sys.argv[1:]])


def _announce(
    console: Console, suite: Suite, preset_name: str, cells: Sequence[Cell], todo: Sequence[Cell], places: Sequence[str]
) -> None:
    preset = suite.presets[preset_name]
    label = f" ({preset.label})" if preset.label else ""
    console.print(f"suite {suite.suite}, preset {preset_name}{label}: {preset.description}")
    console.print(
        f"{len(cells)} cells, {len(cells) - len(todo)} done already, {len(todo)} to train in {len(jobs(todo))} jobs, "
        f"{len(places)} at once"
    )


def _estimate(
    suite: Suite, preset: str, todo: Sequence[Cell], places: int, known: Sequence[Record], everything: Sequence[Cell]
) -> float | None:
    """Seconds: by earlier cells of the same variants where there are any, else by the preset's measured minutes.

    Those are of all of a task's cells on two cores; a part of them is taken to cost in proportion to ``Job.work``.
    """
    per_step = {(r.task, r.variant): r.train_seconds / r.steps for r in known if r.train_seconds}
    total = 0.0
    for task, settings in suite.presets[preset].tasks.items():
        work, whole = (_by_variant(cells, task) for cells in (todo, everything))
        for variant, (units, steps) in work.items():
            if (task, variant) in per_step:
                total += per_step[task, variant] * steps / places
            elif settings.minutes is None:
                return None
            else:
                total += 120 * settings.minutes * units / sum(units for units, _ in whole.values()) / places
    return total


def _by_variant(cells: Sequence[Cell], task: str) -> dict[str, tuple[float, int]]:
    """Work and iterations of each variant of a task, over all its seeds."""
    return {
        job.config["variant"]: (job.work, job.config["steps"] * len(job.cells))
        for job in jobs(cell for cell in cells if cell.config["task"] == task)
    }


def _show_plan(console: Console, work: Sequence[Job]) -> None:
    table = Table("task", "variant", "seeds", "steps", "hyper-parameters")
    for job in work:
        hyper = ", ".join(f"{key}={value}" for key, value in job.config["hyper"].items())
        seeds = ",".join(str(cell.config["seed"]) for cell in job.cells)
        table.add_row(job.config["task"], Text(job.config["variant"]), seeds, f"{job.config['steps']:,}", hyper)
    console.print(table)


def _finish(console: Console, runs: RunDir, cells: Sequence[Cell], preset: Preset, tracker: Any) -> int:
    """The ranking, what went wrong, and where to look further."""
    records = runs.records(cell.id for cell in cells)
    _print_rankings(console, runs, records, preset.label)
    code = _print_problems(console, runs, records)
    if tracker is not None:
        console.print(f"compare them in the MLflow UI: {tracker.ui_hint()}", markup=False, soft_wrap=True)
    return code


def _print_rankings(console: Console, runs: RunDir, records: Sequence[Record], label: str | None) -> None:
    frame = ranking.results(runs, records)
    for task in [] if frame.empty else frame["task"].unique():
        cells = frame[frame["task"] == task].dropna(axis="columns", how="all")
        metric = next((name for name in ("test/log_likelihood", "test/fisher_divergence") if name in cells), None)
        title = f"{task}: {label}" if label else str(task)
        if metric is not None:  # every cell may have diverged
            console.print(ranking.table(ranking.ranking(cells, metric), title, metric))


def _print_problems(console: Console, runs: RunDir, records: Sequence[Record]) -> int:
    """Lists cells that ended badly; the exit code: 0 where all are done."""
    for record in records:
        if record.state in ("diverged", "failed", "stopped"):
            more = f"; see {runs.folder(record.id).path / 'error.txt'}" if record.state == "failed" else ""
            name = f"{record.task} {record.variant} seed {record.seed}"
            console.print(f"{record.state}: {name}: {record.message or '-'}{more}", markup=False, soft_wrap=True)
    return 0 if all(record.state == "done" for record in records) else 1


def status(console: Console, run_dir: Path) -> int:
    """Where the cells of a run directory stand."""
    if not (run_dir / "index.sqlite").exists():
        raise InputError(f"{run_dir}: no run directory; `python -m benchmark run` makes one, --run-dir names another")
    with contextlib.closing(RunDir(run_dir)) as runs:
        records = runs.records()
        for suite, preset in dict.fromkeys((record.suite, record.preset) for record in records):
            group = [record for record in records if (record.suite, record.preset) == (suite, preset)]
            counts = Counter(record.state for record in group)
            console.print(
                f"suite {suite}, preset {preset}: " + ", ".join(f"{n} {state}" for state, n in counts.items())
            )
            _print_rankings(console, runs, group, f"preset {preset}")
        return _print_problems(console, runs, records)


def sync(console: Console, run_dir: Path, store: str, log_models: str) -> int:
    """Brings the tracking store up to the run directory."""
    if not (run_dir / "index.sqlite").exists():
        raise InputError(f"{run_dir}: no run directory to bring to {store}")
    with contextlib.closing(RunDir(run_dir)) as runs:
        records, started = runs.records(), time.monotonic()
        complete = _project(_tracker(store, runs), records, log_models)
        console.print(f"{len(records)} cells brought to {store} in {time.monotonic() - started:.0f} s")
        return 0 if complete else 1
