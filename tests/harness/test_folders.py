"""Caches of users who have no home that they can write."""

import os
import warnings
from pathlib import Path

import pytest

from benchmark.commands import doctor
from benchmark.data import files
from benchmark.records.cells import write_atomically
from benchmark.system import folders
from benchmark.system.folders import cache_folder, can_be_written
from bism.errors import InputError


@pytest.fixture(autouse=True)
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home that is a file, so that root cannot write in it either; returns the place for temporary files."""
    for variable in (folders.CACHE_VARIABLE, files.DATA_VARIABLE, *folders._OTHERS):
        monkeypatch.setenv(variable, "")  # so that what is set inside is put back
        monkeypatch.delenv(variable)
    (tmp_path / "home").write_text("")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def found() -> Path:
    with pytest.warns(UserWarning, match=r"home/.cache/bism cannot be written: .*BISM_CACHE"):
        return cache_folder()


def test_the_folder_is_private_and_said_once_for_all_processes(homeless: Path) -> None:
    folder = found()
    assert folder == homeless / f"bism-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache_folder() == folder
        assert files.data_folder() == folder / "data"
    for variable in ("BISM_CACHE", "MPLCONFIGDIR", "TRITON_CACHE_DIR", "TORCH_HOME", "XDG_CACHE_HOME"):
        assert Path(os.environ[variable]).is_relative_to(folder)


def test_the_same_folder_is_found_again(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = found()
    for variable in (folders.CACHE_VARIABLE, *folders._OTHERS):  # another command
        monkeypatch.delenv(variable)
    assert found() == first


@pytest.mark.parametrize("trap", ["open", "link", "file", "foreign"])
def test_what_another_user_has_put_in_its_place_is_not_taken(
    homeless: Path, trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = homeless / f"bism-{os.getuid()}"
    if trap == "open":
        place.mkdir()
        place.chmod(0o777)
    elif trap == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
    elif trap == "file":
        place.write_text("")
    else:
        ours = os.getuid()
        monkeypatch.setattr("os.getuid", lambda: ours + 1)  # so that what we make is another's
        place = homeless / f"bism-{ours + 1}"
        place.mkdir(mode=0o700)
    folder = found()
    assert folder != place
    assert folder.parent == homeless
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(place.iterdir() if place.is_dir() else ())


def test_what_the_user_names_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BISM_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_data_in_a_home_that_can_only_be_read_are_read_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache/bism/data").mkdir(parents=True)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert files.data_folder() == tmp_path / ".cache/bism/data"


def test_no_place_at_all_is_one_message(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(homeless / "nowhere"))
    with pytest.raises(InputError, match=r"no folder for caches can be made: .*BISM_CACHE names one"):
        cache_folder()


def test_a_home_that_nobody_knows_is_no_folder_here() -> None:
    assert not can_be_written(Path("~/.cache/bism"))


def test_the_doctor_has_a_line_for_it(homeless: Path, tmp_path: Path) -> None:
    what, works, detail = doctor._caches()
    assert (what, works) == ("caches", True)
    assert f"{homeless}/bism-{os.getuid()}, since {tmp_path}/home/.cache/bism cannot be written" in detail


def test_a_file_that_could_not_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the old file stays, and no half of the new one beside it."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("old")
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(folder / "a", "new")
    assert {file.name: file.read_text() for file in folder.iterdir()} == {"a": "old"}
