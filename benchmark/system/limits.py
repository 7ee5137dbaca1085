"""The most that may be asked for, and numbers and names as users write them. Needs no PyTorch."""

import math
import os
import re
import stat
from pathlib import Path

from bism.errors import InputError, shown

STEPS = 2**31 - 1  # iterations: the counters of the random numbers are 32 bits wide
SEED = 2**31 - 1  # the largest
SEEDS = 10_000
CELLS = 200_000  # of a plan
VARIANTS = 20_000  # of a suite file
EVALUATIONS = 100_000
COUNT = 1_000_000_000  # of anything else
SECONDS = 1e9  # thirty years
NAME = 100  # characters
_NO_PATHS = re.compile(r"[^/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


def whole(text: str) -> int | None:
    """The whole number that a text of at most ten of the digits 0 to 9 is, or None.

    ``str.isdigit`` says yes to "²", which ``int`` refuses, and ``int`` takes digits of any script, and any number.
    """
    return int(text) if re.fullmatch("[0-9]{1,10}", text) else None


def integer(option: str, text: str) -> int:
    """The whole number of any size behind an option; its digits are those that everybody reads, 0 to 9.

    Raises:
        InputError: it is none, or longer than Python reads.
    """
    if not re.fullmatch("[-+]?[0-9]{1,4000}", text):
        raise InputError(f"{option} must be a whole number, written with the digits 0 to 9, got {shown(text)}")
    return int(text)


def decimal(option: str, text: str) -> float:
    """The number behind an option, such as 0.5 or 1e3.

    Raises:
        InputError: it is none.
    """
    try:
        if not text.isascii() or "_" in text:
            raise ValueError
        return float(text)
    except ValueError:
        raise InputError(f"{option} must be a number such as 5 or 0.5, got {shown(text)}") from None


def check_count(option: str, value: int | None, least: int = 1, most: int = COUNT) -> None:
    """Refuses a number that is not between ``least`` and ``most``.

    Raises:
        InputError: naming the option.
    """
    if value is not None and value < least:
        raise InputError(f"{option} must be at least {least}, got {shown(value)}")
    if value is not None and value > most:
        raise InputError(f"{option} must be at most {most:,}, got {shown(value)}")


def check_positive(option: str, value: float, most: float = math.inf) -> None:
    """Refuses a number that is not above 0 and finite, or above ``most``.

    Raises:
        InputError: naming the option.
    """
    if not 0 < value < math.inf:
        raise InputError(f"{option} must be a positive number, got {value:g}")
    if value > most:
        raise InputError(f"{option} must be at most {most:,.10g}, got {value:g}")


def name_problem(name: str) -> str | None:
    """Why a name cannot be that of something whose results have files and folders of this name; None where it can."""
    if not name or name != name.strip():
        return "must not be empty, nor begin or end with a space"
    if set(name) == {"."}:
        return "is a folder's own name or its parent's: results would land outside their folder"
    if len(name) > NAME:
        return f"must have at most {NAME} characters, and has {len(name):,}"
    if not _NO_PATHS.fullmatch(name):
        return "must have no '/', no '\\' and no control characters: folders are named by it"
    return formula_problem(name)


def formula_problem(name: str) -> str | None:
    """Why a name cannot stand in a figure; None where it can."""
    return "must have no two '$', between which figures would read a formula" if name.count("$") > 1 else None


def read_file(path: Path, most: int, what: str) -> bytes:
    """The content of a file that a user names, if it is a file of at most ``most`` bytes.

    A named pipe is not waited for, and a device such as /dev/zero is not read.

    Args:
        what: for messages: "suite file".

    Raises:
        InputError: naming it, and what it is instead.
    """
    check_file(path, what)
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > most:
        raise InputError(f"{path}: a {what} has at most {most:,} bytes, and this one has {path.stat().st_size:,}")
    return content


def check_file(path: Path, what: str) -> None:
    """Refuses what is no regular file.

    Raises:
        InputError: naming it, and what it is instead.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such {what}") from None
    except (OSError, ValueError) as error:  # a name that is too long, or has a NUL
        raise InputError(f"{path}: no such {what} ({getattr(error, 'strerror', None) or error})") from None
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(mode), "a device")
        raise InputError(f"{path}: no {what}: it is {kind}")
