"""Gibbs sampling, the noise it consumes, and the chains of persistent contrastive divergence."""

import math

import pytest
import torch
from torch import Tensor

from baselines import CD, PCD
from baselines.noise import fit_noise, noise_log_prob, sample_noise
from bism.rng import CountingRng, Rng, StoredRng, generator
from bism.sampling import gibbs, gibbs_noise
from tests.maths.exact import data_of, draws, hyper, make_grbm, parameters, samples, state_of


def moments(v: Tensor) -> Tensor:
    """Mean, second and third moments of each vector, one row each."""
    return torch.cat([v, v.square(), v[:, :1] * v[:, 1:], v.pow(3)], dim=1)


def test_gibbs_leaves_the_model_alone() -> None:
    model, size = make_grbm(), 100_000
    nodes, weights = data_of(model)
    expected = weights @ moments(nodes)
    with torch.no_grad():
        for sweeps in (1, 4):
            v = gibbs(model, samples(model, size, 1), gibbs_noise(model, size, sweeps, draws(2)))
            found = moments(v)
            assert float(((found.mean(0) - expected).abs() / (found.std(0) / size**0.5)).max()) < 5


def test_gibbs_finds_the_model_from_elsewhere() -> None:
    model, size = make_grbm(), 20_000
    nodes, weights = data_of(model)
    expected = weights @ moments(nodes)
    with torch.no_grad():
        v = torch.full((size, 2), 4.0, dtype=torch.float64)
        errors = []
        for sweeps in (1, 60):
            found = moments(gibbs(model, v, gibbs_noise(model, size, sweeps, draws(3))))
            errors.append(float(((found.mean(0) - expected).abs() / (found.std(0) / size**0.5)).max()))
    assert errors[0] > 20
    assert errors[1] < 5


def test_one_sweep_is_hidden_then_visible() -> None:
    model, v = make_grbm(), draws(4).normal((5, 2))
    noise = gibbs_noise(model, 5, 2, draws(5))
    expected = v
    for k in range(2):
        h = model.sample_hidden(expected, noise["hidden"][k])
        expected = model.sample_visible(h, noise["visible"][k])
    assert torch.equal(gibbs(model, v, noise), expected)


def test_the_chains_of_pcd_persist() -> None:
    # they start at training examples, go on from where they were, and do not depend on the minibatch
    model, estimator = make_grbm(), PCD(k=2)
    data = draws(6).normal((40, 2))
    carry = estimator.init_carry(model, data, 7, draws(7))
    assert all((data == chain).all(1).any() for chain in carry["chains"])
    params = state_of({}, model=model).bind({"model": parameters(model)})
    chains, batch = carry["chains"], data[:7]
    for step in range(3):
        noise = estimator.noise(model, (7, 2), draws(8 + step))
        value, carry, _ = estimator.loss(params, batch, noise, carry, hyper(estimator))
        chains = gibbs(model, chains, noise).detach()
        assert torch.equal(carry["chains"], chains)
        expected = model.free_energy(batch).mean() - model.free_energy(chains).mean()
        torch.testing.assert_close(value, expected.detach())
        _, other, _ = estimator.loss(params, batch + 1, noise, {"chains": chains}, hyper(estimator))
        assert torch.equal(other["chains"], gibbs(model, chains, noise).detach())


def test_the_chains_of_cd_start_at_the_minibatch() -> None:
    model, estimator, batch = make_grbm(), CD(k=3), draws(9).normal((7, 2))
    noise = estimator.noise(model, (7, 2), draws(10))
    params = state_of({}, model=model).bind({"model": parameters(model)})
    value, carry, _ = estimator.loss(params, batch, noise, {}, hyper(estimator))
    expected = model.free_energy(batch).mean() - model.free_energy(gibbs(model, batch, noise)).mean()
    torch.testing.assert_close(value, expected.detach())
    assert carry == {}


# --- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logistic_noise_is_finite_and_logistic(dtype: torch.dtype) -> None:
    noise = Rng(torch.Generator().manual_seed(1), dtype).logistic((200_000,))
    for at in (-3.0, 0.0, 1.5):
        share = float((noise < at).double().mean())
        expected = 1 / (1 + math.exp(-at))
        assert share == pytest.approx(expected, abs=5 * (expected * (1 - expected) / len(noise)) ** 0.5)
    for extreme in (0.0, 1 - torch.finfo(dtype).eps / 2):
        tape = torch.full((3,), extreme, dtype=dtype)
        assert StoredRng(tape, tape).logistic((3,)).isfinite().all()


def test_stored_numbers_are_read_in_order_and_counted() -> None:
    counting = CountingRng(torch.float64, torch.device("cpu"))
    tape = StoredRng(torch.arange(20).double() / 20, torch.arange(20).double())
    for rng in (counting, tape):
        shapes = [rng.normal((2, 3)).shape, rng.rademacher((4,)).shape, rng.logistic((1, 2)).shape]
        assert shapes == [(2, 3), (4,), (1, 2)]
    assert (counting.normal_count, counting.uniform_count) == (6, 6)
    assert tape.normal((1,)).tolist() == [6.0]
    assert tape.uniform((1,)).tolist() == pytest.approx([0.3])


def test_numbers_depend_on_seed_index_and_purpose_alone() -> None:
    def first(*key: object) -> float:
        return float(torch.rand((), generator=generator(*key), dtype=torch.float64))  # type: ignore[arg-type]

    keys = [(0, 0, "training"), (1, 0, "training"), (0, 1, "training"), (0, 0, "samples"), (11, 0, "a"), (1, 10, "a")]
    assert len({first(*key) for key in keys}) == len(keys)
    assert first(3, 5, "training") == first(3, 5, "training")


def test_seeding_torch_restores_the_global_generator() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    inside = []
    for _ in range(2):
        with Rng(torch.Generator().manual_seed(3)).seeding_torch():
            inside.append(torch.rand(2))
    assert torch.equal(inside[0], inside[1])
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("kind", ["standard_normal", "gaussian"])
def test_contrastive_noise_has_the_density_it_says(kind: str) -> None:
    data = draws(11).normal((500, 2)) @ torch.tensor([[1.0, 0.6], [0.0, 0.4]]).double() + 0.7
    fitted = fit_noise(kind, data)
    mean = data.mean(0) if kind == "gaussian" else torch.zeros(2).double()
    covariance = data.T.cov() if kind == "gaussian" else torch.eye(2).double()
    v = draws(12).normal((6, 2))
    expected = torch.distributions.MultivariateNormal(mean, covariance).log_prob(v)
    torch.testing.assert_close(noise_log_prob(fitted, v), expected, atol=1e-4, rtol=0)
    drawn = sample_noise(fitted, draws(13).normal((200_000, 2)))
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), covariance, atol=0.03, rtol=0)


def test_fitted_noise_survives_constant_units_and_images() -> None:
    data = draws(14).normal((50, 2, 2))
    data[:, 0, 0] = 3
    with pytest.warns(UserWarning, match="do not vary in every direction"):
        fitted = fit_noise("gaussian", data)
    drawn = sample_noise(fitted, draws(15).normal((5, 2, 2)))
    assert drawn.shape == (5, 2, 2)
    assert noise_log_prob(fitted, drawn).isfinite().all()
    assert fit_noise("gaussian", data[:, :1, 1])["cholesky"].shape == (1, 1)
