"""Tuning: a known optimum, budgets, interruptions, and what is refused."""

import dataclasses
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from baselines import CD
from benchmark.data.datasets import DataSet, load
from benchmark.tasks import registry, spaces
from benchmark.tasks.suite_file import load_suite
from benchmark.tuning import export, leases
from benchmark.tuning import study as studies
from benchmark.tuning.export import tuned_suite
from benchmark.tuning.storage import open_storage
from bism import GRBM, BiDSM, InputError
from bism.engine import Trainer
from tests.harness.hill import PEAK, SUITE, TUNE, bench
from tests.harness.test_suite_files import METHODS, cells_of
from tests.harness.tiny import Said, called, command, everything, write


def tune(folder: Path, *more: str, suite: str = SUITE, methods: tuple[str, ...] = ("peak",)) -> Said:
    write(folder, suite, "hill.yaml")
    return command(folder, *TUNE, "--methods", *methods, *more)


@pytest.fixture(scope="module")
def data() -> DataSet:
    return load({"name": "checkerboard", "train": 500, "val": 200, "test": 200}, Path("none"))


def closed_form(data: DataSet, trial: optuna.trial.FrozenTrial) -> float:
    v, s = data.val.double(), math.exp(trial.params["width"])
    z = (v - trial.params["shift"]) / s
    return float((-0.5 * z.square() - math.log(s) - 0.5 * math.log(2 * math.pi)).sum(1).mean())


# --- the objective --------------------------------------------------------------------------------------------------


def test_a_known_optimum_is_found_by_validation_data_alone(tmp_path: Path, data: DataSet) -> None:
    """The values are those of the closed form on the validation data; the best is near its maximum."""
    one = bench(tmp_path, data, sampler="tpe")
    one.work(60)
    trials = one.trials(TrialState.COMPLETE)
    assert len(trials) == 60
    for trial in trials:
        assert trial.value == pytest.approx(closed_form(data, trial), rel=1e-5, abs=1e-5)
        assert trial.last_step == 18
        assert len(trial.intermediate_values) == 9
    best = one.study.best_trial
    v = data.val.double()
    assert best.params["shift"] == pytest.approx(float(v.mean()), abs=0.2)
    optimum = -math.log(2 * math.pi * float((v - v.mean()).square().mean())) - 1
    assert optimum - 0.3 < best.value <= optimum + 1e-3


def test_the_value_is_what_a_training_gives_averaged_over_the_tuning_seeds(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data, "bidsm")
    one.work(5)
    for trial in one.trials(TrialState.COMPLETE):
        estimator = BiDSM(lr=trial.params["lr"], **{k: v for k, v in trial.params.items() if k != "lr"})
        trainer = Trainer(estimator, GRBM(2, 3), data.train, seeds=[1000, 1001])
        trainer.run(18)
        expected = float(trainer.fitted().log_likelihood(data.val).mean())
        assert trial.value == pytest.approx(expected, rel=1e-3)
    paper = one.trials()[:2]
    assert [trial.user_attrs["variant"] for trial in paper] == ["BiDSM-0", "BiDSM-1"]
    assert [(trial.params["unroll_steps"], trial.params["inner_steps"]) for trial in paper] == [(0, 2), (1, 2)]
    assert {trial.params["lr"] for trial in paper} == {0.01}


