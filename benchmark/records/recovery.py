"""The index of a run directory from the folders of its cells, where it lacks them: it was deleted, damaged or is older.

What has finished is known by its proof (``integrity``), what was under way by its configuration and its checkpoints; so
neither is trained again from the start. Only cells that were planned and have no folder are forgotten, until the
command that planned them is run again.
"""

import os
import re
from pathlib import Path
from typing import Any

from benchmark.records.cells import CellFolder, DamagedFile
from benchmark.records.integrity import labels, proven
from benchmark.records.rundir import Record, RunDir
from bism.errors import InputError

_ID = re.compile(r"[0-9a-f]{12}")


def recover(run_dir: RunDir) -> tuple[list[str], list[DamagedFile]]:
    """Brings the index up to what lies in the folders.

    Returns:
        What people should know; and what lies there and belongs to no cell that is known.
    """
    notes, unknown = [run_dir.note] if run_dir.note else [], list[DamagedFile]()
    run_dir.drop_altered()
    cells = run_dir.path / "cells"
    paths = sorted(cells.iterdir() if cells.is_dir() else (), key=_age)  # before the index, which has a cell first
    known = {record.id for record in run_dir.records()}
    found = list[Record]()
    for path in paths:
        if path.name not in known and _ID.fullmatch(path.name) and _has_begun(path):
            try:
                found.append(_record(CellFolder(path)))
            except DamagedFile as problem:
                unknown.append(problem)
    if found:
        run_dir.plan(found)
    if found:
        lacking = (
            f"lacks {len(found)} cells, which are known by their folders"
            if run_dir.only_read
            else f"lacked {len(found)} cells, which are there again by their folders"
        )
        notes.append(
            f"{run_dir.path}: the index {lacking}; cells that were planned and had not begun come back when their "
            f"command is run again"
        )
    return notes, unknown


def _has_begun(path: Path) -> bool:
    """Whether there is something to know of a cell: its folder may be empty, or hold an error of before it began."""
    names = ("config.json", "metrics.jsonl", "finished.json", "artifacts")
    return os.path.lexists(path) and (not path.is_dir() or any(os.path.lexists(path / name) for name in names))


def _age(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # deleted meanwhile
        return 0.0


def _record(folder: CellFolder) -> Record:
    """The row of a cell by its folder.

    Raises:
        DamagedFile: there is nothing to know it by.
    """
    cell, damage = folder.path.name, None
    if not folder.path.is_dir():
        raise DamagedFile(folder.path, "is no folder")
    try:
        held = proven(folder)
        if held is not None and held.id == cell:
            return held
    except DamagedFile as error:
        damage = error
    known: dict[str, Any] = {"id": cell, **labels(folder), "updated": _age(folder.path), "job": _company(folder)}
    if damage is not None:
        return Record(state="done", **known)
    if _ended(folder):
        return Record(state=_ending(folder, known["steps"]), **known)
    if folder.error is not None:
        return Record(state="failed", message=(folder.error.strip().splitlines() or ["-"])[-1], **known)
    message = "it was under way when the index was lost"
    return Record(state="stopped", message=message, progress=_progress(folder), **known)


def _company(folder: CellFolder) -> str | None:
    job = folder.config.get("job")
    return job if isinstance(job, str) else None


def _ended(folder: CellFolder) -> bool:
    """Whether a cell without a proof has finished: the last checkpoint is written at the end alone, when those of a
    training that is under way are removed."""
    under_way = any(file.exists() for file in folder.checkpoints)
    return (folder.artifacts / "last.pt").exists() and not under_way and folder.error is None


def _ending(folder: CellFolder, steps: int) -> str:
    """A seed that diverged ends its journal before the last iteration."""
    try:
        reached = max((line.step for line in folder.measurements()), default=steps)
    except DamagedFile:
        return "done"
    return "done" if reached >= steps else "diverged"


def _progress(folder: CellFolder) -> int:
    """The iteration of the newest checkpoint that can be read."""
    from bism.checkpoint import load_checkpoint  # PyTorch, which the other commands do without

    for file in folder.checkpoints:
        try:
            return int(load_checkpoint(file)["step"])
        except InputError:
            continue
    return 0
