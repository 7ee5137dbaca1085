"""Langevin dynamics against densities that are known."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bism import InputError
from bism.langevin import PAPER, Stretch, denoise, langevin, temperatures
from tests.maths.exact import draws


def last(*args: Any, **options: Any) -> dict[str, Tensor]:
    *_, x = langevin(*args, **options)
    return x


def test_the_papers_schedule() -> None:
    heat = temperatures(PAPER)
    assert len(heat) == 2700
    assert (heat[:500] == 100).all()
    assert float(heat[500]) == 100.0
    assert float(heat[2499]) == pytest.approx(1.0)
    ratios = heat[501:2500] / heat[500:2499]
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))  # geometric
    assert float(heat[2500]) == 1.0
    assert float(heat[-1]) == 0.0
    torch.testing.assert_close(heat[2500:].diff(), torch.full((199,), -1 / 199, dtype=torch.float64))  # linear


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": 0, "first": 1.0, "last": 1.0}, "steps must be at least 1"),
        ({"steps": 5, "first": 1.0, "last": 0.0}, "temperatures must be positive"),
        ({"steps": 5, "first": -1.0, "last": 0.0, "spacing": "linear"}, "temperatures must be positive"),
        ({"steps": 5, "first": 1.0, "last": 1.0, "spacing": "cubic"}, "geometric or linear, got 'cubic'"),
    ],
)
def test_impossible_schedules_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Stretch(**given)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_variance_on_a_gaussian_is_that_of_the_discretised_chain(temperature: float) -> None:
    """v <- (1 - a^2 / 2 s^2) v + sqrt(T) a eps has the variance T a^2 / (1 - (1 - a^2 / 2 s^2)^2), near T s^2."""
    s, a, chains = 0.7, 0.3, 40_000
    heat = torch.full((150,), temperature)
    x = last(lambda at: 0.5 * (at["v"] / s).square().sum(1), {"v": torch.zeros(chains, 1).double()}, heat, step_size=a)
    shrink = 1 - a**2 / (2 * s**2)
    expected = temperature * a**2 / (1 - shrink**2)
    assert expected == pytest.approx(temperature * s**2, rel=0.06)
    assert float(x["v"].var()) == pytest.approx(expected, rel=5 * math.sqrt(2 / chains))
    assert abs(float(x["v"].mean())) < 5 * math.sqrt(expected / chains)


def test_a_gaussian_mixture_is_sampled_with_its_weights() -> None:
    """All chains start in one mode and end in both, in the proportion of their weights."""
    weights, means, s = torch.tensor([0.3, 0.7]).double(), torch.tensor([-0.9, 0.9]).double(), 0.5

    def energy(at: Any) -> Tensor:
        return -(weights.log() - (at["v"] - means).square() / (2 * s**2)).logsumexp(1)

    heat = temperatures([Stretch(200, 20.0, 1.0), Stretch(600, 1.0, 1.0)])
    chains = 5000
    v = last(energy, {"v": torch.full((chains, 1), -0.9).double()}, heat, step_size=0.25)["v"][:, 0]
    below = 0.5 * (1 + torch.erf((0.0 - means) / (s * 2**0.5)))  # of each component, on the left of 0
    assert float((v < 0).double().mean()) == pytest.approx(float(weights @ below), abs=0.03)
    mean = float(weights @ means)
    assert float(v.mean()) == pytest.approx(mean, abs=0.06)
    assert float(v.var()) == pytest.approx(s**2 + float(weights @ means.square()) - mean**2, rel=0.06)


def test_jointly_over_v_and_h() -> None:
    """E = (v - h)^2 / 2 + h^2 / 2: h ~ N(0, 1), v ~ N(0, 2), covariance 1; each variable with a step of its own."""
    zeros = torch.zeros(10_000, 1).double()
    x = last(
        lambda at: (0.5 * (at["v"] - at["h"]).square() + 0.5 * at["h"].square()).sum(1),
        {"v": zeros, "h": zeros},
        torch.ones(200),
        step_size={"v": 0.3, "h": 0.25},
    )
    covariance = torch.cov(torch.cat([x["v"], x["h"]], dim=1).T)
    torch.testing.assert_close(covariance, torch.tensor([[2.0, 1.0], [1.0, 1.0]]).double(), rtol=0.06, atol=0.06)


def test_what_is_cut_short_goes_on_as_if_it_had_not_been() -> None:
    def energy(at: Any) -> Tensor:
        return at["v"].square().sum(1)

    heat, start = temperatures([Stretch(20, 5.0, 1.0)]), {"v": draws(1).normal((6, 3))}
    states = list(langevin(energy, start, heat, step_size=0.1, seed=3))
    assert len(states) == 20
    again = list(langevin(energy, states[11], heat, step_size=0.1, seed=3, first=12))
    assert len(again) == 8
    assert torch.equal(again[-1]["v"], states[-1]["v"])
    for other in ({"seed": 4}, {"seed": 3, "batch": 1}):
        assert not torch.equal(last(energy, start, heat, step_size=0.1, **other)["v"], states[-1]["v"])


def test_without_heat_it_is_gradient_descent() -> None:
    x = last(lambda at: at["v"].square().sum(1), {"v": torch.ones(2, 3).double()}, torch.zeros(4), step_size=0.1)
    torch.testing.assert_close(x["v"], torch.full((2, 3), (1 - 0.01) ** 4).double())


def test_denoising_gives_the_mean_of_the_clean_vector() -> None:
    """Data N(0, s^2) smoothed by sigma0: E[v | v~] = v~ s^2 / (s^2 + sigma0^2)."""
    s, sigma0, v = 0.8, 0.3, draws(1).normal((5, 2))
    found = denoise(lambda x: 0.5 * x.square().sum(1) / (s**2 + sigma0**2), v, sigma0)
    torch.testing.assert_close(found, v * s**2 / (s**2 + sigma0**2))


def test_in_bf16_the_variables_stay_in_float32() -> None:
    layer = torch.nn.Linear(3, 3)
    x = last(
        lambda at: layer(at["v"]).float().square().sum(1), {"v": torch.ones(2, 3)}, torch.ones(3), precision="bf16"
    )
    assert x["v"].dtype is torch.float32
