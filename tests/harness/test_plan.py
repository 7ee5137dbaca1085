"""From a suite and the user's choices to cells and jobs."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.commands import run_directory
from benchmark.data.datasets import DataSet
from benchmark.tasks import registry
from benchmark.tasks.jobs import jobs, shard
from benchmark.tasks.plan import Cell, Choices, plan
from benchmark.tasks.suite import Suite
from benchmark.tasks.suite_file import load_suite
from bism import InputError
from bism.hyperparameters import specs
from tests.harness.tiny import TINY, command, replaced, states, write

METHODS = registry.methods()
VARIANTS = "          - {method: cd}\n          - {method: bidsm}\n"
DATA = DataSet("checkerboard", *[torch.zeros(2, 2)] * 3)
OTHER_DATA = DataSet("checkerboard", *[torch.ones(2, 2)] * 3)


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return load(tmp_path, TINY)


def load(folder: Path, text: str) -> Suite:
    return load_suite(str(write(folder, text)), METHODS)


def with_variants(folder: Path, *variants: str) -> Suite:
    """The tiny suite with other variants."""
    return load(folder, replaced((VARIANTS, "".join(f"          - {variant}\n" for variant in variants))))


def cells(suite: Suite, data: DataSet = DATA, **choices: Any) -> list[Cell]:
    return plan(suite, Choices(**choices), METHODS, dict.fromkeys(suite.tasks, data))


def names(suite: Suite, **choices: Any) -> list[str]:
    """Variant names in the suite's order."""
    return list(dict.fromkeys(cell.config["variant"] for cell in cells(suite, **choices)))


def ids(suite: Suite, **choices: Any) -> set[str]:
    return {cell.id for cell in cells(suite, **choices)}


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_are_the_methods_own(suite: Suite) -> None:
    assert names(suite) == ["CD-1", "BiDSM-5"]


def test_a_name_lists_what_the_user_changed(suite: Suite) -> None:
    assert names(suite, overrides=[("bidsm", "K", 10)]) == ["CD-1", "BiDSM-5 [K=10]"]
    assert names(suite, overrides=[("bidsm", "inner_steps", 10)]) == ["CD-1", "BiDSM-5 [K=10]"]
    assert names(suite, steps=7) == ["CD-1 [steps=7]", "BiDSM-5 [steps=7]"]
    both = [("bidsm", "sigma", 0.2), ("bidsm", "K", 10)]
    assert names(suite, overrides=both, steps=7) == ["CD-1 [steps=7]", "BiDSM-5 [K=10, σ=0.2, steps=7]"]
    assert names(suite, overrides=both[::-1]) == names(suite, overrides=both)


def test_a_name_lists_no_change_that_is_none(suite: Suite) -> None:
    assert names(suite, overrides=[("bidsm", "K", 5), ("cd", "lr", 0.01)], steps=20) == ["CD-1", "BiDSM-5"]
    assert ids(suite, overrides=[("bidsm", "K", 5)], steps=20) == ids(suite)


def test_a_change_that_the_name_says_already_is_not_listed(suite: Suite) -> None:
    assert names(suite, overrides=[("bidsm", "N", 0)]) == ["CD-1", "BiDSM-0"]
    assert names(suite, overrides=[("bidsm", "unroll_steps", 0), ("cd", "k", 3)]) == ["CD-3", "BiDSM-0"]


def test_variants_that_become_the_same_are_trained_once(tmp_path: Path) -> None:
    suite = with_variants(tmp_path, "{method: bidsm, set: {N: [0, 5, 10]}}")
    assert names(suite) == ["BiDSM-0", "BiDSM-5", "BiDSM-10"]
    assert len(cells(suite)) == 6
    assert names(suite, overrides=[("bidsm", "N", 2)]) == ["BiDSM-2"]
    assert len(cells(suite, overrides=[("bidsm", "N", 2)])) == 2


def test_variants_of_one_name_are_told_apart(tmp_path: Path) -> None:
    suite = with_variants(tmp_path, "{method: bidsm, set: {sigma: [0.05, 0.1]}}", "{method: cd}")
    assert names(suite) == ["BiDSM-5 [σ=0.05]", "BiDSM-5 [σ=0.1]", "CD-1"]
    assert names(suite, methods=["bidsm"]) == ["BiDSM-5 [σ=0.05]", "BiDSM-5 [σ=0.1]"]
    assert names(suite, overrides=[("bidsm", "K", 1)]) == ["BiDSM-5 [K=1, σ=0.05]", "BiDSM-5 [K=1, σ=0.1]", "CD-1"]
    assert names(suite, overrides=[("bidsm", "sigma", 0.1)]) == ["BiDSM-5 [σ=0.1]", "CD-1"]
    grid = with_variants(tmp_path, "{method: bidsm, set: {N: [0, 5], K: [1, 2]}}")
    assert names(grid) == ["BiDSM-0 [K=1]", "BiDSM-0 [K=2]", "BiDSM-5 [K=1]", "BiDSM-5 [K=2]"]


