"""The flow against its Jacobian and quadrature, and flow contrastive estimation against Gaussians by hand."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, jacrev

from baselines import FlowContrast
from baselines.flow import Flow
from bism import Gaussian, InputError
from bism.engine import Trainer
from bism.resnet import ResNetEBM
from tests.maths.checks import central_differences
from tests.maths.exact import draws, flat, hermite, hyper, moved, parameters, relative, state_of

SHAPES = [(1,), (2,), (5,), (1, 8, 8), (2, 3, 5)]


def some_flow(shape: tuple[int, ...], by: float = 0.3) -> Flow:
    """A flow in float64 that is far from the identity."""
    torch.manual_seed(0)
    flow = Flow(shape, couplings=3, width=8).double()
    flow.load_state_dict({**flow.state_dict(), **moved(parameters(flow), by)})
    return flow


# --- the flow ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_inverts_and_both_ways_have_the_density(shape: tuple[int, ...]) -> None:
    flow, z = some_flow(shape), draws(1).normal((6, *shape))
    v, log_q = flow.push(z)
    back, again = flow.pull(v)
    assert (v - z).abs().max() > 0.1
    torch.testing.assert_close(back, z, rtol=0, atol=1e-10)
    torch.testing.assert_close(again, log_q, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_its_density_is_that_of_a_change_of_variables(shape: tuple[int, ...]) -> None:
    """log q(v) = log N(z; 0, I) - log |det dv/dz|, by automatic differentiation."""
    flow, z = some_flow(shape), draws(1).normal((1, *shape))
    size = z.numel()
    jacobian = jacrev(flow.decode)(z).reshape(size, size)
    expected = -0.5 * z.square().sum() - 0.5 * size * math.log(2 * math.pi) - torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(flow.push(z)[1], expected[None])
    assert (jacobian - jacobian.diagonal().diag()).abs().max() > 1e-3 or size == 1


def test_its_density_integrates_to_one() -> None:
    flow, line = some_flow((2,)), torch.linspace(-12, 12, 600, dtype=torch.float64)
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(line, line)).exp()
    assert density.std() > 1e-3
    assert float(density.sum() * (line[1] - line[0]) ** 2) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("shape", [(3,), (1, 8, 8)], ids=str)
def test_it_starts_as_gaussians_at_the_data_and_can_be_drawn_from(shape: tuple[int, ...]) -> None:
    data = 5 + 3 * draws(1).normal((500, *shape))
    flow = Flow(shape, couplings=2, width=4).double()
    flow.visible.start_from(data)
    at, spread = data.mean(0), data.std(0, correction=0)
    expected = torch.distributions.Normal(at, spread).log_prob(data).flatten(1).sum(1)
    torch.testing.assert_close(flow.log_prob(data).detach(), expected)
    assert flow.draw(4, draws(2)).shape == (4, *shape)
    torch.testing.assert_close(flow.draw(4, draws(2)), at + spread * draws(2).normal((4, *shape)))


def test_images_are_coupled_at_several_scales() -> None:
    """A pixel of noise reaches the farthest corner, which the small kernels at the finest scale do not."""
    flow = some_flow((1, 16, 16))
    assert [len(level) for level in flow.levels] == [3, 3, 3]  # type: ignore[arg-type]  # ModuleLists
    z = draws(1).normal((1, 1, 16, 16))
    other = z.clone()
    other[0, 0, 0, 0] += 1
    assert ((flow.decode(other) - flow.decode(z)).abs() > 1e-12)[0, 0, 15, 15]


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match=r"flow must be a torch.nn.Module with push\(\) and log_prob\(\) and draw\(\)"):
        FlowContrast().fit(GaussianEnergy(2), torch.zeros(10, 2), steps=1, parts={"flow": nn.Linear(2, 2)})
    with pytest.raises(InputError, match="Flow: couplings and width must be 1 or more, got 0 and 64"):
        Flow((2,), couplings=0)


# --- flow contrastive estimation --------------------------------------------------------------------------------------


class GaussianEnergy(nn.Module):
    """F(v) = sum_i a_i v_i^2 / 2, fully visible."""

    latent = None

    def __init__(self, size: int = 1) -> None:
        super().__init__()
        self.visible_shape, self.visible_units = (size,), Gaussian(size)
        self.a = nn.Parameter(torch.ones(size))

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v), [n]."""
        return 0.5 * (self.a * v.square()).sum(-1)

    energy = free_energy


