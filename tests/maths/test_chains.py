"""Methods that train on the ends of Langevin chains, on Gaussians, where moves and gradients are known."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad

from baselines import IGEBM, GenerativeConvNet, ShortRun
from baselines.chains import data_range, from_pool
from bism import GRBM
from bism.state import State
from bism.variables import Gaussian
from tests.maths.exact import draws, hyper, relative, state_of

SHORT = ShortRun(k=3, slope_size=0.2, noise_size=0.3)
IMPLICIT = IGEBM(k=3, slope_size=0.5, noise_size=0.3, clip=0.7, clamp="data", regulariser=0.1, buffer=42, restart=0.3)
PERSISTENT = GenerativeConvNet(k=3, step_size=0.6)
ALL = [SHORT, IMPLICIT, PERSISTENT]
BATCH = 7


class Parabola(nn.Module):
    """E(v) = a |v - m|^2 / 2: N(m, 1 / a)."""

    latent, reference = None, 1.5

    def __init__(self, visible: int = 2, precision: float = 0.8) -> None:
        super().__init__()
        self.visible_shape, self.visible_units = (visible,), Gaussian(visible)
        self.a, self.m = nn.Parameter(torch.tensor(precision)), nn.Parameter(torch.zeros(visible))

    def energy(self, v: Tensor) -> Tensor:
        return 0.5 * self.a * (v - self.m).square().sum(-1)

    free_energy = energy


def after_phases(estimator: Any, model: nn.Module, data: Tensor, batch: int = BATCH) -> tuple[State, State, list[Any]]:
    """The state before a step and after its phases, and the noise of each call."""
    rng = draws(5)
    begun = state = estimator.init(model, data, rng, batch_size=batch)
    drawn = []
    for phase in estimator.phases:
        for _ in range(phase.count):
            drawn.append(phase.noise(model, (batch, *data.shape[1:]), rng))
            state = phase.step(state, data[:batch][None], drawn[-1], hyper(estimator))
    return begun, state, drawn


def moves(estimator: Any, x: Tensor, noises: list[Tensor], a: float, low: Tensor, high: Tensor) -> Tensor:
    """The chains, written out for ``Parabola``."""
    for eps in noises:
        if isinstance(estimator, ShortRun):
            x = (1 - estimator.slope_size * a) * x + estimator.noise_size * eps
        elif isinstance(estimator, GenerativeConvNet):
            x = (1 - estimator.step_size**2 / 2 * a) * x + estimator.step_size * eps
        else:
            x = x + estimator.noise_size * eps
            x = x - estimator.slope_size * (a * x).clamp(-estimator.clip, estimator.clip)
            x = x.clamp(low, high)
    return x


def chains_error(estimator: Any) -> float:
    """Relative difference of chains and of the loss's gradient from those written out."""
    model, data = Parabola().double(), 0.8 * draws(1).normal((60, 2)) + 0.3
    before, after, (first, *noises) = after_phases(estimator, model, data)
    low, high, a = data.amin(0), data.amax(0), float(model.a.detach())
    start = before.carry["x"]
    if isinstance(estimator, ShortRun):
        start = low + (high - low) * first
    if isinstance(estimator, IGEBM):
        anew = (first["restart"] < estimator.restart)[:, None]
        kept = before.carry["buffer"].reshape(BATCH, 6, 2)[range(BATCH), (6 * first["slots"]).long()]
        start = torch.where(anew, low + (high - low) * first["fresh"], kept)
    ends = moves(estimator, start, noises, a, low, high)

    def loss(theta: dict[str, Tensor]) -> Tensor:
        bound = state_of({}, model=model).bind({"model": theta})
        return estimator.loss(bound, data[:BATCH], None, after.carry, hyper(estimator))[0]

    found = grad(loss)({"a": model.a.detach(), "m": model.m.detach()})
    sizes = [x.square().sum(1) / 2 for x in (data[:BATCH], ends)]  # dE/da at m = 0; dE/dm = -a v
    weights = [1 + 2 * estimator.hyper.get("regulariser", 0.0) * a * sizes[0]]
    weights.append(2 * estimator.hyper.get("regulariser", 0.0) * a * sizes[1] - 1)
    pairs = list(zip(weights, (data[:BATCH], ends), sizes, strict=True))
    wanted = {
        "a": sum((w * size).mean() for w, _, size in pairs),
        "m": -a * sum((w[:, None] * x).mean(0) for w, x, _ in pairs),
    }
    return max(relative(after.carry["x"], ends), relative(found, wanted))


