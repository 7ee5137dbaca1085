"""A suite that trains in a second, the command line in this process, and what is in a run directory."""

import contextlib
import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

from benchmark.commands.cli import main
from benchmark.records.provenance import cores
from benchmark.records.rundir import CellFolder, Record, RunDir
from benchmark.system.invocation import call

ROOT = Path(__file__).parents[2]
CORES = cores()
RUN = ("run", "--suite", "tiny.yaml")
CELLS = [(variant, seed) for variant in ("CD-1", "BiDSM-5") for seed in (0, 1)]
TINY = """\
suite: tiny
description: a tiny suite
default_preset: test
tasks:
  board:
    description: points of the checkerboard
    data: {name: checkerboard, train: 500, val: 200, test: 200}
    model: {name: grbm, hidden: 3}
presets:
  test:
    description: two methods
    seeds: 0-1
    evaluations: 4
    tasks:
      board:
        steps: 20
        all: {lr: 0.01}
        variants:
          - {method: cd}
          - {method: bidsm}
"""

# Deep models; what a preset trains is added: ``all``, ``probes`` and ``variants``.
DEEP_DIGITS = """\
suite: deep
description: deep models, tiny
default_preset: test
tasks:
  digits:
    description: scikit-learn's digits
    data: {name: digits}
    model: {name: resnet_eblvm, hidden: 2, width: 1, layers: 12, posterior_width: 1}
    batch_size: 20
    metrics: [posterior_fisher_divergence]
    select: val/objective
presets:
  test:
    description: both models
    seeds: 0-0
    evaluations: 2
    tasks:
      digits:
        steps: 4
"""

# A plug-in of methods that fail.
WRONG_METHODS = '''\
"""Methods that fail, each in its own way, while there is a file called broken."""
import dataclasses, itertools, os, signal
from pathlib import Path

import torch

from baselines.cd import CD
from bism.hyperparameters import number

settings = dataclasses.dataclass(frozen=True, kw_only=True)
made = itertools.count()


def broken():
    return Path("broken").exists()


@settings
class Raises(CD):
    """Its loss raises."""
    id, label, reference = "raises", "Raises", "here"

    def loss(self, *arguments):
        if broken():
            raise RuntimeError("the loss [of this method] refuses")
        return super().loss(*arguments)


@settings
class Exits(CD):
    """Ends its process."""
    id, label, reference = "exits", "Exits", "here"

    def init_carry(self, *arguments):
        return os._exit(3) if broken() else {}


@settings
class Killed(CD):
    """Is killed from outside."""
    id, label, reference = "killed", "Killed", "here"

    def init_carry(self, *arguments):
        return os.kill(os.getpid(), signal.SIGKILL) if broken() else {}


@settings
class Diverges(CD):
    """Of every two seeds the second has no finite loss at step 7."""
    id, label, reference = "diverges", "Diverges", "here"

    def init_carry(self, *arguments):
        return {"step": torch.zeros(()), "sound": torch.tensor(next(made) % 2 == 0)}

    def loss(self, params, batch, noise, carry, hyper):
        value, _, info = super().loss(params, batch, noise, carry, hyper)
        value = torch.where((carry["step"] == 7) & ~carry["sound"], torch.nan, value)
        return value, {**carry, "step": carry["step"] + 1}, info
'''


@dataclasses.dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


def command(folder: Path, *arguments: str) -> Said:
    """Runs one command in ``folder`` with tracking off and no settings of the user's own."""
    out, err = io.StringIO(), io.StringIO()
    usual = {name: value for name, value in os.environ.items() if name != "BISM_DATA"}
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, {**usual, "MLFLOW_TRACKING_URI": "none"}, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main(arguments)
    return Said(code, out.getvalue(), err.getvalue())


def called(folder: Path, arguments: str, package: str = "benchmark") -> str:
    """How a command is written for people whose shell is in ``folder``."""
    with contextlib.chdir(folder):
        return call(package, arguments)


def write(folder: Path, text: str = TINY, name: str = "tiny.yaml") -> Path:
    """A file in ``folder``."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def replaced(*changes: tuple[str, str], text: str = TINY) -> str:
    """A suite with some texts replaced, each of which it has once."""
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What is in a folder: of files what they hold, and of all when they were changed, which a file that was made and
    removed again changes of its folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def records(folder: Path) -> list[Record]:
    """The index of ``folder``'s run directory."""
    with contextlib.closing(RunDir(folder / "runs")) as runs:
        return runs.records()


def states(folder: Path) -> dict[tuple[str, int], str]:
    """The state of every cell by variant and seed."""
    return {(record.variant, record.seed): record.state for record in records(folder)}


def cell(folder: Path, variant: str, seed: int) -> CellFolder:
    """The files of the one cell of a variant and a seed."""
    (found,) = [record.id for record in records(folder) if (record.variant, record.seed) == (variant, seed)]
    return CellFolder(folder / "runs" / "cells" / found)


def journal(folder: Path, variant: str, seed: int) -> list[dict[str, Any]]:
    """The lines of a journal."""
    return [json.loads(line) for line in (cell(folder, variant, seed).path / "metrics.jsonl").read_text().splitlines()]


def numbers(folder: Path, variant: str, seed: int) -> list[dict[str, float]]:
    """The lines' metrics without those that no two runs share."""
    return [
        {name: value for name, value in line["metrics"].items() if not name.startswith(("time/", "memory/"))}
        for line in journal(folder, variant, seed)
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """All files of the cells."""
    return {str(file): file.read_bytes() for file in sorted((folder / "runs" / "cells").rglob("*")) if file.is_file()}
