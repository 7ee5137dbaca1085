"""What a command prints, in whatever encoding there is. And what a job prints: kept in a file, of which the beginning
and the end are kept, and not passed on.

A job's own process writes straight to the file, from Python or from C, so that a crash loses none of it and nobody
reads along; the middle is cut out of it now and then.
"""

import codecs
import contextlib
import io
import os
import sys
import threading
from pathlib import Path

LIMIT = 1 << 20  # bytes of a file, about
_LOOK_SECONDS = 0.5
_LEFT_OUT = f"\n[... left out: of what is printed the first and the last {LIMIT // 2:,} bytes are kept ...]\n".encode()
_PLAIN = {"−": "-", "–": "-", "—": "-", "×": "x", "·": "*", "±": "+-", "≤": "<=", "≥": ">=", "∞": "inf", "…": "...",
          "•": "*", "²": "^2", **dict.fromkeys("‘’‚“”„", "'")}  # fmt: skip
_ERRORS = "bism.plain"


def write_anything() -> None:
    """What standard output's or standard error's encoding lacks is written in plain letters, and stops nothing; what
    goes to one that was closed is lost."""
    codecs.register_error(_ERRORS, _plainly)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives
            os.set_inheritable(nowhere.fileno(), True)  # it has the number that was closed, for those we start too
            setattr(sys, name, nowhere)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What is written for characters that an encoding lacks: also within JSON, so no double quotes, and no ``\\x``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one) or _escape(ord(one)) for one in lacking), error.end


def _escape(number: int) -> str:
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def redirect(file: Path, anew: bool = False) -> None:
    """From here on all that this process prints goes to the end of a file, for as long as it lives.

    Where the file cannot be written (a full disk), it goes nowhere.

    Args:
        anew: what the file holds goes.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if anew else 0), 0o666)
    except OSError:
        target = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # None, closed, or a broken pipe
            stream.flush()
    for descriptor in (1, 2):
        os.dup2(target, descriptor)
    os.close(target)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]  # suppressed
    threading.Thread(target=_keep_short, args=(file,), daemon=True).start()


def _keep_short(file: Path) -> None:
    pause = threading.Event()
    while not pause.wait(_LOOK_SECONDS):
        cut(file)


def cut(file: Path) -> None:
    """Cuts the middle out of a file that is too long, in place: whoever writes at its end goes on doing so."""
    with contextlib.suppress(OSError):
        if file.stat().st_size <= LIMIT + len(_LEFT_OUT):
            return
        with file.open("r+b") as content:
            content.seek(-(LIMIT // 2), os.SEEK_END)
            end = content.read(LIMIT // 2)
            content.truncate(LIMIT // 2)
            content.seek(0, os.SEEK_END)
            content.write(_LEFT_OUT + end)


def kept(file: Path) -> str | None:
    """Where what was printed is kept, for people; None where nothing was, and the empty file goes."""
    cut(file)
    try:
        size = file.stat().st_size
        if not size:
            file.unlink()
    except OSError:
        return None
    return f"{file} ({size:,} bytes)" if size else None
