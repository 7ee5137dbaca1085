"""The examples of the README and of the guides in docs/ do what they say."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from baselines import CD
from benchmark.commands.options import parser
from benchmark.data.datasets import DataSet
from benchmark.measures.probes import PROBES, Annealing, Subject
from benchmark.system.yaml_text import Loader
from benchmark.tasks import registry, spaces
from benchmark.tasks.shipped import SHIPPED
from benchmark.tasks.suite_file import load_suite
from bism import GRBM, MLPEBM, BiDSM, Estimator, InputError
from bism.fitted import Fitted
from bism.hyperparameters import specs
from bism.objectives import sm
from bism.rng import Rng
from tests.harness.tiny import ROOT, Said, cell, command, journal, records, states, write

README, GUIDE, LIKELIHOODS, TUNING = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/adding_a_method.md", "docs/likelihoods.md", "docs/tuning.md")
)
PYTHON = ".venv/bin/python"
VARIANTS = ["FD-SSM [ε=0.05]", "FD-SSM [ε=0.5]", "SSM"]


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of exactly this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def place_files(folder: Path) -> None:
    """Writes the guide's files under the names in their first lines."""
    for block in blocks(GUIDE, "python") + blocks(GUIDE, "yaml"):
        write(folder, block, block.splitlines()[0].removeprefix("# "))


def commands(index: int) -> list[str]:
    """The lines of one of the guide's shell blocks."""
    return blocks(GUIDE, "sh")[index].splitlines()


# --- README -----------------------------------------------------------------------------------------------------------


def test_the_library_example() -> None:
    example, out, names = blocks(README, "python")[0], io.StringIO(), dict[str, Any]()
    assert "from bism import" in example
    with contextlib.redirect_stdout(out):
        exec(example, names)
    fitted, data = names["fitted"], names["data"]
    assert isinstance(fitted, Fitted)
    assert isinstance(fitted.estimator, BiDSM)
    values = fitted.log_likelihood(data).mean(dim=1)
    assert out.getvalue() == f"{values}\n"
    assert values.shape == (len(fitted.seeds),) == (3,)
    untrained = fitted.estimator.fit(names["GRBM"](visible=2, hidden=4), data, seeds=fitted.seeds, steps=0)
    assert (values > untrained.log_likelihood(data).mean(dim=1) + 0.5).all()
    assert (values < 0.7).all()  # log 2 and the luck of 1,000 points


# --- docs/models.md, docs/usage.md and links --------------------------------------------------------------------------


def test_the_example_of_the_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *_, example = blocks(text_of("models.md"), "python")
    names = dict[str, Any]()
    with contextlib.chdir(tmp_path):
        exec(example, names)
    assert (tmp_path / "cd.pt").exists()
    assert names["samples"].shape == (2, 16, 2)
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("CD-5: 100 of 100 iterations")
    assert said.out.startswith("tensor([")


def text_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


GUIDES = sorted(file.name for file in (ROOT / "docs").glob("*.md"))


def all_commands(text: str) -> list[str]:
    """Every call of our command line in a text's shell blocks."""
    lines = [line for language in ("sh", "bash") for block in blocks(text, language) for line in block.splitlines()]
    return [line.strip() for line in lines if "-m benchmark " in line and not line.endswith(("\\", "<TAB>"))]


@pytest.mark.parametrize(
    "line", sorted({line for text in (README, *map(text_of, GUIDES)) for line in all_commands(text)})
)
def test_commands_are_commands(line: str) -> None:
    arguments = shlex.split(line, comments=True)
    arguments = arguments[arguments.index("benchmark") + 1 :]
    assert parser().parse_args([argument for argument in arguments if argument != "..."]).command


def test_the_options_of_delete_are_those_that_the_guide_names() -> None:
    (section,) = re.findall(r"## Deleting\n(.*?)\n## ", text_of("usage.md"), flags=re.DOTALL)
    named = set(re.findall(r"`(--[a-z-]+)`", section))
    usage = parser()._subparsers._group_actions[0].choices["delete"].format_help()  # type: ignore[union-attr,index,call-overload]
    assert named <= set(re.findall(r"--[a-z-]+", usage))
    assert {"--states", "--cells", "--all", "--yes"} <= named


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{guide}" for guide in GUIDES)])
def test_links_lead_somewhere(name: str) -> None:
    file = ROOT / name
    for link in re.findall(r"\]\(([^)#\s]+)", file.read_text(encoding="utf-8")):
        assert link.startswith(("http://", "https://")) or (file.parent / link).exists(), link


