"""Deep models through the command line: what is trained, sampled, kept and said."""

import contextlib
import dataclasses
import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

import benchmark.measures.sample_quality
from baselines import MDSM
from benchmark.data.datasets import DataSet, digits
from benchmark.measures.probes import Samples, Subject
from benchmark.records.rundir import CellFolder, RunDir
from benchmark.running.progress import Bars, Lines
from benchmark.tasks.jobs import Job
from benchmark.tasks.plan import Cell
from bism import BiMDSM, InputError
from bism.langevin import denoise
from bism.resnet import ResNetEBLVM, ResNetEBM
from tests.harness.tiny import DEEP_DIGITS, command, replaced, write

SUITE = (
    DEEP_DIGITS
    + """\
        all: {lr: 0.001, lower: fisher, K: 2, N: 0, sigma_min: 0.1}
        probes:
          - name: samples
            at: [last]
            options: &options
              count: 12
              batch: 8
              schedule: [{steps: 3, first: 10, last: 1}, {steps: 2, first: 1, last: 0, spacing: linear}]
              metrics: [frechet_resnet56]
        variants:
          - {method: mdsm, model: {name: resnet_ebm, width: 1, layers: 12}}
          - {method: bimdsm}
"""
)
LATER = "          - {name: samples, at: [best], options: {<<: *options, count: 10, split: test}}\n"
JUDGE = """
import dataclasses, types
import benchmark.measures.sample_quality
from baselines import MDSM
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(MDSM):
    id, label, reference = "mine", "mine", "nobody"
values = iter([30.0, 10.0, 20.0, 12.5])
def judge(samples, reference, **options):
    return types.SimpleNamespace(metrics={"frechet_resnet56": next(values)}, missing={})
benchmark.measures.sample_quality.judge = judge
"""
SCHEDULE: Any = [{"steps": 130, "first": 10.0, "last": 1.0}]


def run(folder: Path, text: str = SUITE, *arguments: str) -> Any:
    return command(folder, "run", "--suite", str(write(folder, text)), *arguments)


def cells(folder: Path) -> dict[str, CellFolder]:
    with contextlib.closing(RunDir(folder / "runs")) as runs:
        return {record.method: runs.folder(record.id) for record in runs.records()}


def series(cell: CellFolder, metric: str) -> dict[int, float]:
    return {line.step: line.metrics[metric] for line in cell.measurements() if metric in line.metrics}


def test_both_models_are_trained_measured_and_sampled(tmp_path: Path) -> None:
    said = run(tmp_path)
    assert said.code == 0, said.err
    found = cells(tmp_path)
    assert set(found) == {"mdsm", "bimdsm"}
    for method, cell in found.items():
        assert list(series(cell, "val/objective")) == [0, 2, 4]
        bilevel = [0, 2, 4] if method == "bimdsm" else []
        for name in ("val/lower_objective", "val/posterior_fisher_divergence", "test/posterior_fisher_divergence"):
            assert list(series(cell, name)) == bilevel
        (file,) = cell.samples.glob("samples_step_00000004_12_*.npy")
        images = np.load(file)
        assert (images.dtype, images.shape) == (np.uint8, (12, 1, 8, 8))
        assert len(np.unique(images.reshape(12, -1), axis=0)) == 12
        assert list(cell.samples.iterdir()) == [file]  # nothing is left of the way there
        shown = np.load(cell.artifacts / "samples_step_00000004.npz")["samples"]
        np.testing.assert_allclose(shown, images / 255, atol=1e-6)
        assert (cell.artifacts / "samples_step_00000004.png").stat().st_size > 1000
    assert "frechet_resnet56 was not computed" in said.out  # the digits are too small for it
    assert found["mdsm"].config["model"] == {"name": "resnet_ebm", "visible": [1, 8, 8], "width": 1, "layers": 12}


