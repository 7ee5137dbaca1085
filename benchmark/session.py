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

from benchmark import ranking, registry, runner
from benchmark.datasets import data_folder
from benchmark.plan import Cell, Choices, Job, choose_preset, choose_tasks, jobs, load_data, plan
from benchmark.progress import display, duration
from benchmark.rundir import FINISHED, Record, RunDir
from benchmark.suite import Preset, Suite, load_suite, parse_seeds
from bism.errors import InputError


def choices(
    preset: str | None,
    tasks: Sequence[str] | None,
    methods: Sequence[str] | None,
    seeds: str | None,
    steps: int | None,
    overrides: Sequence[tuple[str, str, Any]],
) -> Choices:
    """The command line's selection, checked."""
    if steps is not None and steps < 1:
        raise InputError(f"--steps must be at least 1, got {steps}")
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
    log_models: str,
    dry_run: bool,
    rerun: bool,
) -> int:
    """Plans, trains what is not done, tracks, and prints the ranking."""
    methods = registry.methods(plugins)
    suite = load_suite(suite_name, methods)
    preset_name, preset = choose_preset(suite, chosen)
    places = runner.devices(device)
    data = load_data(suite, choose_tasks(preset, chosen), data_folder(data_dir))
    cells = plan(suite, chosen, methods, data)
    with contextlib.closing(RunDir(run_dir)) as runs:
        records = {record.id: record for record in runs.records(cell.id for cell in cells)}
        todo = [cell for cell in cells if rerun or cell.id not in records or records[cell.id].state not in FINISHED]
        _announce(console, suite, preset_name, preset, cells, todo, places, list(runs.records()))
        if dry_run:
            _show_plan(console, jobs(todo))
            return 0
        runs.plan(cell.record for cell in cells)
        tracker = _tracker(store, runs)
        claimed = set(runs.claim([cell.id for cell in todo], again=rerun))
        for other in (cell for cell in todo if cell.id not in claimed):
            console.print(
                f"{other.config['task']} {other.config['variant']} seed {other.config['seed']} is being "
                f"trained by another process"
            )
        work = jobs(cell for cell in todo if cell.id in claimed)
        with _tracked(tracker, runs, cells, (suite.suite, preset_name), log_models, console):
            _train(work, data, runs, places, plugins, console, tracker)
        return _finish(console, runs, cells, preset, tracker)


def _train(
    work: list[Job], data: Any, runs: RunDir, places: list[str], plugins: Sequence[Path], console: Console, tracker: Any
) -> None:
    shown = display(console, work)

    def after(job: Job) -> None:
        if tracker is not None:
            tracker.sync(runs.records(cell.id for cell in job.cells), command=_command())

    try:
        with shown:
            runner.run(work, data, runs, places, plugins, shown, after)
    except KeyboardInterrupt:
        for cell in (cell for job in work for cell in job.cells):
            if next(iter(runs.records([cell.id]))).state == "running":
                runs.set_state(cell.id, "stopped", "interrupted")
        console.print("stopped; the same command goes on from here")
        raise


@contextlib.contextmanager
def _tracked(
    tracker: Any, runs: RunDir, cells: Sequence[Cell], experiment: tuple[str, str], log_models: str, console: Console
) -> Iterator[None]:
    """Whatever happens inside, what is in the run directory reaches the tracking store."""
    try:
        yield
    finally:
        if tracker is not None:
            records = runs.records(cell.id for cell in cells)
            tracker.sync(records, command=_command())
            tracker.log_models(records, log_models)
            tracker.finish(*experiment)


def _tracker(store: str | None, runs: RunDir) -> Any:
    """The tracking store, opened; None where tracking is off (mlflow is not even imported then)."""
    if store is None:
        return None
    from benchmark.tracking import Tracker

    return Tracker(store, runs)


def _command() -> str:
    return shlex.join(["python", "-m", "benchmark", *sys.argv[1:]])


