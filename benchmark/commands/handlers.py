"""What each command of the command line does, given its parsed options; returns the exit code.

What a command needs is imported when it runs, so that the others, and ``--help``, do without PyTorch and MLflow.
"""

import argparse
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from benchmark.system import limits, tables
from benchmark.system.invocation import call
from benchmark.tracking.store import named, resolve, start_ui
from bism.errors import InputError, shortened

if TYPE_CHECKING:
    from benchmark.commands.run_directory import Setup
    from benchmark.measures.probes import Judges
    from benchmark.tasks.plan import Choices

_THREADS, _JOBS = 4096, 1024  # at most


def listing(options: argparse.Namespace, console: Console) -> int:
    """Suites, tasks, presets and methods, or one suite whole; on request, where tuning looks."""
    from benchmark.commands import listing as shown
    from benchmark.tasks import registry
    from benchmark.tasks.suite_file import load_suite

    methods = registry.methods(options.plugin)
    if options.suite is None:
        shown.everything(console, methods)
    else:
        shown.one(console, load_suite(options.suite, methods), methods)
    if options.spaces:
        shown.spaces(console, methods)
    return 0


def run(options: argparse.Namespace, console: Console) -> int:
    """Trains and measures what the user chose of a suite."""
    place = _place(options)
    from benchmark.commands import run_directory

    choices = _choices(options)
    return run_directory.run(
        options.suite,
        choices,
        console,
        place,
        part=run_directory.parse_shard(options.shard),
        dry_run=options.dry_run,
        rerun=options.rerun,
        tuned=(options.storage, options.tuned) if options.tuned else None,
    )


def compare(options: argparse.Namespace, console: Console) -> int:
    """Trains methods alone and places them among results of others."""
    place = _place(options)
    from benchmark.commands import compare as command

    return command.compare(
        options.suite,
        _choices(options),
        console,
        place,
        file=options.reference,
        train=options.train,
        dry_run=options.dry_run,
        rerun=options.rerun,
    )


def tune(options: argparse.Namespace, console: Console) -> int:
    """Tunes methods of a suite, or joins studies that are there."""
    store = _store(options)
    from benchmark.commands import tune as command

    limits.check_count("--trials", options.trials, most=1_000_000)
    limits.check_count("--threads", options.threads, most=_THREADS)
    limits.check_positive("--lease", options.lease, limits.SECONDS)
    changes: dict[str, dict[str, Any]] = {}
    for text in options.spaces:
        method, key, value = _override(text, "--space", "bidsm.K=[0, 1, 5] or bidsm.lr=1e-4..1e-2 log")
        changes.setdefault(method, {})[key] = value
    request = command.Request(
        suite=options.suite,
        choices=_choices(options),
        study=options.study,
        storage=options.storage,
        trials=options.trials,
        budget=None if options.budget is None else command.seconds_of("--budget", options.budget),
        timeout=None if options.timeout is None else command.seconds_of("--timeout", options.timeout),
        sampler=options.sampler,
        pruner=options.pruner,
        objectives=options.objectives,
        changes=changes,
        enqueue=options.enqueue,
        devices=options.devices,
        threads=options.threads,
        plugins=tuple(options.plugin),
        data_dir=options.data_dir,
        store=store,
        lease=options.lease,
    )
    return command.tune(request, console)


def tune_list(options: argparse.Namespace, console: Console) -> int:
    """The studies of a storage and their best trials."""
    from benchmark.tuning import show

    return show.listing(options.storage, console, options.study)


def tune_export(options: argparse.Namespace, console: Console) -> int:
    """Writes the best trials of studies as a suite file."""
    from benchmark.tasks import registry
    from benchmark.tuning import export

    export.export(options.storage, options.study, options.to, registry.methods(options.plugin))
    text = f"{options.to} is written; train it: {call('benchmark', f'run --suite {options.to}')}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return 0


def speed(options: argparse.Namespace, console: Console) -> int:
    """Times the training of what the user chose of a suite."""
    from benchmark.commands import speed as timing
    from benchmark.running.job import JobSettings

    for count in options.num_seeds:
        limits.check_count("--num-seeds", count, most=limits.SEEDS)
    limits.check_count("--threads", options.threads, most=_THREADS)
    limits.check_positive("--seconds", options.seconds, 86_400)
    choices = _choices(options)
    return timing.speed(
        options.suite,
        choices,
        console,
        counts=options.num_seeds,
        seconds=options.seconds,
        file=options.json,
        data_dir=options.data_dir,
        device=options.devices,
        settings=JobSettings(tuple(options.plugin), options.threads, compile=True),
    )


def status(options: argparse.Namespace, console: Console) -> int:
    """Where the cells of a run directory stand, and the ranking so far."""
    from benchmark.commands import run_directory

    return run_directory.status(console, options.run_dir)


def delete(options: argparse.Namespace, console: Console) -> int:
    """Deletes cells and their MLflow runs."""
    store = _store(options)
    from benchmark.commands import deleting, run_directory

    chosen = deleting.Filter(
        suites=options.suites,
        presets=options.presets,
        tasks=options.tasks,
        methods=options.methods,
        variants=options.variants,
        states=options.states,
        seeds=run_directory.chosen_seeds(options.seeds),
        cells=options.cells,
    )
    return deleting.delete(
        console, options.run_dir, store, chosen, sure=options.yes, everything=options.all, dry=options.dry_run
    )


