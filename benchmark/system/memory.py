"""How much memory there is, and whether what is asked for can be held in it, before it is tried."""

from pathlib import Path

import psutil

from bism.errors import InputError

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def machine_bytes() -> int:
    """The memory of this machine, or of this container where that has less."""
    found = [psutil.virtual_memory().total]
    for file in map(Path, _LIMITS):
        try:
            text = file.read_text().strip()
        except OSError:  # another system, or no container
            continue
        if text.isdecimal() and int(text):
            found.append(int(text))
    return min(found)


def check_fits(needed: float, what: str, advice: str) -> None:
    """Refuses what takes more memory than there is, all other use left aside.

    Args:
        needed: bytes, at least.
        what: takes them: "the model".
        advice: how to ask for less.

    Raises:
        InputError: with both numbers.
    """
    there = machine_bytes()
    if needed > there:
        raise InputError(
            f"{what} would take at least {said(needed)} of memory, and this machine has {said(there)}: {advice}"
        )


def said(number: float) -> str:
    """ "1.5 GiB"."""
    return f"{number / 2**30:,.1f} GiB" if number < 1e18 else f"{number / 2**30:.1e} GiB"
