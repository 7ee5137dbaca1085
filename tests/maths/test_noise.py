"""The Gaussian that noise-contrastive methods fit, on data that do not vary in all directions."""

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from baselines import NCE, VNCE
from baselines.noise import fit_noise, noise_log_prob, sample_noise
from bism import GRBM, InputError
from tests.maths.exact import draws


def low_rank(rows: int, dimensions: int, rank: int) -> Tensor:
    """Points of a plane of few dimensions, float64, some way from 0."""
    return draws(1).normal((rows, rank)) @ draws(2).normal((rank, dimensions)) + 3


def fitted(data: Tensor) -> dict[str, Tensor]:
    """The Gaussian fitted to data that do not vary in every direction."""
    with pytest.warns(UserWarning, match="do not vary in every direction"):
        return fit_noise("gaussian", data)


def expected(data: Tensor, ridge: Tensor) -> MultivariateNormal:
    """N(mean, S + diag(ridge)), by another way."""
    double = data.double()
    covariance = double.T.cov() + ridge.double().diag()
    return MultivariateNormal(double.mean(0), covariance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "dimensions", "rank"), [(80, 560, 5), (30, 40, 40)])
def test_the_density_is_that_of_the_ridged_covariance(
    rows: int, dimensions: int, rank: int, dtype: torch.dtype
) -> None:
    data = low_rank(rows, dimensions, rank).to(dtype)
    found = fitted(data)
    assert torch.allclose(found["ridge"].double(), 1e-6 * data.double().var(0), rtol=1e-4, atol=0)
    assert {x.dtype for x in found.values()} == {dtype}
    truth, noise = (
        expected(data, found["ridge"]),
        sample_noise(found, draws(3).normal((50, dimensions)).to(dtype)),
    )
    for v in (noise, data):
        error = noise_log_prob(found, v).double() - truth.log_prob(v.double())
        assert float(error.abs().max()) < (0.5 if dtype is torch.float32 else 1e-4)
    distance = truth.covariance_matrix.inverse() @ (noise.double() - truth.mean).T  # squared Mahalanobis: chi-square
    mean = float(((noise.double() - truth.mean).T * distance).sum(0).mean())
    assert mean == pytest.approx(dimensions, abs=5 * (2 * dimensions / 50) ** 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_more_dimensions_than_examples(dtype: torch.dtype) -> None:
    data = draws(4).uniform((800, 3072)).to(dtype)
    found = fitted(data)
    assert torch.isfinite(noise_log_prob(found, data[:10])).all()
    covariance = found["cholesky"][:50].double() @ found["cholesky"][:50].T.double()
    ridged = data.double()[:, :50].T.cov() + found["ridge"][:50].double().diag()
    assert torch.allclose(covariance, ridged, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 20])
def test_constant_data_are_refused(rows: int, dtype: torch.dtype) -> None:
    data = torch.full((rows, 4), 0.3, dtype=dtype)
    with pytest.raises(InputError, match=f"the {rows} rows of the data are all the same"):
        fit_noise("gaussian", data)
    assert torch.equal(fit_noise("standard_normal", data)["mean"], torch.zeros(4, dtype=dtype))


def test_a_ridge_grows_until_the_covariance_factorises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baselines.noise._RIDGE", 1e-20)  # less than the rounding of float64
    data = low_rank(80, 60, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = fit_noise("gaussian", data)
    in_variances = found["ridge"] / data.var(0)
    assert 1e-17 < float(in_variances.min()) <= float(in_variances.max()) < 1e-11
    assert torch.isfinite(found["whitening"]).all()


def test_each_unit_has_a_ridge_of_its_own_scale() -> None:
    """A small unit beside a large one keeps its spread: with one ridge for all it would be a million times too wide."""
    data = draws(1).normal((500, 4)) * torch.tensor([1e6, 1.0, 1e-6, 0.0]) + torch.tensor([0, 0, 0, 0.3])
    found = fitted(data.double())
    spread = sample_noise(found, draws(3).normal((20000, 4)).double()).std(0)
    assert torch.allclose(spread[:3], data.double().std(0)[:3], rtol=0.03)
    assert float(spread[3]) == pytest.approx(1e-3, rel=0.03)  # of the median variance, 1
    assert torch.allclose(found["ridge"][:3], 1e-6 * data.double().var(0)[:3], rtol=1e-6)


def test_nothing_is_said_of_data_that_vary_in_every_direction() -> None:
    data = draws(5).normal((200, 6))
    found = fit_noise("gaussian", data)
    assert torch.allclose(noise_log_prob(found, data), expected(data, found["ridge"]).log_prob(data))


@pytest.mark.parametrize("kind", [NCE, VNCE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_training_beside_such_noise(kind: Any, dtype: torch.dtype) -> None:
    data, estimator = low_rank(40, 60, 5).to(dtype), kind(noise_distribution="gaussian", lr=0.01)
    estimator = dataclasses.replace(estimator, inner_steps=1) if kind is VNCE else estimator
    with pytest.warns(UserWarning, match=r"noise fitted to them has a variance of its own \(1e-06 of"):
        found = estimator.fit(GRBM(60, 3), data, steps=30, batch_size=10, dtype=dtype, compile=False)
    assert found.diverged_at == [None]
    assert torch.allclose(found.state(0)["carry"]["ridge"], 1e-6 * data.var(0), rtol=1e-3, atol=0)
    assert torch.isfinite(found.energy(data)).all()


def test_noise_that_training_adds_is_in_the_covariance() -> None:
    """Also in directions, and of units, in which the data do not vary; and there is nothing to warn of then."""
    data = torch.cat([low_rank(40, 60, 5), torch.full((40, 2), 0.3)], dim=1).double()
    found = fit_noise("gaussian", data, 0.4)
    whole = data.T.cov() + 0.16 * torch.eye(62).double()
    assert torch.allclose(found["cholesky"] @ found["cholesky"].T, whole + found["ridge"].diag(), atol=1e-10)
    alone = fit_noise("gaussian", torch.full((1, 3), 0.3).double(), 0.4)
    assert torch.allclose(
        alone["cholesky"] @ alone["cholesky"].T, 0.16 * (1 + 1e-6) * torch.eye(3).double(), atol=1e-12
    )


@pytest.mark.parametrize("kind", [NCE, VNCE])
def test_a_method_is_given_the_noise_that_its_training_adds(kind: Any) -> None:
    """A Gaussian fitted without it is told from the data at once: of 60 units in a plane of 5 every log-odds was far
    beyond what a sigmoid resolves, and no gradient was left."""
    data, estimator = low_rank(400, 60, 5), kind(noise_distribution="gaussian", lr=0.01)
    estimator = dataclasses.replace(estimator, inner_steps=1) if kind is VNCE else estimator
    found = estimator.fit(GRBM(60, 3), data, steps=1, batch_size=10, data_noise=0.3, compile=False)
    wanted = fit_noise("gaussian", data.float(), 0.3)
    carry = found.state(0)["carry"]
    assert set(carry) == set(wanted)
    assert all(torch.equal(carry[name], tensor) for name, tensor in wanted.items())
    seen = data.float() + 0.3 * draws(2).normal((400, 60)).float()
    by_itself = noise_log_prob(carry, sample_noise(carry, draws(1).normal((400, 60)).float())).mean()
    assert float(noise_log_prob(carry, seen).mean()) == pytest.approx(float(by_itself), abs=2.0)
