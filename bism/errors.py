"""What a user did wrong, said in one message: what, where, what was expected, how to mend it."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from the user. Its text is shown as it is, without a traceback."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint such as ``did you mean 'sigma'? valid: k, lr, sigma`` for a misspelt ``name``."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}valid: {', '.join(names)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, is want of memory: torch says it in a class of its own on a
    GPU, in a RuntimeError's text on the CPU, its compiler in an error that names the other, and the driver and
    the libraries of a GPU in words of their own."""
    while error is not None:
        said = f"{type(error).__name__}: {error}"
        wanting = ("OutOfMemoryError", "can't allocate memory", "out of memory", "ALLOC_FAILED")
        if isinstance(error, MemoryError) or any(words in said for words in wanting):
            return True
        error = error.__cause__ or error.__context__
    return False
