"""What can be said on the command line: every command with its options and their help."""

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmark.commands import handlers
from benchmark.records.rundir import DAMAGED, STATES, USUAL
from benchmark.system.arguments import Number, Parser, Whole
from benchmark.tracking.store import DEFAULT_STORE, DEFAULT_STUDIES


def parser() -> Parser:
    """All commands with their options; ``options.command`` is the handler of the one that was given."""
    whole = Parser(
        prog="python -m benchmark",
        description="Benchmark of estimators for energy-based "
        "latent variable models: bi-level score matching and its rivals.",
    )
    whole.add_argument("--version", action=_Version, nargs=0, help="print the versions of this package and of PyTorch")
    subparsers = whole.add_subparsers(required=True, metavar="command")

    listing = subparsers.add_parser("list", help="suites, tasks, presets and methods, or one suite with its variants")
    listing.add_argument("suite", nargs="?", metavar="SUITE", help="a shipped suite or a file of your own, whole")
    listing.add_argument("--spaces", action="store_true", help="show where tuning looks for each hyper-parameter")
    _add_plugins(listing)
    listing.set_defaults(command=handlers.listing)

    run = subparsers.add_parser("run", help="train and measure a suite; what is done already is skipped")
    _add_selection(run)
    _add_variants(run)
    _add_place(run)
    _add_training(run)
    run.add_argument(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="train the I-th of N parts of the plan, on machines that share nothing but the tracking store",
    )
    run.add_argument(
        "--tuned",
        nargs="+",
        metavar="STUDY",
        help="train the best trials of these studies of 'tune' beside the preset's values, as the preset 'tuned'",
    )
    _add_storage(run)
    run.set_defaults(command=handlers.run)

    _add_comparing(subparsers)
    _add_tuning(subparsers)

    speed = subparsers.add_parser(
        "speed", help="time training: milliseconds per iteration, compile time, share of the machine's ceiling"
    )
    _add_selection(speed, seeds=False)
    _add_variants(speed)
    speed.add_argument(
        "--num-seeds", action=Whole, nargs="+", default=[10], metavar="N", help="seeds side by side (default: 10)"
    )
    speed.add_argument("--seconds", action=Number, default=5.0, help="train each for about so long (default: 5)")
    speed.add_argument("--json", type=Path, metavar="FILE", help="also write the records to a file")
    _add_place(speed)
    speed.set_defaults(command=handlers.speed, seeds=None, steps=None, data_parallel=1)  # run alone asks for these

    status = subparsers.add_parser("status", help="where the cells of a run directory stand, and the ranking so far")
    _add_stores(status)
    status.set_defaults(command=handlers.status)

    _add_deleting(subparsers)

    sync = subparsers.add_parser("sync", help="bring the tracking store up to the run directory")
    _add_stores(sync)
    sync.add_argument("--log-models", choices=("best", "all", "none"), default="best", help="as for run")
    sync.set_defaults(command=handlers.sync)

    ui = subparsers.add_parser("ui", help="start the MLflow UI on the store in use")
    _add_stores(ui)
    ui.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    ui.add_argument("--port", action=Whole, default=5000, help="port to listen on (default: 5000)")
    ui.set_defaults(command=handlers.ui)

    data = subparsers.add_parser("data", help="the data sets: list, download, verify, where")
    _add_data_actions(data.add_subparsers(required=True, metavar="list|download|verify|where"))

    doctor = subparsers.add_parser("doctor", help="what works on this machine and what does not")
    _add_stores(doctor)
    _add_data(doctor)
    doctor.set_defaults(command=handlers.doctor)
    return whole


def _add_comparing(subparsers: Any) -> None:
    compare = subparsers.add_parser(
        "compare",
        help="train a method of your own, and place it among results that ship with the package",
        description="Trains the chosen methods alone, with the tasks, seeds and iterations of the reference's preset, "
        "and places them in it: a ranking of all, each variant of the reference against yours, times, and a verdict. "
        "What is finished already is not trained again.",
    )
    _add_selection(compare)
    _add_place(compare)
    compare.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="results to be placed among, as `python -m reports export` writes them (default: what ships of the suite)",
    )
    compare.add_argument(
        "--no-train", action="store_false", dest="train", help="place what has been trained already, and train nothing"
    )
    _add_training(compare)
    compare.set_defaults(command=handlers.compare)


