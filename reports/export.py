"""From a tracking store to a file of results: what the maintainers ship, and what anybody can send."""

import datetime
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from benchmark.records import reference, sharing
from benchmark.records.cells import write_atomically
from benchmark.records.metrics import is_measured
from benchmark.records.provenance import hardware
from benchmark.records.results import ENDED, TEXT, Curve, Seed, Variant, rounded, thinned
from benchmark.system.invocation import call
from benchmark.system.validated import first_problem
from bism.errors import InputError, nearest
from reports.results import Results
from reports.store import LABELS
from reports.variants import apart

POINTS = 51  # of a curve: all that a suite measures by default
_ONCE = ("time/", "memory/", "selected/")  # of which the last value is enough, but for the clock
_CLOCK = "time/train_seconds"
_OWN = ("cell", "host", "error", "seed", "state", "preset_label", "task", "steps", "variant", "symbols", "drawn_as")
_SHARED = [name for name in LABELS if name not in _OWN]  # as they are


def export(
    store: Results, suite: str, preset: str | None, out: Path | None, machine: str = "", points: int = POINTS
) -> str:
    """Writes one preset of a suite; returns what people should know of it.

    Args:
        out: the file; by default one in the working directory that is called by suite and preset. One of results is
            written anew, and anything else that has its name stays.
        machine: where it was trained, for cells that do not say it.

    Raises:
        InputError: there is no such preset, or no result in it, or something else has the file's name.
    """
    chosen = _preset(store, suite, preset)
    out = out or Path(f"{suite}-{chosen}{reference.ENDING}")
    _check_free(out)
    try:
        return _exported(store, suite, chosen, out, machine, points)
    except ValidationError as error:  # labels that ours do not have
        raise InputError(
            f"suite {suite}, preset {chosen}: what the store says cannot be exported: {first_problem(error)}"
        ) from None


def _exported(store: Results, suite: str, chosen: str, out: Path, machine: str, points: int) -> str:
    named, superseded = apart(store.cells(suite, chosen))
    cells = _told(named, machine)
    _check_names(cells)
    ended = cells[cells["state"].isin(ENDED)]
    if ended.empty:
        raise InputError(f"suite {suite}, preset {chosen}: no cell has ended, and there is nothing to export")
    metrics = [str(name) for name in cells if "/" in str(name) and not str(name).startswith("param.")]
    known = [name for name in metrics if is_measured(name)]
    selected = {str(select).rpartition(" ")[2] for select in ended["select"]}
    curves = {name: _points(store, ended, name) for name in known if _is_drawn(name, selected)}
    keys = ["task", "variant", "steps", *_SHARED, "data_hash", *_params(cells)]
    variants = []
    for _, group in cells.groupby(keys, sort=False, dropna=False):
        try:
            variants.append(_variant(group, known, curves, points))
        except ValidationError as error:
            what, problem = " ".join(map(str, group[["task", "variant"]].iloc[0])), first_problem(error)
            raise InputError(
                f"suite {suite}, preset {chosen}, {what}: what the store says cannot be exported: "
                f"{problem.removeprefix('it: ')}; `{call('benchmark', 'run')}` with --rerun trains it again"
            ) from None
    header = {
        "suite": suite,
        "preset": chosen,
        "label": next((str(text) for text in cells["preset_label"] if text), ""),
        "package": f"bism-benchmark {version('bism-benchmark')}",
        "commands": _commands(ended, suite, chosen),
        "trained": _days(ended["started"]),
        "tasks": list(dict.fromkeys(cells["task"])),
    }
    content = reference.packed(header, variants)
    try:
        write_atomically(out, content)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror}") from error
    reference.read(out)  # as whoever gets it does
    return _said(out, cells, ended, content, superseded, sorted(set(metrics) - set(known)))


def _check_free(out: Path) -> None:
    """A file of results may be replaced; a device, a pipe, a folder or a file of something else may not."""
    if not os.path.lexists(out):
        return
    if not out.is_file():
        raise InputError(f"--out {out} is {'a folder' if out.is_dir() else 'no file'}: a file's name is expected")
    try:
        reference.header_of(out)
    except InputError:
        raise InputError(
            f"--out {out} is there, and is no file of results: it stays, and --out needs another name"
        ) from None


def _preset(store: Results, suite: str, preset: str | None) -> str:
    presets = store.presets(suite)
    if preset is None and len(presets) != 1:
        raise InputError(
            f"suite {suite} has {len(presets)} presets in this store: --preset says which of {', '.join(presets)}"
        )
    if preset is not None and preset not in presets:
        raise InputError(f"suite {suite} has no preset '{preset}' in this store: {nearest(preset, presets)}")
    return preset or presets[0]


def _is_drawn(metric: str, selected: Iterable[str]) -> bool:
    """Whether figures, or rules of selection, look at more than a metric's last value."""
    return metric in (_CLOCK, *selected) or not metric.startswith(_ONCE)


def _params(cells: pd.DataFrame) -> list[str]:
    names = sorted(str(name) for name in cells if str(name).startswith("param."))
    return [name for name in names if name not in ("param.seed", "param.steps")]


def _short(text: str) -> str:
    """One line that tells no places, as long as a label may be."""
    told = sharing.plain(text)
    return "".join(one if one.isprintable() else " " for one in told)[:TEXT]


