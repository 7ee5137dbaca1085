"""The probe of codes, on samplers of which everything is known and on methods'."""

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines import CD, IGEBM, CoopNets, FlowContrast, ShortRun
from benchmark.data.datasets import DataSet, load
from benchmark.measures.evaluation import in_own_units
from benchmark.measures.probes import PROBES, Codes, Subject
from bism import GRBM, InputError
from bism.mlp import MLPEBM
from bism.rng import Rng
from tests.maths.exact import draws


class Affine:
    """v = b + A z in as many units as ``shape`` has, of ``size`` codes."""

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        self.shape, self.size = shape, size
        self.weight, self.offset = draws(1).normal((int(np.prod(shape)), size)), draws(2).normal(shape)

    def codes(self, count: int, rng: Rng) -> Tensor:
        return rng.normal((count, self.size))

    def decode(self, z: Tensor) -> Tensor:
        return self.offset + (z @ self.weight.T).reshape(-1, *self.shape)


def subject(sampler: Any, data: DataSet, folder: Path) -> Subject:
    """Of a method that has this sampler."""
    model = GRBM(1, 1).double()
    estimator = types.SimpleNamespace(id="made")
    fitted: Any = types.SimpleNamespace(
        model=lambda seed: model, sampler=lambda seed: sampler, step=7, estimator=estimator
    )
    return Subject(fitted, 5, data, folder)


def arrays(folder: Path, step: int = 7) -> dict[str, np.ndarray]:
    with np.load(folder / f"codes_step_{step:08d}.npz") as found:
        return dict(found)


def test_of_an_affine_map_the_error_is_what_its_columns_leave(tmp_path: Path) -> None:
    """The projection's, of which the mean of the data is the case of no columns."""
    sampler, train, test = Affine(2, (6,)), draws(3).normal((40, 6)) + 1, draws(4).normal((9, 6)) + 1
    found = Codes(count=8, steps=300, batch=3).measure(subject(sampler, DataSet("made", train, test, test), tmp_path))
    a, off = sampler.weight, test[:8] - sampler.offset
    left = (off - off @ a @ torch.linalg.inv(a.T @ a) @ a.T).square().mean(1)
    assert found == pytest.approx(
        {
            "codes/reconstruction_error": float(left.mean()),
            "codes/reconstruction_error_stderr": float(left.std()) / 8**0.5,
            "codes/error_of_mean": float((test[:8] - train.mean(0)).square().mean()),
        }
    )
    kept = arrays(tmp_path)
    np.testing.assert_allclose(kept["originals"], test[:8], rtol=1e-6)
    np.testing.assert_allclose(((kept["originals"] - kept["reconstructions"]) ** 2).mean(1), left, rtol=1e-4)


def test_paths_of_a_linear_map_are_straight_lines_between_reconstructions(tmp_path: Path) -> None:
    data = DataSet("made", *(draws(seed).normal((9, 2)) for seed in (3, 4, 5)))
    found = Codes(count=9, steps=500).measure(subject(Affine(2, (2,)), data, tmp_path))
    assert found["codes/reconstruction_error"] < 1e-20
    kept = arrays(tmp_path)
    assert kept["paths"].shape == (4, 65, 2)
    t = np.linspace(0, 1, 65)[:, None]
    for path, one, other in zip(kept["paths"], data.test[0:8:2].numpy(), data.test[1:8:2].numpy(), strict=True):
        np.testing.assert_allclose(path, (1 - t) * one + t * other, atol=1e-5)
    assert (tmp_path / "codes_step_00000007.png").stat().st_size > 1000
    np.testing.assert_allclose(kept["points"], data.train, rtol=1e-6)


@pytest.mark.parametrize(("image", "shape"), [((4, 4), (16,)), ((1, 4, 4), (1, 4, 4)), ((3, 4, 4), (3, 4, 4))], ids=str)
def test_of_images_there_are_two_sheets(image: tuple[int, ...], shape: tuple[int, ...], tmp_path: Path) -> None:
    data = DataSet("made", *(draws(seed).uniform((9, *shape)) for seed in (3, 4, 5)), image=image)
    Codes(count=9, steps=5).measure(subject(Affine(3, shape), data, tmp_path))
    sides = image[-2:] if image[0] != 3 else image
    kept = arrays(tmp_path)
    assert {name: kept[name].shape for name in ("originals", "reconstructions", "paths")} == {
        "originals": (9, *sides), "reconstructions": (9, *sides), "paths": (4, 8, *sides)
    }  # fmt: skip
    assert all((tmp_path / f"{name}_step_00000007.png").stat().st_size > 1000 for name in ("codes", "paths"))


def test_of_several_starts_the_best_counts(tmp_path: Path) -> None:
    """A map with many hills, of which each start finds one."""

    class Bumps(Affine):
        def decode(self, z: Tensor) -> Tensor:
            return (5 * z).sin() * (-z.square()).exp()

    data = DataSet("made", *(draws(seed).uniform((40, 1)) for seed in (3, 4, 5)))
    one, more = (
        Codes(count=40, steps=30, starts=starts).measure(subject(Bumps(1, (1,)), data, tmp_path)) for starts in (1, 8)
    )
    assert more["codes/reconstruction_error"] < 0.3 * one["codes/reconstruction_error"]


@pytest.mark.parametrize("scale", ["none", "standard"])
@pytest.mark.parametrize(
    "method", [ShortRun(k=3, slope_size=0.1), CoopNets(k=2, codes=16, width=64), FlowContrast(couplings=2, width=8)],
    ids=lambda method: method.id,
)  # fmt: skip
def test_it_is_taken_of_methods_in_the_data_s_own_units(method: Any, scale: str, tmp_path: Path) -> None:
    data = load({"name": "rings", "train": 300, "val": 50, "test": 200, "scale": scale}, tmp_path)
    fitted = method.fit(MLPEBM(2, width=8), data.train, steps=2, seeds=[3])
    fitted, data = in_own_units(fitted, data)
    found = Codes(count=20, steps=60).measure(Subject(fitted, 3, data, tmp_path))
    assert found["codes/reconstruction_error"] < 0.05 * found["codes/error_of_mean"]
    mean = data.train.double().mean(0)
    assert found["codes/error_of_mean"] == pytest.approx(float((data.test[:20] - mean).square().mean()), rel=1e-5)
    kept = arrays(tmp_path, 2)
    np.testing.assert_allclose(kept["paths"][:, 0], kept["reconstructions"][0:8:2], atol=1e-5)
    np.testing.assert_allclose(kept["paths"][:, -1], kept["reconstructions"][1:8:2], atol=1e-5)


def test_what_it_does_not_suit(tmp_path: Path) -> None:
    probe = PROBES["codes"]
    for method in (ShortRun(), CoopNets(), FlowContrast()):
        assert probe.unsuitable(method, MLPEBM(2)) is None
    for other in (IGEBM(), CD()):
        assert probe.unsuitable(other, GRBM(2, 3)) == "the method's samples are not made of codes, as a generator's are"
    data = DataSet("made", *[torch.zeros(3, 2)] * 3)
    with pytest.raises(InputError, match=r"made must have codes\(count, rng\) and decode\(z\), for .* got a object"):
        Codes().measure(subject(object(), data, tmp_path))