@pytest.mark.parametrize("estimator", ALL, ids=lambda x: x.id)
def test_chains_and_gradients_are_those_written_out(estimator: Any) -> None:
    assert chains_error(estimator) < 1e-12


@pytest.mark.parametrize("estimator", [dataclasses.replace(SHORT, k=60), dataclasses.replace(PERSISTENT, k=60)])
def test_chains_that_converge_have_the_variance_of_their_discretisation(estimator: Any) -> None:
    """v <- (1 - c) v + t eps has the stationary variance t^2 / (1 - (1 - c)^2): of steps a on N(0, s^2), where
    c = a^2 / (2 s^2) and t = a, this is s^2 / (1 - a^2 / (4 s^2))."""
    _, after, _ = after_phases(estimator, Parabola(1).double(), draws(1).normal((50, 1)), batch=20_000)
    found = float(after.carry["x"].var())
    s = 1 / math.sqrt(0.8)
    langevin = s**2 / (1 - PERSISTENT.step_size**2 / (4 * s**2))
    wanted = langevin if estimator.id == PERSISTENT.id else 0.3**2 / (1 - (1 - 0.2 * 0.8) ** 2)
    assert found == pytest.approx(wanted, rel=4 * math.sqrt(2 / 20_000))


def test_the_chosen_slots_of_the_buffer_move_and_no_others() -> None:
    model, data = Parabola().double(), draws(1).normal((60, 2))
    before, after, (first, *_) = after_phases(IMPLICIT, model, data)
    assert before.carry["buffer"].shape == (42, 2)  # six for each of a minibatch
    bound = after.bind()
    _, carry, _ = IMPLICIT.loss(bound, data[:BATCH], None, after.carry, hyper(IMPLICIT))
    slots = (torch.arange(BATCH) * 6 + (6 * first["slots"]).long()).tolist()
    assert len(set(slots)) == BATCH
    torch.testing.assert_close(carry["buffer"][slots], after.carry["x"])
    others = [one for one in range(42) if one not in slots]
    assert torch.equal(carry["buffer"][others], before.carry["buffer"][others])
    assert not torch.equal(carry["buffer"][slots], before.carry["buffer"][slots])


@pytest.mark.parametrize(("asked", "held"), [(1, 7), (7, 7), (8, 14)])
def test_a_buffer_has_as_many_chains_for_each_of_a_minibatch_and_no_fewer_than_asked_for(asked: int, held: int) -> None:
    data = draws(1).normal((60, 2))
    estimator = IGEBM(buffer=asked, restart=0.0)
    carry = estimator.init_carry(Parabola().double(), data, BATCH, draws(2))
    assert carry["buffer"].shape == (held, 2)
    begun = estimator.begin(carry, estimator.start_noise(None, (BATCH, 2), draws(3)), hyper(estimator))
    assert torch.equal(begun["slots"] // (held // BATCH), torch.arange(BATCH))
    assert torch.equal(begun["x"], carry["buffer"][begun["slots"]])


def test_every_slot_is_chosen_as_often_and_one_chain_in_twenty_starts_anew() -> None:
    estimator, rng, chains = IGEBM(buffer=12), draws(3), 4
    data = draws(1).normal((20, 1))
    carry = estimator.init_carry(Parabola(1), data, chains, rng) | {"buffer": torch.full((12, 1), 9.0).double()}
    counts, anew, rounds = torch.zeros(12), 0, 4000
    for _ in range(rounds):
        begun = estimator.begin(carry, estimator.start_noise(None, (chains, 1), rng), hyper(estimator))
        counts[begun["slots"]] += 1
        anew += int((begun["x"] != 9).sum())
    assert float((counts / rounds - 1 / 3).abs().max()) < 4 * math.sqrt(2 / 9 / rounds)
    assert anew / (rounds * chains) == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / rounds / chains))