def _told(cells: pd.DataFrame, machine: str) -> pd.DataFrame:
    """The cells without what says whose they are; what was not begun, or broke off, has no result."""
    texts = {name: cells[name].fillna("").map(_short) for name in (*_SHARED, "variant", "preset_label")}
    params = {
        name: cells[name].map(lambda text: _short(sharing.value(text)), na_action="ignore") for name in _params(cells)
    }
    unknown, here = texts["machine"] == "", (cells["host"] == platform.node()) & (cells["device"] == "cpu")
    said = pd.Series(machine, cells.index) if machine else pd.Series("", cells.index).mask(here, hardware("cpu"))
    texts["machine"] = texts["machine"].mask(unknown & (cells["run"] != ""), said)
    ended = cells["state"].where(cells["state"].isin([*ENDED, "failed"]), "planned")
    return cells.assign(**texts, **params, error=cells["error"].map(sharing.diverged), state=ended)


def _points(store: Results, cells: pd.DataFrame, metric: str) -> dict[str, tuple[list[int], list[float]]]:
    """Every value of a metric: of each run its steps and values."""
    found = store.histories(list(cells["run"]), metric)
    return {str(run): (list(of["step"]), list(of["value"])) for run, of in found.groupby("run")}


def _variant(
    cells: pd.DataFrame,
    metrics: Sequence[str],
    curves: Mapping[str, Mapping[str, tuple[list[int], list[float]]]],
    points: int,
) -> Variant:
    first = cells.iloc[0]
    return Variant.model_validate(
        {
            **{name: str(first[name]) for name in ("task", "variant", *_SHARED, "data_hash")},
            "steps": int(first["steps"]),
            **{name: _mapping(str(first[name])) for name in ("symbols", "drawn_as")},
            "param": {
                name.removeprefix("param."): str(first[name]) for name in _params(cells) if pd.notna(first[name])
            },
            "seeds": [_seed(cell, metrics, curves, points) for cell in cells.sort_values("seed").to_dict("records")],
        }
    )


def _seed(
    cell: Mapping[Any, Any],
    metrics: Sequence[str],
    curves: Mapping[str, Mapping[str, tuple[list[int], list[float]]]],
    points: int,
) -> Seed:
    found = {"seed": int(cell["seed"]), "state": cell["state"], "error": cell["error"]}
    if cell["state"] not in ENDED:
        return Seed.model_validate(found)
    last, own = dict[str, float](), dict[str, Curve]()
    chosen = cell.get("selected/step")
    kept = [int(chosen)] if chosen is not None and math.isfinite(chosen) else []
    for name in sorted(metrics):
        steps, values = curves.get(name, {}).get(cell["run"], ([], []))
        if not steps and pd.isna(cell[name]):  # not measured
            continue
        last[name] = values[-1] if steps else float(cell[name])
        if steps and steps != [cell["steps"]]:
            places = list(thinned(steps, points, kept))
            own[name] = Curve(steps=[int(steps[i]) for i in places], values=[rounded(float(values[i])) for i in places])
    return Seed.model_validate({**found, "last": last, "curves": own})


def _mapping(text: str) -> dict[str, str]:
    """A label that is a mapping of texts; nothing of one that somebody has altered."""
    try:
        content = json.loads(text or "{}")
        return {str(name): _short(value) for name, value in content.items() if isinstance(value, str)}
    except (ValueError, AttributeError, RecursionError):
        return {}


def _check_names(cells: pd.DataFrame) -> None:
    """Two variants may differ in a path alone, which is not told."""
    twice = cells[cells.duplicated(["task", "variant", "seed"])]
    for task, variant in zip(twice["task"], twice["variant"], strict=True):
        raise InputError(
            f"task {task}: there are two variants called {variant} once folders are taken out of what they set, and "
            f"they could not be told apart: give one another name in the suite file"
        )


def _commands(cells: pd.DataFrame, suite: str, preset: str) -> list[str]:
    """What trained these cells; where a store was written later by ``sync``, the command that it must have been."""
    found = dict.fromkeys(filter(None, map(sharing.command, cells["command"])))
    return list(found)[:100] or [f"python -m benchmark run --suite {suite} --preset {preset}"]


def _days(started: pd.Series) -> list[str]:
    """The first and the last day on which cells were begun."""
    days = [datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).date().isoformat() for ms in started if ms > 0]
    return [min(days), max(days)] if days else []


def _said(
    out: Path, cells: pd.DataFrame, ended: pd.DataFrame, content: bytes, superseded: int, left_out: Sequence[str]
) -> str:
    parts = [
        f"{out}: {len(ended):,} cells of {ended.groupby(['task', 'variant']).ngroups:,} variants in {len(content):,} "
        f"bytes"
    ]
    if len(cells) > len(ended):
        parts.append(
            f"{len(cells) - len(ended):,} cells have no result (planned, under way or failed), which the file says"
        )
    if superseded:
        parts.append(f"{superseded:,} cells of an earlier version of the suite are left out")
    if left_out:
        parts.append(f"left out, since the package measures nothing of this name: {', '.join(left_out[:10])}")
    if (ended["machine"] == "").any():
        parts.append("some cells do not say what machine they were trained on: --machine 'AMD EPYC, 2 cores' does")
    return "\n".join(parts)
