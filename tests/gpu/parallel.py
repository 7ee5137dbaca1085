"""Python processes side by side, each with a time of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import psutil

from tests.harness.tiny import ROOT


def python(arguments: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Runs Python in the tree's root; its exit code and what it said. After so many seconds it is killed, with what it
    has started: the code is then 124."""
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    with subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    ) as process:  # fmt: skip
        try:
            said = process.communicate(timeout=seconds)[0]
            return process.returncode, said
        except subprocess.TimeoutExpired:
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                one.kill()
            return 124, process.communicate()[0]


def side_by_side(
    commands: Sequence[Sequence[str]], seconds: float, at_once: int, environment: Mapping[str, str] | None = None
) -> list[tuple[int, str]]:
    """``python`` of each, so many at once."""
    with ThreadPoolExecutor(max(1, at_once)) as pool:
        return list(pool.map(lambda arguments: python(arguments, seconds, environment), commands))
