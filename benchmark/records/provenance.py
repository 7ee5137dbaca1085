"""With which code, on which machine."""

import functools
import math
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

_GIT_SECONDS = 10.0  # on a file system that hangs


@functools.cache
def git_commit() -> str:
    """The commit of this code, or "unknown": no git, no repository or one that git calls dubious, or an installed
    package that lies within somebody else's."""
    root = Path(__file__).parents[2]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # of a hook, say
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"],
            capture_output=True, text=True, check=True, env=ours, stdin=subprocess.DEVNULL, timeout=_GIT_SECONDS,
        ).stdout.splitlines()  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return "unknown"
    return answer[1] if len(answer) == 2 and Path(answer[0]).resolve() == root.resolve() else "unknown"


def cores() -> int:
    """How many cores this process may use: those that it may run on, or fewer where its control group (a container, a
    batch system) gives it less time than they have."""
    may_run_on = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(may_run_on, quota())))


def quota(root: Path = Path("/")) -> float:
    """The cores' worth of time that the control groups of this process allow it; infinite where they do not say.

    root: of the file system that /proc and /sys are looked for in.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, UnicodeError):
        return math.inf
    found = [math.inf]
    for line in groups:
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if not controllers:  # version 2
            found += _quotas(root / "sys/fs/cgroup", path, "cpu.max")
        elif "cpu" in controllers.split(","):
            for mount in {controllers, "cpu"}:
                found += _quotas(root / "sys/fs/cgroup" / mount, path, "cpu.cfs_quota_us", "cpu.cfs_period_us")
    return min(found)


def _quotas(mount: Path, path: str, *names: str) -> Iterator[float]:
    """The quotas of a group and of all that it lies in. Within a container the mount is the group itself, whatever
    path the system gives it outside."""
    group = mount / path.strip("/")
    for folder in (group, *group.parents):
        if folder.is_relative_to(mount):
            try:
                allowed, period = " ".join((folder / name).read_text() for name in names).split()
                if allowed not in ("max", "-1"):
                    yield int(allowed) / int(period)
            except (OSError, ValueError, ZeroDivisionError):
                continue


def trained_with(commit: str | None, device: str = "cpu") -> dict[str, str]:
    """What a cell was trained with, and where. commit: of the code, where this process cannot know it."""
    return {
        "host": platform.node(),
        "machine": hardware(device),
        "git_commit": commit or git_commit(),
        "python_version": platform.python_version(),
        "torch_version": version("torch"),
    }


def machine(device: str) -> dict[str, str]:
    """What a timing was taken on."""
    return {
        "machine": hardware(device),
        "torch": version("torch"),
        "python": platform.python_version(),
        "commit": git_commit(),
    }


def hardware(device: str) -> str:
    """ "AMD EPYC, 2 cores", or the name of a GPU: what times depend on, and not whose machine it is."""
    if device == "cpu":
        count = cores()
        return f"{_processor()}, {count} core{'s' * (count > 1)}"
    import torch

    return str(torch.cuda.get_device_name(device))


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    for line in file.read_text().splitlines() if file.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