def test_models_of_two_sizes_are_told_apart_where_names_do_not(tmp_path: Path) -> None:
    small, large = (f"model: {{name: grbm, hidden: {m}}}" for m in (2, 5))
    suite = with_variants(tmp_path, f"{{method: cd, {small}}}", f"{{method: cd, {large}}}")
    assert names(suite) == ["CD-1 [hidden=2]", "CD-1 [hidden=5]"]
    suite = with_variants(tmp_path, f"{{method: cd, {small}}}", f"{{method: cd, {large}, name: wide}}", "{method: dsm}")
    assert names(suite) == ["CD-1", "wide", "DSM"]
    suite = with_variants(tmp_path, *(f"{{method: cd, {size}, name: wide}}" for size in (small, large)))
    assert names(suite) == ["wide [hidden=2]", "wide [hidden=5]"]


def test_a_name_belongs_to_one_configuration(tmp_path: Path) -> None:
    suite = with_variants(tmp_path, "{method: bidsm, set: {N: 0, K: 1}}", "{method: bidsm, set: {N: 5, K: 2}}")
    for overrides in ([], [("bidsm", "N", 3)], [("bidsm", "K", 7)], [("bidsm", "lr", 0.5)]):
        planned = cells(suite, overrides=overrides)
        hyper = {tuple(cell.config["hyper"].items()) for cell in planned}
        assert len(hyper) == len({cell.config["variant"] for cell in planned}) == 2


def test_a_name_of_the_file_s_own_says_no_values_and_they_follow_it(tmp_path: Path) -> None:
    suite = with_variants(tmp_path, "{method: cd, name: A, set: {k: [1, 5]}}")
    assert names(suite) == ["A [k=1]", "A [k=5]"]


def test_a_change_that_makes_two_variants_print_alike_is_refused(tmp_path: Path) -> None:
    suite = with_variants(tmp_path, "{method: dsm, name: CD-3}", "{method: cd}")
    assert names(suite) == ["CD-3", "CD-1"]
    with pytest.raises(InputError, match=r"tiny.yaml:20: .*\.variants\.1: prints as 'CD-3' with method=cd, "):
        cells(suite, overrides=[("cd", "k", 3)])


def test_the_paper_s_label_is_kept(tmp_path: Path) -> None:
    suite = with_variants(tmp_path, "{method: bidsm, paper: BiDSM (N=5)}", "{method: cd}")
    labels = [(cell.config["variant"], cell.config["paper"]) for cell in cells(suite, seeds=[0])]
    assert labels == [("BiDSM-5", "BiDSM (N=5)"), ("CD-1", None)]


# --- cells ------------------------------------------------------------------------------------------------------------


def test_a_cell_says_all_that_it_takes_to_train_it(suite: Suite) -> None:
    config = cells(suite)[0].config
    assert config["hyper"] == {
        "lr": 0.01,
        "beta1": 0.9,
        "beta2": 0.95,
        "decay_steps": 0,
        "lr_final": 1e-6,
        "ema": 0.0,
        "k": 1,
    }
    assert config["model"] == {"name": "grbm", "visible": 2, "hidden": 3}
    assert config["data"] == {"name": "checkerboard", "hash": DATA.hash, "train": 2, "val": 2, "test": 2, "shape": [2]}
    wanted = {"suite": "tiny", "preset": "test", "task": "board", "steps": 20, "batch_size": 100, "seed": 0}
    assert {key: config[key] for key in wanted} == wanted
    assert config["description"].startswith("CD-k: the likelihood gradient")


def test_ids_do_not_change() -> None:
    cell = Cell({"task": "board", "method": "cd", "hyper": {"lr": 0.01, "k": 1}, "seed": 0, "steps": 20})
    assert cell.id == "a8c8672f1961"  # a new id makes every old run directory worthless


def test_the_same_choices_give_the_same_ids(suite: Suite) -> None:
    assert [cell.id for cell in cells(suite)] == [cell.id for cell in cells(suite)]
    assert len(ids(suite)) == len(cells(suite)) == 4


