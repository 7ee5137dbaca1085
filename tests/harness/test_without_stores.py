"""A run without a tracking store needs no package that only tracking, tuning and reports use."""

import os
import subprocess
import sys
from pathlib import Path

from tests.harness.tiny import ROOT, states, write

ABSENT = ("mlflow", "optuna", "seaborn", "tabulate", "typst", "jinja2", "ray", "torchvision", "hypothesis")


def test_a_run_does_without_the_packages_of_stores_and_reports(tmp_path: Path) -> None:
    lines = "".join(f"sys.modules[{name!r}] = None\n" for name in ABSENT)
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n{lines}")  # in the processes of jobs too
    write(tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "benchmark", "run", "--suite", "tiny.yaml", "--tracking-uri", "none"]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")
    assert set(states(tmp_path).values()) == {"done"}
