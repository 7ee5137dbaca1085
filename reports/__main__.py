"""``python -m reports build``: figures, tables and a report from what MLflow holds; ``claims``: whether the claims of
the paper hold; ``export``: a preset's results as a file; ``scaling``: what an iteration costs, from the records of
``python -m benchmark speed``.

Exit codes: 0 drawn from complete presets, or every claim that was asked about is decided; 1 drawn, with cells that are
missing or diverged (the report says so), or some claim is undecided or not measured; 2 bad input.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.system import credentials, tables
from benchmark.system.arguments import Parser, Whole
from benchmark.system.folders import cache_folder, obstacle
from benchmark.system.limits import check_count, check_file, read_file
from benchmark.system.output import write_anything
from bism.errors import InputError, described, message

if TYPE_CHECKING:
    from reports.results import Results

FORMATS = ("html", "pdf", "latex", "md")
_RECORDS_BYTES = 1 << 26  # of a file of timings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    write_anything()
    credentials.remember(*(sys.argv[1:] if arguments is None else arguments))
    with credentials.kept_out():
        try:
            options = _parser().parse_args(arguments)
            _settle()
            code = _COMMANDS[options.command](options)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # the reader of our output has gone (| head)
            return 0
        except (InputError, OSError) as error:
            print(f"error: {message(error)}", file=sys.stderr)
            return 2


def _parser() -> Parser:
    parser = Parser(prog="python -m reports", description="Reports from an MLflow store.")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    build = commands.add_parser("build", help="draw figures and tables, and bind them to a report")
    build.add_argument("--suite", nargs="+", help="only these suites (default: all that the store has)")
    build.add_argument("--preset", nargs="+", help="only these presets; each is a section of its own (default: all)")
    build.add_argument("--task", nargs="+", help="only these tasks (default: all)")
    build.add_argument("--methods", nargs="+", help="only these methods, by id as `python -m benchmark list` has them")
    build.add_argument("--tracking-uri", help="MLflow store (default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db)")
    build.add_argument("--out", type=Path, default=Path("report"), help="folder to write to (default: report)")
    build.add_argument(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=list(FORMATS),
        metavar="FORMAT",
        help=f"of {', '.join(FORMATS)} (default: all); figures and numbers (CSV) are always written",
    )
    build.add_argument(
        "--reference",
        nargs="*",
        metavar="FILE",
        help="also draw the results that ship with the package, or those of these files (docs/reference.md); alone "
        "where you have no store of your own",
    )
    export = commands.add_parser("export", help="write a preset's results to a file that can be sent")
    export.add_argument("--suite", required=True, help="which suite")
    export.add_argument("--preset", help="which preset (default: the one that the store has of the suite)")
    export.add_argument("--tracking-uri", help="MLflow store (default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db)")
    export.add_argument("--out", type=Path, metavar="FILE", help="default: SUITE-PRESET.jsonl.gz")
    export.add_argument(
        "--machine", metavar="TEXT", help="where cells were trained that do not say it: 'AMD EPYC, 2 cores'"
    )
    export.add_argument(
        "--points", action=Whole, default=51, metavar="N", help="of each curve, at most (51 to 1,000; default: 51)"
    )
    claims = commands.add_parser(
        "claims", help="which claims of the paper, its reviews and its follow-up your runs support or contradict"
    )
    claims.add_argument("claims", nargs="*", metavar="CLAIM", help="only these, by id (default: all)")
    claims.add_argument("--suite", nargs="+", help="only those that need runs of these suites (default: all)")
    claims.add_argument("--list", action="store_true", help="the claims with their tests and margins, without any run")
    claims.add_argument(
        "--format",
        choices=("text", "markdown", "json", "csv"),
        default="text",
        metavar="FORMAT",
        help="text, markdown, json or csv (default: text); json has every number that a verdict was made from",
    )
    claims.add_argument("--tracking-uri", help="MLflow store (default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db)")
    claims.add_argument(
        "--reference",
        nargs="*",
        metavar="FILE",
        help="judged by the results that ship with the package, or by these files, instead of by your runs",
    )
    scaling = commands.add_parser("scaling", help="draw what an iteration costs against seeds, hidden units, K and N")
    scaling.add_argument(
        "records", type=Path, nargs="+", help="files that `python -m benchmark speed --suite scaling --json` wrote"
    )
    scaling.add_argument("--out", type=Path, default=Path("report"), help="folder to write to (default: report)")
    return parser


def _settle() -> None:
    """Finds a place for matplotlib's cache, before that is imported."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cache_folder()
    for warning in said:
        print(f"warning: {warning.message}", file=sys.stderr)


def _claims(options: argparse.Namespace) -> int:
    from reports.claims import LEDGER, PARTS, judge, printing
    from reports.claims.choosing import chosen
    from reports.claims.verdict import CONTRADICTED, NOT_MEASURED, SUPPORTED

    claims, console = chosen(LEDGER, options.claims, options.suite), tables.console()
    if options.list:
        printing.print_claims(claims, PARTS, len(LEDGER), options.format, console)
        return 0
    store = _judged_by(options)
    with store.reading():
        ledger = judge(claims, store, len(LEDGER))
    printing.print_ledger(ledger, PARTS, len(LEDGER), options.format, console)
    if all(judged.verdict == NOT_MEASURED for judged in ledger):
        with store.reading():
            why = printing.none_measured(claims, store)
        print(f"none of these claims is measured by {store.uri}: {why}", file=sys.stderr)
    return 0 if all(judged.verdict in (SUPPORTED, CONTRADICTED) for judged in ledger) else 1


