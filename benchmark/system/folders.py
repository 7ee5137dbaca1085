"""Where what may be lost is kept: compiled code, downloads, other libraries' caches. Also for users without a home."""

import os
import stat
import tempfile
import warnings
from pathlib import Path

import platformdirs

from bism.errors import InputError, first_line

CACHE_VARIABLE = "BISM_CACHE"
_OTHERS = {  # what other libraries would else write in the home
    "MPLCONFIGDIR": "matplotlib",
    "TRITON_CACHE_DIR": "triton",
    "TORCH_HOME": "torch",
    "XDG_CACHE_HOME": "xdg",
}


def cache_folder() -> Path:
    """$BISM_CACHE, else a folder in the user's cache, else (no home that can be written) one of our own beside other
    temporary files, which is said once and handed down to all processes that we start.

    Raises:
        InputError: there is no place for one.
    """
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    usual = home_cache()
    if can_be_written(usual):
        return usual
    private = _private_folder()
    warnings.warn(
        f"{usual} cannot be written: compiled code, downloads and the like go to {private} (${CACHE_VARIABLE} names "
        f"another folder)",
        stacklevel=2,
    )
    os.environ[CACHE_VARIABLE] = str(private)
    for variable, name in _OTHERS.items():
        os.environ.setdefault(variable, str(private / name))
    return private


def home_cache() -> Path:
    """Our folder in the user's cache, whether it is there or not: also where we have named another cache to others."""
    named, ours = os.environ.get("XDG_CACHE_HOME"), os.environ.get(CACHE_VARIABLE)
    if named is None or ours is None or named != str(Path(ours) / _OTHERS["XDG_CACHE_HOME"]):
        return platformdirs.user_cache_path("bism")
    del os.environ["XDG_CACHE_HOME"]
    try:
        return platformdirs.user_cache_path("bism")
    finally:
        os.environ["XDG_CACHE_HOME"] = named


def can_be_written(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made where there is none."""
    return folder.is_absolute() and obstacle(folder) is None  # "~" is none, of a user whose home nobody knows


def obstacle(folder: Path) -> str | None:
    """Why files cannot be made in a folder, which is made where there is none; None where they can."""
    for there in (folder.absolute(), *folder.absolute().parents):
        try:
            there.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return first_line(error)
        if not there.is_dir():
            return f"{there} is no folder"
        return None if os.access(there, os.W_OK | os.X_OK) else f"{there} can only be read"
    return None


def why_not_written(folder: Path, error: Exception) -> str:
    """What kept a file in a folder from being written: of one that can only be read SQLite says other things."""
    return (None if isinstance(error, OSError) else obstacle(folder)) or first_line(error)


def _private_folder() -> Path:
    """A folder that nobody else can look into: the same each time, if what has its name is ours and closed."""
    try:
        folder = Path(tempfile.gettempdir()) / f"bism-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        ours = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
        if stat.S_ISDIR(found.st_mode) and ours:
            return folder
    except FileExistsError:  # somebody's file
        pass
    except OSError as error:
        reason = first_line(error)
        raise InputError(f"no folder for caches can be made: {reason}; ${CACHE_VARIABLE} names one") from error
    return Path(tempfile.mkdtemp(prefix="bism-"))
