"""What a shell is told when it asks how a line goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.tiny import ROOT, write


def completions(folder: Path, line: str) -> list[str]:
    """As bash asks for ``python -m benchmark``: argcomplete answers through a file instead of descriptor 8."""
    answer = folder / "answer"
    asks = {"_ARGCOMPLETE": "3", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
            "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "PYTHONPATH": str(ROOT)}  # fmt: skip
    run = [sys.executable, "-X", "importtime", "-m", "benchmark"]
    done = subprocess.run(run, cwd=folder, env={**os.environ, **asks}, capture_output=True, text=True, timeout=300)
    assert "| torch\n" not in done.stderr  # a key must not take seconds
    return answer.read_text().split()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("python -m benchmark sta", ["status"]),
        ("python -m benchmark run --suite freyf", ["freyface"]),
        ("python -m benchmark run --suite tin", ["tiny.yaml"]),
        ("python -m benchmark run --suite tiny.yaml --tasks ", ["board"]),
        ("python -m benchmark run --suite tiny.yaml --methods ", ["bidsm", "cd"]),
        ("python -m benchmark tune --suite grbm --preset q", ["quick"]),
        ("python -m benchmark run --suite nothing.yaml --preset ", []),
    ],
)
def test_completions(tmp_path: Path, line: str, wanted: list[str]) -> None:
    write(tmp_path)
    found = completions(tmp_path, line)
    assert [one for one in found if not one.startswith("-") and one != "answer"] == wanted