def test_two_processes_are_two_shards(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    plain = SUITE.replace("          - {method: bimdsm}\n", "")
    assert run(tmp_path / "two", plain, "--data-parallel", "2").code == 0
    assert run(tmp_path / "one", plain.replace("steps: 4\n", "steps: 4\n        accumulate: 2\n")).code == 0
    two, one = (cells(tmp_path / name)["mdsm"] for name in ("two", "one"))
    for metric in ("train/objective", "val/objective"):
        assert series(two, metric) == pytest.approx(series(one, metric), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data-parallel", "3"), "batch_size must be a multiple of the 3 shards of a minibatch, got 20"),
        (("--data-parallel", "0"), "--data-parallel must be at least 1, got 0"),
        (("--data-parallel", "2", "--executor", "ray"), "--data-parallel needs --executor local"),
        (("--inception-weights", "nowhere.pth"), "--inception-weights nowhere.pth: no such file"),
        (("--resnet56-weights", "nowhere.th"), "--resnet56-weights nowhere.th: no such file"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_trains(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    found = run(tmp_path, SUITE, *arguments)
    assert found.code == 2
    assert said in found.err
    assert "Traceback" not in found.err
    assert not (tmp_path / "runs" / "cells").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "first: 1, last: 0, spacing: linear",
            "first: 1, last: 0",
            "22: .* option schedule[.]1 .*probe samples: temperatures must be pos",
        ),
        (
            "{name: resnet_ebm, width: 1, layers: 12}",
            "{name: grbm, hidden: 3}",
            "30: .*model.name: takes flat vectors, and the task's model takes images",
        ),
        ("layers: 12, posterior", "layers: 13, posterior", "layers must be one of 12, 18, got 13"),
        ("[posterior_fisher_divergence]", "[fisher_divergence]", "needs free_energy.v., which ResNetEBLVM lacks"),
        ("count: 12", "count: 5", "option count of the probe samples: must be at least 10, got 5"),
    ],
)
def test_a_bad_entry_is_refused_before_anything_trains(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert SUITE.count(old) == 1
    found = run(tmp_path, SUITE.replace(old, new))
    assert found.code == 2
    assert re.search(said, found.err), found.err
    assert "Traceback" not in found.err
    assert not (tmp_path / "runs").exists()


def test_a_divergence_in_a_binary_h_is_refused(tmp_path: Path) -> None:
    text = replaced(("    model: {name: grbm, hidden: 3}", "    model: {name: grbm, hidden: 3}\n"
                     "    metrics: [log_likelihood, posterior_fisher_divergence]"))  # fmt: skip
    found = run(tmp_path, text)
    assert found.code == 2
    assert "posterior_fisher_divergence differentiates in h, which is binary" in found.err


def test_an_image_model_refuses_points(tmp_path: Path) -> None:
    found = run(tmp_path, SUITE.replace("{name: digits}", "{name: checkerboard}"))
    assert found.code == 2
    said = (
        "task digits: the model resnet_eblvm takes images, and checkerboard has none: take another model (grbm, rbm, "
    )
    assert said in found.err
    assert "mlp_eblvm, latent_mlp) or other data (digits, bars_and_stripes, " in found.err


def test_a_training_is_stopped_early_by_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint with the best distance of the samples is the one that is sampled at the end."""
    (tmp_path / "judge.py").write_text(JUDGE)  # a plug-in is what reaches the process that trains
    text = replaced(
        ("select: val/objective", "select: val/frechet_resnet56\n    rule: best_validation"),
        ("            at: [last]\n", "            at: [1, 2, 3]\n"),
        ("              metrics:", "              split: val\n              metrics:"),
        ("        variants:\n", LATER + "        variants:\n"),
        ("          - {method: bimdsm}\n", ""),
        text=SUITE,
    )
    said = run(tmp_path, text, "--plugin", str(tmp_path / "judge.py"))
    assert said.code == 0, said.err
    cell = cells(tmp_path)["mdsm"]
    assert series(cell, "val/frechet_resnet56") == {1: 30.0, 2: 10.0, 3: 20.0}
    assert series(cell, "test/frechet_resnet56") == {2: 12.5}
    assert list(series(cell, "selected/test/frechet_resnet56").values()) == [12.5]


# --- the probe of samples ---------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Interrupt:
    """Stops a probe after so many signs of life."""

    left: int
    seen: list[Any] = dataclasses.field(default_factory=list)

    def __call__(self, *how_far: Any) -> None:
        self.seen.append(how_far)
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def data() -> DataSet:
    return digits(Path()).as_images()


def subject(folder: Path, data: DataSet, latent: bool, alive: Any = lambda *how_far: None) -> Subject:
    torch.manual_seed(0)
    model = ResNetEBLVM((1, 8, 8), 2, 1, posterior_width=1) if latent else ResNetEBM((1, 8, 8), 1)
    estimator: Any = BiMDSM(lower="fisher", unroll_steps=0, inner_steps=1) if latent else MDSM()
    fitted = estimator.fit(model, data.train, seeds=[3], steps=1, batch_size=20)
    return Subject(fitted, 3, data, folder / "cell" / "artifacts", alive=alive)


@pytest.mark.parametrize("latent", [pytest.param(False, marks=pytest.mark.long), True])
def test_sampling_goes_on_where_it_was_interrupted(tmp_path: Path, data: DataSet, latent: bool) -> None:
    probe = Samples(count=12, batch=8, schedule=SCHEDULE)
    whole = probe.draw(subject(tmp_path / "whole", data, latent))
    for left in (1, 3):  # in the middle of the first batch, and of the second
        with pytest.raises(KeyboardInterrupt):
            probe.draw(subject(tmp_path / "cut", data, latent, Interrupt(left)))
    assert list((tmp_path / "cut").rglob("*.state.pt"))
    assert torch.equal(probe.draw(subject(tmp_path / "cut", data, latent)), whole)
    assert torch.equal(probe.draw(subject(tmp_path / "cut", data, latent, Interrupt(0))), whole)  # and is kept
    patient = Interrupt(99)
    probe.draw(subject(tmp_path / "again", data, latent, patient))
    assert [far for far in patient.seen if far] == [("sampling", n, 260) for n in (50, 100, 180, 230)]


def test_another_probe_of_the_same_step_has_samples_of_its_own(tmp_path: Path, data: DataSet) -> None:
    one = subject(tmp_path, data, False)
    first = Samples(count=10, schedule=SCHEDULE).draw(one)
    other = Samples(count=10, schedule=SCHEDULE, step_size=0.1).draw(one)
    assert not torch.equal(first, other)
    same = Samples(count=10, schedule=SCHEDULE, split="val", metrics=["fid"]).draw(one)
    assert torch.equal(first, same)
    assert len(list((tmp_path / "cell" / "samples").iterdir())) == 2


def test_what_is_trained_again_is_sampled_again(tmp_path: Path) -> None:
    """The samples of an earlier training are not those of this one."""
    plain = SUITE.replace("          - {method: bimdsm}\n", "")
    assert run(tmp_path, plain).code == 0
    (file,) = cells(tmp_path)["mdsm"].samples.iterdir()
    before, wrong = np.load(file), np.zeros((12, 1, 8, 8), np.uint8)
    np.save(file, wrong)
    assert run(tmp_path, plain).code == 1  # the cell is damaged, and is left as it is
    assert (np.load(file) == 0).all()
    assert run(tmp_path, plain, "--rerun").code == 0
    assert np.array_equal(np.load(file), before)


def test_h_is_sampled_too_where_that_is_asked_for(
    tmp_path: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts at the posterior's mean of training images, and moves by steps of its own size."""
    seen = []

    def run(probe: Any, energy: Any, start: Any, *_: Any, step_size: Any = None, **__: Any) -> Any:
        seen.append((start, step_size))
        assert energy(start).shape == (12,)
        return start

    monkeypatch.setattr(Samples, "run", run)
    one = subject(tmp_path / "given", data, True)
    Samples(count=12, schedule=SCHEDULE).draw(one)
    Samples(count=12, schedule=SCHEDULE, h="joint", step_size_h=0.7).draw(subject(tmp_path / "joint", data, True))
    (given, _), (joint, sizes) = seen
    assert (set(given), set(joint), sizes) == ({"v"}, {"v", "h"}, {"v": 0.02, "h": 0.7})
    means = one.fitted.posterior(3).mean(data.train)
    assert all(torch.isclose(means, h).all(1).any() for h in joint["h"])


@pytest.mark.parametrize(
    ("latent", "h", "said"),
    [
        (False, "posterior", ""),
        (True, "posterior", " of v given E[h|v] of training images"),
        (True, "joint", " of v and h together"),
    ],
)
def test_a_sheet_says_how_its_samples_were_drawn(
    tmp_path: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch, latent: bool, h: Any, said: str
) -> None:
    """The report took all sheets without it for Gibbs chains from training data."""
    monkeypatch.setattr(Samples, "run", lambda probe, energy, start, *_, **__: start)
    one = subject(tmp_path, data, latent)
    Samples(count=12, schedule=SCHEDULE, h=h).measure(one)
    (written,) = one.folder.glob("samples_step_*.npz")
    with np.load(written) as found:
        assert str(found["how"]) == "ends of annealed Langevin chains" + said


def test_the_last_step_takes_the_noise_away(tmp_path: Path, data: DataSet) -> None:
    one = subject(tmp_path, data, False)
    model, sigma0 = one.fitted.model(3), one.fitted.estimator.hyper["sigma0"]
    v = data.test[:3]
    torch.testing.assert_close(Samples().cleaned(model.energy, v, one), denoise(model.energy, v, sigma0))
    assert Samples(denoise=False).cleaned(model.energy, v, one) is v


def test_chains_start_from_the_gaussian_that_is_asked_for(tmp_path: Path, data: DataSet) -> None:
    one = subject(tmp_path, data, False)
    start = Samples(start_mean=0.3, start_std=0.1).starting(one, one.fitted.model(3), 500, 0)
    assert start.shape == (500, 1, 8, 8)
    assert float(start.mean()) == pytest.approx(0.3, abs=0.005)
    assert float(start.std()) == pytest.approx(0.1, rel=0.05)


def by_pixels(images: torch.Tensor, data: torch.Tensor) -> float:
    """The squared MMD of images with 256 grey levels, pair by pair."""
    both = torch.cat([images.flatten(1), (data * 255).round().flatten(1)]).double() / 255
    n, apart = len(images), torch.cdist(both, both)
    unit = apart[n:, n:][*torch.triu_indices(len(data), len(data), 1)].median()
    kernel = sum((-0.5 * (apart / (b * unit)) ** 2).exp() for b in (0.1, 0.3, 1.0)) / 3 - torch.eye(len(both))
    among = [k.sum() / (len(k) * (len(k) - 1)) for k in (kernel[:n, :n], kernel[n:, n:])]
    return float(sum(among) - 2 * kernel[:n, n:].mean())


def test_the_distances_are_of_the_samples_to_the_training_images(
    tmp_path: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def judge(samples: Any, reference: Any, **options: Any) -> Any:
        given.update(samples=samples, reference=reference, **options)
        return SimpleNamespace(metrics={"fid": 3.0}, missing={"kid": "it is missing"})

    monkeypatch.setattr(benchmark.measures.sample_quality, "judge", judge)
    one = subject(tmp_path, data, False)
    probe = Samples(count=12, schedule=SCHEDULE, metrics=["fid", "kid", "mmd"], split="val")
    with pytest.warns(UserWarning, match="kid was not computed: it is missing"):
        found = probe.measure(one)
    assert found == {"val/fid": 3.0, "val/mmd": pytest.approx(by_pixels(probe.draw(one), data.val))}
    alone = dataclasses.replace(one, data=dataclasses.replace(data, val=data.val[:1]))
    assert np.isnan(Samples(count=12, schedule=SCHEDULE, metrics=["mmd"], split="val").measure(alone)["val/mmd"])
    assert given["samples"].shape == (12, 1, 8, 8)
    official = torch.cat([data.train, data.val])  # the official training set: a part of it is validation data here
    assert torch.equal(given["reference"], (official.clamp(0, 1) * 255).round().to(torch.uint8))
    assert given["names"] == ["fid", "kid"]


# --- data -------------------------------------------------------------------------------------------------------------


def test_images_are_padded_around_their_middle() -> None:
    flat = torch.arange(2 * 6).float().reshape(2, 6) + 1
    found = DataSet("x", flat, flat, flat, (2, 3)).padded(5)
    assert found.image == (5, 5)
    image = found.train.reshape(2, 5, 5)[0]
    assert torch.equal(image[1:3, 1:4], flat[0].reshape(2, 3))
    assert float(image.sum()) == float(flat[0].sum())
    assert found.as_images().train.shape == (2, 1, 5, 5)
    with pytest.raises(InputError, match="cannot be padded to 2 x 2"):
        DataSet("x", flat, flat, flat, (2, 3)).padded(2)


def test_images_are_cropped_to_their_middle() -> None:
    flat = torch.arange(2 * 20).float().reshape(2, 20)
    found = DataSet("x", flat, flat[:1], flat, (4, 5)).cropped(2)
    assert found.image == (2, 2)
    assert torch.equal(found.train[0], torch.tensor([6.0, 7, 11, 12]))
    assert found.val.shape == (1, 4)
    with pytest.raises(InputError, match="cannot be cropped to 5 x 5"):
        DataSet("x", flat, flat, flat, (4, 5)).cropped(5)


# --- the model in MLflow ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")  # mlflow.pyfunc's own
def test_a_logged_model_of_latents_gives_its_bound(tmp_path: Path, data: DataSet) -> None:
    from mlflow.pyfunc.model import PythonModelContext

    from benchmark.tracking.pyfunc import TrainedModel
    from bism.likelihood import log_density_bound

    assert run(tmp_path, SUITE.replace("lr: 0.001", "lr: 0.001, ema: 0.5")).code == 0
    v = data.test[:5]
    for method, cell in cells(tmp_path).items():
        artifacts = {"checkpoint": str(cell.artifacts / "last.pt"), "config": str(cell.path / "config.json")}
        model = TrainedModel()
        model.load_context(PythonModelContext(artifacts, {}))
        found = model.predict(None, pd.DataFrame(v.flatten(1).numpy()))  # type: ignore[arg-type]
        if method == "mdsm":
            expected = -model.model.free_energy(v.double())
            assert list(found) == ["log_density_unnormalised"]
        else:
            expected = log_density_bound(model.model, model.posterior, v.double())
            assert list(found) == ["log_density_bound"]
        np.testing.assert_allclose(found.iloc[:, 0], expected.detach())
        saved = torch.load(cell.artifacts / "last.pt", weights_only=True)["tensors"]
        name, parameter = next(iter(model.model.named_parameters()))
        torch.testing.assert_close(parameter.detach().float(), saved["average"]["model"][name][0])
        assert not torch.equal(saved["average"]["model"][name], saved["state"]["params"]["model"][name])


def test_a_damaged_network_is_found_before_anything_trains(tmp_path: Path) -> None:
    (tmp_path / "resnet56-4bfd9763.th").write_bytes(b"nonsense")
    found = run(tmp_path, SUITE, "--resnet56-weights", "resnet56-4bfd9763.th")
    assert found.code == 2
    assert "resnet56-4bfd9763.th" in found.err
    assert "Traceback" not in found.err
    assert not (tmp_path / "runs").exists()


def test_a_terminal_shows_how_far_the_sampling_is() -> None:
    """The job's bar turns to what it does, and back to its iterations when it trains on."""
    job = Job((Cell({"task": "digits", "variant": "MDSM", "steps": 40, "hyper": {}, "seed": 0}),))
    bars = Bars(Console(force_terminal=True, file=io.StringIO()), [job], lambda _: "")
    bars.started(job)
    (row,) = [task for task in bars.progress.tasks if task.description != "jobs"]
    bars.doing(job, "sampling", 300, 2700)
    assert (row.description, row.completed, row.total) == ("digits MDSM: sampling", 300, 2700)
    bars.stepped(job, 7)
    assert (row.description, row.completed, row.total) == ("digits MDSM", 7, 40)


def test_a_log_says_now_and_then_how_far_the_sampling_is() -> None:
    out, job = io.StringIO(), Job((Cell({"task": "digits", "variant": "MDSM", "steps": 40, "hyper": {}, "seed": 0}),))
    lines = Lines(Console(file=out, width=200), [job], lambda _: "")
    lines.doing(job, "sampling", 300, 2700)
    assert out.getvalue() == ""
    lines.spoke -= 61
    lines.doing(job, "sampling", 1300, 2700)
    assert out.getvalue() == "digits MDSM: sampling, 1,300 of 2,700 steps\n"
