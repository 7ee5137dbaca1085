"""Images from h, and h as features, on models and features made so that the answers are known."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor, nn

from baselines import CD, MDSM
from benchmark.data.datasets import DataSet
from benchmark.measures.probes import PROBES, Conditional, Features, OutOfDistribution
from benchmark.measures.probes.latents import share_of_h
from bism import DBM, DBN, GRBM, BiDSM, BiMDSM
from bism.posteriors import default_posterior
from bism.resnet import ResNetEBLVM, ResNetEBM
from bism.rng import generator
from tests.harness.known_images import HIDDEN, PIXELS, SHAPE, Known, Pictures, arrays, data_of, images, subject
from tests.maths.exact import LinearGaussian

CONSTANT = {"steps": 120, "first": 1.0, "last": 1.0}


@pytest.fixture
def model() -> Any:
    """In float64."""
    torch.manual_seed(2)
    return Pictures().double().requires_grad_(False)


# --- images from h --------------------------------------------------------------------------------------------------


def test_samples_given_h_are_those_of_p_v_given_h(model: Any, tmp_path: Path) -> None:
    probe = Conditional(schedule=[CONSTANT], step_size=0.3, denoise=False, batch=4000)
    h = torch.randn(3, HIDDEN, dtype=torch.float64)
    v = probe.given(subject(tmp_path, model, None, data_of(images(5))), model, h, count=2000)
    variance = math.exp(-0.6)
    torch.testing.assert_close(v.mean(1), model.of(h), rtol=0, atol=0.07)
    # Langevin dynamics of steps a make the variance s^2 of a Gaussian larger by 1 / (1 - a^2 / (4 s^2))
    wanted = torch.full_like(v[:, 0], variance / (1 - 0.09 / (4 * variance)))
    torch.testing.assert_close(v.var(1), wanted, rtol=0.1, atol=0)


def test_h_alone_changes_from_point_to_point(model: Any, tmp_path: Path) -> None:
    probe = Conditional(schedule=[CONSTANT], step_size=0.3, denoise=False, batch=4)
    h, about = torch.randn(5, HIDDEN, dtype=torch.float64), subject(tmp_path, model, None, data_of(images(5)))
    v = probe.given(about, model, h, count=2)  # two points at once
    assert (v[0, 0] - v[0, 1]).abs().min() > 1e-3  # two noises
    wanted = (model.of(h) - model.of(h[:1])).unsqueeze(1).expand(v.shape)
    torch.testing.assert_close(v - v[:1], wanted, rtol=0, atol=1e-3)
    assert torch.equal(v, probe.given(about, model, h, count=2))
    assert not torch.equal(v, probe.given(about, model, h, count=2, batch=1))


def test_the_last_noise_is_taken_away_given_the_same_h(model: Any, tmp_path: Path) -> None:
    h, about = torch.randn(4, HIDDEN, dtype=torch.float64), subject(tmp_path, model, None, data_of(images(5)))
    noisy, clean = (
        Conditional(schedule=[CONSTANT], step_size=0.3, denoise=denoise).given(about, model, h)
        for denoise in (False, True)
    )
    expected = noisy - 0.3**2 * (noisy - model.of(h).unsqueeze(1)) * math.exp(0.6)
    torch.testing.assert_close(clean, expected)


@pytest.fixture
def sheets(model: Any, tmp_path: Path) -> dict[str, dict[str, Tensor]]:
    """All that the probe writes of 5 images."""
    probe = Conditional(
        schedule=[CONSTANT], step_size=0.3, images=5, side=3, joint=[{"steps": 70, "first": 1, "last": 1}]
    )
    measured = probe.measure(subject(tmp_path, model, Known(model), data_of(images(9))))
    found = {what: arrays(tmp_path, what) for what in ("conditional", "line", "triangle", "joint")}
    assert measured == {"latent/share_of_h": pytest.approx(share_of_h(found["conditional"]["samples"]))}
    return found


def test_h_is_the_posteriors_mean_of_test_images(model: Any, sheets: dict[str, dict[str, Tensor]]) -> None:
    sheet = sheets["conditional"]
    assert torch.equal(sheet["images"], images(9)[:5])
    torch.testing.assert_close(sheet["h"], Known(model).mean(images(9)[:5].double()).float())
    assert sheet["samples"].shape == (5, 7, *SHAPE)
    assert len({float(x) for x in sheet["samples"][0, :, 0, 0, 0]}) == 7
    same = sheet["samples"] - sheet["samples"][:1]  # in a column h alone differs: by the same in all columns
    torch.testing.assert_close(same, same[:, :1].expand(same.shape), rtol=0, atol=1e-5)


def test_a_line_leads_from_one_image_s_h_to_the_other_s(sheets: dict[str, dict[str, Tensor]]) -> None:
    sheet, line = sheets["conditional"], sheets["line"]
    assert torch.equal(line["images"], images(9)[:4].reshape(2, 2, *SHAPE))
    assert line["samples"].shape == (2, 6, *SHAPE)
    for pair, (first, last) in enumerate([(0, 1), (2, 3)]):
        for place, at in ((0, first), (-1, last)):
            torch.testing.assert_close(line["samples"][pair, place], sheet["samples"][at, 0])
            torch.testing.assert_close(line["h"][pair, place], sheet["h"][at])
        middle = (sheet["h"][first] + sheet["h"][last]) / 2
        torch.testing.assert_close(line["h"][pair, 2:4].mean(0), middle)
        steps = line["samples"][pair].diff(dim=0)  # E[v|h] is linear in h
        torch.testing.assert_close(steps, steps.mean(0, keepdim=True).expand(steps.shape), rtol=0, atol=1e-5)


def test_a_triangle_has_three_images_at_its_corners(sheets: dict[str, dict[str, Tensor]]) -> None:
    sheet, triangle = sheets["conditional"], sheets["triangle"]
    assert torch.equal(triangle["images"], images(9)[:3])
    halves = [[1, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]
    assert triangle["weights"].tolist() == halves
    torch.testing.assert_close(triangle["h"], triangle["weights"] @ sheet["h"][:3])
    mixed = (triangle["weights"] @ sheet["samples"][:3, 0].flatten(1)).reshape(6, *SHAPE)
    torch.testing.assert_close(triangle["samples"], mixed, rtol=0, atol=1e-5)


def test_the_joint_film_starts_at_the_images(sheets: dict[str, dict[str, Tensor]]) -> None:
    film = sheets["joint"]
    assert film["at"].tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    assert torch.equal(film["v"][:, 0], images(9)[:5])
    assert film["v"].shape == film["images"].shape == (5, 8, *SHAPE)
    assert film["h"].shape == (5, 8, HIDDEN)


def test_joint_dynamics_keep_the_joint_density(model: Any, tmp_path: Path) -> None:
    chains, sizes = 6000, {"step_size": 0.2, "step_size_h": 0.3}
    torch.manual_seed(3)
    h = torch.randn(chains, HIDDEN, dtype=torch.float64)
    v = model.of(h) + math.exp(-0.3) * torch.randn(chains, *SHAPE, dtype=torch.float64)
    probe = Conditional(**sizes, joint=[{"steps": 250, "first": 1, "last": 1}])
    film = probe.film(subject(tmp_path, model, None, data_of(images(5))), model, Known(model), v)
    states = torch.cat([film["v"].flatten(2), film["h"]], dim=-1)
    a = torch.tensor([0.2] * PIXELS + [0.3] * HIDDEN, dtype=torch.float64)
    weight = math.exp(0.6)
    precision = torch.eye(PIXELS + HIDDEN, dtype=torch.float64)
    precision[:PIXELS, :PIXELS] *= weight
    precision[:PIXELS, PIXELS:] = -weight * model.W
    precision[PIXELS:, :PIXELS] = -weight * model.W.T
    precision[PIXELS:, PIXELS:] += weight * model.W.T @ model.W
    exact = torch.linalg.inv(precision)
    torch.testing.assert_close(states[:, 0].T.cov(), exact, rtol=0, atol=0.05 * float(exact.diag().max()))
    moved = torch.eye(len(a), dtype=torch.float64) - 0.5 * a.square().unsqueeze(1) * precision
    kept = torch.as_tensor(solve_discrete_lyapunov(moved.numpy(), a.square().diag().numpy()))
    torch.testing.assert_close(states[:, -1].T.cov(), kept, rtol=0, atol=0.05 * float(kept.diag().max()))
    mean = torch.cat([model.b, torch.zeros(HIDDEN, dtype=torch.float64)])
    torch.testing.assert_close(states[:, -1].mean(0), mean, rtol=0, atol=0.1)
    distance = (states[:, -1] - states[:, 0]).square().mean(0)  # and it does move
    assert (distance > 0.5 * kept.diag()).all()
    clean = film["v"] - 0.3**2 * weight * (film["v"] - model.of(film["h"]))
    torch.testing.assert_close(film["images"], clean)


def test_v_and_h_take_steps_of_their_own(model: Any, tmp_path: Path) -> None:
    probe = Conditional(step_size=0.01, step_size_h=0.02, joint=[{"steps": 7, "first": 1e6, "last": 1e6}])
    v = images(500).double()
    film = probe.film(subject(tmp_path, model, None, data_of(images(5))), model, Known(model), v)
    for name, size in (("v", 0.01), ("h", 0.02)):  # where it is so hot, all is noise
        assert float(film[name].diff(dim=1).std()) == pytest.approx(1e3 * size, rel=0.05)


def test_the_share_of_h_in_the_variance() -> None:
    a, b = torch.randn(6, 1, *SHAPE), torch.randn(1, 5, *SHAPE)
    assert share_of_h(a.expand(6, 5, *SHAPE)) == pytest.approx(1)
    assert share_of_h(b.expand(6, 5, *SHAPE)) == 0
    of_a, of_b = a.var(0, correction=0).sum(), b.var(1, correction=0).sum()
    assert share_of_h(a + b) == pytest.approx(float(of_a / (of_a + of_b)))


def test_long_work_shows_signs_of_life(model: Any, tmp_path: Path) -> None:
    signs: list[int] = []
    about = subject(tmp_path, model, Known(model), data_of(images(9)), alive=lambda *_: signs.append(1))
    Conditional(schedule=[CONSTANT], images=3, side=2, joint=[{"steps": 100, "first": 1, "last": 1}]).measure(about)
    assert len(signs) == 2 + 2 + 2


# --- h as features --------------------------------------------------------------------------------------------------


class FirstPixels(nn.Module):
    """E[h|v]: the first three pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def mean(self, v: Tensor) -> Tensor:
        return v.flatten(1)[:, :HIDDEN]