def _add_training(parser: argparse.ArgumentParser) -> None:
    """How and where a command trains, and what it keeps."""
    parser.add_argument(
        "--log-models",
        choices=("best", "all", "none"),
        default="best",
        help="MLflow models: the best seed of each variant, all seeds, or none (default: best)",
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan and train nothing")
    parser.add_argument(
        "--rerun",
        nargs="?",
        const="all",
        choices=("all", "damaged"),
        help="train finished cells again, and all from the start; damaged: only those whose files were cut or altered",
    )
    parser.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="where jobs run: this machine, or a Ray cluster (default: local)",
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="of the cluster (default: $RAY_ADDRESS, or the one here)"
    )
    parser.add_argument(
        "--jobs-per-device", action=Whole, default=1, metavar="N", help="jobs at once on each GPU (default: 1)"
    )
    parser.add_argument(
        "--data-parallel",
        action=Whole,
        default=1,
        metavar="N",
        help="devices (with cpu: processes) that train each job together, each a part of every minibatch (default: 1)",
    )
    parser.add_argument(
        "--inception-weights",
        type=Path,
        metavar="FILE",
        help="weights-inception-2015-12-05-6726825d.pth, for FID, KID and Inception Score (default: $BISM_INCEPTION, "
        "or where torch-fidelity keeps it)",
    )
    parser.add_argument(
        "--resnet56-weights",
        type=Path,
        metavar="FILE",
        help="resnet56-4bfd9763.th, for a Frechet distance that needs no Inception weights (default: $BISM_RESNET56)",
    )
    parser.add_argument(
        "--checkpoint-every",
        action=Number,
        default=5.0,
        metavar="MINUTES",
        help="what a crash may cost: the same command goes on from the last checkpoint (default: 5)",
    )
    parser.add_argument(
        "--stall-limit",
        action=Number,
        default=30.0,
        metavar="MINUTES",
        help="a job that gives no sign of life for so long is ended and recorded as failed (default: 30)",
    )
    _add_stores(parser)