def players(estimator: FlowContrast, a: float, c: float, mean: float, scale: float, accuracy: float = 0.5) -> Any:
    """A state of one visible unit in which the model has the precision ``a`` and the flow is N(mean, scale^2)."""
    model, flow = GaussianEnergy().double(), Flow((1,), couplings=1, width=4).double()
    with torch.no_grad():
        model.a.fill_(a)
        flow.visible.location.fill_(mean)
        flow.visible.log_scale.fill_(math.log(scale))
    params = {"model": parameters(model), "flow": parameters(flow)}
    params["normaliser"] = {"c": torch.tensor(c, dtype=torch.float64)}
    state = state_of(params, model=model, flow=flow)
    carry = {"accuracy": torch.tensor(accuracy, dtype=torch.float64), "start": draws(3).normal((50, 1))}
    buffers = {"flow": dict(flow.named_buffers())}
    return state.replace(optimiser=estimator.init_optimiser(params), carry=carry, buffers=buffers)


def by_hand(at: dict[str, Tensor], data: Tensor, z: Tensor) -> Tensor:
    """-V of these Gaussians on a minibatch and noise, [n, 1] each."""

    def log_odds(v: Tensor) -> Tensor:
        log_q = -0.5 * ((v - at["mean"]) / at["scale"].exp()) ** 2 - at["scale"] - 0.5 * math.log(2 * math.pi)
        return -0.5 * at["a"] * v**2 - at["c"] - log_q

    fantasies = at["mean"] + at["scale"].exp() * z
    return -(log_odds(data).sigmoid().log().mean() + (-log_odds(fantasies)).sigmoid().log().mean())


def adam_gradient(estimator: Any, before: Any, after: Any, part: str) -> dict[str, Tensor]:
    """The gradient of a part's step, from Adam's first moments."""
    pairs = before.optimiser[part]["first"], after.optimiser[part]["first"]
    return {name: (pairs[1][name] - estimator.beta1 * x) / (1 - estimator.beta1) for name, x in pairs[0].items()}


def fce_error(estimator: FlowContrast) -> float:
    """The largest error of the gradients of a turn of the model and one of the flow, which ascends, by finite
    differences through its samples and its density."""
    data, z, given = draws(1).normal((7, 1)), draws(2).normal((7, 1)), (1.7, 0.4, 0.5, 1.3)
    values = hyper(estimator)
    names = dict(zip(("a", "c", "mean", "scale"), (1.7, 0.4, 0.5, math.log(1.3)), strict=True))
    at = {name: torch.tensor(x, dtype=torch.float64) for name, x in names.items()}
    slopes = central_differences(lambda x: by_hand(x, data, z), at)
    found = []
    for accuracy in (0.0, 1.0):
        before = players(estimator, *given, accuracy=accuracy)
        after, _ = estimator.step(before, data[None], z, values)
        if accuracy:
            of_flow = adam_gradient(estimator, before, after, "flow")
            found += [-of_flow["visible.location"].sum(), -of_flow["visible.log_scale"].sum()]
        else:
            found += [adam_gradient(estimator, before, after, part)[name].sum()
                      for part, name in (("model", "a"), ("normaliser", "c"))]  # fmt: skip
    return relative(torch.stack(found), slopes)


def test_the_gradients_are_those_of_the_game() -> None:
    assert fce_error(FlowContrast(memory=0.99)) < 1e-8


@pytest.mark.parametrize("accuracy", [0.2, 0.9])
def test_one_player_moves_and_the_other_stays_to_the_last_bit(accuracy: float) -> None:
    estimator = FlowContrast(threshold=0.6, memory=0.8)
    before = players(estimator, 1.7, 0.4, 0.5, 1.3, accuracy=accuracy)
    data, z = draws(1).normal((8, 1)), draws(2).normal((8, 1))
    after, info = estimator.step(before, data[None], z, hyper(estimator))
    running = 0.8 * accuracy + 0.2 * info["accuracy"]
    assert float(after.carry["accuracy"]) == pytest.approx(float(running))
    still = ("flow",) if running <= 0.6 else ("model", "normaliser")
    assert (running <= 0.6) == (accuracy == 0.2)
    for part in estimator.trains:
        tensors = flat([before.params[part], before.optimiser[part]]), flat([after.params[part], after.optimiser[part]])
        assert torch.equal(*tensors) == (part in still), part


def test_at_equilibrium_the_objective_is_log_4_and_nobody_can_tell() -> None:
    estimator = FlowContrast()
    parts = players(estimator, 4.0, 0.5 * math.log(math.pi / 2), 0.0, 0.5).bind()
    value, _, _ = estimator.loss(parts, draws(1).normal((9, 1)), draws(2).normal((9, 1)), {}, {})
    assert float(value) == pytest.approx(math.log(4), abs=1e-12)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_accuracy_is_the_share_that_is_told_right_of_both_classes(scale: float) -> None:
    """As likely each, whatever there is more of; a point is taken for data where log p > log q."""
    estimator, data, z = FlowContrast(), draws(1).normal((40, 1)), 3 * draws(2).normal((60, 1))
    parts = players(estimator, 1.0, 0.5 * math.log(2 * math.pi), 0.0, scale).bind()
    p, q = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.0, scale)
    taken = [(p.log_prob(v) > q.log_prob(v)).double().mean() for v in (data, scale * z)]
    assert 0.1 < taken[0] < 0.9
    assert 0.1 < taken[1] < 0.9
    _, _, info = estimator.loss(parts, data, z, {}, {})
    assert float(info["accuracy"]) == pytest.approx(float(0.5 * (taken[0] + 1 - taken[1])))