def sync(options: argparse.Namespace, console: Console) -> int:
    """Brings the tracking store up to the run directory."""
    store = _store(options)
    if store is None:
        raise InputError("sync needs a tracking store, and --tracking-uri is none")
    from benchmark.commands import run_directory

    return run_directory.sync(console, options.run_dir, store, options.log_models)


def ui(options: argparse.Namespace, console: Console) -> int:
    """Starts the web interface of the tracking store."""
    store = _store(options)
    if store is None:
        raise InputError("ui needs a tracking store, and --tracking-uri is none")
    limits.check_count("--port", options.port, most=65_535)
    return start_ui(store, options.host, options.port)


def data_list(options: argparse.Namespace, console: Console) -> int:
    """Every data set and its state here."""
    from benchmark.commands import data_command
    from benchmark.data import files

    return data_command.show(files.data_folder(options.data_dir), console)


def data_download(options: argparse.Namespace, console: Console) -> int:
    """Fetches files that are missing or damaged."""
    from benchmark.commands import data_command
    from benchmark.data import files

    folder = files.data_folder(options.data_dir)
    return data_command.download(options.names, folder, console, options.mirror, options.force)


def data_verify(options: argparse.Namespace, console: Console) -> int:
    """Reads the files of data sets and says which are sound."""
    from benchmark.commands import data_command
    from benchmark.data import files

    return data_command.verify(options.names, files.data_folder(options.data_dir), console)


def data_where(options: argparse.Namespace, console: Console) -> int:
    """Prints the data folder, or the files of one data set."""
    from benchmark.commands import data_command
    from benchmark.data import files

    return data_command.where(options.name, files.data_folder(options.data_dir))


def doctor(options: argparse.Namespace, console: Console) -> int:
    """What works on this machine and what does not."""
    from benchmark.commands.doctor import examine, table

    tables.show(console, table(list(examine(options.data_dir, options.run_dir, _store_named(options) or "none"))))
    return 0


def _override(text: str, option: str = "--set", like: str = "bidsm.K=10") -> tuple[str, str, Any]:
    from benchmark.system import yaml_text

    target, equals, value = text.partition("=")
    method, dot, key = target.partition(".")
    if not (equals and dot and method and key and value):
        raise InputError(f"{option} {text}: must look like {like}")
    try:
        return method, key, yaml_text.read(value)
    except yaml.YAMLError as error:
        raise InputError(
            f"{option} {shortened(text)}: {shortened(value)} is not a value of YAML: {yaml_text.problem(error)}"
        ) from error


def _choices(options: argparse.Namespace) -> "Choices":
    """What the user selected of a suite, checked."""
    from benchmark.commands import run_directory

    return run_directory.choices(
        options.preset,
        options.tasks,
        options.methods,
        options.seeds,
        options.steps,
        [_override(text) for text in options.overrides],
        options.data_parallel,
        getattr(options, "variants", None),
    )


def _store(options: argparse.Namespace) -> str | None:
    """The tracking store in use, or None where tracking is off.

    Raises:
        InputError: it cannot be one.
    """
    uri = _store_named(options)
    if uri is not None:
        resolve(uri)
    return uri


def _store_named(options: argparse.Namespace) -> str | None:
    uri = named(options.tracking_uri)
    return None if uri == "none" else uri


def _judges(options: argparse.Namespace) -> "Judges":
    """The networks that judge images, where the user names their weights."""
    from benchmark.measures.probes import Judges
    from benchmark.measures.resnet56 import WEIGHTS
    from benchmark.measures.weights import INCEPTION

    return Judges(INCEPTION.given(options.inception_weights), WEIGHTS.given(options.resnet56_weights))


def _place(options: argparse.Namespace) -> "Setup":
    """Where a command that trains keeps and finds things, and what it runs on; checked."""
    store = _store(options)  # known in no time, before PyTorch is imported
    from benchmark.commands import run_directory
    from benchmark.records.provenance import git_commit
    from benchmark.running.job import JobSettings

    limits.check_count("--threads", options.threads, most=_THREADS)
    limits.check_count("--jobs-per-device", options.jobs_per_device, most=_JOBS)
    limits.check_positive("--checkpoint-every", options.checkpoint_every, limits.SECONDS / 60)
    limits.check_positive("--stall-limit", options.stall_limit, limits.SECONDS / 60)
    return run_directory.Setup(
        run_dir=options.run_dir,
        data_dir=options.data_dir,
        store=store,
        executor=options.executor,
        address=options.address,
        devices=options.devices,
        jobs_per_device=options.jobs_per_device,
        settings=JobSettings(
            tuple(options.plugin),
            options.threads,
            checkpoint_seconds=60 * options.checkpoint_every,
            commit=git_commit(),
            judges=_judges(options),
            data_dir=options.data_dir.resolve() if options.data_dir else None,
            data_parallel=options.data_parallel,
        ),
        stall_seconds=60 * options.stall_limit,
        log_models=options.log_models,
    )
