"""How long a report of many runs takes.

    python -m tests.reports.scale [--runs 1000] [--points 50]

A command and not a test: it times. The store is MLflow's, in a SQLite file. One run is written through MLflow and
copied in the database, since MLflow takes 50 ms for each; the curves are noise.
"""

import argparse
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric

from benchmark.records.provenance import machine
from reports.style import methods

METRICS = ("test/log_likelihood", "val/log_likelihood", "time/train_seconds", "time/ms_per_step", "train/objective")
SEEDS = 10


def fill(file: Path, runs: int, points: int) -> None:
    """Makes a store with so many cells of one preset, ten seeds of each variant."""
    client = MlflowClient(f"sqlite:///{file}")
    experiment = client.create_experiment("scale", (file.parent / "artifacts").as_uri())
    labels = {"suite": "scale", "preset": "paper", "task": "board", "steps": "1000", "state": "done", "device": "cpu",
              "select": "last val/log_likelihood"}  # fmt: skip
    client.create_run(experiment, tags={**labels, "kind": "plan", "plan": "scale/paper"})
    first = client.create_run(experiment, tags={**labels, "kind": "cell"}).info.run_id
    client.log_batch(first, [Metric(name, 0.0, 0, 0) for name in METRICS])
    client.set_terminated(first)
    with sqlite3.connect(file) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(runs)")]
        (template,) = database.execute(f"SELECT {', '.join(columns)} FROM runs WHERE run_uuid = ?", (first,)).fetchall()
        held = dict(zip(columns, template, strict=True))
        known = methods()
        for number in range(runs):
            run, (variant, seed) = f"{number:032x}", divmod(number, SEEDS)
            method = known[variant % len(known)]
            row = {**held, "run_uuid": run, "name": f"{method} {variant} seed {seed}"}
            database.execute(f"INSERT INTO runs ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
                             list(row.values()))  # fmt: skip
            tags = {**labels, "kind": "cell", "cell": run, "method": method, "variant": f"{method}-{variant}",
                    "seed": str(seed)}  # fmt: skip
            database.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)",
                                 [(key, value, run) for key, value in tags.items()])  # fmt: skip
            for metric in METRICS:
                values = [(metric, step + random.random(), 0, run, step, 0) for step in range(points)]
                database.executemany(
                    "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)",
                    values,
                )
                database.execute(
                    "INSERT INTO latest_metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?,?,?,?,?,?)",
                    values[-1],
                )
        for table in ("tags", "metrics", "latest_metrics", "runs"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (first,))


def main() -> None:
    """Prints seconds and memory of ``python -m reports build``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--points", type=int, default=50)
    options = parser.parse_args()
    print(machine("cpu"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / "mlflow.db", options.runs, options.points)
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "reports", "build", "--tracking-uri", f"sqlite:///{folder}/mlflow.db", "--out",
             str(folder / "report")],
            check=True,
        )  # fmt: skip
        seconds, memory = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        size = (folder / "report" / "report.html").stat().st_size / 1e6
        print(f"{options.runs:,} runs x {options.points} points: {seconds:.1f} s, {memory:.2f} GiB, HTML {size:.1f} MB")


if __name__ == "__main__":
    main()
