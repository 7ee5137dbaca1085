"""Measures of samples against closed forms, and the probe that takes them of methods' samples and of long chains."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev
from torch.utils._python_dispatch import TorchDispatchMode

from baselines import CD, DSM, VAEMixture
from benchmark.data.datasets import DataSet, load
from benchmark.data.points import LAWS, law_of
from benchmark.measures import two_samples
from benchmark.measures.evaluation import in_own_units
from benchmark.measures.probes import Aggregate, Codes, Probe, Subject, TwoSamples
from benchmark.measures.two_samples import BANDWIDTHS, c2st, median_distance, squared_ksd, squared_mmd
from bism import GRBM, RBM
from bism.latent import latent_mlp
from bism.mlp import MLPEBLVM, MLPEBM
from bism.rng import Rng, generator


def normal(count: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed)).double() + torch.tensor([shift, 0.0])


def mean_and_error(values: list[float]) -> tuple[float, float]:
    found = torch.tensor(values)
    return float(found.mean()), float(found.std()) / len(found) ** 0.5


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_mmd_is_unbiased(shift: float) -> None:
    """E k(x, y) = c exp(-|m|^2 / (2 (b^2 + 2))) with c = b^2 / (b^2 + 2) for N(0, I) and N(m, I) in the plane."""
    b = 1.3
    exact = 2 * b**2 / (b**2 + 2) * (1 - math.exp(-0.5 * shift**2 / (b**2 + 2)))
    values = [squared_mmd(normal(8, seed), normal(12, 1000 + seed, shift), [b]) for seed in range(1000)]
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(exact, abs=4 * error)
    assert error < 0.01
    x, y = normal(8, 0), normal(12, 1, shift)
    both = squared_mmd(x, y, [b, 0.4])
    assert both == pytest.approx((squared_mmd(x, y, [b]) + squared_mmd(x, y, [0.4])) / 2)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_ksd_of_a_shifted_gaussian(shift: float) -> None:
    """s_p - s_q = -m is constant, so that the discrepancy is |m|^2 E k(x, y) = |m|^2 b^2 / (b^2 + 2)."""
    b = 0.9
    values = [squared_ksd(x, -x, b) for x in (normal(10, seed, shift) for seed in range(1000))]
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(shift**2 * b**2 / (b**2 + 2), abs=4 * error)
    assert error < 0.02


def test_sums_over_pairs_by_their_definitions_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """tr grad_x grad_y k and the gradients by automatic differentiation, one pair after another."""
    monkeypatch.setattr(two_samples, "_PAIRS", 40)  # 17 pairs a row: blocks of 2 rows, and one of 1
    x, y, s = normal(17, 0), normal(13, 1, 0.5), normal(17, 2)

    def k(one: Tensor, other: Tensor, b: float) -> Tensor:
        return (-(one - other).square().sum() / (2 * b**2)).exp()

    def mean(one: Tensor, other: Tensor, b: float) -> float:
        found = [float(k(p, q, b)) for p in one for q in other if p is not q and not p.equal(q)]
        return math.fsum(found) / len(found)

    exact = [mean(x, x, b) + mean(y, y, b) - 2 * mean(x, y, b) for b in (0.4, 1.3)]
    assert squared_mmd(x, y, [0.4, 1.3]) == pytest.approx(math.fsum(exact) / 2, rel=1e-12, abs=1e-14)

    def stein(i: int, j: int) -> Tensor:
        of = x[i], x[j], 0.7
        by_x, by_y = grad(k)(*of), grad(k, 1)(*of)
        return s[i] @ s[j] * k(*of) + s[i] @ by_y + s[j] @ by_x + jacrev(grad(k), 1)(*of).trace()

    terms = [float(stein(i, j)) for i in range(17) for j in range(17) if i != j]
    assert squared_ksd(x, s, 0.7) == pytest.approx(math.fsum(terms) / len(terms), rel=1e-12, abs=1e-14)


class Sizes(TorchDispatchMode):
    """How many numbers the largest result has."""

    largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        self.largest = max(self.largest, found.numel() if isinstance(found, Tensor) else 0)
        return found


def test_many_samples_need_no_more_memory_than_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_samples, "_PAIRS", 1000)
    x, y = normal(200, 0), normal(300, 1)
    with Sizes() as sizes:
        squared_ksd(x, -x, 1.0)
        squared_mmd(x, y, BANDWIDTHS)
    assert 1000 <= sizes.largest <= 3000  # two coordinates, three bandwidths


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if law.smooth])
def test_ksd_of_the_data_to_their_law_is_0(name: str) -> None:
    law, values = LAWS[name], []
    for seed in range(50):
        x = torch.from_numpy(law.draw(np.random.RandomState(100 + seed), 100))
        values.append(squared_ksd(x, law.score(x), 0.5))
    mean, error = mean_and_error(values)
    assert abs(mean) < 4 * error
    moved = x + 0.1
    assert squared_ksd(moved, law.score(moved), 0.5) > 10 * error


def test_a_classifier_tells_laws_apart() -> None:
    same, error = c2st(normal(1000, 0), normal(1000, 1))
    assert abs(same - 0.5) < 4 * error
    assert error == pytest.approx(math.sqrt(same * (1 - same) / 1000))
    assert c2st(normal(500, 0), normal(500, 1, 8.0))[0] > 0.99
    near, _ = c2st(normal(2000, 0), normal(2000, 1, 1.0))
    best = 0.5 * (1 + math.erf(0.5 / math.sqrt(2)))  # Bayes: which side of the middle a point is on
    assert near == pytest.approx(best, abs=0.04)
    x, y = normal(400, 0), normal(400, 1, 1.0)
    units = torch.tensor([1e3, 1e-3])
    assert c2st(x, y) == c2st(x * units, y * units)
    assert median_distance(torch.tensor([[0.0], [1.0], [5.0]])) == 4


def test_data_that_are_mostly_alike_have_a_distance_all_the_same() -> None:
    x = torch.tensor([[1.0, 2.0]] * 20 + [[1.0, 5.0]])
    assert median_distance(x) == 3
    assert math.isnan(median_distance(x[:20]))
    found = TwoSamples().compared(x.double(), x.double() + 100, None, "")
    assert found["test/mmd"] == pytest.approx(2 * 19 / 21, rel=0.05)  # nowhere near: twice the share of equal pairs


@pytest.mark.parametrize("probe", [TwoSamples, Codes, Aggregate])
def test_too_few_test_data_are_said_before_anything_trains(probe: type[Probe]) -> None:
    one, two = (DataSet("few", *[torch.arange(2.0 * n).reshape(n, 2)] * 3) for n in (1, 2))
    assert probe.lacking(one) == "it compares test data with each other, and few has 1 of them"
    assert probe.lacking(two) is None
    alike = DataSet("few", *[torch.ones(5, 2)] * 3)
    assert probe.lacking(alike) == ("the test data of few are all alike" if probe is TwoSamples else None)


def test_chains_end_where_the_model_is() -> None:
    """From far away to N(0, 4 I), which an energy without a network is."""
    model = MLPEBM(2, width=2, reference=2.0)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
    v, accepted = TwoSamples(steps=2000).chained(model, torch.full((500, 2), 6.0), lambda *how_far: None)
    assert v.mean(0).tolist() == pytest.approx([0, 0], abs=0.4)
    assert v.std(0).tolist() == pytest.approx([2, 2], rel=0.15)
    assert accepted == pytest.approx(0.57, abs=0.1)


def test_the_probe(tmp_path: Path) -> None:
    data = load({"name": "rings", "train": 300, "val": 50, "test": 200}, tmp_path)
    fitted = DSM().fit(MLPEBM(2, width=8), data.train, steps=20, seeds=[3])
    probe = TwoSamples(count=100, chains=50, steps=200)
    found = probe.measure(Subject(fitted, 3, data, tmp_path))
    assert set(found) == {
        f"test/{prefix}{name}" for prefix in ("", "long_") for name in ("mmd", "ksd", "c2st", "c2st_stderr")
    } | {f"langevin/{name}" for name in ("energy_gap", "gradient_own", "gradient_long", "acceptance")}
    assert found == probe.measure(Subject(fitted, 3, data, tmp_path))
    assert TwoSamples(seeds=3).measure(Subject(fitted, 3, data, tmp_path)) == {}
    with np.load(tmp_path / "toy2d_step_00000020.npz") as arrays:
        assert arrays["own"].shape == (100, 2)
        assert arrays["long"].shape == (50, 2)
        assert str(arrays["steps"]) == f"{probe.steps} steps"
        at = torch.from_numpy(np.stack([np.full(121, arrays["first"][7]), arrays["second"]], 1))
        np.testing.assert_allclose(
            arrays["truth"][:, 7], LAWS["rings"].log_density(at).exp().numpy(), rtol=1e-5, atol=1e-30
        )
        assert arrays["density"].shape == (121, 121)
        shape = (-fitted.model(3).free_energy(at.float())).exp().detach().numpy()
        np.testing.assert_allclose(arrays["density"][:, 7] / arrays["density"][60, 7], shape / shape[60], rtol=1e-3)
        own = torch.from_numpy(arrays["own"]).double()
        assert found["test/ksd"] == pytest.approx(
            squared_ksd(own, LAWS["rings"].score(own), 0.3 * median_distance(data.test[:100]))
        )
        energy = fitted.model(3).free_energy(own.float()).mean()
        far = fitted.model(3).free_energy(torch.from_numpy(arrays["long"])).mean()
        assert found["langevin/energy_gap"] == pytest.approx(float(energy - far), abs=1e-5)


def test_a_classifier_gains_nothing_by_fewer_test_data_than_samples() -> None:
    found = TwoSamples().compared(normal(500, 0), normal(100, 1), None, "")
    assert abs(found["test/c2st"] - 0.5) < 4 * found["test/c2st_stderr"]


def test_points_that_were_made_binary_have_no_law(tmp_path: Path) -> None:
    data = load({"name": "rings", "train": 30, "val": 5, "test": 5}, tmp_path)
    assert law_of(data) is LAWS["rings"]
    assert law_of(data.binarised(0.5)) is None
    assert law_of(data.scaled("standard").in_own_units) is LAWS["rings"]


@pytest.mark.parametrize("scale", ["none", "standard"])
def test_a_model_with_a_prior_is_drawn_from_as_its_method_s_joint_model(
    tmp_path: Path, scale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "benchmark.measures.probes.two_samples._GRID", 8
    )  # the density's picture costs an integral over h for each point
    config = {"name": "rings", "train": 300, "val": 50, "test": 200} | ({} if scale == "none" else {"scale": scale})
    data = load(config, tmp_path)
    trained = VAEMixture(components=3).fit(latent_mlp(2, 2, width=8), data.train, steps=5, seeds=[3], compile=False)
    fitted, own_units = in_own_units(trained, data)
    probe = TwoSamples(count=100, chains=50)
    found = probe.measure(Subject(fitted, 3, own_units, tmp_path))
    assert not any(name.startswith("langevin/") for name in found)
    assert found == probe.measure(Subject(fitted, 3, own_units, tmp_path))
    joint, _ = trained.joint(3)
    drawn = joint.draw(50, Rng(generator(0, 0, "long chains", torch.device("cpu")), torch.float32))
    expected = data.scaling.own(drawn) if data.scaling else drawn
    with np.load(tmp_path / "toy2d_step_00000005.npz") as arrays:
        np.testing.assert_allclose(arrays["long"], expected.numpy(), rtol=1e-5, atol=1e-5)
        assert str(arrays["instead"]) == "draws of the trained prior, decoded"
        assert arrays["own"].shape == (100, 2)
        assert abs(arrays["own"].mean() - arrays["long"].mean()) < 1  # of the same units


def test_which_models_it_is_of() -> None:
    assert TwoSamples.unsuitable(CD(), GRBM(2, 3)) is None
    assert TwoSamples.unsuitable(DSM(), MLPEBLVM(2, 4)) is None
    assert TwoSamples.unsuitable(CD(), RBM(2, 3)) == "it is of points in the plane"
    assert TwoSamples.unsuitable(DSM(), MLPEBM(3)) == "it is of points in the plane"
    assert TwoSamples.unsuitable(DSM(), MLPEBLVM(2, 20)) == "its chains need the energy of v alone, or a prior"