def test_the_index_names_every_guide() -> None:
    linked = set(re.findall(r"\]\(([a-z_]+\.md)\)", text_of("README.md")))
    assert set(GUIDES) - {"README.md"} <= linked


# --- docs/tuning.md ---------------------------------------------------------------------------------------------------


def test_the_spaces_of_the_guide_are_searched(tmp_path: Path) -> None:
    (block,) = blocks(TUNING, "yaml")
    said = yaml.load(block, Loader=Loader)["tasks"]["checkerboard"]["spaces"]
    methods = registry.methods()
    for method, changes in said.items():
        found, fixed = spaces.changed(methods[method], spaces.declared(methods[method]), changes)
        assert set(fixed) == {"temperature"}
        assert spaces.described(found["lr"]) == "0.0001 to 0.01, logarithmic"
    text = (
        (SHIPPED / "grbm.yaml")
        .read_text()
        .replace("checkerboard:\n    description", f"checkerboard:\n    spaces: {said}\n    description", 1)
    )
    suite = load_suite(str(write(tmp_path, text, "mine.yaml")), methods)
    assert suite.tasks["checkerboard"].spaces == said


@pytest.mark.parametrize(
    "line",
    [
        line
        for text in (TUNING, README)
        for block in blocks(text, "sh")
        for line in block.splitlines()
        if " tune " in line or "--tuned" in line
    ],
)
def test_commands_about_tuning_are_such(line: str) -> None:
    arguments = shlex.split(line, comments=True)[3:]
    options = parser().parse_args([argument for argument in arguments if argument != "..."])
    assert options.command.__name__ in ("tune", "tune_list", "tune_export", "run")


# --- docs/likelihoods.md ----------------------------------------------------------------------------------------------


def test_the_bracket_s_example() -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(blocks(LIKELIHOODS, "python")[0], {})
    numbers, single = out.getvalue().splitlines()
    log_z, low, high, gap, *said = numbers.split()
    assert float(low) < float(log_z) < float(high)
    assert float(gap) < float(high) - float(low) < 2
    assert said == [str(float(gap) <= 0.5), "True", "False"]
    assert abs(float(single) - float(log_z)) < 1


def test_the_suite_with_probes_is_one(tmp_path: Path) -> None:
    suite = load_suite(str(write(tmp_path, blocks(LIKELIHOODS, "yaml")[0], "mine.yaml")), registry.methods())
    (probe,) = suite.presets["mine"].tasks["faces"].probes
    assert PROBES[probe.name] is Annealing
    assert suite.tasks["faces"].rule == "best_validation"


def test_the_metrics_of_the_table_are_measured() -> None:
    V = torch.rand(20, 2)
    fitted = BiDSM().fit(GRBM(2, 3), V, steps=0)
    probe = Annealing(chains=2, steps=[2], tolerance=1e9, sweeps=1, raise_chains=1, raise_steps=1)
    measured = probe.measure(Subject(fitted, 0, DataSet("points", V, V, V), ROOT))
    named = re.findall(r"^\| `([^`]+)` \|", LIKELIHOODS.split("## Deep models")[0], flags=re.MULTILINE)
    assert len(named) == 9
    assert set(named) <= set(measured)


# --- docs/adding_a_method.md ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Said]]:
    """The guide's files, and what its first commands say."""
    folder = tmp_path_factory.mktemp("guided")
    place_files(folder)
    lines = [shlex.split(line) for line in commands(0)]
    assert all(line[:3] == [PYTHON, "-m", "benchmark"] for line in lines)
    return folder, [command(folder, *line[3:]) for line in lines]


def test_the_guide_s_files() -> None:
    names = [block.splitlines()[0] for block in blocks(GUIDE, "python") + blocks(GUIDE, "yaml")]
    assert names == ["# fd_ssm.py", "# directed.py", "# short_runs.py", "# cd_nce.py", "# compare.yaml"]


def test_the_guide_s_commands(guided: tuple[Path, list[Said]]) -> None:
    folder, said = guided
    assert [(one.code, one.err) for one in said] == [(0, "")] * 5
    listing, dry_run, run, changed, status = (one.out for one in said)
    assert "│ fdssm " in listing
    assert "epsilon (ε) = 0.05: step of the differences" in listing
    assert all(name in dry_run for name in VARIANTS)
    assert "6 cells, 0 done already, 6 to train in 3 jobs" in run
    assert "2 cells, 0 done already, 2 to train in 1 job" in changed
    assert "suite compare, preset small: 8 done" in status
    wanted = {(variant, seed) for variant in (*VARIANTS, "FD-SSM [ε=0.1]") for seed in (0, 1)}
    assert states(folder) == dict.fromkeys(wanted, "done")