def _announce(
    console: Console,
    suite: Suite,
    preset_name: str,
    preset: Preset,
    cells: Sequence[Cell],
    todo: Sequence[Cell],
    places: Sequence[str],
    known: Sequence[Record],
) -> None:
    label = f" ({preset.label})" if preset.label else ""
    console.print(f"suite {suite.suite}, preset {preset_name}{label}: {preset.description}")
    estimate = _estimate(suite, preset, todo, places, known)
    time_needed = f", about {duration(estimate)} on {len(places)} {places[0].split(':')[0]} places" if estimate else ""
    console.print(
        f"{len(cells)} cells, {len(cells) - len(todo)} done already, {len(todo)} to train "
        f"in {len(jobs(todo))} jobs{time_needed if todo else ''}"
    )


def _estimate(
    suite: Suite, preset: Preset, todo: Sequence[Cell], places: Sequence[str], known: Sequence[Record]
) -> float | None:
    """Seconds: from earlier cells of the same variants where all have some, else in proportion to the preset's figure.

    The preset's figure was measured on two cores; one more place is taken to be one more of those.
    """
    per_step = {(r.task, r.variant): r.train_seconds / r.steps for r in known if r.train_seconds}
    keys = [(cell.config["task"], cell.config["variant"]) for cell in todo]
    if todo and all(key in per_step for key in keys):
        return sum(per_step[key] * cell.config["steps"] for key, cell in zip(keys, todo, strict=True)) / len(places)
    if preset.minutes is None:
        return None
    everything = plan_work(suite, preset)
    share = sum(job.work for job in jobs(todo)) / everything if everything else 0.0
    return 60 * preset.minutes * share * 2 / len(places)


def plan_work(suite: Suite, preset: Preset) -> float:
    """The work of a whole preset, in the unit of ``Job.work``."""
    name = next(name for name, candidate in suite.presets.items() if candidate is preset)
    methods = registry.methods()
    known = {v.method for task in preset.tasks.values() for v in task.variants} <= set(methods)
    if not known:
        return 0.0
    data = load_data(suite, preset.tasks, data_folder())
    return sum(job.work for job in jobs(plan(suite, Choices(preset=name), methods, data)))


def _show_plan(console: Console, work: Sequence[Job]) -> None:
    table = Table("task", "variant", "seeds", "steps", "hyper-parameters")
    for job in work:
        hyper = ", ".join(f"{key}={value}" for key, value in job.config["hyper"].items())
        seeds = ",".join(str(cell.config["seed"]) for cell in job.cells)
        table.add_row(job.config["task"], job.config["variant"], seeds, f"{job.config['steps']:,}", hyper)
    console.print(table)


def _finish(console: Console, runs: RunDir, cells: Sequence[Cell], preset: Preset, tracker: Any) -> int:
    """The ranking, what went wrong, and where to look further."""
    records = runs.records(cell.id for cell in cells)
    _print_rankings(console, runs, records, preset.label)
    code = _print_problems(console, runs, records)
    if tracker is not None:
        console.print(tracker.ui_hint())
    return code


def _print_rankings(console: Console, runs: RunDir, records: Sequence[Record], label: str | None) -> None:
    frame = ranking.results(runs, records)
    for task in [] if frame.empty else frame["task"].unique():
        cells = frame[frame["task"] == task].dropna(axis="columns", how="all")
        metric = next(name for name in ("test/log_likelihood", "test/fisher_divergence") if name in cells)
        title = f"{task}: {label}" if label else str(task)
        console.print(ranking.table(ranking.ranking(cells, metric), title, metric))


def _print_problems(console: Console, runs: RunDir, records: Sequence[Record]) -> int:
    """Lists cells that are not done; the exit code."""
    bad = [record for record in records if record.state != "done"]
    for record in bad:
        more = f"; see {runs.folder(record.id).path / 'error.txt'}" if record.state == "failed" else ""
        console.print(
            f"{record.state}: {record.task} {record.variant} seed {record.seed}: {record.message or '-'}{more}",
            markup=False,
        )
    return 1 if bad else 0


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
        records, tracker, started = runs.records(), _tracker(store, runs), time.monotonic()
        tracker.sync(records, command=_command())
        tracker.log_models(records, log_models)
        for experiment in dict.fromkeys((record.suite, record.preset) for record in records):
            tracker.finish(*experiment)
        console.print(f"{len(records)} cells in {store} after {time.monotonic() - started:.0f} s")
        return 0
