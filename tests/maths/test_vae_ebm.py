"""Three Gaussians of (v, h): the game's gradients are those of the divergences, which are known in closed form."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence
from torch.func import grad

from baselines.joint_energy import JointEnergy
from baselines.vae_ebm import VAEEBM
from bism import InputError
from bism.latent import LatentModel, latent_mlp
from bism.posteriors import DiagonalGaussian
from bism.priors import StandardNormal
from tests.maths.exact import hyper, parameters, relative, signs, state_of
from tests.maths.test_flow import adam_gradient
from tests.maths.test_latent import Linear

W, B, SIGMA = 0.8, -0.3, 0.6


class Quadratic(nn.Module):
    """E(v, h) = (x - m) . A (x - m) / 2 of x = (v, h)."""

    def __init__(self) -> None:
        super().__init__()
        self.m, self.A = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.eye(2))

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        x = torch.cat([v, h], 1) - self.m
        return 0.5 * ((x @ self.A) * x).sum(1)


def players(equal: bool) -> Any:
    """A state of three Gaussians, P, Q and Pi, which is one where they are ``equal``; data are of P's v."""
    model = LatentModel(Linear(1, 1), StandardNormal(1), sigma=SIGMA, learn_sigma=True).double()
    posterior, energy = DiagonalGaussian((1,), 1).double(), Quadratic().double()
    weight = W / (W**2 + SIGMA**2)
    joint = torch.tensor([[W**2 + SIGMA**2, W], [W, 1.0]], dtype=torch.float64)
    by = 0.0 if equal else 0.2
    with torch.no_grad():
        model.decoder.layer.weight.fill_(W + by), model.decoder.layer.bias.fill_(B - by)
        model.log_sigma.fill_(math.log(SIGMA) + by)
        posterior.mean_head.weight.fill_(weight - by), posterior.mean_head.bias.fill_(-weight * B + by)
        posterior.log_std_head.weight.zero_()
        posterior.log_std_head.bias.fill_(0.5 * math.log(SIGMA**2 / (W**2 + SIGMA**2)) + by)
        (
            energy.m.copy_(torch.tensor([B + by, by], dtype=torch.float64)),
            energy.A.copy_(joint.inverse() + by * torch.eye(2)),
        )
    networks = {"model": model, "posterior": posterior, "energy": energy}
    params = {name: parameters(module) for name, module in networks.items()}
    return state_of(params, **networks).replace(optimiser=VAEEBM().init_optimiser(params))


def divergences(params: Any) -> Tensor:
    """KL(Q || P) + KL(P || Pi) - KL(Q || Pi)."""
    w, b = params["model"]["decoder.layer.weight"][0, 0], params["model"]["decoder.layer.bias"][0]
    variance, q = (2 * params["model"]["log_sigma"]).exp(), params["posterior"]
    a, c, s = q["mean_head.weight"][0, 0], q["mean_head.bias"][0], q["log_std_head.bias"][0].exp()
    data, one = torch.tensor(W**2 + SIGMA**2, dtype=torch.float64), torch.ones((), dtype=torch.float64)

    def gaussian(mean: list[Tensor], covariance: list[Tensor]) -> MultivariateNormal:
        return MultivariateNormal(torch.stack(mean), torch.stack(covariance).reshape(2, 2), validate_args=False)

    of_p = gaussian([b, 0 * one], [w**2 + variance, w, w, one])
    of_q = gaussian([B * one, a * B + c], [data, a * data, a * data, a**2 * data + s**2])
    m, A = params["energy"]["m"], params["energy"]["A"]
    pi = MultivariateNormal(m, torch.linalg.inv(0.5 * (A + A.T)), validate_args=False)
    return kl_divergence(of_q, of_p) + kl_divergence(of_p, pi) - kl_divergence(of_q, pi)


def after_a_step(equal: bool, estimator: VAEEBM | None = None) -> tuple[Any, Any, Any]:
    """States before and after a step on points that have the moments of p(v) and of all noise, and what it tells."""
    before, estimator, z = players(equal), estimator or VAEEBM(), signs(4)[0]
    v = B + math.sqrt(W**2 + SIGMA**2) * z[:, :1]
    noise = {"posterior": z[:, 1:2], "prior": z[:, 2:3], "visible": z[:, 3:]}
    return before, *estimator.step(before, v[None], noise, hyper(estimator))


