"""The section Tuning has the numbers that were written to MLflow, and is there only where there are studies."""

import dataclasses
import io
import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow import MlflowClient
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.trial import TrialState

from benchmark.tasks.registry import methods
from benchmark.tracking.studies import StudyTracker
from bism.errors import InputError
from bism.hyperparameters import specs
from reports import document, html, latex, markdown, off_scale, pdf, terms
from reports.artefact import Artefact
from reports.artefacts import tuning_best, tuning_failures, tuning_front, tuning_importances, tuning_slices
from reports.sections import Report
from reports.store import Store
from reports.studies import Studies, Study, value
from tests.reports.stores import BOTH, Held, learning
from tests.reports.tuned import BIDSM, FD, LL, LR, PAIRS, POINTS, SECONDS, SPACE, STEPS, Trial, by_rate, params, write

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy


_SUITES = itertools.count()


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Studies of two tasks: log-likelihood (board), divergence and a pair of objectives (digits)."""
    found = f"sqlite:///{tmp_path_factory.mktemp('tuned')}/mlflow.db"
    write(found, "board", "bidsm", BIDSM)
    write(found, "digits", "dsm", by_rate(), objectives=[FD], directions=["minimize"], space=LR, preset="quick")
    write(found, "digits", "cd", PAIRS, objectives=[LL, SECONDS], directions=["maximize", "minimize"])
    return found


@pytest.fixture
def studies(uri: str) -> Studies:
    return Studies(Store(uri), "grbm")


def built(module: Any, studies: Studies) -> dict[str, Artefact]:
    return {artefact.name: artefact for artefact in module.build(studies)}


def one(trials: list[Trial], uri: str, **more: Any) -> Study:
    """A study in a suite of its own: a store takes seconds to make."""
    suite = f"suite{next(_SUITES)}"
    write(uri, "board", "bidsm", trials, suite=suite, **more)
    (study,) = Studies(Store(uri), suite).all
    return study


# --- the best ---------------------------------------------------------------------------------------------------------


def test_the_best_is_beside_the_papers(studies: Studies) -> None:
    row = built(tuning_best, studies)["best-board"].numbers.iloc[0]
    assert (row["method"], row["best"], row["trial"]) == ("BiDSM", 0.60, 3)
    assert (row["preset's best"], row["preset's variant"]) == (0.45, "BiDSM-5")
    assert row["difference"] == pytest.approx(0.15)
    counted = row[["trials", "complete", "pruned", "failed", "not ended"]].tolist()
    assert counted == [11, 6, 1, 3, 1]
    assert row["s of training"] == 2 + 4 + 3 + 2 + 1 + 2 + 2 + 0.5 + 2


def test_a_pruned_trial_is_never_the_best(studies: Studies) -> None:
    (study,) = studies.of("board")
    assert study.trials.set_index("trial").loc[4, [LL, "iteration"]].tolist() == [0.9, 400]
    best = study.best()
    assert best is not None
    assert best["trial"] == 3


def test_the_lowest_divergence_is_the_best_and_no_paper_is_no_difference(studies: Studies) -> None:
    table = built(tuning_best, studies)["best-digits"].numbers.set_index("method")
    assert table.loc["DSM", ["best", "trial", "objective"]].tolist() == [-5000.0, 0, FD]
    assert math.isnan(table.loc["DSM", "difference"])
    best = max(range(len(POINTS)), key=lambda i: POINTS[i][0])
    assert table.loc["CD", "best"] == POINTS[best][0]
    assert table.loc["CD", "preset's best"] == max(POINTS[0][0], POINTS[1][0])
    assert table.loc["CD", "s of training"] == pytest.approx(sum(5 + second for _, second in POINTS))


def test_hyperparameters_are_beside_the_papers(studies: Studies) -> None:
    artefact = built(tuning_best, studies)["best-values-board"]
    rows = artefact.numbers.set_index("name")
    assert rows["best"].to_dict() == params(0.002, k=7, n=10)
    assert rows["preset's"].to_dict() == params(0.001, alpha=0.001)
    assert rows.loc["unroll_steps", "end of range"] == "highest"
    assert rows.loc["lr", "searched"] == "0.0001 to 0.1, logarithmic"
    assert artefact.table is not None
    assert artefact.table.frame["hyper-parameter"].tolist()[0] == "learning rate of the model β"


@pytest.mark.parametrize(
    ("found", "searched", "said"),
    [
        (1e-4, SPACE["lr"], "lowest"),
        (0.09, SPACE["lr"], "highest"),
        (0.01, SPACE["lr"], ""),
        (0, SPACE["unroll_steps"], "lowest"),
        (5, SPACE["unroll_steps"], ""),
        ("sgd", {"type": "categorical", "choices": ["adam", "sgd"]}, ""),
        (3, {}, ""),
    ],
)
def test_ends_of_ranges(found: Any, searched: dict[str, Any], said: str) -> None:
    assert tuning_best.end(found, searched) == said


def test_values_have_the_type_that_was_searched() -> None:
    assert [value("5", SPACE["unroll_steps"]), value("7", SPACE["inner_steps"]), value("0.5", {})] == [5, 7, 0.5]
    assert value("True", {"type": "categorical", "choices": [True, False]}) is True
    assert value(None, {}) is value(math.nan, {}) is None
    assert value("same", {}) == "same"


def test_a_study_without_a_complete_trial_has_no_best(uri: str) -> None:
    study = one([BIDSM[4], BIDSM[7]], uri)
    assert study.best() is None
    assert math.isnan(tuning_best.best([study])["best"][0])
    assert tuning_best.settings([study]).empty
    assert tuning_slices.draw(study) is not None  # the pruned one


def test_a_study_without_a_trial_is_counted(uri: str) -> None:
    study = one([], uri)
    assert tuning_best.best([study])["trials"].tolist() == [0]
    assert tuning_slices.draw(study) is None
    assert isinstance(tuning_importances.importances(study), str)


def test_a_trial_with_two_runs_counts_once(uri: str) -> None:
    runs, client = write(uri, "board", "bidsm", BIDSM[:3], suite="again"), MlflowClient(uri)
    again = client.create_run(client.get_run(runs[2]).info.experiment_id, tags=client.get_run(runs[2]).data.tags)
    client.log_metric(again.info.run_id, LL, 0.7, step=STEPS)
    client.set_terminated(again.info.run_id)
    (study,) = Studies(Store(uri), "again").all
    assert study.trials[LL].tolist() == [0.40, 0.45, 0.55]  # as StudyTracker keeps the first


def test_a_trial_that_is_being_written_has_not_ended(uri: str) -> None:
    client = MlflowClient(uri)
    runs = write(uri, "board", "bidsm", BIDSM[:3], suite="writing")
    client.update_run(runs[2], status="RUNNING")
    (study,) = Studies(Store(uri), "writing").all
    assert tuning_best.best([study])[["best", "complete", "not ended"]].to_numpy().tolist() == [[0.45, 2, 1]]


def test_what_tune_writes_is_read(uri: str) -> None:
    """The same numbers through the writer itself."""
    space = {"lr": FloatDistribution(1e-4, 1e-1, log=True), "unroll_steps": CategoricalDistribution([0, 5])}
    given = optuna.create_study(study_name="real.board.bidsm", direction="maximize")
    given.set_user_attr("benchmark", {
        "suite": "real", "preset": "quick", "task": "board", "method": "bidsm", "steps": 20, "seeds": [1000, 1001],
        "objectives": [LL], "sampler": "TPESampler", "pruner": "MedianPruner", "data": None,
        "space": {name: distribution_to_json(where) for name, where in space.items()},
    })  # fmt: skip
    for state, end, said in (
        (TrialState.COMPLETE, 0.5, {"origin": "paper", "variant": "BiDSM-5", "train_seconds": 3.0}),
        (TrialState.COMPLETE, 0.7, {"train_seconds": 4.0}),
        (TrialState.PRUNED, None, {"train_seconds": 1.0}),
        (TrialState.FAIL, None, {"reason": "no memory"}),
    ):
        given.add_trial(optuna.trial.create_trial(
            state=state, value=end, params={"lr": 0.01, "unroll_steps": 5}, distributions=space, user_attrs=said,
            intermediate_values={10: 0.9} if state != TrialState.FAIL else {},
        ))  # fmt: skip
    assert StudyTracker(uri).sync(given)
    (study,) = Studies(Store(uri), "real").all
    row = tuning_best.best([study]).iloc[0]
    assert row[["best", "trial", "preset's best", "preset's variant"]].tolist() == [0.7, 1, 0.5, "BiDSM-5"]
    assert row[["complete", "pruned", "failed", "not ended", "s of training"]].tolist() == [2, 1, 1, 0, 8.0]
    assert study.trials[["iteration", LL]].to_numpy()[2].tolist() == [10, 0.9]
    assert tuning_best.settings([study])["best"].tolist() == [0.01, 5]
    assert tuning_best.settings([study])["searched"].tolist() == ["0.0001 to 0.1, logarithmic", "0, 5"]
    assert tuning_failures.reasons([study]).to_numpy().tolist() == [["BiDSM", "no memory", 1, "3"]]


# --- importances ------------------------------------------------------------------------------------------------------


def test_what_decides_is_important(studies: Studies) -> None:
    artefact = built(tuning_importances, studies)["importances-digits"]
    found = artefact.numbers[artefact.numbers["method"] == "DSM"].set_index("name")["importance"]
    assert found["lr"] > 0.9
    assert found.sum() == pytest.approx(1)
    assert artefact.figure is not None
    assert [axes.get_title() for axes in artefact.figure.axes] == ["CD", "DSM"]


def test_the_direction_is_heeded_and_a_divergence_is_the_worst(uri: str) -> None:
    """Only low rates are good; those that were NaN would otherwise be left out, or be the best."""
    trials = by_rate(20)
    bad = [dataclasses.replace(trial, values=[math.nan]) for trial in trials[10:]]
    study = one([*trials[:10], *bad], uri, objectives=[FD], directions=["minimize"], space=LR)
    costs = tuning_importances._costs(study)
    assert costs.tolist() == [i - 5000.0 for i in range(10)] + [-4990.0] * 10


def test_few_trials_and_equal_values_have_no_importances(studies: Studies, uri: str) -> None:
    assert "importances-board" not in built(tuning_importances, studies)
    (study,) = studies.of("board")
    assert tuning_importances.importances(study) == "6 complete trials, and 10 are needed"
    equal = one([dataclasses.replace(trial, values=[1.0]) for trial in by_rate()], uri, space=LR)
    assert tuning_importances.importances(equal) == "all values are equal"


def test_what_is_left_out_of_the_importances_is_said(uri: str) -> None:
    write(uri, "board", "dsm", by_rate(), objectives=[FD], directions=["minimize"], space=LR, suite="both")
    write(uri, "board", "bidsm", BIDSM, suite="both")
    caption = built(tuning_importances, Studies(Store(uri), "both"))["importances-board"].caption
    assert "Left out: BiDSM (6 complete trials, and 10 are needed)." in caption


def test_the_papers_values_outside_of_the_search_do_not_break_it(uri: str) -> None:
    study = one([*by_rate(10), Trial({"lr": 5.0, "k": 2}, [1.0], variant="CD-2")], uri, space=LR)
    assert isinstance(tuning_importances.importances(study), dict)
    assert tuning_slices.draw(study) is not None


# --- slices -----------------------------------------------------------------------------------------------------------


def test_slices_show_every_trial_that_has_a_value(studies: Studies) -> None:
    artefact = built(tuning_slices, studies)["slices-bidsm-board"]
    assert artefact.figure is not None
    panels = {axes.get_xlabel().replace("\n", " ").replace("\u00a0", " "): axes for axes in artefact.figure.axes}
    assert list(panels) == ["learning rate of the posterior α", "learning rate of the model β", "inner steps K",
                            "unrolled steps N"]  # fmt: skip
    lr = panels["learning rate of the model β"]
    assert lr.get_xscale() == "log"
    assert panels["inner steps K"].get_xscale() == "linear"
    assert [text.get_text() for text in panels["unrolled steps N"].get_xticklabels()] == ["0", "1", "2", "5", "10"]

    def points(marker: str, filled: bool) -> set[tuple[float, float]]:
        return {
            (round(float(x), 6), round(float(y), 6)) for line in lr.lines
            if line.get_marker() == marker and (line.get_markerfacecolor() != "none") == filled
            for x, y in line.get_xydata()
        }  # fmt: skip

    assert points("o", True) == {(0.1, 0.55), (0.002, 0.6)}
    assert points("*", True) == {(0.001, 0.4), (0.001, 0.45)}
    assert (0.004, 0.9) in points("o", False)
    assert {x for x, _ in points("v", True)} == {0.09, 0.08}  # diverged: NaN and infinite
    low, _ = lr.get_ylim()
    assert all(low < y < 0.4 for _, y in points("v", True))


@pytest.mark.parametrize("high", [True, False])
def test_an_axis_leaves_out_what_is_far_from_the_best(high: bool) -> None:
    sign = 1.0 if high else -1.0
    values = sign * np.array([1.0, 0.9, 0.8, 0.7, -1e6, math.inf, math.nan])
    axis = off_scale.axis(values, [], high)
    assert axis is not None
    assert axis.beyond(values).tolist() == [False] * 4 + [True] * 3
    assert axis.low < min(0.7 * sign, 1.0 * sign)
    assert axis.high > max(0.7 * sign, 1.0 * sign)
    assert axis.low < axis.at < axis.high
    assert axis.high - axis.low < 1
    assert off_scale.axis([math.nan], [], high) is None
    assert off_scale.arrow(axis) == ("v" if high else "^")


# --- two objectives ---------------------------------------------------------------------------------------------------


def dominated(i: int) -> bool:
    first, second = POINTS[i]
    return any(a >= first and b <= second and (a > first or b < second) for a, b in POINTS)


def test_the_front_is_that_of_brute_force(studies: Studies) -> None:
    artefact = built(tuning_front, studies)["front-digits"]
    on = artefact.numbers[artefact.numbers["on the front"]]["trial"].tolist()
    assert on == [i for i in range(len(POINTS)) if not dominated(i)]
    assert len(artefact.numbers) == len(POINTS)
    assert artefact.table is not None
    assert set(artefact.table.frame["trial"]) == set(on)
    assert "front-board" not in built(tuning_front, studies)


@pytest.mark.parametrize("directions", list(itertools.product(["maximize", "minimize"], repeat=2)))
def test_the_front_in_all_directions(directions: tuple[str, str], uri: str, studies: Studies) -> None:
    (study,) = [study for study in studies.of("digits") if study.method == "cd"]
    turned = dataclasses.replace(study, maximise=[direction == "maximize" for direction in directions])
    signs = [1 if direction == "maximize" else -1 for direction in directions]
    points = [(signs[0] * first, signs[1] * (5 + second)) for first, second in POINTS]
    expected = [not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points) for x, y in points]
    assert tuning_front.front(turned).tolist() == expected
    tuning_front.draw([turned])


# --- what failed ------------------------------------------------------------------------------------------------------


def test_failures_are_grouped_by_their_reasons(studies: Studies) -> None:
    artefact = built(tuning_failures, studies)["failed-board"]
    assert artefact.numbers.to_numpy().tolist() == [
        ["BiDSM", "diverged at iteration …: not finite", 2, "7, 8"],
        ["BiDSM", "RuntimeError: no memory on cuda:0", 1, "9"],
    ]
    assert len(artefact.runs) == 3
    assert "failed-digits" not in built(tuning_failures, studies)


# --- the section ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return document.collect(Store(uri), tmp_path_factory.mktemp("fetched"), ["grbm"])


def test_all_forms_have_the_section(whole: Report, tmp_path: Path) -> None:
    (section,) = whole.sections
    assert section.title == "Suite grbm, Tuning"
    assert dict(section.facts)["trials"] == "53: 48 complete, 1 pruned, 3 failed"
    assert whole.missing == 0
    page, note = html.page(whole), 'they are no results. Those are the preset "tuned" of the suite.'
    assert note.replace('"', "&#34;") in page
    assert "grbm: Tuning</a>" in page
    document.write_files(whole, tmp_path, ["pdf", "png"])
    assert note in markdown.write(whole, tmp_path).read_text()
    assert r"\section{Suite grbm, Tuning}" in latex.write(whole, tmp_path).read_text()
    assert pdf.write(whole, tmp_path).read_bytes().startswith(b"%PDF")
    held = pd.read_csv(io.StringIO((tmp_path / "data" / "tuning-grbm-best-board.csv").read_text()))
    assert held["best"].tolist() == [0.60]
    names = [artefact.name for artefact in section.artefacts]
    assert len(set(names)) == len(names)


def test_tasks_and_presets_are_chosen(uri: str, tmp_path: Path) -> None:
    store = Store(uri)
    (section,) = document.collect(store, tmp_path, ["grbm"], tasks=["board"]).sections
    assert all(artefact.name.endswith("-board") for artefact in section.artefacts)
    (section,) = document.collect(store, tmp_path, ["grbm"], presets=["quick"]).sections
    assert dict(section.facts)["studies"] == "1"
    with pytest.raises(InputError, match=r"no finished cells of task none: it has .*grbm \(studies\)"):
        document.collect(store, tmp_path, tasks=["none"])


def test_without_studies_there_is_no_section(tmp_path: Path) -> None:
    found = document.collect(learning(Held(), BOTH), tmp_path)  # type: ignore[arg-type]
    assert [section.preset for section in found.sections] == ["paper"]
    assert "Tuning" not in html.page(found)


def test_several_studies_of_a_method_are_told_apart(uri: str, tmp_path: Path) -> None:
    write(uri, "board", "bidsm", BIDSM[:4], name="one", suite="several")
    write(uri, "board", "bidsm", BIDSM[:3], name="two", suite="several")
    (section,) = document.collect(Store(uri), tmp_path, ["several"]).sections
    assert section.artefacts[0].numbers["method"].tolist() == ["BiDSM (one)", "BiDSM (two)"]
    assert [artefact.name for artefact in section.artefacts][2:] == ["slices-bidsm-board", "slices-bidsm-board-2"]


def test_every_tuned_hyperparameter_has_its_name_and_symbol() -> None:
    for method in methods().values():
        for name, spec in specs(method).items():
            if spec.tune is not None:
                kept = {name: spec.symbol} if spec.symbol else {}  # as the runs have it
                assert terms.symbol(name, kept) == (spec.symbol or terms.hyperparameter(name)), name
                assert terms.hyperparameter(name) != name or "_" not in name, name


def test_reports_import_no_torch(uri: str, tmp_path: Path) -> None:
    command = ["build", "--tracking-uri", uri, "--out", str(tmp_path), "--format", "md"]
    command += ["--suite", "grbm", "--task", "digits"]
    code = f"import sys, reports.__main__ as main\nmain.main({command!r})\nsys.exit('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr[-2000:]
