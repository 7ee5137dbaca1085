"""What is kept to be looked at: arrays that say what they are, and images that show them."""

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import torch

from baselines import SM, TrainDBM, TrainDBN
from benchmark.data.datasets import DataSet
from benchmark.measures.pictures import can_picture, draw_density, draw_sheet, picture
from bism import DBM, DBN, GRBM
from bism.engine import Trainer

V = torch.rand(40, 12, generator=torch.Generator().manual_seed(1))
IMAGES = DataSet("images", V, V, V, image=(4, 3))


def pictured(folder: Path) -> tuple[GRBM, dict[str, dict[str, np.ndarray]]]:
    """A model that has been pictured, and the arrays by their kind."""
    trainer = Trainer(SM(lr=0.01), GRBM(12, 20), V, seeds=[2])
    trainer.run(30)
    assert can_picture(IMAGES, trainer.fitted())
    picture(trainer.fitted(), 2, IMAGES, folder, "SM")
    kinds = ("samples", "reconstructions", "receptive_fields")
    return trainer.fitted().model(2), {kind: dict(np.load(folder / f"{kind}_step_00000030.npz")) for kind in kinds}


def test_arrays_are_what_they_are_called(tmp_path: Path) -> None:
    model, arrays = pictured(tmp_path)
    assert {int(content["step"]) for content in arrays.values()} == {30}
    fields = arrays["receptive_fields"]["fields"]
    np.testing.assert_array_equal(fields[3], model.W[:, 3].reshape(4, 3))
    shown = arrays["reconstructions"]
    np.testing.assert_array_equal(shown["originals"], V[:32].reshape(-1, 4, 3))
    hidden = torch.sigmoid(model.c + V[:32] @ model.W)
    expected = model.b + (2 * model.log_s).exp() * (hidden @ model.W.T)
    np.testing.assert_allclose(shown["reconstructions"], expected.reshape(-1, 4, 3), atol=1e-5)
    assert arrays["samples"]["samples"].shape == (40, 4, 3)
    assert not np.array_equal(arrays["samples"]["samples"], V.reshape(-1, 4, 3))
    for kind in arrays:
        assert matplotlib.image.imread(tmp_path / f"{kind}_step_00000030.png").std() > 0.05


def test_deep_models_show_what_their_lowest_layer_sees(tmp_path: Path) -> None:
    binary = (V > 0.5).float()
    images = DataSet("images", binary, binary, binary, image=(4, 3))
    for name, method, made in (("dbm", TrainDBM(), DBM(12, [5, 4])), ("dbn", TrainDBN(), DBN(12, [5, 4]))):
        trainer = Trainer(method, made, binary, seeds=[2], iterations=4)
        trainer.run(4)
        fitted, folder = trainer.fitted(), tmp_path / name
        picture(fitted, 2, images, folder, name)
        shown = {
            kind: dict(np.load(folder / f"{kind}_step_00000004.npz"))
            for kind in ("reconstructions", "receptive_fields")
        }
        model: Any = fitted.model(2)
        v = binary[:32]
        if name == "dbm":
            weights, h = model.bottom.W, model.mean_field(v).hidden[0]
            expected = torch.sigmoid(model.bottom.b + h @ weights.T)
        else:
            weights, lowest = model.directed[0].W, fitted.posterior(2).layers[0]
            expected = torch.sigmoid(model.directed[0].b + torch.sigmoid(lowest.c + v @ lowest.W) @ weights.T)
        np.testing.assert_array_equal(shown["receptive_fields"]["fields"][3], weights[:, 3].reshape(4, 3))
        np.testing.assert_allclose(shown["reconstructions"]["reconstructions"], expected.reshape(-1, 4, 3), atol=1e-6)


def test_a_long_name_above_a_density_stays_in_the_picture(tmp_path: Path) -> None:
    axes, points = [np.linspace(-1, 1, 9)] * 2, np.random.default_rng(0).normal(size=(50, 2))
    for name in ("SM", "Generative ConvNet-10 [step_size=0.05, spectral_norm=True]"):
        draw_density(axes, np.ones((9, 9)), points, tmp_path / "density.png", f"{name}, step 5,000")
        assert matplotlib.image.imread(tmp_path / "density.png")[:, -3:, :3].min() == 1


