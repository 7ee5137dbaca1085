"""Suite files: the shipped ones say what the paper does, and a wrong one says where and what is wrong."""

import math
from pathlib import Path

import pytest
import torch

from benchmark.data.catalogue import CATALOGUE
from benchmark.data.datasets import DATASETS, DataSet
from benchmark.tasks import registry
from benchmark.tasks.models import MODELS, takes_images
from benchmark.tasks.plan import Cell, Choices, plan
from benchmark.tasks.shipped import shipped
from benchmark.tasks.suite import Suite, parse_seeds
from benchmark.tasks.suite_file import load_suite
from bism import Gaussian, InputError
from tests.harness.tiny import TINY, command, replaced, write

METHODS = registry.methods()
IMAGES = {name: entry.shape for name, entry in CATALOGUE.items() if entry.shape != (2,)}
PRESETS = [(name, preset) for name in shipped() for preset in load_suite(name, METHODS).presets]
EVERY_KEY = "beta1, beta2, decay_steps, ema, k, lr, lr_final"  # of CD
IMPLICIT = [f"Implicit BiDSM [damping={damping}]" for damping in (0.1, 1.0)]
VAGES = ["VaGES-DSM-5", "VaGES-MDSM-5", "VaGES-KSD-5"]
ONE_PER_METHOD = ["BiSSM-5", "BiDSM-5", "BiMDSM-5", *VAGES, "VNCE", "NCE", "SM", "SSM", "DSM", "MDSM", "CD-1"]


def cells_of(suite: Suite, preset: str) -> list[Cell]:
    """A preset's cells, on stand-ins of the data."""
    data = {}
    for task in suite.presets[preset].tasks:
        entry, image = suite.tasks[task].data, IMAGES.get(str(suite.tasks[task].data.name))
        labels = None if image is None else (torch.zeros(2, dtype=torch.long),) * 3
        made = DataSet(
            str(entry.name),
            *[torch.arange(2.0)[:, None].repeat(1, math.prod(image or (2,)))] * 3,
            image,
            labels,
            held_out=entry.held_out,
        )
        made = made.cropped(entry.crop) if entry.crop else made
        made = made.padded(entry.pad) if entry.pad else made
        data[task] = made.as_images() if takes_images(suite.tasks[task].model.name) else made
    return plan(suite, Choices(preset=preset), METHODS, data)


def variants(cells: list[Cell], task: str) -> list[str]:
    """The variants' names on a task, in their order."""
    return list(dict.fromkeys(cell.config["variant"] for cell in cells if cell.config["task"] == task))


def test_the_shipped_suites() -> None:
    assert list(shipped()) == [
        "ablations",
        "bias",
        "binary",
        "cifar10",
        "deep_digits",
        "fashion",
        "freyface",
        "grbm",
        "ising",
        "latent",
        "mnist",
        "rbm",
        "scaling",
        "toy2d",
    ]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_shipped_preset_can_be_planned(name: str, preset: str) -> None:
    suite = load_suite(name, METHODS)
    assert suite.suite == name
    for cell in cells_of(suite, preset):
        METHODS[cell.config["method"]](**cell.config["hyper"])


def test_a_method_that_a_shipped_suite_names_and_is_gone_is_noticed() -> None:
    without = {name: method for name, method in METHODS.items() if name != "bidsm"}
    with pytest.raises(
        InputError, match=r"grbm.yaml:\d+: presets.paper.tasks.checkerboard.variants.1.method: no method"
    ):
        load_suite("grbm", without)


