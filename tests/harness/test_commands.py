"""The commands beside run: status, list, doctor and what a run says of them."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.harness.tiny import (
    CORES,
    ROOT,
    RUN,
    TINY,
    WRONG_METHODS,
    Said,
    called,
    command,
    replaced,
    write,
)

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "none"}  # of other processes
SECONDS = 300  # the longest that anything here may take


def test_status_of_a_finished_run(trained: tuple[Path, Said]) -> None:
    said = command(trained[0], "status")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "suite tiny, preset test: 4 done"
    assert lines[1].strip() == "board: preset test"
    rows = [line for line in lines if line.startswith("│")]
    assert rows == [line for line in trained[1].out.splitlines() if line.startswith("│")]


def test_status_of_several_presets(folder: Path) -> None:
    other = TINY + TINY[TINY.index("  test:") :].replace("  test:", "  more:", 1)
    write(folder, other)
    assert command(folder, *RUN, "--preset", "more", "--methods", "cd", "--seeds", "4").code == 0
    said = command(folder, "status")
    assert said.code == 0
    assert "suite tiny, preset test: 4 done\n" in said.out
    assert "suite tiny, preset more: 1 done\n" in said.out


def test_status_ranks_other_numbers_of_iterations_apart_and_keeps_the_label(folder: Path) -> None:
    write(folder, replaced(("two methods", "two methods\n    label: a smoke ranking, [not] a result")))
    assert command(folder, *RUN, "--methods", "cd", "--steps", "5").code == 0
    said = command(folder, "status")
    titles = [line.strip() for line in said.out.splitlines() if line.strip().startswith("board")]
    assert titles == ["board: preset test", "board, 5 iterations: preset test, a smoke ranking, [not] a result"]
    first, second = said.out.split(titles[1])
    assert "steps=5" not in first
    assert "CD-1 [steps=5]" in second
    assert "BiDSM" not in second


def test_status_does_not_average_what_a_changed_suite_file_trained(folder: Path) -> None:
    write(folder, replaced(("{lr: 0.01}", "{lr: 0.02}")))
    assert command(folder, *RUN, "--methods", "cd").code == 0
    said = command(folder, "status")
    rows = [line.split("│")[1:] for line in said.out.splitlines() if line.startswith("│ CD-1")]
    assert [row[4].strip() for row in rows] == ["2", "2"]


@pytest.mark.parametrize("arguments", [[], ["--run-dir", "elsewhere"]])
def test_status_of_no_run_directory(tmp_path: Path, arguments: list[str]) -> None:
    said = command(tmp_path, "status", *arguments)
    place = arguments[-1] if arguments else "runs"
    assert (said.code, said.out) == (2, "")
    makes = called(tmp_path, "run")
    assert said.err == f"error: {place}: no run directory; `{makes}` makes one, --run-dir names another\n"
    assert not (tmp_path / place).exists()


def test_sync_and_ui_need_a_store(folder: Path) -> None:
    assert command(folder, "sync").err == "error: sync needs a tracking store, and --tracking-uri is none\n"
    assert command(folder, "ui").err == "error: ui needs a tracking store, and --tracking-uri is none\n"
    assert command(folder, "sync").code == command(folder, "ui").code == 2


def test_list_shows_suites_methods_and_hyper_parameters(tmp_path: Path) -> None:
    write(tmp_path, WRONG_METHODS, "wrong.py")
    said = command(tmp_path, "list", "--plugin", "wrong.py")
    assert (said.code, said.err) == (0, "")
    for text in (
        "suite grbm: Gaussian restricted Boltzmann machines",
        "  task checkerboard: The paper's 2 x 2 checkerboard",
        "  preset paper (default): the paper's settings",
        "  preset quick: one variant per method",
        "Bao et al. 2020, eq. 4 and 8-15",
        "unroll_steps (N) = 5: unrolled steps on the",
        "sigma (σ) = 0.05: standard deviation of the",
        "│ raises ",
    ):
        assert text in said.out, text
    assert "searched" not in said.out
    shared = ("beta1 = 0.9", "learning rate of the model")
    assert [said.out.count(text) for text in shared] == [1, 1]


@pytest.mark.parametrize("columns", ["60", "80", "140"])
def test_list_shows_a_suite_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    without = "        steps: 20\n        without: {nce: its noise is far from these points}"
    more = "- {method: cd, set: {k: [1, 20]}}\n          - {method: cd, set: {lr: [0.03, 0.1]}}"
    write(tmp_path, replaced(("        steps: 20", without), ("- {method: cd}", more)))
    said = command(tmp_path, "list", "tiny.yaml")
    assert (said.code, said.err) == (0, "")
    assert max(map(len, said.out.splitlines())) <= int(columns)
    text = " ".join(said.out.replace("│", " ").split())
    for part in ("suite tiny: a tiny suite", "task board: points of the checkerboard", "model grbm hidden=3", "0-1",
                 "preset test (default): two methods", "CD-1", "CD-20", "k=20", "[β=0.03]", "[β=0.1]", "BiDSM-5",
                 "β=0.01", "20",                 "board: without nce: its noise is far from these points"):  # fmt: skip
        assert part in text, part
    assert "methods" not in text.replace("two methods", "")


def test_list_names_the_choices_of_a_hyper_parameter_and_the_model_of_a_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write(tmp_path, replaced(("- {method: bidsm}", "- {method: bidsm, model: {name: mlp_eblvm, hidden: 2, width: 3}}"),
                             ("hidden: 3}", "hidden: 3}\n    metrics: [log_likelihood]")))  # fmt: skip
    assert "model=mlp_eblvm, hidden=2, width=3" in command(tmp_path, "list", "tiny.yaml").out
    text = " ".join(command(tmp_path, "list").out.replace("│", " ").split())
    assert "hypergradient = unroll (or implicit, neumann): through N" in text
    assert "covariance = unbiased (or biased, none): of the scores" in text


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmark.commands.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("bism-benchmark ")


def test_a_run_says_what_to_look_at_next(tmp_path: Path) -> None:
    other = TINY[TINY.index("  test:\n") :].replace("  test:", "  small:").replace("steps: 20", "steps: 3")
    write(tmp_path, TINY + other)
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--preset", "small")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[-2:] == [
        "what to look at next:",
        f"  train two methods: {called(tmp_path, 'run --suite tiny.yaml --preset test')} "
        + said.out.splitlines()[-1].partition("--preset test ")[2],
    ]
    assert re.search(r"\(about \d+ s, by what has been trained here\)$", said.out.splitlines()[-1])
    elsewhere = ("--run-dir", "the other", "--tracking-uri", "sqlite:///mine.db")
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--preset", "small", *elsewhere)
    assert f"run --suite tiny.yaml --preset test {shlex.join(elsewhere)} (" in said.out.splitlines()[-1]
    main_preset = command(tmp_path, "run", "--suite", "tiny.yaml", "--methods", "cd")
    assert "what to look at next" not in main_preset.out


def test_list_shows_the_search_spaces(tmp_path: Path) -> None:
    said = command(tmp_path, "list", "--spaces")
    rows = {tuple(part.strip() for part in line.split("│")[1:5]) for line in said.out.splitlines()}
    wanted = {
        ("bidsm", "lr", "β", "0.0001 to 0.1, logarithmic"),
        ("bidsm", "inner_steps", "K", "0 to 20"),
        ("bidsm", "unroll_steps", "N", "0, 1, 2, 5, 10"),
        ("cd", "k", "k", "1, 2, 5, 10, 20"),
    }
    assert wanted <= rows


def test_the_doctor_says_what_works(tmp_path: Path) -> None:
    said = command(tmp_path, "doctor", "--data-dir", str(tmp_path / "data"), "--run-dir", "there")
    found = {
        line[4:26].strip(): (line[:4].strip(), line[26:].strip()) for line in said.out.splitlines() if line[:4].strip()
    }
    assert (said.code, said.err) == (0, "")
    assert found["torch"] == ("ok", torch.__version__)
    assert found["cores"] == ("ok", f"{CORES} for this process, so as many jobs at once")
    assert found["tracking store"] == ("ok", "none: the run directory alone")
    assert found["run directory"][0] == "ok"
    assert found["data set digits"] == ("ok", "1297/250/250, sha256 58d7e865c6ec, bundled with scikit-learn")
    for name in ("freyface", "mnist", "cifar10"):
        assert found[f"data set {name}"][0] == "no"
        assert found[f"data set {name}"][1].startswith("missing; to fetch it: ")
        assert called(tmp_path, f"data download {name}") in " ".join(said.out.split())  # over two lines
    assert not (tmp_path / "there").exists()


def test_the_doctor_finds_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.commands import doctor

    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "a-package-that-is-not-there"))
    monkeypatch.setenv("CXX", "no-compiler")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(doctor, "CATALOGUE", {})
    lines = {what: (works, detail) for what, works, detail in doctor.examine(None, tmp_path, "none")}
    missing = "a-package-that-is-not-there"
    assert lines[missing] == (False, f"not installed: pip install {missing}")
    assert lines["C++ compiler"][0] is False


def test_mlflow_is_not_imported_where_tracking_is_off(trained: tuple[Path, Said]) -> None:
    code = (
        "import json, sys; from benchmark.commands.cli import main\n"
        "code = main(['run', '--suite', 'tiny.yaml', '--tracking-uri', 'none'])\n"
        "print(json.dumps([code, 'mlflow' in sys.modules, 'benchmark.running.supervisor' in sys.modules]))"
    )
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=trained[0], env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.stderr == ""
    assert json.loads(done.stdout.splitlines()[-1]) == [0, False, True]
    assert not list(trained[0].glob("mlflow*"))
