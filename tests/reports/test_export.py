"""Results as files by the commands: exported, drawn beside one's own, and from training to a file and back."""

import gzip
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from benchmark.records import reference as files
from bism.errors import InputError
from reports import document, export, markdown, reference
from reports.__main__ import main
from reports.reference import Beside, ReferenceStore
from reports.results import NoCellsError
from reports.store import Store
from tests.harness.tiny import command, write
from tests.reports.stores import BOTH, Held, learning
from tests.reports.test_reference import MINE, exported, opened, stored

# --- the commands -----------------------------------------------------------------------------------------------------


def test_the_shipped_results_are_drawn_without_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    monkeypatch.setattr(files, "SHIPPED", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    exported(stored(), tmp_path / "shipped")
    assert main(["build", "--reference", "--out", str(tmp_path / "out"), "--format", "md"]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "results of others (reference)" in text
    assert "CD-10" in text
    assert capsys.readouterr().err.count("Traceback") == 0


def test_files_of_several_people_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # and no mlflow.db here
    paths = [str(exported(stored(), tmp_path, name)) for name in ("ann:1", "a$x_{$b")]
    assert main(["build", "--reference", *paths, "--out", str(tmp_path / "out"), "--format", "md"]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "CD-10 (ann:1)" in text
    assert "CD-10 (a$x_{$b)" in text
    assert set(pd.read_csv(tmp_path / "out" / "data" / "grbm-paper-figure3-board.csv")["variant"]) == {
        f"{variant} ({whose})" for variant in BOTH for whose in ("ann:1", "a$x_{$b")
    }  # of all there are curves


def test_files_that_cannot_be_are_said_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    path = exported(stored(), tmp_path)
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(path.read_bytes()[:-9])
    unnamed, no_text = (shutil.copy(path, tmp_path / name) for name in (files.ENDING, f"\udcff{files.ENDING}"))
    for given, words in (
        ([str(cut)], "it was cut"),
        ([str(unnamed)], "has none that can be printed: rename it"),
        ([str(no_text)], "'\\udcff.jsonl.gz' has none that can be printed: rename it"),
        ([str(path), str(path)], "two files are called"),
        (["no"], "no such"),
    ):
        assert main(["build", "--reference", *given, "--out", str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert words in said
    monkeypatch.setattr(files, "SHIPPED", tmp_path / "nothing")
    assert main(["build", "--reference", "--out", str(tmp_path / "out")]) == 2
    assert "ships no results" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_exports_and_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    held = stored()
    monkeypatch.setattr("reports.store.Store", lambda uri: held)
    assert main(["export", "--suite", "grbm"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("grbm-paper.jsonl.gz: 12 cells of 4 variants in ")
    assert files.read(Path("grbm-paper.jsonl.gz")).header.cells == 12
    first = Path("grbm-paper.jsonl.gz").read_bytes()
    assert main(["export", "--suite", "grbm", "--out", "again.gz"]) == 0
    assert Path("again.gz").read_bytes() == first
    assert main(["export", "--suite", "grbm", "--out", "no/such/folder/a.gz"]) == 2
    assert main(["export", "--suite", "grbm", "--points", "50"]) == 2
    assert "--points must be at least 51" in capsys.readouterr().err


def test_a_report_names_the_files_that_it_was_drawn_from(tmp_path: Path) -> None:
    path = exported(stored(), tmp_path)
    held = ReferenceStore({("grbm", "paper"): path, ("grbm", "quick"): tmp_path / "quick.jsonl.gz"}, "theirs")
    assert held.uri == "theirs: grbm-paper.jsonl.gz, quick.jsonl.gz"  # nothing was asked for yet
    held.cells("grbm", "paper")
    assert held.uri == "theirs: grbm-paper.jsonl.gz"


def test_every_form_of_the_report_shows_results_of_others(tmp_path: Path) -> None:
    both = reference.beside(stored(), [opened(exported(stored(), tmp_path))], everything=False)  # type: ignore[arg-type]
    report = document.collect(both, tmp_path)
    assert "reference: grbm-paper.jsonl.gz" in report.uri
    document.write_files(report, tmp_path, ["png", "svg", "pdf"])
    text = markdown.write(report, tmp_path).read_text()
    assert "Your own and the results of others" in text


# --- from training to a file and back ---------------------------------------------------------------------------------


@pytest.mark.long
def test_what_was_trained_is_exported_drawn_and_compared_with(tmp_path: Path) -> None:
    """Through MLflow: a run, its export, a report without a store, and a method placed among it."""
    write(tmp_path)
    write(tmp_path, MINE, "mine.py")
    at = f"sqlite:///{tmp_path}/mlflow.db"
    assert command(tmp_path, "run", "--suite", "tiny.yaml", "--seeds", "0-2", "--tracking-uri", at).code == 0
    path = tmp_path / f"ours{files.ENDING}"
    assert main(["export", "--suite", "tiny", "--tracking-uri", at, "--out", str(path)]) == 0
    store, found = Store(at), ReferenceStore({("tiny", "test"): path})
    ours, theirs = store.cells("tiny", "test"), found.cells("tiny", "test")
    metrics = sorted(name for name in ours if "/" in str(name))
    pd.testing.assert_frame_equal(ours[metrics], theirs[metrics])
    for name in ("machine", "data_hash", "git_commit", "torch_version", "param.lr", "select", "symbols"):
        assert list(ours[name]) == list(theirs[name])
        assert (theirs[name] != "").all(), name
    assert set(files.read(path).header.commands) == {"python -m benchmark run --suite tiny.yaml --seeds 0-2"} or (
        files.read(path).header.commands == ["python -m benchmark run --suite tiny --preset test"]
    )  # the test's process was not called as a command
    out = str(tmp_path / "out")
    assert main(["build", "--reference", str(path), "--tracking-uri", "none", "--out", out, "--format", "md"]) == 0
    said = command(tmp_path, "compare", "--suite", "tiny.yaml", "--plugin", "mine.py", "--reference", str(path),
                   "--tracking-uri", at)  # fmt: skip
    assert (said.code, said.err) == (0, "")
    assert "Mine is " in said.out
    assert main(["build", "--reference", str(path), "--tracking-uri", at, "--out", out, "--format", "md"]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    for name in ("Mine", "CD-1 (ours)", "BiDSM-5 (ours)"):
        assert f"| {name} " in text


def test_claims_are_judged_by_files_in_the_place_of_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["claims", "--suite", "rbm", "--reference"]) == 2  # no claim needs it
    assert "no claim needs runs of a suite 'rbm'" in capsys.readouterr().err
    quick = files.shipped()["grbm", "quick"]
    assert main(["claims", "checkerboard-bidsm-dsm", "--format", "json", "--reference", str(quick)]) == 1
    said = capsys.readouterr()
    (judged,) = json.loads(said.out)["claims"]
    assert judged["verdict"] == "not measured"  # it needs the preset paper
    assert said.err == (
        "none of these claims is measured by reference: grbm-quick.jsonl.gz: it has grbm quick, and they need grbm "
        "paper\n"
    )
    assert main(["claims", "--reference", "--tracking-uri", "sqlite:///mlflow.db"]) == 2
    assert "give one of the two" in capsys.readouterr().err
    assert main(["claims", "--reference", "theorem1"]) == 2
    assert "theorem1 is a claim, and after --reference come files: name claims before it" in capsys.readouterr().err
    again = shutil.copy(quick, tmp_path / "again.jsonl.gz")
    assert main(["claims", "--reference", str(again), str(quick)]) == 2
    assert "are both of suite grbm, preset quick: give one" in capsys.readouterr().err


def test_a_file_that_was_altered_is_said_and_not_taken_for_one_without_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its first line is sound, and the damage is found where its cells are read."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    path = exported(stored(), tmp_path)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'"seed":1', b'"seed":0', 1)))
    for words in (["claims"], ["build", "--out", str(tmp_path / "out")]):
        assert main([*words, "--reference", str(path)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "its content is not what was exported" in said.err
    with pytest.raises(InputError, match="not what was exported"):
        document.collect(Beside(stored(), [opened(path)]), tmp_path)


def test_a_file_that_nothing_is_taken_from_is_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("reports.store.Store", lambda uri: stored())  # which has no such preset
    held, path = learning(Held(), BOTH, preset="mine"), tmp_path / "mine.jsonl.gz"  # nor has a claim
    export.export(held, "grbm", "mine", path)  # type: ignore[arg-type]
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'"seed":1', b'"seed":0', 1)))
    for words in (["claims"], ["build", "--tracking-uri", "sqlite:///:memory:", "--out", str(tmp_path / "out")]):
        assert main([*words, "--reference", str(path)]) == 2
        assert "its content is not what was exported" in capsys.readouterr().err


def test_a_plan_without_cells_leaves_those_of_others(tmp_path: Path) -> None:
    class Planned(Held):
        def cells(self, suite: str, preset: str) -> pd.DataFrame:
            raise NoCellsError("none is left")

    own = Planned()
    own.rows = stored().rows
    found = Beside(own, [opened(exported(stored(), tmp_path))]).cells("grbm", "paper")
    assert set(found["source"]) == {"reference"}
    with pytest.raises(NoCellsError):
        Beside(own, []).cells("grbm", "paper")