def test_ids_ignore_labels_and_the_order_of_keys(suite: Suite) -> None:
    cell = cells(suite)[0]
    for key in ("variant", "paper", "reference", "description", "pictures"):
        assert Cell({**cell.config, key: "another"}).id == cell.id
    assert Cell(dict(reversed(cell.config.items()))).id == cell.id


def test_ids_depend_on_everything_that_is_computed(suite: Suite) -> None:
    (cell,) = cells(suite, methods=["bidsm"], seeds=[0])
    assert set(cell.config["hyper"]) == set(specs(METHODS["bidsm"]))
    changed = [{**cell.config, "hyper": {**cell.config["hyper"], key: -1}} for key in cell.config["hyper"]]
    for key in ("suite", "preset", "task", "steps", "batch_size", "data", "model", "metrics", "select", "evaluations"):
        changed.append({**cell.config, key: "another"})
    changed += [{**cell.config, "method": "another"}, {**cell.config, "seed": 1}]
    assert len({cell.id, *(Cell(config).id for config in changed)}) == 1 + len(changed)


def test_ids_depend_on_what_the_user_changes(suite: Suite) -> None:
    usual = ids(suite)
    for choices in ({"steps": 21}, {"seeds": [7, 8]}):
        assert not usual & ids(suite, **choices)
    assert not usual & ids(suite, overrides=[("cd", "lr", 0.5), ("bidsm", "temperature", 0.5)])
    assert not usual & {cell.id for cell in cells(suite, data=OTHER_DATA)}


def test_integers_for_numbers_are_the_same_cell(suite: Suite) -> None:
    as_integer, as_float = (ids(suite, overrides=[("cd", "lr", value)]) for value in (1, 1.0))
    assert as_integer == as_float


def test_only_the_first_seed_is_pictured(suite: Suite) -> None:
    assert [cell.config["pictures"] for cell in cells(suite, methods=["cd"], seeds=[3, 4, 5])] == [True, False, False]


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_job_has_all_seeds_of_a_configuration(suite: Suite) -> None:
    work = jobs(reversed(cells(suite, seeds=[0, 1, 5])))
    assert [[cell.config["seed"] for cell in job.cells] for job in work] == [[0, 1, 5], [0, 1, 5]]
    for job in work:
        (variant,) = {cell.config["variant"] for cell in job.cells}
        assert job.title == f"board {variant}"


def test_the_longest_job_comes_first(suite: Suite) -> None:
    assert [job.config["variant"] for job in jobs(cells(suite))] == ["BiDSM-5", "CD-1"]
    longer = [dataclasses.replace(cell, config={**cell.config, "steps": 1000}) for cell in cells(suite, methods=["cd"])]
    assert [job.config["variant"] for job in jobs([*cells(suite), *longer])] == ["CD-1", "BiDSM-5", "CD-1"]


# --- choices ----------------------------------------------------------------------------------------------------------


def test_choosing_tasks_and_methods() -> None:
    suite = load_suite("grbm", METHODS)
    data = {"checkerboard": DATA, "digits": DataSet("digits", *[torch.zeros(1, 64)] * 3)}
    chosen = Choices("quick", tasks=["digits"], methods=["cd", "ssm"], seeds=[4])
    planned = plan(suite, chosen, METHODS, data)
    assert [(cell.config["task"], cell.config["variant"], cell.config["seed"]) for cell in planned] == [
        ("digits", "SSM", 4),
        ("digits", "CD-1", 4),
    ]


def test_choosing_variants_by_their_names_in_the_preset(suite: Suite) -> None:
    assert names(suite, variants=["BiDSM-5"]) == ["BiDSM-5"]
    assert names(suite, variants=["BiDSM-5", "CD-1"]) == ["CD-1", "BiDSM-5"]  # in the suite's order
    assert names(suite, variants=["BiDSM-5"], methods=["bidsm"]) == ["BiDSM-5"]
    # The same cells as without the choice; what the user changes is changed in them, whatever they are called then.
    assert [one.id for one in cells(suite, variants=["CD-1"])] == [one.id for one in cells(suite, methods=["cd"])]
    assert names(suite, variants=["CD-1"], steps=3, overrides=[("cd", "k", 7)]) == ["CD-7 [steps=3]"]


def test_variants_of_several_tasks() -> None:
    suite = load_suite("grbm", METHODS)
    data = {"checkerboard": DATA, "digits": DataSet("digits", *[torch.zeros(1, 64)] * 3)}
    planned = plan(suite, Choices("paper", seeds=[0], variants=["DSM", "BiSSM-0"]), METHODS, data)
    found = {(cell.config["task"], cell.config["variant"]) for cell in planned}
    assert found == {("checkerboard", "DSM"), ("checkerboard", "BiSSM-0"), ("digits", "DSM")}