def test_trials_of_one_structure_train_side_by_side(
    tmp_path: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bism.cohort import Cohort

    sizes, advance = list[int](), Cohort.advance
    monkeypatch.setattr(
        Cohort, "advance", lambda self, members, steps: (sizes.append(len(members)), advance(self, members, steps))
    )
    bench(tmp_path, data, enqueue=False, changes={"kind": 1}).work(16)
    assert set(sizes) == {8}


def test_a_best_validation_rule_takes_each_seed_s_best(tmp_path: Path, data: DataSet) -> None:
    text = SUITE.replace("    model: {name", "    rule: best_validation\n    model: {name")
    one = bench(tmp_path, data, "bidsm", text=text, changes={"lr": 0.1})
    one.work(3)
    for trial in one.trials(TrialState.COMPLETE):
        values = list(trial.intermediate_values.values())
        assert values == sorted(values)


def test_what_diverges_has_failed_and_says_so(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data, changes={"bad": 1}, enqueue=False)
    one.work(12)
    failed = one.trials(TrialState.FAIL)
    assert {trial.params["shift"] > 0.5 for trial in failed} == {True}
    assert {trial.params["shift"] > 0.5 for trial in one.trials(TrialState.COMPLETE)} == {False}
    assert failed[0].user_attrs["reason"] == (
        "diverged: seed 1000 was not finite at iteration 0; seed 1001 was not finite at iteration 0"
    )
    assert len(one.trials()) == 12


def test_what_raises_fails_its_trials_and_no_others(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data, changes={"bad": [0, 2]}, enqueue=False)
    one.work(12)
    reasons = {trial.user_attrs["reason"] for trial in one.trials(TrialState.FAIL)}
    assert reasons == {"RuntimeError: the method is broken"}
    assert {trial.params["bad"] for trial in one.trials(TrialState.COMPLETE)} == {0}
    assert any("trials failed: RuntimeError: the method is broken" in note for note in one.notes)


def test_what_exits_fails_its_trials_and_not_the_process(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data, changes={"bad": 3}, enqueue=False)
    one.work(2)
    assert [trial.user_attrs["reason"] for trial in one.trials(TrialState.FAIL)] == ["SystemExit: 0"] * 2
    assert any("trials failed: SystemExit: 0" in note for note in one.notes)


def test_values_that_do_not_go_together_fail_and_the_rest_goes_on(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data, changes={"x": "2.8..3.0", "kind": [2]}, enqueue=False)
    one.work(12)
    failed = one.trials(TrialState.FAIL)
    assert failed
    assert {trial.user_attrs["reason"] for trial in failed} == {"peak: shift must be at most 2.9 where kind is 2"}
    assert len(one.trials(TrialState.COMPLETE)) == 12 - len(failed)


# --- pruning and budgets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pruner", ["halving", "hyperband"])
def test_the_bad_are_pruned_and_the_paper_s_values_never(tmp_path: Path, data: DataSet, pruner: str) -> None:
    one = bench(tmp_path, data, pruner=pruner, text=SUITE.replace("x: 2.0", "x: 2.5, width: -3.0"))
    one.work(40)
    pruned, complete = one.trials(TrialState.PRUNED), one.trials(TrialState.COMPLETE)
    assert len(pruned) >= 20
    assert all(re.fullmatch(r"pruned at iteration \d+", trial.user_attrs["reason"]) for trial in pruned)
    assert all(trial.last_step < 18 for trial in pruned)
    (paper,) = [trial for trial in complete if trial.user_attrs.get("origin") == "paper"]
    assert paper.value < max(trial.intermediate_values[trial.last_step] for trial in pruned)
    assert one.study.best_value >= paper.value


def test_two_objectives_give_a_front_and_cannot_be_pruned(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data, "bidsm", objectives=["val/log_likelihood", "time/train_seconds"])
    one.work(6)
    assert [direction.name for direction in one.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert all(len(trial.values) == 2 and trial.values[1] > 0 for trial in one.trials(TrialState.COMPLETE))
    assert one.study.best_trials
    said = tune(tmp_path, "--objectives", "val/log_likelihood", "time/train_seconds", "--pruner", "halving")
    assert said.code == 2
    assert "a study with two objectives cannot be pruned" in said.err


def test_what_models_are_compared_by_is_the_objective() -> None:
    def chosen(*metrics: str, method: Any = BiDSM) -> list[str]:
        return studies.check_objectives(None, metrics, "board", method)

    assert chosen("fisher_divergence", "log_likelihood") == ["val/log_likelihood"]
    assert chosen("posterior_fisher_divergence", "fisher_divergence") == ["val/fisher_divergence"]
    assert chosen("posterior_fisher_divergence") == ["val/posterior_fisher_divergence"]
    with pytest.raises(InputError, match="task board: cd cannot be tuned: none of log_likelihood"):
        chosen("posterior_fisher_divergence", method=CD)


def test_a_budget_of_training_time_ends_the_study(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data)
    one.work(None, budget=1e-9)
    trials = one.trials()
    assert len(trials) == 16  # one group: nothing had been spent before
    assert [trial.state.name for trial in trials] == ["COMPLETE", *["PRUNED"] * 15]  # the first is the paper's
    assert {trial.user_attrs["reason"] for trial in trials[1:]} == {"the budget was spent at iteration 2"}
    one.work(None, budget=1e-9)
    assert len(one.trials()) == 16


# --- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    folder = tmp_path_factory.mktemp("tuned")
    return folder, tune(folder, "--trials", "9", "--lease", "20", methods=("peak", "bidsm"))


def test_a_study_goes_on_after_a_group_that_was_refused_whole(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data, changes={"x": "2.89..2.95", "kind": [2]}, enqueue=False)
    one.work(40)
    assert len(leases.counted(one.trials())) == 40


def test_a_space_of_which_everything_is_refused_comes_to_an_end(tmp_path: Path, data: DataSet) -> None:
    one = bench(tmp_path, data, changes={"x": "2.95..3.0", "kind": [2]}, enqueue=False)
    one.work(None, budget=60.0)
    assert len(one.trials(TrialState.FAIL)) == 100
    assert "trial 99 failed: peak: shift must be at most 2.9 where kind is 2" in one.notes[-1]


def test_variants_that_differ_in_what_is_not_searched_are_left_out(tmp_path: Path, data: DataSet) -> None:
    other = "set: {N: 0}}\n          - {method: bidsm, set: {N: 1, beta1: 0.5}}"
    text = SUITE.replace("set: {N: [0, 1], K: 2}}", other)
    with pytest.warns(UserWarning, match="board: BiDSM-0 is tuned, and not BiDSM-1: they differ in"):
        one = bench(tmp_path, data, "bidsm", text=text)
    assert [paper["values"]["unroll_steps"] for paper in studies.read(one.study).paper] == [0]


def test_two_methods_are_tuned_by_the_processes_of_one_command(tuned: tuple[Path, Said]) -> None:
    folder, said = tuned
    assert (said.code, said.err) == (0, "")
    storage = open_storage(str(folder / "studies.journal"))
    for method in ("peak", "bidsm"):
        study = optuna.load_study(storage=storage, study_name=f"hill.board.{method}")
        assert len(leases.counted(study.get_trials())) == 9
        assert f"hill.board.{method}: " in said.out
    assert called(folder, "run --suite hill.yaml --tuned hill") in said.out
    assert "optuna-dashboard studies.journal" in said.out
    before = everything(folder)
    listed = command(folder, "tune", "list", "--study", "hill.board.peak")
    assert listed.code == 0
    assert everything(folder) == before
    assert "hill.board.bidsm" not in listed.out


@pytest.mark.long
def test_the_same_command_does_nothing_more_and_a_study_is_joined_by_its_name(tuned: tuple[Path, Said]) -> None:
    folder, _ = tuned
    study = optuna.load_study(storage=open_storage(str(folder / "studies.journal")), study_name="hill.board.peak")
    for more, expected in (((), 9), (("--trials", "10"), 10), ((), 10)):  # the total is the study's, too
        joined = command(folder, "tune", "--study", "hill.board.peak", *more, "--plugin", str(PEAK))
        assert joined.code == 0
        assert len(leases.counted(study.get_trials())) == expected


def test_the_best_are_exported_and_run_on_the_report_s_seeds(tuned: tuple[Path, Said]) -> None:
    folder, _ = tuned
    plugin = ("--plugin", str(PEAK))
    exported = command(folder, "tune", "export", "--study", "hill", "--to", "best.yaml", *plugin)
    assert (exported.code, exported.err) == (0, "")
    content = yaml.safe_load((folder / "best.yaml").read_text())
    (preset,) = content["presets"].values()
    assert (content["suite"], content["default_preset"], preset["seeds"]) == ("hill", "tuned", [0, 1])
    variants = preset["tasks"]["board"]["variants"]
    study = optuna.load_study(storage=open_storage(str(folder / "studies.journal")), study_name="hill.board.peak")
    best = next(one for one in variants if one["method"] == "peak" and one["name"].endswith("tuned"))
    for name, value in study.best_params.items():
        assert best["set"].get(name, {"kind": 1}.get(name)) == value
    first = command(folder, "run", "--suite", "best.yaml", *plugin, "--run-dir", "a", "--dry-run")
    second = command(folder, "run", "--suite", "hill.yaml", "--tuned", "hill", *plugin, "--run-dir", "a", "--dry-run")
    assert first.code == second.code == 0
    rows = [[line for line in said.out.splitlines() if "│" in line] for said in (first, second)]
    assert rows[0] == rows[1]
    assert any("Peak-" in row and "tuned" in row for row in rows[0])
    ran = command(folder, "run", "--suite", "hill.yaml", "--tuned", "hill.board.peak", *plugin)
    assert (ran.code, ran.err) == (0, "")
    overlap = command(folder, "run", "--suite", "hill.yaml", "--tuned", "hill", *plugin, "--seeds", "1001")
    assert overlap.code == 2
    assert "1001 are among the seeds that hill.board" in overlap.err


def test_an_exported_suite_is_what_the_plan_of_a_tuned_run_is_made_of(tuned: tuple[Path, Said]) -> None:
    folder, _ = tuned
    methods = registry.methods([PEAK])
    suite = tuned_suite(str(folder / "studies.journal"), ["hill"], methods)
    names = [variant.name for variant in suite.presets["tuned"].tasks["board"].variants]
    # what was found for each method, beside the preset's own, which may have won
    assert sum(bool(re.fullmatch(r"\S+ (tuned|\(preset and tuned\))", name or "")) for name in names) == 2
    own = {str(name).removesuffix(" (preset and tuned)") for name in names if not str(name).endswith(" tuned")}
    assert own == {"BiDSM-0", "BiDSM-1", "Peak-1"}
    assert suite.presets["tuned"].tasks["board"].steps == 18


def test_where_the_preset_s_own_values_win_the_baseline_is_shown_and_says_so() -> None:
    """One cell is both what was found and the baseline: it keeps the baseline's name."""
    baseline = {"variant": "CD-1", "hyper": {"k": 1, "lr": 0.01}}
    settings = SimpleNamespace(
        steps=10, method="cd", paper=[baseline, {"variant": "CD-5", "hyper": {"k": 5, "lr": 0.01}}], probes=[],
        config={"data_noise": 0.0, "model": {"name": "grbm"}, "precision": "float32"}, hyper=lambda params: params,
        preset_model={"name": "grbm"},
    )  # fmt: skip
    for found, names in (
        ({"k": 1, "lr": 0.01}, ["CD-1 (preset and tuned)", "CD-5"]),
        ({"k": 1, "lr": 0.02}, ["CD-1 tuned", "CD-1", "CD-5"]),
    ):
        with patch.object(export, "_task_model", lambda settings: settings.config["model"]):
            task = export._task("board", [(settings, SimpleNamespace(params=found))], {"cd": CD})  # type: ignore[list-item]
        assert [variant["name"] for variant in task["variants"]] == names


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--space", "peak.x=3..2"), "a range goes from a lower number to a higher one"),
        (("--space", "peak.x=-20..2"), "shift must be at least -10.0, got -20"),
        (("--space", "peak.kind=1.5..3"), "kind must be an integer, got 1.5"),
        (("--space", "peak.x=-1..1 log"), "a logarithmic range begins above 0"),
        (("--space", "peak.x=a..b"), "a is not a number"),
        (("--space", "peak.x=[]"), "needs one or more different values"),
        (("--space", "peak.x={low: 1}"), "has low, high and log, not high"),
        (("--space", "peak.kind=1"), None),
        (("--space", "peak.y=1..2"), "peak has no hyper-parameter 'y'"),
        (("--space", "nobody.x=1..2"), "nobody: this method is not among what this tunes"),
        (("--space", "x=1..2"), "--space x=1..2: must look like bidsm.K=[0, 1, 5]"),
        (("--space", "peak.x=0..1"), "the preset's shift = 2.0 is not in the space, 0 to 1"),
        (("--seeds", "1,1000"), "--seeds: 1 are among the seeds that preset test reports"),
        (("--objectives", "test/log_likelihood"), "tuning looks at validation data alone: val/log_likelihood"),
        (("--objectives", "val/fid"), "--objectives val/fid: task board has"),
        (("--objectives", "time/train_seconds"), "must be a metric, or a metric and another objective"),
        (("--methods", "nobody"), "no method 'nobody'"),
        (("--budget", "soon"), "--budget must look like 90s, 10m or 1.5h, got 'soon'"),
        (("--timeout", "0"), "--timeout must look like 90s, 10m or 1.5h"),
        (("--trials", "0"), "--trials must be at least 1, got 0"),
        (("--study", "a b"), "--study a b: must consist of letters"),
        (
            ("--storage", "postgresql://nobody@127.0.0.1:1/none"),
            "studies at postgresql+psycopg2://127.0.0.1:1/none cannot be",
        ),
        (("--storage", "odd://x"), "studies at odd://x cannot be used"),
        (("--storage", "u:S3cr3t@h/x"), "studies at h/x: an address of a database begins with its kind. Give another"),
        (("--storage", "."), "this is a folder; a file is wanted"),
        (("--storage", "hill.yaml"), "this file is no journal of studies"),
    ],
)
def test_bad_input_is_one_message(tmp_path: Path, more: tuple[str, ...], said: str | None) -> None:
    if said is None:
        more = (*more, "--storage", "hill.yaml")  # which is looked at after the space: it was in order
        said = "this file is no journal"
    found = tune(tmp_path, *more)
    assert found.code == 2
    assert said in found.err, found.err
    assert "Traceback" not in found.err
    assert (
        not (tmp_path / "studies.journal").exists()
        or not open_storage(str(tmp_path / "studies.journal")).get_all_studies()
    )


