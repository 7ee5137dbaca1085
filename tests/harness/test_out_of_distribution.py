"""Energies of images that are not of the data, on energies made so that the answers are known."""

import dataclasses
import math
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmark.data import datasets
from benchmark.data.datasets import DataSet
from benchmark.measures.probes import OutOfDistribution
from benchmark.measures.probes.out_of_distribution import _altered, _other_images
from bism.rng import Rng
from tests.harness.known_images import Known, Pictures, arrays, data_of, images, subject
from tests.maths.test_density_bound import log_density


class Given(nn.Module):
    """A fully visible model with an energy of one's own."""

    latent = None

    def __init__(self, energy: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scale, self.free_energy = nn.Parameter(torch.ones(())), energy


def brightness(v: Tensor) -> Tensor:
    """The same for the same pixels in any order, to the last bit."""
    return v.flatten(1).sort(1).values.sum(1)


@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, 0.0)])
def test_the_auroc_of_known_energies(sign: int, expected: float, tmp_path: Path) -> None:
    dark = data_of(0.1 * images(30, shape=(1, 8, 8)))
    measured = OutOfDistribution().measure(subject(tmp_path, Given(lambda v: sign * brightness(v)), None, dark))
    shuffled = pytest.approx(0.5)  # all are ties
    assert measured == {"ood/auroc_noise": expected, "ood/auroc_shuffled": shuffled, "ood/auroc_inverted": expected}
    written = arrays(tmp_path, "energies")
    assert set(written) == {"step", "test", "noise", "shuffled", "inverted"}
    torch.testing.assert_close(written["test"], sign * brightness(dark.test))


def test_points_are_no_images() -> None:
    v = torch.rand(6, 2)
    assert OutOfDistribution.lacking(DataSet("points", v, v, v)) == "the data set points has no images"
    assert OutOfDistribution.lacking(DataSet("pixels", v, v, v, image=(1, 2))) is None


def test_without_a_free_energy_its_bound_is_taken(tmp_path: Path) -> None:
    model = Pictures().double().requires_grad_(False)
    sure = types.SimpleNamespace(**{name: getattr(model, name) for name in ("energy", "latent", "parameters")})
    about = subject(tmp_path, sure, Known(model), data_of(images(30)))
    OutOfDistribution(examples=20, particles=1).measure(about)
    wanted = -log_density(model, images(30)[:20].flatten(1).double()).float()
    torch.testing.assert_close(arrays(tmp_path, "energies")["test"], wanted)


def test_energies_that_are_not_finite_are_said_to_be(tmp_path: Path) -> None:
    broken = Given(lambda v: torch.where(brightness(v) > 16, math.nan, brightness(v)))
    with pytest.warns(UserWarning, match="was not computed: energies that are not finite") as said:
        measured = OutOfDistribution().measure(
            subject(tmp_path, broken, None, data_of(0.1 * images(30, shape=(1, 8, 8))))
        )
    assert [str(one.message).split()[0] for one in said] == ["ood/auroc_noise", "ood/auroc_inverted"]
    assert set(measured) == {"ood/auroc_shuffled"}


@pytest.mark.parametrize("shape", [(3, 4, 4), (16,)])
def test_other_images_made_of_test_images(shape: tuple[int, ...]) -> None:
    v = images(50, shape=shape)
    v[..., 0] += 1 / 3  # a mean that is not that of its inverse
    made = _altered(v, Rng(torch.Generator().manual_seed(1)))
    torch.testing.assert_close(made["inverted"] + v, torch.ones_like(v))
    assert made["noise"].min() >= 0
    assert made["noise"].max() < 1
    assert float(made["noise"].var()) == pytest.approx(1 / 12, rel=0.1)
    before, after = (x.reshape(50, -1, 16).mT.tolist() for x in (v, made["shuffled"]))
    orders = []
    for old, new in zip(before, after, strict=True):
        assert sorted(old) == sorted(new)  # whole pixels
        orders.append(tuple(old.index(pixel) for pixel in new))
    assert len(set(orders)) == 50


def board(name: str, shape: tuple[int, int, int], count: int = 6) -> DataSet:
    """Flat random images."""
    rows = images(count, shape=shape).flatten(1)
    return DataSet(name, rows, rows, rows, shape)


@pytest.mark.parametrize(
    ("ours", "theirs"), [((1, 8, 8), (3, 4, 6)), ((3, 8, 8), (1, 6, 6)), ((1, 5, 4), (1, 5, 4)), ((3, 8, 8), (3, 8, 8))]
)
def test_other_data_in_our_shape(
    ours: tuple[int, int, int], theirs: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = board("mnist", theirs)
    monkeypatch.setitem(datasets.DATASETS, "mnist", lambda folder: other)
    found = _other_images("mnist", board("ours", ours), 4)
    assert found is not None
    assert found.shape == (4, *ours)
    top, left = (ours[1] - theirs[1]) // 2, (ours[2] - theirs[2]) // 2
    wanted = other.test[:4].reshape(4, *theirs)
    wanted = wanted if ours[0] == theirs[0] else wanted.mean(1, keepdim=True).expand(-1, ours[0], -1, -1)
    torch.testing.assert_close(found[..., top : top + theirs[1], left : left + theirs[2]], wanted)
    torch.testing.assert_close(found.sum(), wanted.sum())


def test_other_data_are_measured_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(datasets.DATASETS, "mnist", lambda folder: board("mnist", (1, 8, 8)))
    flat = data_of(0.1 * images(30, shape=(64,)))
    about = subject(tmp_path, Given(brightness), None, dataclasses.replace(flat, image=(8, 8)))
    assert OutOfDistribution(others=["mnist"], examples=5).measure(about)["ood/auroc_mnist"] == 1
    assert len(arrays(tmp_path, "energies")["mnist"]) == 5


def test_other_data_that_cannot_be_had_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BISM_DATA", str(tmp_path / "empty"))
    about = subject(tmp_path, Given(brightness), None, data_of(images(30, shape=(1, 8, 8))))
    with pytest.warns(UserWarning, match="ood/auroc_mnist was not computed: MNIST cannot be read"):
        assert "ood/auroc_mnist" not in OutOfDistribution(others=["mnist"]).measure(about)
    monkeypatch.setitem(datasets.DATASETS, "mnist", lambda folder: board("mnist", (1, 9, 9)))
    with pytest.warns(UserWarning, match="cannot be padded to 8 x 8"):
        assert "ood/auroc_mnist" not in OutOfDistribution(others=["mnist"]).measure(about)
    with pytest.raises(ValueError, match="no data set 'mnsit': did you mean 'mnist'"):
        OutOfDistribution(others=["mnsit"])