class _Version(argparse.Action):
    """Prints versions and ends; they are looked up only when they are asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        from benchmark.records.provenance import trained_with

        with_what = trained_with(None)
        commit = "" if with_what["git_commit"] == "unknown" else f", commit {with_what['git_commit'][:12]}"
        print(
            f"bism-benchmark {version('bism-benchmark')}{commit}, PyTorch {with_what['torch_version']}, "
            f"Python {with_what['python_version']}"
        )
        parser.exit()


def _add_deleting(subparsers: Any) -> None:
    delete = subparsers.add_parser(
        "delete",
        help="delete cells and their MLflow runs, by what they are",
        description="Deletes cells of a run directory, with all that lies in their folders, and their runs in the "
        "tracking store (which go to MLflow's bin: `mlflow gc` empties it). Cells must fit every option that is given.",
    )
    delete.add_argument("--suite", nargs="+", dest="suites", metavar="SUITE", help="of these suites")
    delete.add_argument("--preset", nargs="+", dest="presets", metavar="PRESET", help="of these presets")
    delete.add_argument("--tasks", nargs="+", metavar="TASK", help="of these tasks")
    delete.add_argument("--methods", nargs="+", metavar="METHOD", help="of these methods, by id")
    delete.add_argument("--variants", nargs="+", metavar="VARIANT", help='of these variants, such as "BiDSM-5 [K=10]"')
    delete.add_argument("--seeds", metavar="0-9", help="of these seeds: 0-9, or 0,3,5-7")
    delete.add_argument("--states", nargs="+", choices=(*STATES, DAMAGED), metavar="STATE",
                        help=f"of {', '.join((*STATES, DAMAGED))}")  # fmt: skip
    delete.add_argument("--cells", nargs="+", metavar="ID", help="these cells, by id")
    delete.add_argument("--all", action="store_true", help="every cell of the run directory")
    delete.add_argument("--dry-run", action="store_true", help="show which, and delete nothing")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    _add_stores(delete)
    delete.set_defaults(command=handlers.delete)


def _add_tuning(subparsers: Any) -> None:
    tune = subparsers.add_parser(
        "tune",
        help="search the hyper-parameters of methods on equal terms, by validation data",
        description="Searches the hyper-parameters of methods, a study for each task and method. The same command goes "
        "on where a study stands; more processes and machines join by the same command, or by --study and --storage "
        "alone.",
    )
    actions = tune.add_subparsers(metavar="[list|export]")
    _add_selection(tune, needs_suite=False)
    _add_place(tune)
    tune.add_argument("--trials", action=Whole, help="of each study, in all (default: 100, or what the budget allows)")
    tune.add_argument("--budget", metavar="10m", help="training time of each study, in all, over all processes")
    tune.add_argument("--timeout", metavar="1h", help="of this command; trials under way are given back")
    tune.add_argument(
        "--study", metavar="NAME", help="studies are called NAME.TASK.METHOD (default: the name of the suite)"
    )
    tune.add_argument(
        "--objectives",
        nargs="+",
        metavar="METRIC",
        help="val/log_likelihood, val/fisher_divergence; with time/train_seconds as a second one: the Pareto front "
        "(default: the likelihood where it is exact, else the divergence)",
    )
    tune.add_argument(
        "--space",
        action="append",
        default=[],
        dest="spaces",
        metavar="METHOD.KEY=SPACE",
        help="where to search, as in bidsm.K=[0,1,5], 'bidsm.lr=1e-4..1e-2 log' or bidsm.sigma=0.1 (not searched)",
    )
    tune.add_argument("--sampler", choices=("tpe", "random", "qmc", "nsga2"), default="tpe", help="default: tpe")
    tune.add_argument(
        "--pruner",
        choices=("halving", "hyperband", "median", "none"),
        default="none",
        help="what ends trials early, by their first values (default: none)",
    )
    tune.add_argument(
        "--no-enqueue",
        action="store_false",
        dest="enqueue",
        help="do not begin with the preset's own values (with them, tuning never ends below them)",
    )
    tune.add_argument(
        "--lease",
        action=Number,
        default=60.0,
        metavar="SECONDS",
        help="after which a worker of another machine that gives no sign of life is taken for dead (default: 60)",
    )
    _add_storage(tune)
    _add_tracking(tune)
    tune.set_defaults(command=handlers.tune, data_parallel=1)

    listing = actions.add_parser("list", help="the studies in a storage and their best trials")
    listing.add_argument("--study", metavar="NAME", help="only these")
    _add_storage(listing, again=True)
    listing.set_defaults(command=handlers.tune_list)

    export = actions.add_parser("export", help="write the best trials as a suite file")
    export.add_argument("--study", nargs="+", required=True, metavar="NAME", help="studies, or what several begin with")
    export.add_argument("--to", type=Path, default=Path("tuned.yaml"), metavar="FILE.yaml", help="default: tuned.yaml")
    _add_storage(export, again=True)
    _add_plugins(export)
    export.set_defaults(command=handlers.tune_export)


def _add_storage(parser: argparse.ArgumentParser, again: bool = False) -> None:
    """``again``: the command above has it too, and what is said there counts unless it is said here."""
    parser.add_argument(
        "--storage",
        default=argparse.SUPPRESS if again else DEFAULT_STUDIES,
        metavar="FILE|URL",
        help=f"of studies: a journal file, or a database for several machines such as postgresql://user@host/name "
        f"(default: {DEFAULT_STUDIES})",
    )


def _add_data_actions(actions: Any) -> None:
    listing = actions.add_parser("list", help="every data set: what it is, its licence, its files, its state here")
    listing.set_defaults(command=handlers.data_list)

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
    download.set_defaults(command=handlers.data_download)

    verify = actions.add_parser("verify", help="read the files: ok, missing, truncated, corrupted or wrong (exit 1)")
    verify.add_argument("names", nargs="*", metavar="NAME", help="data sets (default: all that have files)")
    verify.set_defaults(command=handlers.data_verify)

    where = actions.add_parser("where", help="print the data folder, or the files of one data set, for scripts")
    where.add_argument("name", nargs="?", metavar="NAME", help="a data set")
    where.set_defaults(command=handlers.data_where)

    for action in (listing, download, verify, where):
        _add_data(action)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--devices", default="cpu", help="cpu (one job per core), cuda (every GPU) or like cuda:0,1 (default: cpu)"
    )
    parser.add_argument(
        "--threads",
        action=Whole,
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
    parser.add_argument("--run-dir", type=Path, default=USUAL, help=f"where results are kept (default: {USUAL})")
    _add_tracking(parser)


def _add_tracking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tracking-uri",
        help="MLflow store; 'none' keeps the run directory alone (default: "
        f"$MLFLOW_TRACKING_URI, else {DEFAULT_STORE})",
    )


def _add_variants(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--variants",
        nargs="+",
        metavar="VARIANT",
        help="only these variants, as `list` names those of a suite, such as 'BiDSM-5 [K=10]'",
    )


def _add_selection(parser: argparse.ArgumentParser, seeds: bool = True, needs_suite: bool = True) -> None:
    parser.add_argument(
        "--suite", required=needs_suite, metavar="NAME|FILE.yaml", help="a shipped suite or a file of your own"
    )
    parser.add_argument("--preset", help="a preset of the suite (default: the suite says)")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="only these tasks")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="only these methods, by id")
    if seeds:
        parser.add_argument("--seeds", metavar="0-9", help="seeds instead of the preset's: 0-9, or 0,3,5-7")
        parser.add_argument("--steps", action=Whole, help="iterations instead of the preset's")
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