def test_a_bad_space_in_a_suite_file_is_found_at_its_line(tmp_path: Path) -> None:
    text = SUITE.replace(
        "    model: {name", "    spaces:\n      peak: {x: 3..2}\n      bidsm: {L: 1}\n    model: {name"
    )
    found = tune(tmp_path, suite=text)
    assert found.code == 2
    assert "hill.yaml:9: tasks.board.spaces.peak.x: search space of peak: shift: 3..2: a range goes" in found.err
    assert "hill.yaml:10: tasks.board.spaces.bidsm.L: bidsm has no hyper-parameter 'L'" in found.err


def test_spaces_come_from_the_method_the_suite_and_the_command_line(tmp_path: Path, data: DataSet) -> None:
    text = SUITE.replace("    model: {name", "    spaces: {peak: {x: 0..2.5, width: -2}}\n    model: {name")
    one = bench(tmp_path, data, text=text, changes={"kind": [1, 2, 3]})
    found = studies.read(one.study).distributions
    assert {name: spaces.described(where) for name, where in found.items()} == {
        "lr": "0.0001 to 0.1, logarithmic", "shift": "0 to 2.5", "kind": "1, 2, 3"
    }  # fmt: skip
    assert studies.read(one.study).config["hyper"]["width"] == -2.0