def test_at_the_data_s_density_and_log_z_the_model_rests() -> None:
    """The data N(0, 1/4), whatever the flow is: here N(0.3, 1); and nowhere near."""
    estimator, (x, w) = FlowContrast(), hermite(120, 1)

    def slope(a: float, c: float) -> float:
        state = players(estimator, a, c, 0.3, 1.0)

        def value(at: Any) -> Tensor:
            parts = state.bind({**state.params, **at})

            def odds(v: Tensor) -> Tensor:
                return -parts.model.free_energy(v) - parts.normaliser["c"] - parts.flow.log_prob(v)

            return -w @ odds(0.5 * x).sigmoid().log() - w @ (-odds(0.3 + x)).sigmoid().log()

        return float(flat(grad(value)({name: state.params[name] for name in ("model", "normaliser")})).norm())

    log_z = 0.5 * math.log(math.pi / 2)
    assert slope(4.0, log_z) < 1e-6
    assert slope(4.0, log_z + 0.1) > 1e-2
    assert slope(3.5, log_z) > 1e-2


@pytest.mark.long
def test_it_learns_a_density_and_its_log_z() -> None:
    """Four units of the variances 1/4 to 1; the flow, which never has a turn, is the product of fitted Gaussians."""
    variances = torch.tensor([0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    data = variances.sqrt() * draws(1).normal((20_000, 4))
    estimator = FlowContrast(pretraining=0.0, threshold=0.999, lr=0.04, decay_steps=300, couplings=1, width=2)
    fitted = estimator.fit(GaussianEnergy(4), data, steps=300, batch_size=500, dtype=torch.float64, compile=False)
    found = fitted.parameters(0)
    torch.testing.assert_close(1 / found["model"]["a"], variances, rtol=0.06, atol=0)
    exact = 0.5 * (2 * math.pi * variances).log().sum()
    assert float(found["normaliser"]["c"]) == pytest.approx(float(exact), rel=0.01)
    assert fitted.draw(7, 0).shape == (7, 4)


def test_the_flow_is_fitted_first_and_then_c_is_log_z() -> None:
    """Where p is q, any samples give log Z."""
    estimator = FlowContrast()
    first, second = estimator.stages
    before = players(estimator, 4.0, 0.0, 0.0, 0.5)
    data = draws(1).normal((9, 1))
    after, info = first.step(before, data[None], {}, hyper(estimator))
    expected = -torch.distributions.Normal(0.0, 0.5).log_prob(data).mean()
    torch.testing.assert_close(info["objective"], expected)
    (location,) = adam_gradient(estimator, before, after, "flow")["visible.location"]
    torch.testing.assert_close(location, -(data / 0.25).mean())
    assert second.begin is not None
    begun = second.begin(before, hyper(estimator))
    assert float(begun.params["normaliser"]["c"]) == pytest.approx(0.5 * math.log(math.pi / 2), abs=1e-12)
    assert [stage.name for stage in FlowContrast(pretraining=0.0).stages] == ["contrast"]
    assert bool(flat(after.optimiser).any())  # of the flow's likelihood, which the game has nothing to do with
    assert not bool(flat(second.begin(after, hyper(estimator)).optimiser).any())


def test_both_stages_train_on_images() -> None:
    """The flow first, which moves nothing else; then the game, here the model's turn."""
    torch.manual_seed(0)
    shape, data = (1, 8, 8), draws(1).normal((30, 1, 8, 8))
    estimator = FlowContrast(pretraining=0.5, couplings=2, width=2)
    options: dict[str, Any] = {"seeds": [0, 1], "batch_size": 10, "dtype": torch.float64, "iterations": 4}
    trainer, states = Trainer(estimator, ResNetEBM(shape, 1), data, **options), list[Any]()
    for steps in (0, 2, 2):
        trainer.run(steps)
        states.append(trainer.fitted().state(1)["params"])
    moved_by = [
        {part: not torch.equal(flat(a[part]), flat(b[part])) for part in estimator.trains}
        for a, b in itertools.pairwise(states)
    ]
    assert moved_by[0] == {"model": False, "normaliser": False, "flow": True}
    assert moved_by[1] == {"model": True, "normaliser": True, "flow": False}
    assert trainer.diverged_at == [None, None]
