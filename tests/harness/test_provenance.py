"""How many cores there are, and which code this is."""

import math
import os
import subprocess
from pathlib import Path

import pytest

from benchmark.records import provenance
from benchmark.records.provenance import cores, git_commit, quota


def made(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
          "sys/fs/cgroup/a/cpu.max": "150000 50000\n"}, 3.0),
        ({"proc/self/cgroup": "0::/seen/from/outside\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        ({"proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/docker/1\n",
          "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "400000\n",
          "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"proc/self/cgroup": "1:cpu:/docker/1\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "garbage\n"}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "cpu.max": "100000 100000\n"}, math.inf),  # outside the mount
    ],
)  # fmt: skip
def test_the_quota_of_a_control_group(tmp_path: Path, files: dict[str, str], expected: float) -> None:
    assert quota(made(tmp_path, files)) == expected


@pytest.mark.parametrize(("given", "expected"), [(0.5, 1), (1.0, 1), (2.9, 2), (7.0, 4), (math.inf, 4)])
def test_cores_are_those_that_are_allowed(monkeypatch: pytest.MonkeyPatch, given: float, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setattr(provenance, "quota", lambda: given)
    assert cores() == expected


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This module as it would lie in a folder of somebody's, under version control of theirs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "project" / "benchmark" / "records" / "provenance.py"))
    (tmp_path / "project" / "benchmark" / "records").mkdir(parents=True)
    git_commit.cache_clear()
    return tmp_path / "project"


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def commit(folder: Path) -> str:
    git(folder, "init")
    git(folder, "commit", "--allow-empty", "--message", "one")
    return subprocess.check_output(["git", "-C", str(folder), "rev-parse", "HEAD"], text=True).strip()


def test_the_commit_is_this_code_s_and_no_one_else_s(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert git_commit() == "unknown"  # no repository
    commit(copied.parent)
    git_commit.cache_clear()
    assert git_commit() == "unknown"  # installed somewhere within another's
    ours = commit(copied)
    git_commit.cache_clear()
    assert git_commit() == ours
    git_commit.cache_clear()
    assert capfd.readouterr().err == ""


def test_a_hook_s_repository_is_not_ours(copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = commit(copied)
    (tmp_path / "other").mkdir()
    commit(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert git_commit() == ours
    git_commit.cache_clear()


def test_no_git_and_a_repository_that_git_calls_dubious(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    commit(copied)
    if os.getuid() == 0:
        os.chown(copied, 12345, 12345)
        os.chown(copied / ".git", 12345, 12345)
        git_commit.cache_clear()
        assert git_commit() == "unknown"
    monkeypatch.setenv("PATH", "")
    git_commit.cache_clear()
    assert git_commit() == "unknown"
    git_commit.cache_clear()
    assert capfd.readouterr() == ("", "")
