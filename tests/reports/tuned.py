"""Studies written through MLflow's client, as ``python -m benchmark tune`` writes them."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

LL, FD, SECONDS = "val/log_likelihood", "val/fisher_divergence", "time/train_seconds"
STEPS = 1000
SPACE: dict[str, dict[str, Any]] = {
    "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True, "step": None},
    "lr_posterior": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True, "step": None},
    "inner_steps": {"type": "int", "low": 0, "high": 20, "log": False, "step": 1},
    "unroll_steps": {"type": "categorical", "choices": [0, 1, 2, 5, 10]},
}


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is written of one trial.

    Attributes:
        values: of each objective; none of a pruned or failed trial.
        before: the first objective at earlier iterations.
    """

    params: Mapping[str, Any]
    values: Sequence[float] = ()
    state: str = "complete"
    before: Mapping[int, float] = dataclasses.field(default_factory=dict)
    seconds: float | None = 2.0
    variant: str = ""
    reason: str = ""


def write(
    uri: str, task: str, method: str, trials: Sequence[Trial], *, suite: str = "grbm", preset: str = "paper",
    objectives: Sequence[str] = (LL,), directions: Sequence[str] = ("maximize",),
    space: Mapping[str, Mapping[str, Any]] = SPACE, name: str = "",
) -> list[str]:  # fmt: skip
    """A study with these trials; their runs."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(suite)
    folder = (Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()
    number = experiment.experiment_id if experiment else client.create_experiment(suite, folder)
    common = {"study": name or f"{suite}.{task}.{method}", "suite": suite, "task": task, "method": method}
    tags = {**common, "kind": "study", "preset": preset, "steps": str(STEPS), "seeds": "1000,1001,1002",
            "objectives": json.dumps(objectives), "directions": json.dumps(directions), "space": json.dumps(space),
            "sampler": "TPESampler", "pruner": "MedianPruner"}  # fmt: skip
    parent, runs = client.create_run(number, tags=tags).info.run_id, []
    for place, trial in enumerate(trials):
        own = {**common, "kind": "trial", "trial": str(place), "state": trial.state, "reason": trial.reason,
               "mlflow.parentRunId": parent}  # fmt: skip
        own |= {"origin": "paper", "variant": trial.variant} if trial.variant else {}
        run = client.create_run(number).info.run_id
        metrics = [Metric(objectives[0], value, 0, step) for step, value in trial.before.items()]
        metrics += [Metric(name, value, 0, STEPS) for name, value in zip(objectives, trial.values, strict=False)]
        if trial.seconds is not None and SECONDS not in objectives:
            metrics.append(Metric(SECONDS, trial.seconds, 0, STEPS))
        client.log_batch(run, metrics, [Param(key, str(value)) for key, value in trial.params.items()],
                         [RunTag(key, value) for key, value in own.items()])  # fmt: skip
        client.set_terminated(run, {"failed": "FAILED", "pruned": "KILLED"}.get(trial.state, "FINISHED"))
        runs.append(run)
    return runs


# --- trials made by hand ----------------------------------------------------------------------------------------------


def params(lr: float, k: int = 5, n: int = 5, alpha: float = 0.01) -> dict[str, Any]:
    return {"lr": lr, "lr_posterior": alpha, "inner_steps": k, "unroll_steps": n}


BIDSM = [
    Trial(params(0.001, n=0, alpha=0.001), [0.40], before={200: 0.1}, variant="BiDSM-0"),
    Trial(params(0.001, alpha=0.001), [0.45], before={200: 0.2}, variant="BiDSM-5", seconds=4.0),
    Trial(params(0.1, k=20), [0.55], before={200: 0.3}, seconds=3.0),
    Trial(params(0.002, k=7, n=10), [0.60], before={200: 0.35}),
    Trial(params(0.004), state="pruned", before={200: 0.5, 400: 0.9}, seconds=1.0),  # the highest of all
    Trial(params(0.09), [math.nan]),
    Trial(params(0.08), [math.inf]),
    Trial(params(0.07), state="failed", seconds=0.5, reason="diverged at iteration 17: not finite\nand more"),
    Trial(params(0.06), state="failed", seconds=None, reason="diverged at iteration 4: not finite"),
    Trial(params(0.05), state="failed", reason="RuntimeError: no memory on cuda:0"),
    Trial(params(0.05), state="", seconds=None),  # under way
]
_NUMBERS = np.random.default_rng(0)
POINTS = [tuple(map(float, point)) for point in _NUMBERS.normal(size=(30, 2)).round(1)]  # rounded: some coincide
PAIRS = [Trial(params(float(10 ** _NUMBERS.uniform(-4, -1))), (first, 5 + second), variant="CD-1" if i < 2 else "")
         for i, (first, second) in enumerate(POINTS)]  # fmt: skip
LR = {"lr": SPACE["lr"], "k": {"type": "categorical", "choices": [1, 5, 10]}}


def by_rate(count: int = 12) -> list[Trial]:
    """The lower the rate, the lower the divergence; k does nothing."""
    return [Trial({"lr": 10 ** (-4 + 3 * i / count), "k": (1, 5, 10)[i % 3]}, [i - 5000.0]) for i in range(count)]