def test_a_suite_says_why_it_has_not_what_was_asked_for() -> None:
    suite = load_suite("rbm", METHODS)
    data = {"digits": DataSet("digits", *[torch.zeros(1, 64)] * 3)}
    data["bars_and_stripes"] = DataSet("bars_and_stripes", *[torch.zeros(1, 16)] * 3)
    with pytest.raises(InputError) as caught:
        plan(suite, Choices("quick", methods=["dsm"]), METHODS, data)
    reason = suite.presets["quick"].tasks["digits"].without["dsm"]
    assert (
        str(caught.value) == f"nothing to run: preset quick has none of dsm in digits, bars_and_stripes; dsm: {reason}"
    )


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"preset": "tset"}, "suite tiny has no preset 'tset': did you mean 'test'? valid: test"),
        ({"tasks": ["bord"]}, "no task 'bord': did you mean 'board'? valid: board"),
        (
            {"methods": ["bidms"]},
            "no method 'bidms': did you mean 'bidsm'? "
            f"valid: bi_mpf, bidsm, bimdsm, bimdsm_gmm, bissm, ... "
            f"({len(METHODS)} in all); one of your own is named by --plugin FILE.py",
        ),
        (
            {"methods": ["BiDSM"]},
            "no method 'BiDSM': did you mean 'bidsm'? "
            f"valid: bidsm, bimdsm, bissm, dsm, mdsm, ... "
            f"({len(METHODS)} in all); one of your own is named by --plugin FILE.py",
        ),
        (
            {"methods": ["nce", "sm"]},
            "nothing to run: preset test has none of nce, sm in board; a method that no preset has needs a line in "
            "a suite file (docs/adding_a_method.md)",
        ),
        ({"variants": ["BiDSM"]}, "preset test has no variant 'BiDSM': did you mean 'BiDSM-5'? valid: BiDSM-5, CD-1"),
        (
            {"variants": ["CD-1"], "methods": ["bidsm"]},
            "preset test has no variant 'CD-1' of bidsm: valid: BiDSM-5",
        ),
        (
            {"overrides": [("cdd", "k", 1)]},
            "no method 'cdd': did you mean 'cd'? "
            f"valid: cd, pcd, ... "
            f"({len(METHODS)} in all); one of your own is named by --plugin FILE.py",
        ),
        (
            {"overrides": [("cd", "kk", 1)]},
            "cd has no hyper-parameter 'kk': did you mean 'k'? valid: beta1, beta2, decay_steps, ema, k, lr, lr_final",
        ),
        ({"overrides": [("cd", "k", 0)]}, "cd: k must be from 1 to 1,000, got 0"),
        ({"overrides": [("cd", "k", "x")]}, "cd: k must be an integer, got 'x'"),
        ({"overrides": [("cd", "k", [1, 2])]}, "cd: k must be an integer, got [1, 2]"),
        ({"overrides": [("bidsm", "lower", "KL")]}, "bidsm: lower must be one of kl, fisher, got 'KL'"),
        (
            {"overrides": [("nce", "nu", 2)]},
            "--set nce.nu: nce is not among what this trains, bidsm, cd",
        ),
    ],
)
def test_impossible_choices(suite: Suite, choices: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        cells(suite, **choices)
    assert str(error.value) == message


def test_a_method_that_cannot_train_the_model_is_refused_with_its_line(suite: Suite, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        cells(suite, overrides=[("bidsm", "lower", "fisher")])
    assert str(error.value) == (
        f"{tmp_path / 'tiny.yaml'}:20: presets.test.tasks.board.variants.1: bidsm cannot train GRBM: lower='fisher' "
        "differentiates in h, eq. (11), and this model's h is discrete: use lower='kl'"
    )


def test_a_model_too_large_to_enumerate(tmp_path: Path) -> None:
    text = replaced(
        ("name: checkerboard, train: 500, val: 200, test: 200", "name: digits"),
        ("hidden: 3", "hidden: 21"),
    )
    with pytest.raises(InputError) as error:
        cells(load(tmp_path, text), data=DataSet("digits", *[torch.zeros(2, 64)] * 3))
    assert str(error.value) == (
        "task board: the metric log_likelihood needs log Z, by enumeration: "
        "2^21 configurations are too many (at most 2^20); by quadrature: v is not one or two real units"
    )
    by_divergence = text.replace(
        "    model:", "    metrics: [fisher_divergence]\n    select: val/fisher_divergence\n    model:"
    )
    assert cells(load(tmp_path, by_divergence))


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "a-b"], "--seeds must look like 0-9 or 0,3,5-7, got 'a-b'"),
        (["--seeds", "9-0"], "--seeds must have ranges from a lower seed to a higher one, got '9-0'"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--steps", "-5"], "--steps must be at least 1, got -5"),
        (["--devices", "gpu"], "--devices must be cpu, cuda or like cuda:0,1, got 'gpu'"),
        (["--devices", "cuda:"], "--devices must be cpu, cuda or like cuda:0,1, got 'cuda:'"),
        (
            ["--devices", "cuda:999"],
            f"--devices cuda:999: there is no GPU 999 here ({torch.cuda.device_count()} found)",
        ),
        (["--set", "K=10"], "--set K=10: must look like bidsm.K=10"),
        (["--set", "bidsm.K"], "--set bidsm.K: must look like bidsm.K=10"),
        (["--set", "bidsm.K="], "--set bidsm.K=: must look like bidsm.K=10"),
        (
            ["--set", "bidsm.K=[1"],
            "--set bidsm.K=[1: [1 is not a value of YAML: expected ',' or ']', but got '<stream end>'",
        ),
        (["--set", "bidsm.K=two"], "bidsm: inner_steps must be an integer, got 'two'"),
        (["--set", "cd.k=-1"], "cd: k must be from 1 to 1,000, got -1"),
        (["--tasks", "digits"], "no task 'digits': valid: board"),
        (["--preset", "quick"], "suite tiny has no preset 'quick': valid: test"),
        (["--plugin", "mine.py"], "mine.py: no such plug-in file"),
        (["--plugin", "tiny.yaml"], "tiny.yaml: a plug-in is a Python file"),
        (["--run-dir", "tiny.yaml"], "run directory tiny.yaml cannot be written: tiny.yaml/cells: not a directory"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: list[str], message: str) -> None:
    write(tmp_path)
    said = command(tmp_path, "run", "--suite", "tiny.yaml", *arguments)
    assert (said.code, said.err, said.out) == (2, f"error: {message}\n", "")
    assert not (tmp_path / "runs").exists()


def test_values_of_set_are_those_of_yaml(tmp_path: Path) -> None:
    write(tmp_path)
    changes = ["--set", "bidsm.lr=1e-3", "--set", "bidsm.lower_optimiser=sgd", "--set", "bidsm.N=0"]
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--methods", "bidsm", "--dry-run", *changes)
    assert said.code == 0
    assert "BiDSM-0" in said.out
    assert "lr=0.001" in said.out
    assert "lower_optimiser=sgd" in said.out


def test_choices_without_arguments_leave_all_to_the_preset() -> None:
    assert run_directory.choices(None, None, None, None, None, []) == Choices(overrides=[])


# --- parts of a plan --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_parts_of_a_plan_are_the_plan(suite: Suite, count: int) -> None:
    whole = cells(suite)
    parts = [shard(whole, number, count) for number in range(1, count + 1)]
    assert sorted(cell.id for part in parts for cell in part) == sorted(cell.id for cell in whole)
    company = {cell.id: {other.id for other in job.cells} for job in jobs(whole) for cell in job.cells}
    assert all(company[cell.id] <= {other.id for other in part} for part in parts for cell in part)


def test_the_parts_of_a_plan_cost_about_the_same() -> None:
    whole = cells(load_suite("grbm", METHODS), preset="paper", tasks=["checkerboard"])
    costs = [sum(job.work for job in jobs(shard(whole, number, 4))) for number in range(1, 5)]
    assert max(costs) < 1.3 * min(costs)


@pytest.mark.parametrize("text", ["1", "0/2", "3/2", "a/b", "1/2/3", "-1/2"])
def test_a_shard_that_is_none(tmp_path: Path, text: str) -> None:
    write(tmp_path)
    said = command(tmp_path, "run", "--suite", "tiny.yaml", f"--shard={text}")
    assert (said.code, said.out) == (2, "")
    assert said.err == f"error: --shard must look like 1/4, the first of four parts, got {text!r}\n"


def test_shards_train_their_part(tmp_path: Path) -> None:
    trained = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder)
        assert command(folder, "run", "--suite", "tiny.yaml", "--shard", f"{number}/2").code == 0
        trained.append(states(folder))
    assert set(map(len, trained)) == {2}
    assert trained[0] | trained[1] == {(name, seed): "done" for name in ("CD-1", "BiDSM-5") for seed in (0, 1)}
