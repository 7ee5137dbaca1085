"""A store held in memory, with cells made by hand."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.store import LABELS
from reports.sweep import Sweep

STEPS = (0, 100, 1000)
Curve = Callable[[int, int], float]  # of seed and step


class Held:
    """What ``reports.store.Store`` offers."""

    uri = "held"

    def __init__(self) -> None:
        self.rows = list[dict[str, Any]]()
        self.values = dict[tuple[str, str], list[tuple[int, float]]]()
        self.arrays = dict[tuple[str, str], dict[str, np.ndarray]]()

    def add(
        self, variant: str, method: str, seed: int, state: str = "done", *, suite: str = "grbm", preset: str = "paper",
        task: str = "board", curves: dict[str, Curve] | None = None, **more: Any,
    ) -> str:  # fmt: skip
        """A cell with the metrics' histories; their last values are its metrics. Its run."""
        run = f"{suite}-{preset}-{task}-{variant}-{seed}"
        held = {name: [(step, curve(seed, step)) for step in STEPS] for name, curve in (curves or {}).items()}
        self.values |= {(run, name): points for name, points in held.items()}
        labels = {"cell": run, "task": task, "method": method, "variant": variant, "seed": seed, "steps": 1000,
                  "state": state, "select": "last val/log_likelihood", "device": "cpu",
                  "git_commit": "0123456789abcdef", "suite": suite, "preset": preset}  # fmt: skip
        last = {name: points[-1][1] for name, points in held.items()}
        self.rows.append({"run": run, "started": 0, **dict.fromkeys(LABELS, ""), **labels, **last, **more})
        return run

    def reading(self) -> AbstractContextManager[None]:
        return nullcontext()

    @property
    def suites(self) -> list[str]:
        return list(dict.fromkeys(row["suite"] for row in self.rows))

    def presets(self, suite: str) -> list[str]:
        return list(dict.fromkeys(row["preset"] for row in self.rows if row["suite"] == suite))

    def cells(self, suite: str, preset: str) -> pd.DataFrame:
        frame = pd.DataFrame([row for row in self.rows if (row["suite"], row["preset"]) == (suite, preset)])
        return frame.sort_values(["task", "variant", "seed"], ignore_index=True)

    def histories(self, runs: Sequence[str], metric: str) -> pd.DataFrame:
        rows = [(run, *point) for run in runs for point in self.values.get((run, metric), [])]
        return pd.DataFrame(rows, columns=["run", "step", "value"])

    def artifact(self, run: str, prefix: str, folder: Path) -> Path | None:
        if (run, prefix) not in self.arrays:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{prefix}.npz", **self.arrays[run, prefix])  # type: ignore[arg-type]
        return folder / f"{prefix}.npz"


def sweep(held: Held, folder: Path = Path("nowhere"), suite: str = "grbm", preset: str = "paper") -> Sweep:
    return Sweep(held, suite, preset, folder)  # type: ignore[arg-type]
