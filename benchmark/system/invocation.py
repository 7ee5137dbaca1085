"""How commands are written that users are to call: in a form that their shell understands as it stands."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def python() -> str:
    """This interpreter, as a shell in the working directory finds it.

    ``python`` or ``python3`` where that name is this interpreter, as in an activated environment; else its path, from
    the working directory where it lies below that: ``.venv/bin/python``.
    """
    ours = Path(sys.executable)
    for name in ("python", "python3"):
        found = shutil.which(name)
        if found and _same(Path(found), ours):
            return name
    here = Path.cwd()
    if not ours.is_relative_to(here):
        return shlex.quote(str(ours))
    below = ours.relative_to(here)
    return shlex.quote(str(below) if len(below.parts) > 1 else f".{os.sep}{below}")


def _same(one: Path, other: Path) -> bool:
    """Whether two interpreters are one and of one environment: an environment's own is often a link to the system's."""
    try:
        return one.parent.samefile(other.parent) and one.samefile(other)
    except OSError:
        return False


def call(package: str, *arguments: str) -> str:
    """A command of a package: ``.venv/bin/python -m benchmark run --suite grbm``."""
    return " ".join([python(), "-m", package, *arguments])