def _judged_by(options: argparse.Namespace) -> "Results":
    """One's own store, or the files that stand in its place."""
    from reports.claims import LEDGER

    if options.reference is None:
        from benchmark.tracking.store import named
        from reports.store import Store

        return Store(named(options.tracking_uri))
    if options.tracking_uri:
        raise InputError("--reference judges by files and --tracking-uri by a store: give one of the two")
    swallowed = [name for name in options.reference if name in {claim.id for claim in LEDGER}]
    if swallowed:
        raise InputError(f"{swallowed[0]} is a claim, and after --reference come files: name claims before it")
    _check_files(options.reference)
    from reports import reference

    return reference.alone(options.reference)


def _check_files(named: Sequence[str] | None) -> None:
    """Refuses files that are not there, before all that takes long is imported."""
    for name in named or ():
        check_file(Path(name), "file of results")


def _scaling(options: argparse.Namespace) -> int:
    from reports import scaling, style

    out, records = options.out, []
    for file in options.records:
        content = read_file(file, _RECORDS_BYTES, "file of records")
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file} cannot be read: {error}") from error
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise InputError(f"{file}: has no list of records; `python -m benchmark speed --json FILE` writes one")
        records += found
    try:
        figure = scaling.draw(scaling.frame(records))
    except (AttributeError, KeyError, TypeError, IndexError) as error:  # of values that are not what they are called
        raise InputError(
            f"the records hold what `python -m benchmark speed --json FILE` does not write: {described(error)}"
        ) from error
    style.as_written(figure)
    _folder(out)
    for suffix in ("png", "pdf"):
        with style.look():
            figure.savefig(out / f"scaling.{suffix}", facecolor="white")
        print(out / f"scaling.{suffix}")
    return 0


def _folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror}") from error


def _build(options: argparse.Namespace) -> int:
    _check_files(options.reference)
    from rich.console import Console

    from reports import document, terms
    from reports.progress import Progress

    problem = obstacle(options.out)  # known before all that takes long; the folder is made when there is a report
    if problem:
        raise InputError(f"--out {options.out} cannot be written: {problem}")
    store = _results(options)
    chosen = options.suite, options.preset, options.task, options.methods
    images, written = ["pdf", "svg", *(["png"] if "md" in options.format else [])], list[Path]()
    with Progress(Console(stderr=True)) as progress:
        with tempfile.TemporaryDirectory() as folder, store.reading():
            report = document.collect(store, Path(folder), *chosen, say=progress.say)
        _folder(options.out)
        document.write_files(report, options.out, images, progress.say)
        for name in options.format:
            progress.say(f"writing {name}")
            written.append(_write(name, report, options.out))
    for file in written:
        print(file)
    if store.left_out:
        count = terms.counted(len(store.left_out), "run")
        print(f"{count} left out, of tags that ours do not have or files that cannot be read", file=sys.stderr)
    for text in getattr(store, "unmet", ()):
        print(text, file=sys.stderr)
    if report.missing:
        print(f"{terms.lacking(report.missing)}; the report lists them", file=sys.stderr)
    if report.diverged:
        print(f"{terms.counted(report.diverged, 'cell')} diverged; the report lists them", file=sys.stderr)
    return 1 if report.missing or report.diverged else 0


def _results(options: argparse.Namespace) -> "Results":
    """What the report is drawn from: a store, files of results, or both."""
    from benchmark.tracking.store import database_file, named, resolve
    from reports import reference
    from reports.store import Store

    uri = named(options.tracking_uri)
    if options.reference is None:
        return Store(uri)
    others = reference.opened(options.reference)
    file = database_file(resolve(uri)) if uri.lower() != "none" else None
    absent = uri.lower() == "none" or (file is not None and not file.exists() and options.tracking_uri is None)
    return reference.beside(None if absent else Store(uri), others, everything=bool(options.suite or options.preset))


def _export(options: argparse.Namespace) -> int:
    from benchmark.records import results
    from benchmark.tracking.store import named
    from reports.export import POINTS, export
    from reports.store import Store

    check_count("--points", options.points, least=POINTS, most=results.POINTS)  # verdicts look at curves
    store = Store(named(options.tracking_uri))
    with store.reading():
        written = export(
            store, options.suite, options.preset, options.out, (options.machine or "").strip(), options.points
        )
    print(written)
    return 0


def _write(name: str, report: object, out: Path) -> Path:
    import importlib

    module = {"md": "markdown"}.get(name, name)
    written: Path = importlib.import_module(f"reports.{module}").write(report, out)
    return written


_COMMANDS = {"build": _build, "claims": _claims, "export": _export, "scaling": _scaling}


if __name__ == "__main__":
    sys.excepthook = credentials.tell_uncaught
    sys.exit(main())
