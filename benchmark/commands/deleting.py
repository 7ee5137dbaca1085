"""The command ``delete``: cells by what they are, with their folders and their runs in the tracking store."""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.commands import standing
from benchmark.records import integrity
from benchmark.records.looking import looked_at
from benchmark.records.rundir import DAMAGED, Record, RunDir
from benchmark.system import tables
from benchmark.system.credentials import unsecret
from bism.errors import InputError, nearest

_FIELDS = {  # of the filter: of the record, and the option
    "suites": ("suite", "--suite"),
    "presets": ("preset", "--preset"),
    "tasks": ("task", "--tasks"),
    "methods": ("method", "--methods"),
    "variants": ("variant", "--variants"),
    "states": ("state", "--states"),
    "seeds": ("seed", "--seeds"),
    "cells": ("id", "--cells"),
}


@dataclasses.dataclass(frozen=True)
class Filter:
    """Which cells; None is no condition."""

    suites: Sequence[str] | None = None
    presets: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    variants: Sequence[str] | None = None
    states: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    cells: Sequence[str] | None = None

    def given(self) -> dict[str, Sequence[str | int]]:
        """The conditions that there are."""
        return {name: value for name in _FIELDS if (value := getattr(self, name)) is not None}

    def chosen(self, records: Sequence[Record]) -> list[Record]:
        """The cells that fit all conditions.

        Raises:
            InputError: a condition names what no cell has.
        """
        for name, values in self.given().items():
            field, option = _FIELDS[name]
            there = {str(getattr(record, field)) for record in records}
            if name == "seeds" and not there.intersection(map(str, values)):
                held = tables.ranges(record.seed for record in records) or "no cells"
                raise InputError(
                    f"{option} {tables.ranges(map(int, values))}: no cell has such a seed; there are {held}"
                )
            for value in values:
                if str(value) not in there and name not in ("states", "seeds"):
                    raise InputError(f"{option} {value}: no cell has this {field}: {nearest(str(value), there)}")
        return [
            record
            for record in records
            if all(getattr(record, _FIELDS[name][0]) in values for name, values in self.given().items())
        ]


def delete(
    console: Console,
    run_dir: Path,
    store: str | None,
    conditions: Filter,
    *,
    sure: bool = False,
    everything: bool = False,
    dry: bool = False,
) -> int:
    """Shows the cells that fit, asks, and deletes them; the tracking store's runs first, since what is left of them
    could not be found again without the cells.

    Raises:
        InputError: no condition, nobody to ask, cells that are being trained, or a store that cannot be reached.
    """
    if not RunDir.exists(run_dir):
        raise InputError(f"{run_dir}: no run directory; --run-dir names another")
    if not conditions.given() and not everything:
        raise InputError("delete needs to be told which cells, such as --methods nce or --states diverged; or --all")
    with contextlib.closing(looked_at(run_dir) if dry else RunDir(run_dir)) as runs:
        code = int(bool(standing.recovered(console, runs)))
        runs.repair()
        known: Sequence[Record] = runs.records()
        if DAMAGED in (conditions.states or ()):
            known = integrity.inspect(runs, known).records
        records = conditions.chosen(known)
        _show(console, records)
        if not records:
            console.print("nothing to delete: no cell fits all of that")
        if not records or dry:
            return code
        busy = [record for record in records if record.state == "running"]
        if busy:
            raise InputError(f"{len(busy)} of them are being trained: stop their command first; nothing is deleted")
        if not sure:
            _ask(len(records))
        if store is not None:
            _forget(runs, records, store)
        removed = runs.remove(record.id for record in records)
        beside = f", and what {unsecret(store)} has of it" if store else ""
        console.print(f"deleted: {tables.counted(len(removed), 'cell')}{beside}")
        return code


def _show(console: Console, records: Sequence[Record]) -> None:
    table = Table("suite", "preset", "task", "variant", "seeds", "state")
    table.add_column("cells", justify="right")
    groups: dict[tuple[str, ...], list[int]] = {}
    for record in records:
        what = record.suite, record.preset, record.task, record.variant, record.state
        groups.setdefault(what, []).append(record.seed)
    for (*names, state), seeds in groups.items():
        table.add_row(*map(Text, names), tables.ranges(seeds), state, str(len(seeds)))
    if records:
        tables.show(console, table)
    console.print(tables.counted(len(records), "cell"))


def _ask(count: int) -> None:
    if not sys.stdin.isatty():
        raise InputError("nobody can be asked here: --yes deletes without asking, --dry-run only shows")
    if input(f"delete {tables.counted(count, 'cell')} for good? [y/N] ").strip().lower() not in ("y", "yes"):
        raise InputError("nothing is deleted")


def _forget(runs: RunDir, records: Sequence[Record], store: str) -> None:
    from benchmark.tracking.cells import Tracker  # MLflow

    Tracker(store, runs).forget(records)
