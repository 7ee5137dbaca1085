"""Points of known laws: their densities, their entropies, and that both are those of the data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from benchmark.data.datasets import load
from benchmark.data.points import LAWS
from benchmark.tasks.advice import advice, noted

NOWHERE = Path("nowhere")
HALF, COUNT = 4.0, 800


def midpoints(half: float, count: int) -> torch.Tensor:
    axis = (torch.arange(count, dtype=torch.float64) + 0.5) * (2 * half / count) - half
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)


@pytest.mark.parametrize("name", LAWS)
def test_the_density_is_normalised_and_has_this_entropy(name: str) -> None:
    law, cell = LAWS[name], (2 * HALF / COUNT) ** 2
    log_p = law.log_density(midpoints(HALF, COUNT).reshape(-1, 2))
    p = log_p.exp()
    assert float(p.sum()) * cell == pytest.approx(1, abs=1e-6)
    entropy = -float((p * log_p.where(p > 0, 0)).sum()) * cell
    assert entropy == pytest.approx(law.entropy, abs=1e-6)


@pytest.mark.parametrize("name", LAWS)
def test_the_data_are_of_this_density(name: str) -> None:
    data, law = load({"name": name}, NOWHERE), LAWS[name]
    log_p = law.log_density(data.test.double())
    error = float(log_p.std()) / len(log_p) ** 0.5
    assert abs(float(log_p.mean()) + law.entropy) <= 3 * error + 1e-6
    bins, fine = 20, 20  # a histogram, and the density's integral over each of its cells
    edges = np.linspace(-2.4, 2.4, bins + 1)
    counts, _, _ = np.histogram2d(*data.train.double().numpy().T[::-1], bins=[edges, edges])
    inside = law.log_density(midpoints(2.4, bins * fine).reshape(-1, 2)).exp()
    shares = inside.reshape(bins, fine, bins, fine).sum((1, 3)).numpy() * (4.8 / (bins * fine)) ** 2
    expected = shares * len(data.train)
    many = expected > 5
    statistic = ((counts - expected)[many] ** 2 / expected[many]).sum()
    assert stats.chi2.sf(statistic, many.sum() - 1) > 1e-3
    assert abs(counts[~many].sum() - expected[~many].sum()) < 5 * (expected[~many].sum() + 5) ** 0.5


def test_scores_are_finite_everywhere() -> None:
    for law in LAWS.values():
        if law.smooth:
            assert law.score(torch.tensor([[0.0, 0.0], [1.0, -2.0], [30.0, 4.0]], dtype=torch.float64)).isfinite().all()


def test_what_can_be_reached_at_best_is_said() -> None:
    data = load({"name": "rings", "train": 100, "val": 10, "test": 10}, NOWHERE)
    assert [len(data.train), len(data.val), len(data.test)] == [100, 10, 10]
    assert noted(data) == "at best a log-likelihood of -2.1308 nats, minus the entropy of what made the data"
    assert list(advice({"circles": data})) == [f"task circles: {noted(data)}"]
    assert data.scaled("standard").entropy == data.entropy  # likelihoods are reported in the data's own units
    assert data.binarised(0.5).entropy is None