def separated(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images whose first three pixels say their class, and the other 61 nothing, but loudly."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(HIDDEN, (count,), generator=source)
    v = 20 * torch.randn(count, 64, generator=source)
    v[:, :HIDDEN] = nn.functional.one_hot(labels, HIDDEN) + 0.05 * torch.randn(count, HIDDEN, generator=source)
    return v.reshape(count, 1, 8, 8), labels


def features(folder: Path, shuffle: bool = False, **options: Any) -> tuple[dict[str, float], DataSet]:
    """The measured features of separated classes, or of the same with random labels."""
    (train, train_labels), (test, test_labels) = separated(300, 1), separated(150, 2)
    if shuffle:
        train_labels, test_labels = (x[torch.randperm(len(x))] for x in (train_labels, test_labels))
    data = DataSet("made", train, test[:10], test, (1, 8, 8), (train_labels, test_labels[:10], test_labels))
    return Features(**options).measure(subject(folder, FirstPixels(), FirstPixels(), data)), data


def test_features_that_separate_the_classes(tmp_path: Path) -> None:
    measured, data = features(tmp_path, examples=60, train_examples=200)
    assert measured["latent/linear_probe_accuracy"] == 1
    assert measured["latent/knn_accuracy"] == 1
    assert measured["latent/linear_probe_accuracy_pixels"] > 0.9  # standardised, the loud pixels are no louder
    assert measured["latent/knn_accuracy_pixels"] < 0.5
    written = arrays(tmp_path, "embedding")
    assert written["embedding"].shape == (60, 2)
    assert torch.equal(written["features"], data.test[:60].flatten(1)[:, :HIDDEN])
    assert torch.equal(written["labels"], data.labels[2][:60])  # type: ignore[index]
    assert torch.equal(written["labels"], written["features"].argmax(1))
    nearest = torch.cdist(written["embedding"], written["embedding"]).fill_diagonal_(math.inf).argmin(1)
    assert (written["labels"][nearest] == written["labels"]).float().mean() > 0.95
    assert features(tmp_path / "again", examples=60, train_examples=200)[0] == measured
    assert torch.equal(arrays(tmp_path / "again", "embedding")["embedding"], written["embedding"])


def test_random_labels_are_guessed_at(tmp_path: Path) -> None:
    measured, _ = features(tmp_path, shuffle=True, examples=10)
    assert set(measured) == {
        f"latent/{name}_accuracy{of}" for name in ("linear_probe", "knn") for of in ("", "_pixels")
    }
    for value in measured.values():
        assert value == pytest.approx(1 / HIDDEN, abs=0.14)  # 3.6 standard errors


def test_the_neighbours_and_the_examples_are_as_many_as_asked_for(tmp_path: Path) -> None:
    everyone, data = features(tmp_path, examples=5, train_examples=30, neighbours=30)
    chosen = torch.randperm(300, generator=generator(5, 0, "examples to learn from"))[:30]
    most = data.labels[0][chosen].mode().values  # type: ignore[index]
    wanted = (data.labels[2] == most).float().mean()  # type: ignore[index]
    assert everyone["latent/knn_accuracy"] == pytest.approx(float(wanted))


def test_data_without_classes_are_embedded_without(tmp_path: Path) -> None:
    about = subject(tmp_path, FirstPixels(), FirstPixels(), data_of(images(20, shape=(1, 8, 8))))
    with pytest.warns(UserWarning, match="the data set made has no classes here"):
        assert Features(examples=12).measure(about) == {}
    assert set(arrays(tmp_path, "embedding")) == {"step", "embedding", "features"}


def test_a_grbm_s_posterior_has_features(tmp_path: Path) -> None:
    grbm, (test, labels) = GRBM(64, 4), separated(40, 3)
    about = subject(tmp_path, grbm, default_posterior(grbm), data_of(test.flatten(1), labels))
    assert len(Features(examples=20).measure(about)) == 4
    assert (arrays(tmp_path, "embedding")["features"] > 0).all()


@pytest.mark.parametrize("model", [GRBM(64, 4), DBM(64, [4, 3])], ids=["GRBM", "DBM"])
def test_without_a_posterior_the_features_are_the_model_s_own(tmp_path: Path, model: Any) -> None:
    test, labels = separated(40, 3)
    v = test.flatten(1) if isinstance(model, GRBM) else (test.flatten(1) > 0.5).float()
    about: Any = subject(tmp_path, model, None, data_of(v, labels))
    about.fitted.estimator = CD()
    assert len(Features(examples=20).measure(about)) == 4
    found = arrays(tmp_path, "embedding")["features"]
    if isinstance(model, GRBM):
        wanted = torch.sigmoid(model.c + v[:20] @ model.W)
    else:
        wanted = torch.cat(model.mean_field(v[:20]).hidden, 1)
    torch.testing.assert_close(found, wanted)


# --- what they suit -------------------------------------------------------------------------------------------------


def test_what_they_suit() -> None:
    visible, latent, grbm = ResNetEBM((1, 8, 8), 4), ResNetEBLVM((1, 8, 8), 2, 4), GRBM(4, 2)
    suits = {
        name: [PROBES[name].unsuitable(*one) for one in ((MDSM(), visible), (BiMDSM(), latent), (BiDSM(), grbm))]
        for name in ("conditional", "features", "out_of_distribution")
    }
    assert suits["conditional"] == [
        "the model has no latent variables",
        None,
        "h is binary, and neither lines nor Langevin dynamics lead through it",
    ]
    assert suits["features"] == ["the model has no latent variables", None, None]
    assert suits["out_of_distribution"] == [None, None, None]
    assert Features.unsuitable(CD(), grbm) is None
    assert Features.unsuitable(CD(), DBM(4, [3, 2])) is None
    assert Features.unsuitable(CD(), DBN(4, [3, 2])) == "this method trains no posterior"
    assert OutOfDistribution.unsuitable(MDSM(), latent) is not None
    assert Conditional.unsuitable(BiDSM(), LinearGaussian(4, 2)) == "it is of models of images"
