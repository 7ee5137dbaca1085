"""What people call beside a run that is under way: it shows, sends and reports what is there, and disturbs nothing."""

from pathlib import Path

import pytest

from reports.__main__ import main as reports
from tests.harness.faults import CELLS, SUITE, ended, exactly_once, progress, same_end, started, tracks, until
from tests.harness.tiny import command, records, replaced, write


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
def test_status_sync_and_a_report_beside_a_run(tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, SUITE)
    store, other = (f"sqlite:///{tmp_path / name}.db" for name in ("mlflow", "other"))
    with started(tmp_path, "--tracking-uri", store) as process:
        until(process, lambda: progress(tmp_path) > 0 and tracks(tmp_path / "mlflow.db"))
        status = command(tmp_path, "status")
        assert process.poll() is None
        for one in (store, other):
            said = command(tmp_path, "sync", "--tracking-uri", one, "--log-models", "none")
            assert (said.code, said.err) == (0, "")
        code = reports(["build", "--tracking-uri", store, "--out", str(tmp_path / "report"), "--format", "md", "html"])
        said = ended(process)
    words = capsys.readouterr().err
    assert "Traceback" not in words
    assert code in (0, 1) or "has no finished cells" in words
    assert (status.code, status.err) == (1, "")
    assert " running" in status.out
    assert "stopped" not in status.out
    assert (said.code, said.err) == (0, "")
    same_end(tmp_path, whole)
    exactly_once(tmp_path, store)
    assert command(tmp_path, "sync", "--tracking-uri", other, "--log-models", "none").code == 0
    exactly_once(tmp_path, other)


@pytest.mark.long
def test_two_suites_in_one_run_directory(tmp_path: Path, whole: Path) -> None:
    write(tmp_path, SUITE)
    write(tmp_path, replaced(("suite: tiny", "suite: second")), "second.yaml")
    with started(tmp_path) as process:
        until(process, lambda: progress(tmp_path) > 0)
        second = command(tmp_path, "run", "--suite", "second.yaml")
        status = command(tmp_path, "status")
        first = ended(process)
    assert (second.code, second.err) == (0, "")
    assert (first.code, first.err) == (0, "")
    assert "suite second, preset test: 4 done" in status.out
    assert "suite tiny, preset test: " in status.out
    ours = [record for record in records(tmp_path) if record.suite == "tiny"]
    assert sorted((record.variant, record.seed, record.state) for record in ours) == sorted(
        (variant, seed, "done") for variant, seed in CELLS
    )
    assert command(tmp_path, "delete", "--suite", "second", "--yes").code == 0
    same_end(tmp_path, whole)
