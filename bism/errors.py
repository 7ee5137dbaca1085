"""What a user did wrong, said in one message: what, where, what was expected, how to mend it."""

import contextlib
import difflib
import os
import re
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

_SHOWN, _FEW, _ALIKE = 50, 25, 5  # names at most; all of so few; of more, where some are alike, so many of those
_TEXT, _LINE, _LINES = 500, 2000, 40  # characters of a value or an error's text, of a line of a message, and its lines


class InputError(ValueError):
    """Bad input from the user. Its text is shown as it is, without a traceback."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint such as ``did you mean 'sigma'? valid: k, lr, sigma`` for a misspelt ``name``; of many names, the nearest
    alone where there are such."""
    names = sorted(valid)
    alike = {_plain(one): one for one in names} if len(names) <= 20 * _SHOWN else {}
    close = [alike[one] for one in difflib.get_close_matches(_plain(name[:_TEXT]), alike, n=_ALIKE, cutoff=0.5)]
    hint = f"did you mean '{close[0]}'? " if close else ""
    said = sorted(close) if close and len(names) > _FEW else names[:_SHOWN]
    more = f", ... ({len(names):,} in all)" if len(said) < len(names) else ""
    return f"{hint}valid: {', '.join(said)}{more}"


def _plain(name: str) -> str:
    """Without what all options have in common, and what nobody means by capitals."""
    return name.lstrip("-").lower()


def shortened(text: str, most: int = _TEXT) -> str:
    """The text, or its beginning and how long it is."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters in all)"


def shown(value: object) -> str:
    """A value as Python writes it, shortened; a whole number of too many digits by its size."""
    if isinstance(value, int) and value.bit_length() > 1024:
        return f"a whole number of {value.bit_length():,} bits"
    try:
        return shortened(repr(value))
    except Exception:  # a number like that within it, or an object's own repr
        return f"a {type(value).__name__}"


def message(error: BaseException) -> str:
    """An error's text as it can be printed: long words, lines and lists of lines shortened, control characters and lone
    surrogates written out."""
    lines = [re.sub(rf"\S{{{2 * _TEXT},}}", _middle_left_out, line) for line in _text(error).splitlines()]
    kept = [shortened(line, _LINE) for line in lines[:_LINES]]
    more = [f"... ({len(lines):,} lines in all)"] if len(lines) > _LINES else []
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", _escaped, "\n".join(kept + more))


def _middle_left_out(word: re.Match[str]) -> str:
    return f"{word[0][: _TEXT // 5]}...({len(word[0]):,} characters)...{word[0][-_TEXT // 10 :]}"


def _escaped(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def described(error: BaseException) -> str:
    """ "ValueError: what it says", in one short line, whatever the error is: its text may be long, or none at all."""
    first = next(iter(_text(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {shortened(first)}" if first else type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class where it has none."""
    return next(iter(_text(error).strip().splitlines()), type(error).__name__)


def _text(error: BaseException) -> str:
    try:
        return _of_the_system(error) if isinstance(error, OSError) and error.strerror else str(error)
    except BaseException as second:  # of a user's own class, whose __str__ may do anything
        return f"(its text cannot be made: {type(second).__name__})"


def _of_the_system(error: OSError) -> str:
    """ "runs/owners/1.lock: read-only file system": where, and what, without Python's number."""
    what, names = str(error.strerror), (error.filename, error.filename2)
    where = " -> ".join(os.fsdecode(name) for name in names if isinstance(name, str | bytes | os.PathLike))
    return f"{where}{': ' if where else ''}{what[:1].lower() if what[1:2].islower() else what[:1]}{what[1:]}"


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, is want of memory: torch says it in a class of its own on a
    GPU, in a RuntimeError's text on the CPU, its compiler in an error that names the other, and the driver and
    the libraries of a GPU in words of their own."""
    seen = list[BaseException]()
    while error is not None and not any(error is one for one in seen):
        seen.append(error)  # a cause may be the error itself
        said = f"{type(error).__name__}: {_text(error)}"
        wanting = ("OutOfMemoryError", "can't allocate memory", "out of memory", "ALLOC_FAILED")
        if isinstance(error, MemoryError) or any(words in said for words in wanting):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def of_a_user(what: str) -> Iterator[None]:
    """Inside runs code of a user's own, which may raise anything: ``sys.exit``, a KeyboardInterrupt that nobody has
    pressed. All of it becomes an InputError; a real Ctrl-C stays one.

    Args:
        what: begins the message: "mine.py: cannot be imported".
    """
    with _ctrl_c_noticed() as pressed:
        try:
            yield
        except InputError:
            raise
        except BaseException as error:
            if pressed.is_set():
                raise
            raise InputError(f"{what}: {described(error)}") from error


_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextlib.contextmanager
def _ctrl_c_noticed() -> Iterator[threading.Event]:
    """Whether Ctrl-C was pressed inside, or a signal came that is handled like it; its effect stays what it is."""
    pressed = threading.Event()
    usual = {number: signal.getsignal(number) for number in _ENDING}
    if threading.current_thread() is not threading.main_thread():
        usual = {}

    def notice(number: int, frame: object) -> None:
        pressed.set()
        handled[number](number, frame)

    handled: dict[int, Any] = {number: handler for number, handler in usual.items() if callable(handler)}
    for number in handled:
        signal.signal(number, notice)
    try:
        yield pressed
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
