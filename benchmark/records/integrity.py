"""What proves a finished cell whole, and what is damaged in a run directory.

    runs/cells/<id>/finished.json  how the cell ended, and the size and digest of each of its files

It is written when the index has the cell as finished, and from then on the folder alone says what the cell is: the
index can be lost and is rebuilt from it, and a file that was cut, removed or altered is known. Nothing that is damaged
is ranked, sent to a store, or trained again by itself. Cells that finished before there were proofs have none (nor the
company that they were trained in); of them it is known whether their files can be read and whether the journal of one
that is done comes to its last iteration.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.records.cells import CellFolder, DamagedFile, read_mapping_and_text, understood, write_atomically
from benchmark.records.rundir import DAMAGED, FINISHED, Record, RunDir, sound

_LARGE = 1 << 24  # bytes, from which on a file is read only where its time of change is another
_PASSING = (".partial", ".next.pt")  # files that are being written
_HELD = ("id", "suite", "preset", "task", "method", "variant", "seed", "steps", "state")  # what a proof decides
_USED = ("select", "device", "data", "model", "hyper", "paper", "reference", "description")  # of a configuration


@dataclasses.dataclass(frozen=True)
class Inspected:
    """Cells as their folders prove them.

    Attributes:
        records: as the index has them, but for what a proof says otherwise; finished cells that are damaged have the
            state ``damaged``.
        damage: what was found, by cell; of cells that have not finished, too.
    """

    records: Sequence[Record]
    damage: Mapping[str, Sequence[DamagedFile]]

    @property
    def sound(self) -> list[Record]:
        """The cells of which nothing is damaged."""
        return [record for record in self.records if record.id not in self.damage]


def seal(folder: CellFolder, record: Record) -> None:
    """Writes the proof of a cell that has finished, by which it is known from then on."""
    ended = dataclasses.replace(record, owner=None, progress=0)
    files = {str(path.relative_to(folder.path)): _facts(path) for path in _files(folder)}
    write_atomically(folder.proof, _written({"record": dataclasses.asdict(ended), "files": files}), durable=True)


def proven(folder: CellFolder) -> Record | None:
    """How a cell ended, by its proof; None where it has none.

    Raises:
        DamagedFile: the proof itself.
    """
    content = _proof(folder)
    if content is None:
        return None
    names = {field.name for field in dataclasses.fields(Record)}  # a later version may know more
    with understood(folder.proof):
        return Record(**{name: value for name, value in content["record"].items() if name in names})


def inspect(run_dir: RunDir, records: Iterable[Record]) -> Inspected:
    """Looks at the files of cells. Where a proof and the index disagree, the index is corrected."""
    found, damage, wrong = list[Record](), dict[str, list[DamagedFile]](), list[Record]()
    for record in records:
        folder = run_dir.folder(record.id)
        known, problems = _known(folder, record), list[DamagedFile]()
        if known != record:
            wrong.append(known)
        if known.state in FINISHED:
            problems = list(_problems(folder, known))
        elif known.state != "planned":
            problems = list(_readable(folder, finished=False))
        if problems:
            damage[record.id] = problems
            if known.state in FINISHED:
                text = "; ".join(str(problem) for problem in problems)
                known = dataclasses.replace(known, state=DAMAGED, message=text)
        found.append(known)
    run_dir.correct(wrong)
    return Inspected(found, damage)


def check(folder: CellFolder) -> None:
    """Looks at a finished cell.

    Raises:
        DamagedFile: the first of its files that is damaged.
    """
    for problem in _problems(folder):
        raise problem


def _known(folder: CellFolder, record: Record) -> Record:
    """The record as the proof has it, where there is one; a cell whose proof is damaged has finished, too.

    Not of a cell that is being trained: it may have the proof of what was before until its first files are written.
    """
    if record.state == "running":
        return record
    try:
        held = proven(folder)
    except DamagedFile:
        return record if record.state in FINISHED else dataclasses.replace(record, state="done")
    if held is None and record.state in FINISHED:  # of a time before proofs
        with contextlib.suppress(DamagedFile):
            return dataclasses.replace(record, **labels(folder))
    if held is None or held.id != record.id:
        return record
    return dataclasses.replace(record, **{name: getattr(held, name) for name in _HELD})


def _problems(folder: CellFolder, record: Record | None = None) -> Iterator[DamagedFile]:
    """What is damaged in the folder of a finished cell, of which the index may know more."""
    if not folder.path.is_dir():
        gone = "is no folder" if folder.path.exists() else "is missing: the cell's results are gone"
        yield DamagedFile(folder.path, gone)
        return
    try:
        content = _proof(folder)
    except DamagedFile as problem:
        yield problem
        return
    if content is None:
        found = list(_readable(folder, finished=True))
        yield from found or _unproven(folder, record)
        return
    if content["record"]["id"] != folder.path.name:
        yield DamagedFile(folder.proof, f"is the proof of cell {content['record']['id']}")
    for name, facts in content["files"].items():
        what = _altered(folder.path / name, facts)
        if what:
            yield DamagedFile(folder.path / name, what)


def _readable(folder: CellFolder, finished: bool) -> Iterator[DamagedFile]:
    """What cannot be read of a cell without a proof; one that has finished has a configuration and a whole journal."""
    if folder.path.exists() and not folder.path.is_dir():
        yield DamagedFile(folder.path, "is no folder")
        return
    try:
        if finished or (folder.path / "config.json").exists():
            labels(folder)
        with understood(folder.path / "config.json"):
            for name in _USED if finished else ():
                folder.config[name]
    except DamagedFile as problem:
        yield problem
    try:
        folder.measurements()
        if finished and not folder.journal.exists():
            yield DamagedFile(folder.journal, "is missing")
        elif finished and not folder.journal.read_bytes().endswith(b"\n"):
            yield DamagedFile(folder.journal, "its last line was cut")
    except DamagedFile as problem:
        yield problem


def _unproven(folder: CellFolder, record: Record | None) -> Iterator[DamagedFile]:
    """What is wrong with a finished cell without a proof whose files can be read: it had one, which was removed, unless
    what ended it was killed just then, and its checkpoints are still there; or its journal ends too early."""
    if "job" in folder.config and not any(file.exists() for file in folder.checkpoints):
        yield DamagedFile(folder.proof, "is missing: nothing proves what the cell measured")
    elif record is not None and record.state == "done":
        reached = max((line.step for line in folder.measurements()), default=0)
        if reached < record.steps:
            yield DamagedFile(folder.journal, f"ends at iteration {reached:,} of {record.steps:,}")


def labels(folder: CellFolder) -> dict[str, Any]:
    """What a cell's configuration says of its row in the index.

    Raises:
        DamagedFile: it cannot be read, or lacks some of it.
    """
    file, config = folder.path / "config.json", folder.config
    with understood(file):
        found = {name: config[name] for name in _HELD if name not in ("id", "state")}
    if not sound(Record(id=folder.path.name, state="planned", **found)):
        raise DamagedFile(file, "does not hold what it should: a label or a number of another type")
    return found


def _proof(folder: CellFolder) -> dict[str, Any] | None:
    try:
        if not folder.proof.exists():
            return None
    except OSError:
        return None
    content, text = read_mapping_and_text(folder.proof)
    content.pop("digest", None)
    with contextlib.suppress(RecursionError):  # so deep that nobody here has written it
        if text == _written(content).encode():
            return content
    raise DamagedFile(folder.proof, "its content is not what was written when the cell finished")


def _written(content: Mapping[str, Any]) -> str:
    """The text of a proof, with the digest of what it says: a proof of any other bytes was altered."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "digest": digest}, indent=1, sort_keys=True)


def _files(folder: CellFolder) -> Iterator[Path]:
    """The files that are results, and the configuration: all but the proof, errors, what was printed, and what only a
    training needs."""
    other = {folder.proof, folder.path / "error.txt", folder.output, *folder.checkpoints}
    for path in sorted(folder.path.rglob("*")):
        if path.is_file() and path not in other and not path.name.endswith(_PASSING):
            yield path


def _facts(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"bytes": stat.st_size, "changed_ns": stat.st_mtime_ns, "sha256": _sha256(path)}


def _altered(path: Path, facts: Mapping[str, Any]) -> str | None:
    """What is wrong with a file, if something is."""
    try:
        stat = path.stat()
        difference = stat.st_size - facts["bytes"]
        if not path.is_file():
            return "is no file any more"
        if difference < 0:
            return f"{-difference:,} of its {facts['bytes']:,} bytes are missing"
        if difference > 0:
            return f"has {difference:,} bytes more than when the cell finished"
        if stat.st_size >= _LARGE and stat.st_mtime_ns == facts["changed_ns"]:
            return None
        return None if _sha256(path) == facts["sha256"] else "its content is another than when the cell finished"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
