"""The checkpoints that the cells of a job go on from: the latest and the one before, of one moment for all cells."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.records.rundir import CellFolder
from bism.checkpoint import load_checkpoint, save_checkpoint
from bism.errors import InputError


def latest(cells: Sequence[CellFolder]) -> tuple[list[dict[str, Any]], list[str]]:
    """The checkpoints, one for each cell, of the latest moment of which all cells have one, none where there is no such
    moment; and what people should know of it. What is newer, or bad, does not stay beside them."""
    notes, found = list[str](), list[dict[tuple[int, str], tuple[Path, dict[str, Any]]]]()
    for cell in cells:
        found.append({})
        for file in cell.checkpoints:
            if not file.exists():
                continue
            try:
                content = load_checkpoint(file)
                if len(cell.measurements()) < content["job"]["lines"]:
                    raise InputError(f"{file}: its journal has lost lines since")
                found[-1][content["job"]["saves"], content["job"]["moment"]] = file, content
            except (InputError, KeyError, TypeError) as error:
                notes.append(f"a checkpoint is left out: {error}")
    moments = set(found[0]).intersection(*found[1:])
    if not moments:
        return [], [*notes, "no whole checkpoint is left: starts again"] if notes else []
    chosen = [of_cell[max(moments)] for of_cell in found]
    for cell, (file, _) in zip(cells, chosen, strict=True):
        if file != cell.checkpoints[0]:
            file.replace(cell.checkpoints[0])
        else:
            cell.checkpoints[1].unlink(missing_ok=True)
    saved = [content for _, content in chosen]
    return saved, [*notes, f"goes on from iteration {saved[0]['step']:,}"]


def write(cell: CellFolder, content: dict[str, Any]) -> None:
    """Writes a cell's latest checkpoint, whole or not at all; the one before stays beside it."""
    newest, previous = cell.checkpoints
    fresh = newest.with_name("checkpoint.next.pt")
    save_checkpoint(content, fresh)
    if newest.exists():
        newest.replace(previous)
    fresh.replace(newest)