def game_error() -> float:
    """Relative error of the three players' gradients, of which the energy's ascends."""
    before, after, _ = after_a_step(equal=False)
    exact = grad(divergences)(before.params)
    found = {part: adam_gradient(VAEEBM(), before, after, part) for part in before.params}
    exact["energy"] = {name: -x for name, x in exact["energy"].items()}
    found["posterior"].pop("log_std_head.weight"), exact["posterior"].pop("log_std_head.weight")  # which is kept at 0
    return max(relative(found[part], exact[part]) for part in exact)


def test_the_players_gradients_are_those_of_the_three_divergences() -> None:
    assert game_error() < 1e-10


def test_the_objective_is_the_three_divergences() -> None:
    for equal in (False, True):
        before, _, info = after_a_step(equal)
        assert float(info["objective"]) == pytest.approx(float(divergences(before.params)), abs=1e-12)


def test_all_rest_where_the_three_are_one() -> None:
    before, after, info = after_a_step(equal=True)
    assert float(info["objective"]) == pytest.approx(0.0, abs=1e-12)
    for part in before.params:
        for name, x in adam_gradient(VAEEBM(), before, after, part).items():
            assert float(x.abs().max()) < 1e-12, (part, name)


def test_the_entropy_of_q_may_stay() -> None:
    """d -H(q) / d log s = -1 a unit, and nothing else has a gradient of it."""
    before, after, _ = after_a_step(equal=True, estimator=VAEEBM(entropy="kept"))
    for part in before.params:
        for name, x in adam_gradient(VAEEBM(), before, after, part).items():
            expected = -1.0 if name == "log_std_head.bias" else 0.0
            if name != "log_std_head.weight":
                assert torch.allclose(x, torch.full_like(x, expected), atol=1e-12), (part, name)


def test_the_energy_may_decay() -> None:
    estimator, before = VAEEBM(energy_decay=0.5), players(equal=True)
    z = signs(4)[0]
    noise = {"posterior": z[:, 1:2], "prior": z[:, 2:3], "visible": z[:, 3:]}
    after, _ = estimator.step(before, (B + math.sqrt(W**2 + SIGMA**2) * z[:, :1])[None], noise, hyper(estimator))
    found = adam_gradient(estimator, before, after, "energy")
    assert relative(found, {name: 0.5 * x for name, x in before.params["energy"].items()}) < 1e-10


@pytest.mark.parametrize("shape", [(3,), (1, 8, 8)], ids=str)
def test_the_energy_is_of_v_and_h_together_behind_a_gaussian(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    energy = JointEnergy(shape, 2, width=4, reference=2.0).double().requires_grad_(False)
    v, h = torch.randn(5, *shape).double(), torch.randn(5, 2).double()
    gaussian = 0.5 * h.square().sum(1) + v.flatten(1).square().sum(1) / 8
    f = energy.energy(v, h) - gaussian
    assert float(f.std()) > 0
    for other in ((v.roll(1, 0), h), (v, h.roll(1, 0))):
        base = 0.5 * other[1].square().sum(1) + other[0].flatten(1).square().sum(1) / 8
        assert float((energy.energy(*other) - base - f).abs().min()) > 0


def test_what_it_cannot_train_is_refused() -> None:
    with pytest.raises(InputError, match="it needs real v"):
        VAEEBM().fit(latent_mlp(2, 2, observation="bernoulli"), torch.zeros(50, 2), steps=1)
    with pytest.raises(InputError, match="unknown normaliser"):
        VAEEBM().fit(latent_mlp(2, 2, prior="tilted"), torch.zeros(50, 2), steps=1)


def test_the_samples_are_the_models_and_the_energy_is_a_part() -> None:
    model, data = latent_mlp(2, 2, width=4), torch.randn(50, 2)
    fitted = VAEEBM(width=4).fit(model, data, steps=2, compile=False)
    sampler = fitted.sampler(0)
    assert sampler is not None
    assert sampler.how == "independent draws of the prior, decoded"
    assert fitted.part("energy", 0).energy(data, fitted.posterior(0).mean(data)).shape == (50,)
