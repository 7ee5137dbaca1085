"""The files of data sets: where they lie, and whether they are what they should be."""

import dataclasses
import hashlib
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmark.data.formats import (
    CORRUPTED,
    TRUNCATED,
    WRONG,
    Damaged,
    not_a_web_page,
    parse_idx,
    read_cifar,
    read_freyface,
    unpacked,
)
from benchmark.system.folders import cache_folder, home_cache
from benchmark.system.invocation import call
from bism.errors import InputError

DATA_VARIABLE = "BISM_DATA"
OK, VARIANT, MISSING = "ok", "variant", "missing"
Check = Callable[[Path], tuple[str, str]]  # returns (OK or VARIANT, what is to be said of it) or raises Damaged


class MissingData(InputError):
    """A data set is not where it should be, or not what it should be."""


def data_folder(given: Path | str | None = None) -> Path:
    """Where data sets lie: ``--data-dir``, else $BISM_DATA, else a folder in the user's cache (``cache_folder``)."""
    named = given or os.environ.get(DATA_VARIABLE)
    if named:
        return Path(named)
    at_home = home_cache() / "data"  # where it is there, it is read, also in a home that cannot be written
    return at_home if at_home.is_dir() else cache_folder() / "data"


def data_command(action: str, name: str, folder: Path) -> str:
    """The command that does something about a data set in this folder, to be copied from a message."""
    option = "" if folder == data_folder() else f" --data-dir {shlex.quote(str(folder))}"
    return call("benchmark", f"data {action} {name}{option}")


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a file is: ok, a known variant (``detail`` says of what kind), missing, truncated, corrupted or wrong."""

    path: Path
    verdict: str
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether it can be used."""
        return self.verdict in (OK, VARIANT)

    def __str__(self) -> str:
        return f"{self.path}: {self.verdict}{f': {self.detail}' if self.detail else ''}"


@dataclasses.dataclass(frozen=True)
class DataFile:
    """A file of a data set.

    ``places`` are paths in the data folder where it may lie; a download goes to the first. ``addresses`` are tried in
    turn; a file without addresses comes in its data set's archive.
    """

    name: str
    places: tuple[str, ...]
    check: Check
    addresses: tuple[str, ...] = ()

    def home(self, folder: Path) -> Path:
        """Where a download puts it."""
        return folder / self.places[0]

    def examine(self, path: Path) -> Finding:
        """What the file at ``path`` is as this part; it is read whole."""
        if path.exists() and not path.is_file():
            return Finding(path, WRONG, "it is a folder, a pipe or a device, and must be a file")
        try:
            return Finding(path, *self.check(path))
        except Damaged as error:
            return Finding(path, error.kind, error.detail)
        except FileNotFoundError:
            return Finding(path, MISSING)
        except OSError as error:
            return Finding(path, WRONG, f"cannot be read ({error.strerror})")

    def find(self, folder: Path) -> Finding:
        """The first good file among the places; where none is good, the first that is there."""
        findings = list[Finding]()
        for place in self.places:
            findings.append(self.examine(folder / place))
            if findings[-1].good:
                return findings[-1]
        return next((one for one in findings if one.verdict != MISSING), findings[0])


def digest(path: Path, algorithm: str) -> str:
    """The hash of a file, in hexadecimal. MD5 and SHA-1 are what was published; they find accidents, not attacks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def check_digest(path: Path, algorithm: str, wanted: str) -> tuple[str, str]:
    """Any file of which the hash is known."""
    if digest(path, algorithm) == wanted:
        return OK, ""
    with path.open("rb") as file:
        not_a_web_page(file.read(100))
    raise Damaged(CORRUPTED, f"its {algorithm} is not {wanted}")


def check_idx(path: Path, name: str, known: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """An idx file, packed or not; ``known`` has of every name the md5 of the .gz and the sha256 of its content.

    Packed anew, the file has another md5: the content decides.
    """
    raw = path.read_bytes()
    if hashlib.md5(raw, usedforsecurity=False).hexdigest() == known[name][0]:
        return OK, ""
    content = unpacked(raw)
    hashed = hashlib.sha256(content).hexdigest()
    owner = next((other for other, (_, sha256) in known.items() if sha256 == hashed), None)
    if owner == name:
        return OK, "unpacked, or packed anew; the content is the published one"
    if owner:
        raise Damaged(WRONG, f"it holds what belongs in {owner}")
    parse_idx(content)
    if raw is content:
        raise Damaged(CORRUPTED, "its content has another hash than the published one")
    raise Damaged(WRONG, "a sound file with other content (other data sets have files of this name)")


def check_cifar(
    path: Path, name: str, known: Mapping[str, str], variants: Mapping[str, tuple[str, str]], size: int
) -> tuple[str, str]:
    """A batch of CIFAR-10: ``size`` bytes, ``known`` has the sha1 of each name's file.

    ``variants`` has by sha1 which file another one stands for, and what a user has to know of it.
    """
    hashed = digest(path, "sha1")
    if hashed == known[name]:
        return OK, ""
    owner = next((other for other, sha1 in known.items() if sha1 == hashed), None)
    if owner:
        raise Damaged(WRONG, f"it holds what belongs in {owner}")
    if hashed in variants:
        owner, note = variants[hashed]
        if owner == name:
            return VARIANT, note
        raise Damaged(WRONG, f"it holds a variant of what belongs in {owner}")
    there = path.stat().st_size
    with path.open("rb") as file:
        not_a_web_page(file.read(100))
    if there < size:
        raise Damaged(TRUNCATED, f"{there:,} bytes of {size:,}")
    if there > size:
        raise Damaged(WRONG, f"{there:,} bytes, and must have {size:,}")
    read_cifar(path)
    raise Damaged(CORRUPTED, f"its sha1 is not {known[name]}")


def check_freyface(path: Path, pixels: str) -> tuple[str, str]:
    """The Frey faces by the sha256 of their pixels, uint8 [1965, 560]: the file itself exists in several versions."""
    faces = read_freyface(path)
    if hashlib.sha256(faces.tobytes()).hexdigest() == pixels:
        return OK, ""
    if faces.shape != (1965, 560):
        raise Damaged(WRONG, f"its 'ff' is uint8 {list(faces.T.shape)}, and must be uint8 [560, 1965]")
    raise Damaged(CORRUPTED, "its pixels have another hash than the Frey faces'")
