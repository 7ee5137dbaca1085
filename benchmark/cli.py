"""The command line: ``python -m benchmark list|run|speed|status|sync|ui|data|doctor``.

Exit codes: 0 all done; 1 some cells failed, diverged or are missing, or ``data verify`` found a bad file; 2 bad input
or missing data; 130 interrupted.
"""

import argparse
import contextlib
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmark.rundir import RunDirError
from bism.errors import InputError

DEFAULT_STORE = "sqlite:///mlflow.db"
_LOG_WIDTH = 120  # columns, where the output is no terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    console = Console(width=None if sys.stdout.isatty() else _LOG_WIDTH, highlight=False)
    options = _parser().parse_args(arguments)
    try:
        with _plain_warnings():
            code: int = options.command(options, console)
        return code
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunDirError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings as one line for people, without the place in the code."""
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark",
        description="Benchmark of estimators for energy-based "
        "latent variable models: bi-level score matching and its rivals.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    listing = commands.add_parser("list", help="suites, tasks, presets and methods")
    listing.add_argument("--spaces", action="store_true", help="show where tuning looks for each hyper-parameter")
    _add_plugins(listing)
    listing.set_defaults(command=_list)

    run = commands.add_parser("run", help="train and measure a suite; what is done already is skipped")
    _add_selection(run)
    _add_place(run)
    run.add_argument(
        "--log-models",
        choices=("best", "all", "none"),
        default="best",
        help="MLflow models: the best seed of each variant, all seeds, or none (default: best)",
    )
    run.add_argument("--dry-run", action="store_true", help="show the plan and train nothing")
    run.add_argument("--rerun", action="store_true", help="train finished cells again, and all from the start")
    run.add_argument(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="train the I-th of N parts of the plan, on machines that share nothing but the tracking store",
    )
    run.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="where jobs run: this machine, or a Ray cluster (default: local)",
    )
    run.add_argument("--address", metavar="HOST:PORT", help="of the cluster (default: $RAY_ADDRESS, or the one here)")
    run.add_argument(
        "--jobs-per-device", type=int, default=1, metavar="N", help="jobs at once on each GPU (default: 1)"
    )
    run.add_argument(
        "--data-parallel",
        type=int,
        default=1,
        metavar="N",
        help="devices (with cpu: processes) that train each job together, each a part of every minibatch (default: 1)",
    )
    run.add_argument(
        "--inception-weights",
        type=Path,
        metavar="FILE",
        help="weights-inception-2015-12-05-6726825d.pth, for FID, KID and Inception Score (default: $BISM_INCEPTION, "
        "or where torch-fidelity keeps it)",
    )
    run.add_argument(
        "--resnet56-weights",
        type=Path,
        metavar="FILE",
        help="resnet56-4bfd9763.th, for a Frechet distance that needs no Inception weights (default: $BISM_RESNET56)",
    )
    run.add_argument(
        "--checkpoint-every",
        type=float,
        default=5.0,
        metavar="MINUTES",
        help="what a crash may cost: the same command goes on from the last checkpoint (default: 5)",
    )
    run.add_argument(
        "--stall-limit",
        type=float,
        default=30.0,
        metavar="MINUTES",
        help="a job that gives no sign of life for so long is ended and recorded as failed (default: 30)",
    )
    _add_stores(run)
    run.set_defaults(command=_run)

    speed = commands.add_parser(
        "speed", help="time training: milliseconds per iteration, compile time, share of the machine's ceiling"
    )
    _add_selection(speed, seeds=False)
    speed.add_argument(
        "--num-seeds", type=int, nargs="+", default=[10], metavar="N", help="seeds side by side (default: 10)"
    )
    speed.add_argument("--seconds", type=float, default=5.0, help="train each variant for about so long (default: 5)")
    speed.add_argument("--json", type=Path, metavar="FILE", help="also write the records to a file")
    _add_place(speed)
    speed.set_defaults(command=_speed)

    status = commands.add_parser("status", help="where the cells of a run directory stand, and the ranking so far")
    _add_stores(status)
    status.set_defaults(command=_status)

    sync = commands.add_parser("sync", help="bring the tracking store up to the run directory")
    _add_stores(sync)
    sync.add_argument("--log-models", choices=("best", "all", "none"), default="best", help="as for run")
    sync.set_defaults(command=_sync)

    ui = commands.add_parser("ui", help="start the MLflow UI on the store in use")
    _add_stores(ui)
    ui.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    ui.add_argument("--port", type=int, default=5000, help="port to listen on (default: 5000)")
    ui.set_defaults(command=_ui)

    data = commands.add_parser("data", help="the data sets: list, download, verify, where")
    _add_data_actions(data.add_subparsers(required=True, metavar="list|download|verify|where"))

    doctor = commands.add_parser("doctor", help="what works on this machine and what does not")
    _add_stores(doctor)
    _add_data(doctor)
    doctor.set_defaults(command=_doctor)
    return parser


def _add_data_actions(actions: Any) -> None:
    listing = actions.add_parser("list", help="every data set: what it is, its licence, its files, its state here")
    listing.set_defaults(command=_data_list)

    download = actions.add_parser("download", help="fetch missing or damaged files, verified, from where they stopped")
    download.add_argument("names", nargs="+", metavar="NAME|all", help="data sets")
    download.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="URL",
        help="an address to try first (http://, https://, file:///), with the files or like a data folder",
    )
    download.add_argument("--force", action="store_true", help="fetch also what is there, such as a known variant")
    download.set_defaults(command=_data_download)

    verify = actions.add_parser("verify", help="read the files: ok, missing, truncated, corrupted or wrong (exit 1)")
    verify.add_argument("names", nargs="*", metavar="NAME", help="data sets (default: all that have files)")
    verify.set_defaults(command=_data_verify)

    where = actions.add_parser("where", help="print the data folder, or the files of one data set, for scripts")
    where.add_argument("name", nargs="?", metavar="NAME", help="a data set")
    where.set_defaults(command=_data_where)

    for action in (listing, download, verify, where):
        _add_data(action)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--devices", default="cpu", help="cpu (one job per core), cuda (every GPU) or like cuda:0,1 (default: cpu)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="threads of each job on the CPU; more than one pays for large models alone (default: 1)",
    )


def _add_plugins(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugin",
        action="append",
        type=Path,
        default=[],
        metavar="FILE.py",
        help="a file with methods of your own; may be given several times",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets (default: $BISM_DATA or a cache)")


def _add_stores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run-dir", type=Path, default=Path("runs"), help="where results are kept (default: runs)")
    parser.add_argument(
        "--tracking-uri",
        help="MLflow store; 'none' keeps the run directory alone (default: "
        f"$MLFLOW_TRACKING_URI, else {DEFAULT_STORE})",
    )


def _add_selection(parser: argparse.ArgumentParser, seeds: bool = True) -> None:
    parser.add_argument(
        "--suite", required=True, metavar="NAME|FILE.yaml", help="a shipped suite or a file of your own"
    )
    parser.add_argument("--preset", help="a preset of the suite (default: the suite says)")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="only these tasks")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="only these methods, by id")
    if seeds:
        parser.add_argument("--seeds", metavar="0-9", help="seeds instead of the preset's: 0-9, or 0,3,5-7")
        parser.add_argument("--steps", type=int, help="iterations instead of the preset's")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="METHOD.KEY=VALUE",
        dest="overrides",
        help="a hyper-parameter by name or symbol, as in bidsm.K=10; may be given several times",
    )
    _add_data(parser)
    _add_plugins(parser)


def _override(text: str) -> tuple[str, str, Any]:
    from benchmark.suite import Loader

    target, equals, value = text.partition("=")
    method, dot, key = target.partition(".")
    if not (equals and dot and method and key and value):
        raise InputError(f"--set {text}: must look like bidsm.K=10")
    try:
        return method, key, yaml.load(value, Loader=Loader)
    except yaml.YAMLError as error:
        raise InputError(f"--set {text}: {value} is not a value of YAML") from error


def _positive(option: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"{option} must be a positive number, got {value:g}")


def _store(options: argparse.Namespace) -> str | None:
    """The tracking store in use, or None where tracking is off."""
    uri = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    return None if uri == "none" else uri


def _list(options: argparse.Namespace, console: Console) -> int:
    from benchmark import registry
    from benchmark.suite import load_suite, shipped
    from bism.hyperparameters import Range

    methods = registry.methods(options.plugin)
    for name in shipped():
        suite = load_suite(name, methods)
        console.print(f"suite [bold]{name}[/]: {suite.description}")
        for task, content in suite.tasks.items():
            console.print(f"  task {task}: {content.description}")
        for preset, settings in suite.presets.items():
            default = " (default)" if preset == suite.default_preset else ""
            console.print(f"  preset {preset}{default}: {settings.description}")
    table = Table("method", "reference", "hyper-parameters", title="methods", title_justify="left", show_lines=True)
    for method in methods.values():
        table.add_row(f"{method.id}\n{method.__name__}", method.reference, "\n".join(_describe(method)))
    console.print(table)
    if options.spaces:
        spaces = Table("method", "hyper-parameter", "searched", title="search spaces", title_justify="left")
        for method in methods.values():
            for key, where in method.search_space().items():
                text = (
                    f"{where.low:g} to {where.high:g}{', logarithmic' if where.log else ''}"
                    if isinstance(where, Range)
                    else ", ".join(map(str, where))
                )
                spaces.add_row(method.id, key, text)
        console.print(spaces)
    return 0


def _describe(method: Any) -> list[str]:
    """Each hyper-parameter with its symbol, default and meaning."""
    import dataclasses

    from bism.hyperparameters import specs

    defaults = {field.name: field.default for field in dataclasses.fields(method)}
    return [
        f"{name}{f' ({spec.symbol})' if spec.symbol else ''} = {defaults[name]}: {spec.help}"
        for name, spec in specs(method).items()
    ]


def _run(options: argparse.Namespace, console: Console) -> int:
    from benchmark import session
    from benchmark.provenance import git_commit
    from benchmark.worker import Settings

    session.at_least_one("--threads", options.threads)
    session.at_least_one("--jobs-per-device", options.jobs_per_device)
    _positive("--checkpoint-every", options.checkpoint_every)
    _positive("--stall-limit", options.stall_limit)
    choices = session.choices(
        options.preset,
        options.tasks,
        options.methods,
        options.seeds,
        options.steps,
        [_override(text) for text in options.overrides],
        options.data_parallel,
    )
    place = session.Place(
        run_dir=options.run_dir,
        data_dir=options.data_dir,
        store=_store(options),
        executor=options.executor,
        address=options.address,
        devices=options.devices,
        jobs_per_device=options.jobs_per_device,
        settings=Settings(
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
    return session.run(
        options.suite,
        choices,
        console,
        place,
        part=session.parse_shard(options.shard),
        dry_run=options.dry_run,
        rerun=options.rerun,
    )


def _judges(options: argparse.Namespace) -> Any:
    """The networks that judge images, where the user names their weights."""
    from benchmark.probes import Judges
    from benchmark.resnet56 import WEIGHTS
    from benchmark.weights import INCEPTION

    return Judges(INCEPTION.given(options.inception_weights), WEIGHTS.given(options.resnet56_weights))


def _speed(options: argparse.Namespace, console: Console) -> int:
    from benchmark import session, speed
    from benchmark.worker import Settings

    for count in options.num_seeds:
        session.at_least_one("--num-seeds", count)
    session.at_least_one("--threads", options.threads)
    _positive("--seconds", options.seconds)
    overrides = [_override(text) for text in options.overrides]
    choices = session.choices(options.preset, options.tasks, options.methods, None, None, overrides)
    return speed.speed(
        options.suite,
        choices,
        console,
        counts=options.num_seeds,
        seconds=options.seconds,
        file=options.json,
        data_dir=options.data_dir,
        device=options.devices,
        settings=Settings(tuple(options.plugin), options.threads, compile=True),
    )


def _status(options: argparse.Namespace, console: Console) -> int:
    from benchmark import session

    return session.status(console, options.run_dir)


def _sync(options: argparse.Namespace, console: Console) -> int:
    from benchmark import session

    store = _store(options)
    if store is None:
        raise InputError("sync needs a tracking store, and --tracking-uri is none")
    return session.sync(console, options.run_dir, store, options.log_models)


def _ui(options: argparse.Namespace, console: Console) -> int:
    from benchmark import tracking_store

    store = _store(options)
    if store is None:
        raise InputError("ui needs a tracking store, and --tracking-uri is none")
    return tracking_store.start_ui(store, options.host, options.port)


def _data_list(options: argparse.Namespace, console: Console) -> int:
    from benchmark import data_command, files

    return data_command.show(files.data_folder(options.data_dir), console)


def _data_download(options: argparse.Namespace, console: Console) -> int:
    from benchmark import data_command, files

    folder = files.data_folder(options.data_dir)
    return data_command.download(options.names, folder, console, options.mirror, options.force)


def _data_verify(options: argparse.Namespace, console: Console) -> int:
    from benchmark import data_command, files

    return data_command.verify(options.names, files.data_folder(options.data_dir), console)


def _data_where(options: argparse.Namespace, console: Console) -> int:
    from benchmark import data_command, files

    return data_command.where(options.name, files.data_folder(options.data_dir))


def _doctor(options: argparse.Namespace, console: Console) -> int:
    from benchmark import doctor

    lines = list(doctor.examine(options.data_dir, options.run_dir, _store(options) or "none"))
    console.print(doctor.table(lines))
    return 0
