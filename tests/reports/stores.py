"""A store held in memory, with cells made by hand."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.artefact import Artefact
from reports.claims.claim import Comparison
from reports.claims.verdict import Finding, examine
from reports.store import LABELS
from reports.sweep import Sweep

LL, FD = "test/log_likelihood", "test/fisher_divergence"
STEPS = (0, 100, 1000)
Curve = Callable[[int, int], float]  # of seed and step


class Held:
    """What ``reports.store.Store`` offers."""

    uri = "held"

    def __init__(self) -> None:
        self.rows = list[dict[str, Any]]()
        self.values = dict[tuple[str, str], list[tuple[int, float]]]()
        self.arrays = dict[tuple[str, str], dict[str, np.ndarray]]()
        self.left_out = set[str]()

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
        self.rows.append(
            {
                "run": run,
                "started": 0,
                "data_hash": "0f1e2d3c4b5a",
                "command": "",
                **dict.fromkeys(LABELS, ""),
                **labels,
                **last,
                **more,
            }
        )
        return run

    def reading(self) -> AbstractContextManager[None]:
        return nullcontext()

    @property
    def suites(self) -> list[str]:
        return list(dict.fromkeys(row["suite"] for row in self.rows))

    def presets(self, suite: str) -> list[str]:
        return list(dict.fromkeys(row["preset"] for row in self.rows if row["suite"] == suite))

    def page(self, suite: str, run: str) -> str:
        return f"https://mlflow/{suite}/{run}"

    def studies(self, suite: str) -> pd.DataFrame:
        return pd.DataFrame()  # those are written through MLflow: tests/reports/tuned.py

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


# --- cells made by hand -----------------------------------------------------------------------------------------------


def built(module: Any, held: Held, folder: Path = Path("nowhere"), **where: str) -> dict[str, Artefact]:
    return {artefact.name: artefact for artefact in module.build(sweep(held, folder, **where))}


def learning(held: Held, variants: dict[str, tuple[str, float]], seeds: int = 3, **more: Any) -> Held:
    """Log-likelihoods that rise from 0 to the variant's value + the seed / 100, most of it by step 100."""
    for variant, (method, end) in variants.items():
        for seed in range(seeds):
            held.add(
                variant,
                method,
                seed,
                curves={
                    LL: lambda seed, step, end=end: (
                        {0: 0.0, 100: 0.96, 1000: 1.0}[step] * end + seed / 100 * (step > 0)
                    ),
                    "time/train_seconds": lambda seed, step: step / 50 + seed,
                    "train/objective": lambda seed, step: step + seed,
                },
                **{"time/ms_per_step": 2.0 + seed, "time/compile_seconds": 3.0, "memory/peak_bytes": 5e8, **more},
            )
    return held


BOTH = {"CD-10": ("cd", 0.5), "CD-5": ("cd", 0.4), "BiDSM-5": ("bidsm", 0.3), "Mine": ("mine", 0.2)}


def incomplete() -> Held:
    held = learning(Held(), BOTH)
    held.add("CD-5", "cd", 3, "failed", error="RuntimeError: no")
    held.add("CD-5", "cd", 4, "planned")
    held.add("BiDSM-5", "bidsm", 3, "diverged", **{LL: math.nan})
    return held


def frey(values: dict[str, list[tuple[float, float]]]) -> Held:
    held = Held()
    for variant, of_seeds in values.items():
        for seed, (likelihood, divergence) in enumerate(of_seeds):
            held.add(variant, "dsm", seed, suite="freyface", task="freyface",
                     **{f"selected/{LL}": likelihood, LL: 0.0, FD: divergence, "ais/gap": 0.5})  # fmt: skip
    return held


def biased() -> Held:
    """A bias that falls steeply before N = 10 and by a hundredth with every step from there."""
    held = Held()
    held.add("BiDSM-5", "bidsm", 0, curves={
        **{f"bias/theorem2_K{k}_N{n}": lambda seed, step, n=n, k=k: (4 if n < 10 else 1) * 0.99**n / (1 + k)
           for k in (0, 5) for n in (0, 1, 10, 20, 40)},
        **{f"bias/practical_K0_N{n}": lambda seed, step, n=n: 1.0 + n for n in (0, 1)},
        **{f"bias/practical_floor_K0_N{n}": lambda seed, step: 0.1 for n in (0, 1)},
        "bias/theorem2_distance_K0": lambda seed, step: 1.5,
        "bias/theorem2_gradient": lambda seed, step: 7.0,
    })  # fmt: skip
    return held


def held(values: dict[str, list[float]], metric: str = LL, **more: object) -> Held:
    """A value for each seed of each variant; none where it is NaN, diverged where it is text."""
    found = Held()
    for variant, of_seeds in values.items():
        for seed, one in enumerate(of_seeds):
            if isinstance(one, str):
                found.add(variant, "m", seed, one)
            elif not math.isnan(one):
                found.add(variant, "m", seed, **{metric: one, **more})
    return found


def look(one: Comparison, runs: Held, family: int = 1) -> Finding:
    """What these runs say of a comparison, one of so many."""
    return examine(one, sweep(runs), family)
