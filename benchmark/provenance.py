"""With which code, on which machine."""

import functools
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


@functools.cache
def git_commit() -> str:
    """The commit of this code, or "unknown"."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # no git here, or an installed package
        return "unknown"
    return answer.stdout.strip()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def trained_with(commit: str | None) -> dict[str, str]:
    """What a cell was trained with, and where. commit: of the code, where this process cannot know it."""
    return {
        "host": platform.node(),
        "git_commit": commit or git_commit(),
        "python_version": platform.python_version(),
        "torch_version": version("torch"),
    }


def machine(device: str) -> dict[str, str]:
    """What a timing was taken on."""
    if device == "cpu":
        name = f"{_processor()}, {cores()} cores"
    else:
        import torch

        name = torch.cuda.get_device_name(device)
    return {"machine": name, "torch": version("torch"), "python": platform.python_version(), "commit": git_commit()}


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    for line in file.read_text().splitlines() if file.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