def test_a_sheet_shows_images_from_left_to_right(tmp_path: Path) -> None:
    images = torch.zeros(9, 4, 4)
    images[8] = 1.0  # the first of the second row
    draw_sheet(images, tmp_path / "grey.png", "")
    draw_sheet(2 * images - 1, tmp_path / "signed.png", "", signed=True)
    grey, signed = (matplotlib.image.imread(tmp_path / f"{name}.png")[..., :3] for name in ("grey", "signed"))
    height, width = grey.shape[:2]
    assert grey[height // 3, width // 2].max() == 0  # the first row is black
    assert grey[2 * height // 3 + 10, 20].min() == 1
    red, blue = signed[2 * height // 3 + 10, 20], signed[height // 3, width // 2]
    assert red[0] > red[2]
    assert blue[2] > blue[0]


def test_a_sheet_of_colour_images(tmp_path: Path) -> None:
    """Nine squares, the first red and the last blue: eight in a row, then one."""
    squares = torch.zeros(9, 3, 10, 10)
    squares[:8, 0] = squares[8, 2] = 1
    draw_sheet(squares, tmp_path / "sheet.png", "")
    image = matplotlib.image.imread(tmp_path / "sheet.png")[..., :3]
    red, blue = ((image == np.array(colour)).all(-1) for colour in ([1, 0, 0], [0, 0, 1]))
    assert 7 < red.sum() / blue.sum() < 9
    assert red.mean() > 0.25
    assert np.argwhere(red)[:, 0].max() < np.argwhere(blue)[:, 0].min()
    assert np.argwhere(blue)[:, 1].max() < np.argwhere(red)[:, 1].mean()


def test_vectors_are_sampled_in_the_coordinates_that_vary_most(tmp_path: Path) -> None:
    vectors = V * torch.arange(1.0, 13.0)
    data = DataSet("vectors", vectors, vectors, vectors)
    trainer = Trainer(SM(lr=0.01), GRBM(12, 3), vectors, seeds=[2])
    trainer.run(3)
    assert can_picture(data, trainer.fitted())
    picture(trainer.fitted(), 2, data, tmp_path, "SM")
    kept = dict(np.load(tmp_path / "marginals_step_00000003.npz"))
    order = vectors.var(dim=0).argsort(descending=True)[:8]
    np.testing.assert_array_equal(kept["coordinates"], order)
    np.testing.assert_array_equal(kept["points"], vectors[:, order])
    whole = trainer.fitted().draw(40, 2)
    np.testing.assert_array_equal(kept["samples"], whole[:, order])
    assert str(kept["how"]) == "independent draws, exact"
    assert matplotlib.image.imread(tmp_path / "marginals_step_00000003.png").std() > 0.05


def test_a_density_of_one_coordinate(tmp_path: Path) -> None:
    values = 100 + 5 * V[:, :1]
    data = DataSet("values", values, values, values)
    trainer = Trainer(SM(lr=0.01), GRBM(1, 3), values, seeds=[0])
    trainer.run(3)
    picture(trainer.fitted(), 0, data, tmp_path, "SM")
    kept = dict(np.load(tmp_path / "density_step_00000003.npz"))
    assert 98 < kept["first"][0] < values.min() < values.max() < kept["first"][-1] < 107
    expected = trainer.fitted().log_likelihood(torch.tensor(kept["first"][:, None]).float())[0].exp()
    np.testing.assert_allclose(kept["density"], expected, rtol=1e-4)


def test_a_density_of_many_coordinates_gives_way_to_samples(tmp_path: Path) -> None:
    points = V[:, :3]
    data = DataSet("points", points, points, points)
    trainer = Trainer(SM(lr=0.01), GRBM(3, 24), points, seeds=[0])
    trainer.run(1)
    picture(trainer.fitted(), 0, data, tmp_path, "SM")
    assert sorted(file.suffix for file in tmp_path.glob("marginals*")) == [".npz", ".png"]
    kept = dict(np.load(tmp_path / "marginals_step_00000001.npz"))
    assert str(kept["how"]) == "ends of Gibbs chains of 500 sweeps"
    np.testing.assert_array_equal(kept["samples"], trainer.fitted().sample_seed(0, points, 500)[:, kept["coordinates"]])
