"""The files of one cell: what it is, its journal, its checkpoints, and its proof once it has finished."""

import contextlib
import dataclasses
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bism.errors import InputError

_LARGEST = 2**63  # of a step and a time


class DamagedFile(InputError):
    """A file of a run directory that does not hold what it should.

    Attributes:
        file: which.
        what: is wrong with it.
    """

    def __init__(self, file: Path, what: str) -> None:
        super().__init__(f"{file}: {what}")
        self.file, self.what = file, what


_SINCE = {"accumulate": 1, "data_noise": 0.0, "precision": "float32", "probes": [], "rule": "last"}


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One line of a journal: metrics at a step, and when they were taken (milliseconds since 1970)."""

    step: int
    time_ms: int
    metrics: dict[str, float]


class CellFolder:
    """The files of one cell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.artifacts = path / "artifacts"
        self.journal = path / "metrics.jsonl"
        self.proof = path / "finished.json"

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration and the labels; where the first version had no choice, what it did.

        Raises:
            DamagedFile: it is not there, or no mapping.
        """
        return {**_SINCE, **read_mapping(self.path / "config.json")}

    def describe(self, **more: Any) -> None:
        """Adds to the configuration what is known only later, such as how it was timed."""
        write_atomically(self.path / "config.json", json.dumps({**self.config, **more}, indent=1, sort_keys=True))

    @property
    def error(self) -> str | None:
        """The traceback of a failed cell."""
        try:
            return (self.path / "error.txt").read_text(errors="replace")
        except OSError:
            return None

    @property
    def output(self) -> Path:
        """What its job has printed, where this is its first cell."""
        return self.path / "output.txt"

    @property
    def checkpoints(self) -> tuple[Path, Path]:
        """Of a training that is under way: the newest, and the one before."""
        return self.path / "checkpoint.pt", self.path / "checkpoint.previous.pt"

    def prepare(self, config: dict[str, Any]) -> str | None:
        """Makes the folder ready for training. The journal ends where it is no more what was written: at a last line
        that a crash cut short, or at damage, and what came after it is measured again. To be called by one process at a
        time (``rundir.holding``).

        Returns:
            What people should know.

        Raises:
            InputError: the cell has finished, whatever the index says; all its files stay as they are.
        """
        if self.proof.exists():
            raise InputError(
                f"{self.path}: this cell has finished already, and its files stay as they are; "
                f"python -m benchmark status brings the index up to date, and run --rerun trains it again"
            )
        if not self.path.is_dir() and (self.path.exists() or self.path.is_symlink()):
            raise DamagedFile(self.path, "lies where the folder of a cell belongs; remove it")
        self.artifacts.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "config.json", json.dumps(config, indent=1, sort_keys=True))
        (self.path / "error.txt").unlink(missing_ok=True)
        return self._trim()

    def _trim(self) -> str | None:
        lines, length = self._lines(), 0
        whole = lines[:-1]
        for number, line in enumerate(whole, start=1):
            if _measurement(line) is None:
                os.truncate(self.journal, length)
                return f"{self.journal}: line {number} is no measurement; what came from there on is measured again"
            length += len(line) + 1
        if lines[-1]:
            os.truncate(self.journal, length)
        return None

    def clear(self) -> None:
        """Removes what an earlier training has measured, its samples and its checkpoints: the next one is from the
        start. Its proof goes first: what is left at any moment is no finished cell."""
        for file in (self.proof, self.journal, self.artifacts / "best.pt", *self.checkpoints):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.samples, ignore_errors=True)

    @property
    def samples(self) -> Path:
        """Where all samples lie; a sheet of them is among the artifacts."""
        return self.path / "samples"

    def append(self, step: int, metrics: dict[str, float]) -> None:
        """Adds a line to the journal. NaN and infinity are kept (JSON's extension that Python reads back)."""
        line = json.dumps({"step": step, "time_ms": int(time.time() * 1000), "metrics": metrics})
        with self.journal.open("a") as journal:
            journal.write(line + "\n")
            journal.flush()
            os.fsync(journal.fileno())  # before any checkpoint that counts it

    @property
    def journal_bytes(self) -> int:
        """How long the journal is."""
        try:
            return self.journal.stat().st_size
        except OSError:
            return 0

    def end(self) -> None:
        """Removes what only an unfinished training needs."""
        for file in self.checkpoints:
            file.unlink(missing_ok=True)

    def measurements(self, skip: int = 0) -> list[Measurement]:
        """The journal from line ``skip`` on; a last line cut short by a crash is left out.

        Raises:
            DamagedFile: a line is no measurement.
        """
        found = []
        for number, line in enumerate(self._lines()[skip:-1], start=skip + 1):
            measured = _measurement(line)
            if measured is None:
                raise DamagedFile(self.journal, f"line {number} is no measurement")
            found.append(measured)
        return found

    def _lines(self) -> list[bytes]:
        """The journal's lines and, last, what follows the end of the last one; only that where there is no journal."""
        try:
            return _content(self.journal).split(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return [b""]


def _content(file: Path) -> bytes:
    """What a file holds; nobody waits for a pipe that lies in its place.

    Raises:
        FileNotFoundError, NotADirectoryError: it is not there.
        DamagedFile: it cannot be read.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise DamagedFile(file, "is no file")
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise DamagedFile(file, f"cannot be read: {error.strerror}") from error


def _measurement(line: bytes) -> Measurement | None:
    """A line of a journal; None where it is none."""
    try:
        content = json.loads(line)
        step, time_ms, metrics = content["step"], content["time_ms"], content["metrics"]
        if not all(type(number) is int and 0 <= number < _LARGEST for number in (step, time_ms)):
            return None
        if not all(isinstance(value, int | float) for value in metrics.values()):
            return None
        for value in metrics.values():
            float(value)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return Measurement(step, time_ms, metrics)


def read_mapping(file: Path) -> dict[str, Any]:
    """The content of a JSON file that is a mapping.

    Raises:
        DamagedFile: it is not there, or something else.
    """
    return read_mapping_and_text(file)[0]


def read_mapping_and_text(file: Path) -> tuple[dict[str, Any], bytes]:
    """The same, and the file's bytes, read once: what is in its place a moment later may be another's."""
    try:
        text = _content(file)
    except FileNotFoundError:
        raise DamagedFile(file, "is missing") from None
    except NotADirectoryError:
        raise DamagedFile(file.parent, "is no folder") from None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(file, "is no JSON; it was cut or altered") from error
    if not isinstance(content, dict):
        raise DamagedFile(file, "holds no mapping; it was altered")
    return content, text


@contextlib.contextmanager
def understood(file: Path) -> Iterator[None]:
    """Inside, what a file holds is used: other keys or types than it should have are a DamagedFile."""
    try:
        yield
    except InputError:
        raise
    except KeyError as error:
        raise DamagedFile(file, f"lacks {error}") from error
    except (TypeError, AttributeError, ValueError, OverflowError, IndexError) as error:
        raise DamagedFile(file, f"does not hold what it should ({error})") from error


def write_atomically(path: Path, content: str | bytes, durable: bool = False) -> None:
    """Writes a file whole or not at all; ``durable``: also if the power fails right after."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:  # a full disk
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
