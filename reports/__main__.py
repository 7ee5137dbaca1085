"""``python -m reports build``: Figures 2 and 3 from what MLflow holds of the checkerboard; ``scaling``: what an
iteration costs, from the records of ``python -m benchmark speed``.

Exit codes: 0 drawn from a complete preset; 1 drawn, with cells missing (the figures say so); 2 bad input.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bism.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reports", description="Figures from an MLflow store.")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    build = commands.add_parser("build", help="draw the figures")
    build.add_argument("--suite", default="grbm", help="the suite (default: grbm)")
    build.add_argument("--preset", default="paper", help="the preset (default: paper)")
    build.add_argument("--task", default="checkerboard", help="the task (default: checkerboard)")
    build.add_argument("--tracking-uri", help="MLflow store (default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db)")
    build.add_argument("--out", type=Path, default=Path("report"), help="folder to write to (default: report)")
    scaling = commands.add_parser("scaling", help="draw what an iteration costs against seeds, hidden units, K and N")
    scaling.add_argument(
        "records", type=Path, nargs="+", help="files that `python -m benchmark speed --suite scaling --json` wrote"
    )
    scaling.add_argument("--out", type=Path, default=Path("report"), help="folder to write to (default: report)")
    options = parser.parse_args(arguments)
    try:
        return _scaling(options.records, options.out) if options.command == "scaling" else _build_from(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _scaling(files: Sequence[Path], out: Path) -> int:
    from reports import scaling

    records = []
    for file in files:
        try:
            records += json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read: {error}") from error
    _save(scaling.draw(scaling.frame(records)), out, "scaling")
    return 0


def _save(figure: Any, out: Path, name: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for suffix in ("png", "pdf"):
        figure.savefig(out / f"{name}.{suffix}")
        print(out / f"{name}.{suffix}")


def _build_from(options: argparse.Namespace) -> int:
    uri = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    return _build(uri, options.suite, options.preset, options.task, options.out)


def _build(uri: str, suite: str, preset: str, task: str, out: Path) -> int:
    from reports import figure2, figure3, store

    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not file.exists():
        raise InputError(f"{file}: no such store; `python -m benchmark run` makes one, --tracking-uri names another")
    client = store.connect(uri)
    cells = store.cells(client, suite, preset)
    cells = cells[cells["task"] == task]
    if cells.empty:
        raise InputError(f"suite '{suite}', preset '{preset}' has no cells of task '{task}' in {uri}")
    done = cells[cells["state"] == "done"]
    missing = len(cells) - len(done)
    out.mkdir(parents=True, exist_ok=True)
    curves = store.curves(client, done, figure3.METRIC)
    curves.to_csv(out / "figure3.csv", index=False)
    figures = {"figure3": figure3.draw(curves, missing)}
    with tempfile.TemporaryDirectory() as folder:
        first = done[done["seed"] == done["seed"].min()]
        found = {cell["variant"]: store.artifact(client, cell["run"], "density", Path(folder) / cell["run"])
                 for cell in first.to_dict("records")}  # fmt: skip
        files = {variant: file for variant, file in found.items() if file is not None}
        if files:
            figures["figure2"] = figure2.draw(files, missing)
        for name, figure in figures.items():
            _save(figure, out, name)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
