"""Codes of given vectors: what a linear map reaches, and short runs and generators as maps."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines import IGEBM, CoopNets, ShortRun
from baselines.flow import Flow
from bism.inversion import inverted, squared_error
from bism.scaling import Scaling
from tests.maths.exact import draws
from tests.maths.test_chains import Parabola
from tests.maths.test_coopnets import Line


def affine(codes: int, visible: int = 6) -> tuple[Any, Tensor, Tensor]:
    """v = b + A z, with A and b."""
    weight, offset = draws(1).normal((visible, codes)), draws(2).normal((visible,))
    return lambda z: offset + z @ weight.T, weight, offset


def test_a_linear_map_is_inverted_to_machine_precision() -> None:
    decode, weight, offset = affine(6)
    v = 3 + draws(3).normal((20, 6))
    codes, errors = inverted(decode, v, draws(4).normal((20, 6)), 3000)
    assert float(errors.max()) < 1e-25
    torch.testing.assert_close(codes, torch.linalg.solve(weight, (v - offset).T).T, rtol=1e-9, atol=1e-9)


def test_of_fewer_codes_the_error_is_that_of_the_projection() -> None:
    """What no code reaches: |(I - P)(v - b)|^2 / D with P the projection on the columns of A."""
    decode, weight, offset = affine(2)
    v = 3 + draws(3).normal((20, 6))
    left = (v - offset) - (v - offset) @ weight @ torch.linalg.inv(weight.T @ weight) @ weight.T
    codes, errors = inverted(decode, v, draws(4).normal((20, 2)), 300)
    torch.testing.assert_close(errors, left.square().mean(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(errors, squared_error(decode(codes), v))


def test_units_do_not_matter() -> None:
    """Nor what other rows are there, nor of a row whose map is nowhere finite that it is there."""
    decode, _, _ = affine(3)
    v, start = draws(3).normal((5, 6)), draws(4).normal((5, 3))
    codes, errors = inverted(decode, v, start, 9)
    _, large = inverted(lambda z: 1e4 * decode(z / 1e-3), 1e4 * v, 1e-3 * start, 9)
    torch.testing.assert_close(large, 1e8 * errors, rtol=0.5, atol=0)
    alone, least = inverted(decode, v[2:3], start[2:3], 9)
    torch.testing.assert_close((alone[0], least[0]), (codes[2], errors[2]))
    gone = v.clone()
    gone[1] = torch.nan
    beside, found = inverted(decode, gone, start, 9)
    assert found.isnan().tolist() == [False, True, False, False, False]
    torch.testing.assert_close(beside[2], codes[2])


def test_a_curved_map_is_descended_and_its_best_code_is_kept() -> None:
    target, errors = torch.tensor([[0.3, -0.9], [2.0, 2.0]]).double(), []
    for steps in (0, 5, 20, 200):
        codes, error = inverted(lambda z: (3 * z).sin(), target, torch.full((2, 2), 0.1).double(), steps)
        torch.testing.assert_close(error, squared_error((3 * codes).sin(), target))
        errors.append(error)
    assert all(bool((later <= earlier).all()) for earlier, later in itertools.pairwise(errors))
    torch.testing.assert_close(errors[-1], torch.tensor([0.0, 1.0]).double(), rtol=0, atol=1e-9)  # sin is 1 at most


def test_a_short_run_without_noise_is_a_linear_map_of_its_start() -> None:
    """On E = a |v|^2 / 2 each move is v (1 - slope_size a), whatever its noise would be."""
    estimator = ShortRun(k=5, slope_size=0.2, noise_size=0.7)
    fitted = estimator.fit(Parabola(), draws(1).normal((50, 2)), steps=0, dtype=torch.float64)
    sampler: Any = fitted.sampler(0)
    shrunk = (1 - 0.2 * float(fitted.model(0).a)) ** 5
    z = sampler.codes(4, draws(2))
    torch.testing.assert_close(sampler.decode(z), shrunk * z)
    carry = fitted.state(0)["carry"]
    assert bool(((z >= carry["low"]) & (z <= carry["high"])).all())
    v = draws(3).normal((4, 2))
    codes, errors = inverted(sampler.decode, v, z, 50)
    assert float(errors.max()) < 1e-25
    torch.testing.assert_close(codes, v / shrunk)


@pytest.mark.parametrize("steps", [0, 4])
def test_a_generator_s_codes_are_decoded_and_revised_without_noise(steps: int) -> None:
    """v shrinks to the energy's minimum at 0 by 1 - a^2 step_size^2 / 2 in each step."""
    model, generator = Parabola(2, 1.5).double(), Line(3, 2).double()
    parts: Any = SimpleNamespace(model=model.requires_grad_(False), generator=generator.requires_grad_(False))
    drawn = "revised" if steps else "generated"
    sampler = CoopNets(k=max(steps, 1), step_size=0.4, codes=3, drawn=drawn).sampler(parts)
    z = sampler.codes(7, draws(2))
    assert torch.equal(z, draws(2).normal((7, 3)))
    torch.testing.assert_close(sampler.decode(z), (1 - 0.08 * 1.5) ** steps * generator(z))
    assert float(inverted(sampler.decode, draws(3).normal((7, 2)), z, 300)[1].max()) < 1e-25


def test_a_flow_s_codes_are_those_that_it_pulls_data_to() -> None:
    torch.manual_seed(0)
    flow = Flow((2,), 2, 8).double().requires_grad_(False)
    z = flow.codes(5, draws(1))
    torch.testing.assert_close(flow.pull(flow.decode(z))[0], z)


def test_in_the_data_s_own_units() -> None:
    data = 100 + 7 * draws(1).normal((50, 2))
    scaling = Scaling.standard(data)
    fitted = ShortRun(k=3, slope_size=0.2).fit(Parabola(), scaling.scaled(data), steps=0, dtype=torch.float64)
    inner: Any = fitted.sampler(0)
    own: Any = scaling.fitted(fitted).sampler(0)
    z = own.codes(4, draws(2))
    assert torch.equal(z, inner.codes(4, draws(2)))
    torch.testing.assert_close(own.decode(z), scaling.own(inner.decode(z)))
    implicit = IGEBM(k=1, buffer=30).fit(Parabola(), scaling.scaled(data), steps=0, batch_size=10)
    assert not hasattr(scaling.fitted(implicit).sampler(0), "decode")