def test_choices_that_do_not_go_with_what_is_fixed_are_not_searched() -> None:
    """Of the shipped preset whose samples of h take Langevin steps, beside which there is no control variate."""
    suite = load_suite("deep_digits", METHODS)
    cells = [cell for cell in cells_of(suite, "quick") if cell.config["method"] == "vages_mdsm"]
    cells = [dataclasses.replace(cell, config={**cell.config, "seed": 1000}) for cell in cells]

    def settings(changes: dict[str, Any]) -> studies.StudySettings:
        return studies.settings_of(
            suite, "quick", cells, METHODS["vages_mdsm"],
            objectives=None, sampler="random", pruner="none", changes=changes, enqueue=True,
        )  # fmt: skip

    found = settings({})
    assert found.config["hyper"]["corrector_steps"] == 5
    assert found.config["hyper"]["control_variate"] == "none"
    assert "control_variate" not in found.space
    assert "lr" in found.space
    assert "control_variate" in settings({"corrector_steps": 0}).space
    with pytest.raises(InputError, match="vages_mdsm: control_variate must be 'none' with corrector_steps"):
        settings({"control_variate": ["none", "posterior"]})


def test_a_study_goes_on_as_it_was_made(tmp_path: Path, data: DataSet) -> None:
    bench(tmp_path, data)
    with pytest.raises(InputError, match=r"study hill.board.peak was made with sampler = random, not tpe"):
        bench(tmp_path, data, sampler="tpe")
    other = optuna.create_study(storage=open_storage(str(tmp_path / "studies.journal")), study_name="hill.board.other")
    with pytest.raises(InputError, match=r"hill.board.other was not made by 'tune'"):
        studies.read(other)
    found = command(tmp_path, "tune", "--study", "hills")
    assert found.code == 2
    assert "no study 'hills' in studies.journal: it has hill.board.other, hill.board.peak" in found.err
    found = command(tmp_path, "tune", "list")
    assert found.code == 0
    assert "study hill.board.other was not made by 'tune'" in found.out
    plugin = ("--plugin", str(PEAK))
    for more in (("--methods", "bidsm"), ("--steps", "5"), ("--space", "peak.x=0..1"), ("--pruner", "median")):
        found = command(tmp_path, "tune", "--study", "hill.board.peak", *more, *plugin)
        assert found.code == 2
        assert "a study that is joined by --study alone goes on as it was made" in found.err
    found = command(tmp_path, "tune", "--study", "hill.board.peak")
    assert found.code == 2
    assert "the study's method 'peak' is not among those here: give its file by --plugin" in found.err
    found = command(tmp_path, "tune", "--storage", "elsewhere", "list", "--study", "hills")
    assert "studies at elsewhere: there is no such file" in found.err
    found = command(tmp_path, "tune")
    assert found.code == 2
    assert "tune needs --suite, or --study" in found.err