def test_slopes_are_clipped_and_chains_stay_in_the_range() -> None:
    model, x = Parabola(2, 5.0).double(), torch.tensor([[0.1, 3.0], [-2.0, 0.0]]).double()
    span = {"low": torch.tensor([-1.5, -9.0]).double(), "high": torch.tensor([0.0, 2.0]).double()}
    still = {"noise_size": 0.0, "clip": 2.0, "slope_size": 0.1}
    free = IGEBM(**still).moved(model, x, x, span, hyper(IGEBM(**still)))
    torch.testing.assert_close(free, torch.tensor([[0.05, 2.8], [-1.8, 0.0]]).double())
    bounded = IGEBM(**still, clamp="data").moved(model, x, x, span, hyper(IGEBM(**still)))
    torch.testing.assert_close(bounded, torch.tensor([[0.0, 2.0], [-1.5, 0.0]]).double())


def test_the_range_is_that_of_each_unit_and_of_all_pixels() -> None:
    points, images = torch.tensor([[1.0, 5.0], [2.0, 4.0]]), torch.rand(5, 1, 2, 3)
    assert {name: x.tolist() for name, x in data_range(points).items()} == {"low": [1, 4], "high": [2, 5]}
    found = data_range(images)
    assert torch.equal(found["low"], images.min().expand(1, 2, 3))
    assert torch.equal(found["high"], images.max().expand(1, 2, 3))


def test_a_short_run_samples_by_itself_and_decodes_its_starts() -> None:
    """Without noise each move shrinks v by 1 - slope_size a: samples are the data's box, shrunk."""
    estimator = ShortRun(k=5, slope_size=0.2, noise_size=0.0)
    data = draws(1).normal((50, 2)) + torch.tensor([1.0, -3.0])
    fitted = estimator.fit(Parabola(), data, steps=0, dtype=torch.float64)
    sampler: Any = fitted.sampler(0)
    shrunk = (1 - 0.2 * 0.8) ** 5
    torch.testing.assert_close(sampler.from_start(data, draws(2)), shrunk * data, rtol=1e-6, atol=1e-6)
    samples = fitted.draw(500, 0) / shrunk
    assert bool(((samples > data.amin(0) - 1e-6) & (samples < data.amax(0) + 1e-6)).all())
    torch.testing.assert_close(samples.mean(0), (data.amin(0) + data.amax(0)) / 2, rtol=0, atol=0.4)
    assert sampler.how == "ends of 5 steps of the method's own Langevin dynamics, from uniform noise"


def test_samples_start_at_chains_in_turn() -> None:
    pool = torch.arange(4.0).double()[:, None]
    drawn = from_pool(pool, 10, draws(1))
    assert sorted(torch.bincount(drawn[:, 0].long()).tolist()) == [2, 2, 3, 3]
    assert sorted(drawn[:4, 0].tolist()) == [0, 1, 2, 3]
    estimator = IGEBM(k=1, noise_size=0.0, slope_size=1e-9, buffer=30)
    fitted = estimator.fit(Parabola(1), 5 + draws(2).normal((40, 1)), steps=0, batch_size=10, dtype=torch.float64)
    buffer = fitted.state(0)["carry"]["buffer"]
    torch.testing.assert_close(fitted.draw(30, 0).sort(0)[0], buffer.sort(0)[0])


@pytest.mark.parametrize(
    "estimator",
    [
        ShortRun(k=15, slope_size=0.05, noise_size=0.3, lr=0.04),
        IGEBM(k=5, slope_size=0.05, noise_size=0.3, clip=10.0, regulariser=0.0, buffer=1000, lr=0.04),
        GenerativeConvNet(k=5, step_size=0.3, lr=0.04),
    ],
    ids=lambda x: x.id,
)
def test_its_samples_learn_a_gaussian(estimator: Any) -> None:
    data = 0.5 + 0.6 * draws(1).normal((4000, 1))
    fitted = estimator.fit(Parabola(1, 1.0), data, steps=150, batch_size=200, dtype=torch.float64)
    samples = fitted.draw(2000, 0)
    assert float(samples.mean()) == pytest.approx(float(data.mean()), abs=0.1)
    assert float(samples.std()) == pytest.approx(0.6, abs=0.06)


def test_the_generative_convnet_needs_a_reference() -> None:
    estimator = GenerativeConvNet()
    wanted = "it needs a Gaussian reference, a model's ``reference``, and GRBM has none"
    assert estimator.unsupported(GRBM(2, 3)) == wanted
    chains = estimator.init_carry(Parabola(), draws(1).normal((9, 2)), 5000, draws(2))["x"]
    assert float(chains.std()) == pytest.approx(1.5, rel=0.03)