def test_the_guide_s_method_learns(guided: tuple[Path, list[Said]]) -> None:
    for variant, seed in states(guided[0]):
        lines = [line["metrics"] for line in journal(guided[0], variant, seed)]
        curve = [metrics["test/log_likelihood"] for metrics in lines if "test/log_likelihood" in metrics]
        assert curve[-1] > curve[0] + 0.5


@pytest.mark.long
def test_a_loss_that_raises_is_reported_as_the_guide_says(tmp_path: Path) -> None:
    place_files(tmp_path)
    text = (tmp_path / "fd_ssm.py").read_text()
    assert text.count("        epsilon = hyper") == 1
    write(
        tmp_path,
        text.replace("        epsilon = hyper", '        raise ValueError("no")\n        epsilon = hyper'),
        "fd_ssm.py",
    )
    run = ("run", "--suite", "compare.yaml", "--plugin", "fd_ssm.py", "--steps", "5", "--seeds", "0")
    said = command(tmp_path, *run)
    assert said.code == 1
    table = [line.split("│")[1].strip() for line in said.out.splitlines() if line.startswith("│")]
    assert table == ["SSM [steps=5]"]
    error = cell(tmp_path, "FD-SSM [ε=0.5, steps=5]", 0).path / "error.txt"
    assert re.fullmatch(r"runs/cells/[0-9a-f]{12}/error.txt", str(error.relative_to(tmp_path)))
    assert error.read_text().endswith("ValueError: no\n")
    place_files(tmp_path)
    assert command(tmp_path, *run).code == 0


# --- the guide's method -----------------------------------------------------------------------------------------------


@pytest.fixture
def method(tmp_path: Path) -> type[Estimator]:
    place_files(tmp_path)
    return registry.methods([tmp_path / "fd_ssm.py"])["fdssm"]


class OfSeed:
    """What ``loss`` is given of a model that nothing trains."""

    def __init__(self, model: Any) -> None:
        self.model = model


def over_directions(method: type[Estimator], model: Any, v: Tensor, epsilon: float) -> Tensor:
    """The mean of the method's loss over all directions of -1 and +1 in the plane; opposite ones have the same."""
    directions = [torch.tensor([1.0, sign], dtype=v.dtype).expand_as(v) for sign in (1.0, -1.0)]
    hyper = {"epsilon": torch.tensor(epsilon, dtype=v.dtype)}
    return torch.stack([method().loss(OfSeed(model), v, u, {}, hyper)[0] for u in directions]).mean()


def gradient(value: Tensor, model: Any) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(value, list(model.parameters()))])


def test_the_guide_s_method_tends_to_sliced_score_matching(method: type[Estimator]) -> None:
    model = GRBM(2, 4).double()
    model.W.data.mul_(3)
    v = torch.randn(30, 2, dtype=torch.float64)
    exact = sm(lambda x: -model.free_energy(x), v).mean()  # SSM averaged over these directions, as E[u u^T] = I
    slope = gradient(exact, model)
    values, slopes = [], []
    for epsilon in (0.04, 0.02, 0.01):
        value = over_directions(method, model, v, epsilon)
        values.append(abs(float((value - exact).detach())))
        slopes.append(float((gradient(value, model) - slope).norm()))
    assert values[2] < 1e-3 * abs(float(exact.detach()))
    assert slopes[2] < 1e-3 * float(slope.norm())
    for errors in (values, slopes):  # of second order: half the step, a quarter of the error
        assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)
        assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)


