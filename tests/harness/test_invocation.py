"""Commands that users are to paste name an interpreter that their shell finds."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.system import invocation


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment below the working directory that is not activated; its interpreter is a link, as venv makes it."""
    (tmp_path / "my env" / "bin").mkdir(parents=True)
    ours = tmp_path / "my env" / "bin" / "python"
    ours.symlink_to(Path(sys.executable).resolve())
    monkeypatch.setattr(sys, "executable", str(ours))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    return ours


def test_an_interpreter_below_the_working_directory_is_written_relative_to_it(environment: Path) -> None:
    assert invocation.call("benchmark", "ui") == "'my env/bin/python' -m benchmark ui"
    said = subprocess.run(f"{invocation.python()} -c 'print(1)'", shell=True, capture_output=True, text=True)
    assert said.stdout == "1\n"


def test_one_elsewhere_is_written_whole(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (environment.parents[2] / "other").mkdir()
    monkeypatch.chdir(environment.parents[2] / "other")
    assert invocation.python() == f"'{environment}'"
    monkeypatch.chdir(environment.parent)
    assert invocation.python() == "./python"  # not the one that a search would find


def test_one_that_the_shell_finds_by_its_name_is_called_by_it(
    environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(environment.parent))  # activated
    assert invocation.python() == "python"
    environment.rename(environment.with_name("python3"))
    monkeypatch.setattr(sys, "executable", str(environment.with_name("python3")))
    assert invocation.python() == "python3"


def test_the_same_program_of_another_environment_is_another_interpreter(
    environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "system").mkdir()
    (tmp_path / "system" / "python").symlink_to(environment.resolve())
    monkeypatch.setenv("PATH", str(tmp_path / "system"))
    assert invocation.python() == "'my env/bin/python'"
