"""Cooperative learning against chains and gradients by hand, and its generator."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines import CoopNets
from baselines.revision import revised
from bism import InputError
from bism.generator import Generator
from tests.maths.exact import draws, hyper, parameters, relative, state_of
from tests.maths.test_flow import GaussianEnergy, adam_gradient

PRECISION, WEIGHT, BIAS = 1.7, 0.8, -0.4


class Line(nn.Linear):
    """g(z) = w z + b."""

    def __init__(self, codes: int = 1, size: int = 1) -> None:
        super().__init__(codes, size)
        self.codes = codes


def pair(estimator: CoopNets, batch: int = 6) -> Any:
    """A state with the model a v^2 / 2 and the generator w z + b."""
    model, generator = GaussianEnergy().double(), Line().double()
    with torch.no_grad():
        model.a.fill_(PRECISION)
        generator.weight.fill_(WEIGHT)
        generator.bias.fill_(BIAS)
    params = {"model": parameters(model), "generator": parameters(generator)}
    state = state_of(params, model=model, generator=generator)
    carry = estimator.init_carry(model, torch.zeros(3, 1, dtype=torch.float64), batch, draws(0))
    return state.replace(optimiser=estimator.init_optimiser(params), carry=carry)


def coopnets_error(estimator: CoopNets) -> float:
    """The largest relative error of a step's samples, codes and gradients, all of them written out for a Gaussian model
    and a linear generator."""
    before, data, (stage,) = pair(estimator), draws(1).normal((1, 6, 1)), estimator.stages
    own, phases = stage.draw(before.bind().model, (6, 1), draws(2))
    after, info = stage.whole(before, data, (own, phases), hyper(estimator))
    ((z,), chain, codes, _), s = phases, estimator.spread
    v = WEIGHT * z + BIAS
    for eps in chain:
        v = v - 0.5 * estimator.step_size**2 * PRECISION * v + estimator.step_size * eps
    for eps in codes:
        slope = z - WEIGHT * (v - WEIGHT * z - BIAS) / s**2
        z = z - 0.5 * estimator.code_step_size**2 * slope + estimator.code_step_size * eps
    left = v - WEIGHT * z - BIAS
    found = {
        "v": after.carry["v"],
        "z": after.carry["z"],
        "model": adam_gradient(estimator, before, after, "model")["a"],
        **adam_gradient(estimator, before, after, "generator"),
        "objective": info["objective"],
    }
    contrast = 0.5 * (data.square().mean() - v.square().mean())
    expected = {
        "v": v,
        "z": z,
        "model": contrast[None],
        "weight": -(left * z).mean()[None, None] / s**2,
        "bias": -left.mean()[None] / s**2,
        "objective": PRECISION * contrast,
    }
    return max(relative(found[name], one) for name, one in expected.items())


@pytest.mark.parametrize("code_steps", [0, 2])
def test_a_step_is_that_of_the_chains_written_out(code_steps: int) -> None:
    assert coopnets_error(CoopNets(k=3, step_size=0.4, codes=1, code_steps=code_steps)) < 1e-10


def test_the_regression_recovers_a_linear_map() -> None:
    """Of fixed codes and targets: the least squares line."""
    estimator, rng = CoopNets(codes=3), draws(1)
    model, generator = GaussianEnergy(2).double(), Line(3, 2).double()
    params = {"model": parameters(model), "generator": parameters(generator)}
    weight, bias, z = rng.normal((2, 3)), rng.normal((2,)), rng.normal((40, 3))
    state = state_of(params, model=model, generator=generator)
    state = state.replace(optimiser=estimator.init_optimiser(params), carry={"z": z, "v": z @ weight.T + bias})
    for lr_generator in (0.05, 0.002):
        for _ in range(150):
            state = estimator.regress(state, z[None, :, :2], (), hyper(estimator, lr_generator=lr_generator))
    torch.testing.assert_close(state.params["generator"]["weight"], weight, rtol=0, atol=5e-3)
    torch.testing.assert_close(state.params["generator"]["bias"], bias, rtol=0, atol=5e-3)
    assert state.params["model"] is params["model"]


def test_the_revision_of_codes_lowers_the_reconstruction_error() -> None:
    torch.manual_seed(0)
    estimator, generator = CoopNets(codes=4, code_step_size=0.05), Generator((3,), 4, 16).double()
    generator.visible.start_from(20 * draws(4).normal((50, 3)))
    state = state_of({"generator": parameters(generator)}, generator=generator)
    v = generator(draws(1).normal((50, 4))).detach()
    state, rng = state.replace(carry={"z": draws(2).normal((50, 4)), "v": v}), draws(3)

    def error(z: Tensor) -> float:
        return float((generator(z) - v).square().sum(1).mean().detach())

    errors = [error(state.carry["z"])]
    for _ in range(100):
        state = estimator.revise_codes(state, v[None], rng.normal((50, 4)), hyper(estimator))
        errors.append(error(state.carry["z"]))
    assert errors[-1] < 0.3 * errors[0]
    assert torch.equal(state.carry["v"], v)


def test_the_samples_are_the_generator_s_revised_or_not() -> None:
    """Long revisions forget the generator, N(3, 0.64), and end at the model, N(0, 1 / a)."""
    model, generator = GaussianEnergy().double(), Line().double()
    with torch.no_grad():
        model.a.fill_(4.0)
        generator.weight.fill_(WEIGHT)
        generator.bias.fill_(3.0)
    parts: Any = SimpleNamespace(model=model, generator=generator)
    plain = CoopNets(drawn="generated", codes=1).sampler(parts)
    torch.testing.assert_close(plain.draw(5, draws(2)), 3 + WEIGHT * draws(2).normal((5, 1)))
    assert plain.how == "independent draws of the generator"
    revising = CoopNets(k=60, step_size=0.2, codes=1).sampler(parts)
    v = revising.draw(4000, draws(1))
    assert abs(float(v.mean())) < 0.05
    assert float(v.var()) == pytest.approx(0.25 / (1 - 0.04), rel=0.08)  # 1 / a (1 - a step_size^2 / 4)
    assert revising.how == "independent draws of the generator, after 60 steps of Langevin dynamics each"


def test_a_revision_has_no_gradient() -> None:
    x = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
    assert not revised(lambda at: at.square().sum(1), x, x, 0.1).requires_grad


@pytest.mark.parametrize("shape", [(2,), (1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 5, 6)], ids=str)
def test_a_generator_starts_at_the_data_s_location_and_scale(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    generator, data = Generator(shape, codes=3, width=4), 5 + 3 * draws(1).normal((50, *shape)).float()
    before = generator(torch.ones(7, 3))
    generator.visible.start_from(data)
    after = generator(torch.ones(7, 3))
    assert after.shape == (7, *shape)
    expected = data.mean(0) + data.std(0, correction=0) * before
    torch.testing.assert_close(after, expected, rtol=1e-3, atol=1e-4)


def test_every_code_reaches_every_pixel() -> None:
    torch.manual_seed(0)
    generator = Generator((1, 16, 16), codes=2, width=4)
    zero, one = generator(torch.zeros(1, 2)), generator(torch.tensor([[0.0, 1.0]]))
    assert ((one - zero) != 0).all()


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="Generator: codes, width and layers must be 1 or more, got 0, 128 and 2"):
        Generator((2,), codes=0)
    with pytest.raises(InputError, match="coopnets: generator must have codes of the size 16, got 3"):
        CoopNets().fit(GaussianEnergy(2), torch.zeros(10, 2), steps=1, parts={"generator": Line(3, 2)})