def test_the_guide_s_method_draws_all_directions(method: type[Estimator]) -> None:
    drawn = method().noise(GRBM(2, 4), (1000, 2), Rng(torch.Generator().manual_seed(0)))
    seen, counts = torch.unique(drawn, dim=0, return_counts=True)
    assert seen.tolist() == [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    assert int(counts.min()) > 200


def test_the_guide_s_method_works_by_itself(method: type[Estimator]) -> None:
    assert "`FDSSM(epsilon=0.1).fit(GRBM(2, 4), data)`" in GUIDE
    fitted = method(epsilon=0.1).fit(GRBM(2, 4), torch.rand(200, 2), steps=3)
    assert (fitted.estimator.name, fitted.step) == ("FD-SSM", 3)


class Still(GRBM):
    """N((1, -2), diag(1, 1/4)): no weights, and so a density that the generator can have exactly."""

    def reset_parameters(self) -> None:
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.b.copy_(torch.tensor([1.0, -2.0]))
            self.log_s.copy_(torch.tensor([1.0, 0.5]).log())


def test_the_guide_s_generator_follows_the_model(tmp_path: Path) -> None:
    """Of a model that hardly moves it becomes the density, where KL(q || p) is exact."""
    place_files(tmp_path)
    directed = registry.methods([tmp_path / "directed.py"])["directed"]
    assert set(specs(directed)) - set(specs(Estimator)) == {"lr_generator"}
    fitted = directed(lr=1e-9, lr_generator=0.01).fit(Still(2, 4), torch.rand(200, 2), steps=800, compile=False)
    x = fitted.part("generator", 0)(torch.randn(20_000, 2))
    torch.testing.assert_close(x.mean(0), torch.tensor([1.0, -2.0]), atol=0.1, rtol=0)
    torch.testing.assert_close(x.std(0), torch.tensor([1.0, 0.5]), atol=0, rtol=0.1)


def test_the_guide_s_chains_are_the_model_s(tmp_path: Path) -> None:
    """After many steps on a model that hardly moves they have its law, wherever the phases have passed them on."""
    place_files(tmp_path)
    short_runs = registry.methods([tmp_path / "short_runs.py"])["short_runs"]
    method = short_runs(lr=1e-9, k=100, step_size=0.3)
    x = method.fit(Still(2, 4), torch.rand(200, 2), steps=1, batch_size=5000, compile=False).state(0)["carry"]["x"]
    torch.testing.assert_close(x.mean(0), torch.tensor([1.0, -2.0]), atol=0.1, rtol=0)
    torch.testing.assert_close(x.std(0), torch.tensor([1.0, 0.5]), atol=0, rtol=0.1)


def test_the_guide_s_stages_are_the_methods_that_they_are_made_of(tmp_path: Path) -> None:
    place_files(tmp_path)
    staged = registry.methods([tmp_path / "cd_nce.py"])["cd_nce"]
    data, setting = torch.rand(200, 2), {"iterations": 20, "compile": False}
    model = GRBM(2, 4)
    fitted = [kind(lr=0.01).fit(model, data, steps=10, **setting).parameters(0)["model"] for kind in (staged, CD)]
    assert all(torch.equal(x, fitted[1][name]) for name, x in fitted[0].items())
    state = staged(lr=0.01).fit(model, data, steps=20, **setting).state(0)
    assert [int(state["optimiser"][part]["count"]) for part in ("model", "normaliser")] == [10, 10]
    assert float(state["params"]["normaliser"]["c"]) != 0
    with pytest.raises(InputError, match="cd_nce cannot train MLPEBM: it samples by Gibbs sweeps between v and h, and"):
        staged().fit(MLPEBM(2), data, steps=1)


# --- the method as a part of the package ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree with the guide's files beside it, the method moved as the guide says."""
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "harness", "reports")
    for name in ("bism", "baselines", "benchmark", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    place_files(folder)
    assert commands(1)[0] == "mv fd_ssm.py baselines/"
    subprocess.run(shlex.split(commands(1)[0]), cwd=folder, check=True)
    return folder


def in_copy(folder: Path, line: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Runs one of the guide's commands in the copy, with the copy's packages."""
    program, *arguments = shlex.split(line)
    assert program == PYTHON
    environment = {**os.environ, "PYTHONPATH": str(folder), "MLFLOW_TRACKING_URI": "none"}
    run = [sys.executable, *arguments, *more]
    return subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.long
def test_a_method_in_baselines_is_found(copy: Path) -> None:
    done = in_copy(copy, commands(1)[1], "--steps", "20")
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 cells, 0 done already, 6 to train in 3 jobs" in done.stdout
    assert {record.state for record in records(copy)} == {"done"}
    assert {record.method for record in records(copy)} == {"fdssm", "ssm"}


@pytest.mark.timeout(600)  # a run of tests in itself
@pytest.mark.long
@pytest.mark.parametrize("more", [("-m", "not long"), ()], ids=["quick", "all"])
def test_the_contract_tests_find_a_method_in_baselines(copy: Path, more: tuple[str, ...]) -> None:
    assert commands(1)[2:] == [f"{PYTHON} -m pytest tests/contracts -k fdssm"]
    done = in_copy(copy, commands(1)[2], "-p", "no:cacheprovider", *more)
    assert done.returncode == 0, done.stdout
    found = re.search(r"(\d+) passed, \d+ deselected", done.stdout)
    assert found, done.stdout
    assert int(found[1]) >= 10


@pytest.mark.parametrize("name", re.findall(r"`((?:baselines|bism|benchmark|tests)/[^`<>]*?)`", GUIDE))
def test_the_files_that_the_guide_names_are_there(name: str) -> None:
    assert (ROOT / name).exists()
