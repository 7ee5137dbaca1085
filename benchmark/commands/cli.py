"""The command line, ``python -m benchmark``; ``commands`` carries its commands out.

Exit codes: 0 all done; 1 some cells failed, diverged, are damaged or missing, or ``data verify`` found a bad file;
2 bad input or missing data; 130 interrupted.
"""

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence

from benchmark.commands import completion, options
from benchmark.records.rundir import RunDirError
from benchmark.system import credentials, tables
from benchmark.system.arguments import Parser
from benchmark.system.limits import check_file
from benchmark.system.output import write_anything
from benchmark.tasks.plugins import blame
from benchmark.tasks.shipped import suite_file
from bism.errors import InputError, message, shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    write_anything()
    parser = options.parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what a line may go on with
        completion.install(parser)
    with credentials.kept_out(*(sys.argv[1:] if arguments is None else arguments)):
        return _carried_out(parser, arguments)


def _carried_out(parser: Parser, arguments: Sequence[str] | None) -> int:
    console = tables.console()
    try:
        given = parser.parse_args(arguments)
        _check_texts(given)
        _check_files(given)
        with _plain_warnings():
            code: int = given.command(given, console)
            sys.stdout.flush()
            return code
    except InputError as error:
        print(f"error: {message(error)}", file=sys.stderr)
        return 2
    except RunDirError as error:
        print(f"error: {message(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(*("interrupted", *stopped.args), file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone (| head)
        return 0
    except (Exception, SystemExit) as error:
        said = _known(error)
        if said is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        return 2


def _known(error: BaseException) -> str | None:
    """What to say of an error that is not of our making: of a plug-in's code, the system's, or want of memory."""
    said = blame(error)
    if said is None and isinstance(error, OSError):  # a path that cannot be, above all; it is named
        return message(error)
    if said is None and isinstance(error, MemoryError):
        return f"this machine has not enough memory: {message(error) or 'ask for less'}"
    return said


def _check_texts(given: argparse.Namespace) -> None:
    """Refuses what no file, database or report can be called: NUL, and bytes that are not UTF-8.

    Raises:
        InputError: naming the option.
    """
    for name, value in vars(given).items():
        for text in map(str, value) if isinstance(value, list) else [str(value)]:
            if not text.isprintable() and any(one == "\0" or "\ud800" <= one <= "\udfff" for one in text):
                raise InputError(f"--{name.replace('_', '-')} {shown(text)}: must be UTF-8 and have no NUL")


def _check_files(given: argparse.Namespace) -> None:
    """Refuses files and suites that are not there, before PyTorch is imported.

    Raises:
        InputError: naming it.
    """
    for path in getattr(given, "plugin", ()):
        check_file(path, "plug-in file")
    if getattr(given, "suite", None) is not None:
        suite_file(given.suite)
    if getattr(given, "reference", None) is not None:
        check_file(given.reference, "file of results")


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings as one line for people, without the place in the code."""
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = usual