def test_the_paper_s_checkerboard() -> None:
    cells = [cell for cell in cells_of(load_suite("grbm", METHODS), "paper") if cell.config["task"] == "checkerboard"]
    numbered = [f"{name}-{n}" for name in ("CD", "PCD") for n in (1, 5, 10)]
    bilevel = [f"{name}-{n}" for name in ("BiSSM", "BiDSM") for n in (0, 5, 10)]
    persistent = [f"Persistent VI [prior={prior}]" for prior in ("gaussian", "horseshoe")]
    wanted = [*numbered, "Unbiased CD-1", *persistent, "SM", "SSM", "DSM", "MDSM", "NCE", "VNCE", *bilevel, "BiMDSM-5"]
    wanted += [f"VaGES-{name}" for name in ("DSM-2", "DSM-5", "MDSM-2", "KSD-2", "KSD-5")] + IMPLICIT
    assert sorted(variants(cells, "checkerboard")) == sorted(wanted)
    assert len(wanted) == 29
    assert len(cells) == 290
    assert {cell.config["seed"] for cell in cells} == set(range(10))
    assert {cell.config["steps"] for cell in cells} == {100_000}
    assert {cell.config["hyper"]["lr"] for cell in cells} == {0.001}
    assert {cell.config["hyper"].get("inner_steps", 5) for cell in cells} == {5}
    assert {cell.config["hyper"].get("sigma", 0.05) for cell in cells} == {0.05}


def test_the_paper_preset_s_digits() -> None:
    cells = [cell for cell in cells_of(load_suite("grbm", METHODS), "paper") if cell.config["task"] == "digits"]
    persistent = [f"Persistent VI [prior={prior}]" for prior in ("gaussian", "horseshoe")]
    assert sorted(variants(cells, "digits")) == sorted(
        [*ONE_PER_METHOD, *IMPLICIT, "PCD-1", "Unbiased CD-1", *persistent]
    )
    assert {cell.config["steps"] for cell in cells} == {20_000}
    assert len(cells) == 190


@pytest.mark.parametrize("task", ["checkerboard", "digits"])
def test_the_quick_preset_has_one_variant_of_every_method_that_works_there(task: str) -> None:
    cells = [cell for cell in cells_of(load_suite("grbm", METHODS), "quick") if cell.config["task"] == task]
    without = load_suite("grbm", METHODS).presets["quick"].tasks[task].without
    diverge = {"langevin_cd", "langevin_pcd"} if task == "digits" else set()
    binary = {one for one, method in METHODS.items() if Gaussian not in method.visible_units}
    assert binary == {name for name, why in without.items() if why == "v is real"}
    deep = {name for name, why in without.items() if why.startswith("of deep energies")}
    assert deep == {"coopnets", "energy_discrepancy", "flow_contrast", "igebm", "short_run"}
    latent = {name for name, why in without.items() if why.endswith("in the suite latent")}
    assert latent == {name for name, method in METHODS.items() if method.family == "Latent space"}
    elsewhere = latent | {"bimdsm_gmm", "vages_mdsm", "vages_ksd", "nvil", "advil", "dbm", "generative_convnet", *deep}
    assert set(without) == binary | elsewhere | diverge
    assert {cell.config["method"] for cell in cells} == set(METHODS) - set(without)
    assert len(variants(cells, task)) == len(METHODS) - len(without)
    assert {cell.config["seed"] for cell in cells} == {0, 1, 2}


def test_the_frey_faces_have_the_labels_of_table_1() -> None:
    cells = cells_of(load_suite("freyface", METHODS), "paper")
    labels = [label for label in dict.fromkeys(cell.config["paper"] for cell in cells) if label]
    assert labels == ["DSM", *[f"BiDSM (N={n})" for n in (0, 1, 5, 10)]]
    assert {cell.config["select"] for cell in cells} == {"val/fisher_divergence"}


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-3", [0, 1, 2, 3]),
        ("0,3,5-7", [0, 3, 5, 6, 7]),
        ("5-6, 1", [1, 5, 6]),
        ("1-2,2-3", [1, 2, 3]),
        (4, [4]),
        ([3, 1], [1, 3]),
    ],
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a-b", "must look like 0-9 or 0,3,5-7, got 'a-b'"),
        ("-1", "must look like 0-9 or 0,3,5-7, got '-1'"),
        ("", "must look like 0-9 or 0,3,5-7, got ''"),
        ("1.5", "must look like 0-9 or 0,3,5-7, got '1.5'"),
        ("9-0", "must have ranges from a lower seed to a higher one, got '9-0'"),
        ([0, -1], "must name at least one seed >= 0, got [0, -1]"),
        ([], "must name at least one seed >= 0, got []"),
        ([True], "must look like 0-9 or 0,3,5-7, got [True]"),
    ],
)
def test_seeds_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is compared below
        parse_seeds(text)
    assert str(error.value) == message


