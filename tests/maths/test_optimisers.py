"""The functional optimisers, against torch's own."""

import pytest
import torch
from torch import Tensor
from torch.func import grad

from bism.optimisers import Tree, adam_init, adam_update, sgd_init, sgd_update
from tests.maths.exact import draws


def loss(params: dict[str, Tensor], target: Tensor) -> Tensor:
    """Something curved."""
    return (params["a"] @ target).cos().sum() + 0.1 * params["b"].pow(4).sum() + (params["b"] * target).sum()


def parameters() -> dict[str, Tensor]:
    """A matrix and a vector."""
    return {"a": draws(1).normal((4, 3)), "b": draws(2).normal((3,))}


@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.0, 0.999), (0.5, 0.0)])
def test_adam_is_adam(betas: tuple[float, float]) -> None:
    params, state = parameters(), adam_init(parameters())
    theirs = {name: p.clone().requires_grad_() for name, p in params.items()}
    optimiser = torch.optim.Adam(theirs.values(), lr=0.05, betas=betas, eps=1e-8)
    for step in range(20):
        target = draws(10 + step).normal((3,))
        params, state = adam_update(grad(loss)(params, target), params, state, 0.05, betas=betas)
        optimiser.zero_grad()
        loss(theirs, target).backward()
        optimiser.step()
        for name, p in params.items():
            torch.testing.assert_close(p, theirs[name].detach(), atol=1e-10, rtol=0)


def test_gradient_descent_is_gradient_descent() -> None:
    params, target = parameters(), draws(3).normal((3,))
    gradient = grad(loss)(params, target)
    after, state = sgd_update(gradient, params, sgd_init(params), 0.05)
    for name, p in after.items():
        torch.testing.assert_close(p, params[name] - 0.05 * gradient[name], atol=1e-15, rtol=0)
    assert state == {}


def unrolled(update: object, init: object, at: Tensor) -> Tensor:
    """Three steps on a loss whose gradient in ``idle`` is always zero, as a function of the loss's parameter."""
    params: Tree = {"busy": torch.ones(2, dtype=torch.float64), "idle": torch.zeros(2, dtype=torch.float64)}
    state = init(params)  # type: ignore[operator]
    for _ in range(3):
        gradient = {"busy": params["busy"] * at, "idle": 0.0 * at * params["idle"]}
        params, state = update(gradient, params, state)  # type: ignore[operator]
    return params["busy"].sum() + params["idle"].sum()


@pytest.mark.parametrize(("init", "step"), [(adam_init, adam_update), (sgd_init, sgd_update)])
def test_the_derivative_through_the_optimiser_is_finite_and_right(init: object, step: object) -> None:
    # also where a gradient has always been zero, at which the slope of Adam's root is infinite
    def update(gradient: Tree, params: Tree, state: Tree) -> tuple[Tree, Tree]:
        return step(gradient, params, state, 0.1)  # type: ignore[operator]

    at = torch.tensor(0.7, dtype=torch.float64)
    slope = grad(lambda x: unrolled(update, init, x))(at)
    above, below = unrolled(update, init, at + 1e-6), unrolled(update, init, at - 1e-6)
    assert slope.isfinite()
    assert float(slope) == pytest.approx(float((above - below) / 2e-6), abs=1e-7)


def test_the_states_of_optimisers_are_not_changed_in_place() -> None:
    params = parameters()
    state, gradient = adam_init(params), grad(loss)(params, draws(4).normal((3,)))
    before = {name: p.clone() for name, p in params.items()}
    adam_update(gradient, params, state, 0.1)
    sgd_update(gradient, params, {}, 0.1)
    assert all(torch.equal(params[name], before[name]) for name in params)
    assert float(state["count"]) == 0
    assert not any(m.any() for m in state["first"].values())