DATA = "{name: checkerboard, train: 500, val: 200, test: 200}"
BAD = {
    "top level key": (("default_preset: test", "defualt_preset: test"), [
        "1: default_preset: this key is missing",
        "3: defualt_preset: unknown key; did you mean 'default_preset'? "
        "valid: default_preset, description, presets, suite, tasks",
    ]),
    "key of a task": (("    model:", "    batchsize: 10\n    model:"), [
        "8: tasks.board.batchsize: unknown key; did you mean 'batch_size'? "
        "valid: batch_size, data, description, metrics, model, rule, select, spaces",
    ]),
    "key of the data": (("train: 500", "trian: 500"), [
        "7: tasks.board.data.trian: unknown key; did you mean 'train'? "
        "valid: binarize, crop, file, held_out, name, pad, scale, split, test, train, val",
    ]),
    "a size too few": (("{name: grbm, hidden: 3}", "{name: grbm}"), [
        "8: tasks.board.model.hidden: this key is missing",
    ]),
    "a size of another model": (("hidden: 3", "hidden: 3, width: 8"), [
        "8: tasks.board.model.width: the model grbm has no such size; valid: hidden, init",
    ]),
    "what a model refuses": (("{name: grbm, hidden: 3}", "{name: mlp_ebm, reference: -1}"), [
        "8: tasks.board.model.reference: MLPEBM: reference, a standard deviation, must be a finite number above 0, "
        "got -1",
    ]),
    "what a variant's model refuses": (("{method: cd}", "{method: dsm, model: {name: mlp_ebm, gain: yes}}"), [
        "19: presets.test.tasks.board.variants.0.model.gain: MLPEBM: gain must be a finite number above 0, got True",
    ]),
    "when a probe is taken": (("        all:", """\
        probes:
          - {name: samples, at: [end, -1]}
        all:"""), [
        f"18: presets.test.tasks.board.probes.0.at.{index}: must be an iteration, from 0 to 2,147,483,647, best or "
        f"last, got {got}" for index, got in enumerate(("'end'", -1))
    ]),
    "key of the model": (("hidden: 3", "hiden: 3"), [
        "8: tasks.board.model.hiden: the model grbm has no such size; did you mean 'hidden'? valid: hidden, init",
        "8: tasks.board.model.hidden: this key is missing",
    ]),
    "key of a preset": (("    evaluations: 4", "    evaluation: 4"), [
        "13: presets.test.evaluation: unknown key; did you mean 'evaluations'? "
        "valid: description, evaluations, label, seeds, tasks",
    ]),
    "key of a preset's task": (("        all:", "        step: 3\n        all:"), [
        "17: presets.test.tasks.board.step: unknown key; did you mean 'steps'? "
        "valid: accumulate, all, minutes, precision, probes, steps, variants, without",
    ]),
    "a hyper-parameter twice": (("{method: bidsm}", "{method: bidsm, set: {K: 5, inner_steps: 3}}"), [
        "20: presets.test.tasks.board.variants.1.set.inner_steps: 'inner_steps' is given twice, by its name and by its "
        "symbol",
    ]),
    "key of a variant": (("{method: bidsm}", "{method: bidsm, papr: x}"), [
        "20: presets.test.tasks.board.variants.1.papr: unknown key; did you mean 'paper'? "
        "valid: data_noise, method, model, name, paper, set",
    ]),
    "key of set": (("{method: cd}", "{method: cd, set: {lrr: 1}}"), [
        "19: presets.test.tasks.board.variants.0.set.lrr: cd has no hyper-parameter 'lrr': "
        f"did you mean 'lr'? valid: {EVERY_KEY}",
    ]),
    "wrong type": (("steps: 20", "steps: many"), [
        "16: presets.test.tasks.board.steps: must be an integer, got 'many'",
    ]),
    "a number as a text": (("hidden: 3", "hidden: '3'"), ["8: tasks.board.model.hidden: must be an integer, got '3'"]),
    "a text as a number": (("description: two methods", "description: 2"), [
        "11: presets.test.description: must be a text, got 2",
    ]),
    "a value as a section": ((DATA, "checkerboard"), [
        "7: tasks.board.data: must be a mapping (key: value), got 'checkerboard'",
    ]),
    "a list as a section": (("all: {lr: 0.01}", "all: [lr]"), [
        "17: presets.test.tasks.board.all: must be a mapping (key: value), got ['lr']",
    ]),
    "no variants": (("variants:\n          - {method: cd}\n          - {method: bidsm}", "variants: []"), [
        "18: presets.test.tasks.board.variants: needs at least 1, got []",
    ]),
    "wrong type in set": (("{method: cd}", "{method: cd, set: {k: 1.5}}"), [
        "19: presets.test.tasks.board.variants.0.set.k: cd: k must be an integer, got 1.5",
    ]),
    "unknown method": (("{method: cd}", "{method: bidsmm}"), [
        "19: presets.test.tasks.board.variants.0.method: no method 'bidsmm': did you mean 'bidsm'? "
        f"valid: bidsm, bimdsm, bimdsm_gmm, bissm, dsm, ... "
        f"({len(METHODS)} in all); one of your own is named by --plugin FILE.py",
    ]),
    "a method left out that is none": (("steps: 20", "steps: 20\n        without: {ncee: x, cd: y}"), [
        "17: presets.test.tasks.board.without.ncee: no method 'ncee': did you mean 'nce'? "
        f"valid: nce, vnce, ... "
        f"({len(METHODS)} in all); one of your own is named by --plugin FILE.py",
        "17: presets.test.tasks.board.without.cd: cd is among the variants",
    ]),
    "unknown data set": (("name: checkerboard", "name: chekerboard"), [
        f"7: tasks.board.data.name: no data set 'chekerboard': did you mean 'checkerboard'? "
        f"valid: {', '.join(sorted(DATASETS))}",
    ]),
    "unknown model": (("name: grbm", "name: grmb"), [
        f"8: tasks.board.model.name: no model 'grmb': did you mean 'grbm'? valid: {', '.join(sorted(MODELS))}",
    ]),
    "unknown metric": (("    model:", "    metrics: [log_likelihod]\n    model:"), [
        "8: tasks.board.metrics.0: no metric 'log_likelihod': did you mean 'log_likelihood'? "
        "valid: fisher_divergence, log_likelihood, posterior_fisher_divergence",
    ]),
    "unknown preset": (("default_preset: test", "default_preset: tset"), [
        "3: default_preset: no preset 'tset': did you mean 'test'? valid: test",
    ]),
    "unknown task": (("      board:\n        steps", "      bored:\n        steps"), [
        "15: presets.test.tasks.bored: no task 'bored': did you mean 'board'? valid: board",
    ]),
    "negative steps": (("steps: 20", "steps: -20"), [
        "16: presets.test.tasks.board.steps: must be greater than 0, got -20",
    ]),
    "negative sigma": (("{method: bidsm}", "{method: bidsm, set: {sigma: -0.1}}"), [
        "20: presets.test.tasks.board.variants.1.set.sigma: bidsm: sigma must be greater than 0.0, got -0.1",
    ]),
    "a way to start": (("hidden: 3", "hidden: 3, init: dat"), [
        "8: tasks.board.model.init: no way to start 'dat': did you mean 'data'? valid: data, paper",
    ]),
    "a scale": (("train: 500", "scale: unti"), [
        "7: tasks.board.data.scale: no scale 'unti': did you mean 'unit'? valid: none, standard, unit",
    ]),
    "a size that is a list": (("hidden: 3", "hidden: 3, init: [1]"), [
        "8: tasks.board.model.init: must be a text, got [1]",
    ]),
    "negative hidden": (("hidden: 3", "hidden: -3"), ["8: tasks.board.model.hidden: must be greater than 0, got -3"]),
    "a bad value in a list": (("{method: cd}", "{method: cd, set: {k: [1, 0]}}"), [
        "19: presets.test.tasks.board.variants.0.set.k: cd: k must be from 1 to 1,000, got 0",
    ]),
    "a list of no values": (("{method: cd}", "{method: cd, set: {k: []}}"), [
        "19: presets.test.tasks.board.variants.0.set.k: needs at least 1 value, got []: there would be no variant",
    ]),
    "a list of no values for all": (("all: {lr: 0.01}", "all: {lr: []}"), [
        "17: presets.test.tasks.board.all.lr: needs at least 1 value, got []: there would be no variant",
    ]),
    "a bad value by its symbol": (("{method: bidsm}", "{method: bidsm, set: {N: -1}}"), [
        "20: presets.test.tasks.board.variants.1.set.N: bidsm: unroll_steps must be from 0 to 100, got -1",
    ]),
    "the second of two like names": (
        ("{method: bidsm}", "method: bidsm\n            set:\n              lr: 0.1\n              lr_posterior: 0"), [
            "23: presets.test.tasks.board.variants.1.set.lr_posterior: "
            "bidsm: lr_posterior must be greater than 0.0, got 0",
        ]),
    "a bad value for all": (("all: {lr: 0.01}", "all: {lr: 0}"), [
        "17: presets.test.tasks.board.all.lr: cd: lr must be greater than 0.0, got 0",
    ]),
    "values that exclude each other": (("{method: cd}", "{method: mdsm, set: {sigma_min: 2}}"), [
        "19: presets.test.tasks.board.variants.0.set.sigma_min: sigma_min must be at most sigma_max = 1.0, got 2.0",
    ]),
    "a name that another has by its values": (
        ("{method: bidsm}", "{method: cd, name: C, set: {lr: [0.3, 0.5]}}\n"
         "          - {method: cd, name: 'C [β=0.3]', set: {lr: 0.4}}"), [
            "21: presets.test.tasks.board.variants.2: prints as 'C [β=0.3]' with β=0.4, and so does one with β=0.3: "
            "give one of them another name",
        ]),
    "a name of two methods": (("{method: bidsm}", "{method: dsm, name: CD-1}"), [
        "20: presets.test.tasks.board.variants.1: prints as 'CD-1' with method=dsm, σ=0.05, and so does one with "
        "method=cd, k=1: give one of them another name",
    ]),
    "two names for one configuration": (("{method: bidsm}", "{method: cd, name: C}"), [
        "20: presets.test.tasks.board.variants.1: 'C' is 'CD-1' under another name: remove one of them, or change a "
        "value",
    ]),
    "a key given twice": (("    evaluations: 4", "    evaluations: 4\n    seeds: 3"), [
        "14: the key 'seeds' is given twice",
    ]),
    "not YAML": (("{name: grbm, hidden: 3}", "{name: grbm, hidden: 3"), [
        "9: not YAML: expected ',' or '}', but got ':'",
    ]),
    "a missing key": (("    description: points of the checkerboard\n", ""), [
        "5: tasks.board.description: this key is missing",
    ]),
    "seeds": (("seeds: 0-1", "seeds: a-b"), ["12: presets.test.seeds: must look like 0-9 or 0,3,5-7, got 'a-b'"]),
    "select that is not measured": ((
        "    model:", "    select: val/fisher_divergence\n    metrics: [log_likelihood]\n    model:"), [
        "8: tasks.board.select: val/fisher_divergence is not among the metrics, log_likelihood",
    ]),
    "select by default that is not measured": (("    model:", "    metrics: [fisher_divergence]\n    model:"), [
        "5: tasks.board.select: val/log_likelihood is not among the metrics, fisher_divergence",
    ]),
    "two sources": ((DATA, "{name: digits, file: a.npy}"), [
        "7: tasks.board.data: needs either name (a known data set) or file (an .npy file)",
    ]),
    "no source": ((DATA, "{}"), [
        "7: tasks.board.data: needs either name (a known data set) or file (an .npy file)",
    ]),
    "sizes of a file": ((DATA, "{file: a.npy, train: 10}"), [
        "7: tasks.board.data.train: is for data sets that are drawn (checkerboard, eight_gaussians, rings, pinwheel, "
        "checkerboard_4x4); a file has split: [0.8, 0.1, 0.1]",
    ]),
    "sizes of images": ((DATA, "{name: digits, train: 10}"), [
        "7: tasks.board.data.train: is for data sets that are drawn (checkerboard, eight_gaussians, rings, pinwheel, "
        "checkerboard_4x4); digits has its own splits",
    ]),
    "a split that does not add up": ((DATA, "\n      file: a.npy\n      split: [0.5, 0.5, 0.5]"), [
        "9: tasks.board.data.split: must be three positive fractions that add up to 1, got [0.5, 0.5, 0.5]",
    ]),
    "a split that is no list": ((DATA, "{file: a.npy, split: 0.5}"), [
        "7: tasks.board.data.split: must be a list, got 0.5",
    ]),
    "a split of a known data set": ((DATA, "{name: digits, split: [0.8, 0.1, 0.1]}"), [
        "7: tasks.board.data.split: is for a file; a known data set has its own",
    ]),
    "a name that is no name": (("suite: tiny", "suite: my suite"), [
        "1: suite: must consist of letters, digits, '.', '_' and '-', got 'my suite'",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_line_and_key(case: str, tmp_path: Path) -> None:
    change, messages = BAD[case]
    write(tmp_path, replaced(change), "bad.yaml")
    said = command(tmp_path, "run", "--suite", "bad.yaml")
    assert said.code == 2
    assert said.err.removeprefix("error: ").splitlines() == [f"bad.yaml:{message}" for message in messages]
    assert said.out == ""
    assert not (tmp_path / "runs").exists()


def test_a_misspelt_hyper_parameter_for_all_is_refused(tmp_path: Path) -> None:
    write(tmp_path, replaced(("{lr: 0.01}", "{lrr: 0.01}")), "bad.yaml")
    said = command(tmp_path, "run", "--suite", "bad.yaml")
    key = "bad.yaml:17: presets.test.tasks.board.all.lrr"
    assert said.code == 2
    assert said.err.startswith(f"error: {key}: no method has this hyper-parameter: did you mean 'lr'? valid: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.yaml:1: the file is empty; it needs suite, description, default_preset, tasks, presets"),
        ("# nothing\n", "bad.yaml:1: the file is empty; it needs suite, description, default_preset, tasks, presets"),
        ("- a\n- b\n", "bad.yaml:1: the file: must be a mapping (key: value), got ['a', 'b']"),
        ("just a text\n", "bad.yaml:1: the file: must be a mapping (key: value), got 'just a text'"),
        (TINY + "\tx: 1\n", "bad.yaml:21: not YAML: found character '\\t' that cannot start any token"),
    ],
)
def test_a_file_that_is_no_suite_is_refused(text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, text, "bad.yaml")
    said = command(tmp_path, "run", "--suite", "bad.yaml")
    assert (said.code, said.err) == (2, f"error: {message}\n")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert command(tmp_path, "run", "--suite", "nowhere.yaml").err == "error: nowhere.yaml: no such suite file\n"
    assert command(tmp_path, "run", "--suite", "nowhere.yaml").code == 2
    said = command(tmp_path, "run", "--suite", "grmb")
    assert said.err == (
        f"error: no shipped suite 'grmb': did you mean 'grbm'? valid: {', '.join(shipped())}; a suite of your own is "
        "given by its file, such as grmb.yaml\n"
    )


def test_a_suite_of_ones_own_is_asked_for_by_its_file(tmp_path: Path) -> None:
    write(tmp_path, name="own.yaml")
    said = command(tmp_path, "list", "own")
    assert said.code == 2
    assert said.err.endswith("; a suite of your own is given by its file, such as own.yaml\n")
    assert command(tmp_path, "list", "own.yaml").code == 0


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    said = command(tmp_path, "run", "--suite", "bad.yaml")
    assert said.code == 2
    assert said.err.startswith("error: bad.yaml: cannot be read: 'utf-8' codec can't decode")


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    suite = load_suite(str(write(tmp_path, replaced(("{lr: 0.01}", "{lr: 1e-2, σ: 5.E-2}")))), METHODS)
    assert suite.presets["test"].tasks["board"].all == {"lr": 0.01, "σ": 0.05}


def test_a_data_file_lies_beside_the_suite_file(tmp_path: Path) -> None:
    path = write(tmp_path, replaced((DATA, "{file: points.npy}")))
    assert load_suite(str(path), METHODS).tasks["board"].data.file == str(tmp_path / "points.npy")
