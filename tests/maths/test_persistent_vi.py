"""Persistent VI's bound against the exact one, and its priors against torch's distributions."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import HalfCauchy, LogNormal, Normal

from baselines import PersistentVI
from bism import RBM, InputError
from tests.maths.checks import bound_error, spread_of
from tests.maths.exact import configurations, draws, flat, hyper, make_grbm, make_rbm, parameters, samples, state_of

PRIORS = ("gaussian", "horseshoe")


def normals(estimator: PersistentVI, model: nn.Module, count: int) -> list[dict[str, Tensor]]:
    rng = draws(4)
    return [estimator.noise(model, (1, *model.visible_shape), rng)[0]["parameters"] for _ in range(count)]  # type: ignore[misc]


@pytest.mark.parametrize("prior", PRIORS)
def test_the_model_s_parameters_are_the_means_of_the_draws(prior: str) -> None:
    estimator, model = PersistentVI(prior=prior, samples=1), make_rbm(3, 2)
    means, spread = parameters(model), spread_of(estimator, model)
    drawn = [flat(estimator.draw(means, spread, n, hyper(estimator))[0]) for n in normals(estimator, model, 4000)]
    found = torch.stack(drawn)
    assert float(((found.mean(0) - flat(means)).abs() / (found.std(0) / 4000**0.5)).max()) < 4
    if prior == "gaussian":
        ratio = found.var(0) / flat({name: (2 * spread[name]).exp() for name in means})
        assert float((ratio - 1).abs().max()) < 5 * (2 / 4000) ** 0.5
    assert float(found.std(0).min()) > 0.1


@pytest.mark.parametrize("prior", PRIORS)
def test_the_divergence_is_that_of_torch_s_distributions(prior: str) -> None:
    """Its differences between two q, by torch's densities; the horseshoe's over draws of log z, the rest exactly."""
    estimator = PersistentVI(prior=prior, prior_scale=0.7, samples=1)
    model = make_rbm(3, 2)
    means, scale = parameters(model), torch.tensor(0.7, dtype=torch.float64)
    spreads = [spread_of(estimator, model), {n: x + 0.4 for n, x in spread_of(estimator, model).items()}]
    rows = normals(estimator, model, 300)
    ours, theirs = [], []
    for spread in spreads:
        values = torch.stack([estimator.draw(means, spread, n, hyper(estimator))[1] for n in rows])
        ours.append(values.mean())
        exact = torch.zeros(()).double()
        for name, mu in means.items():
            s = spread[name].exp()
            if prior == "gaussian" or mu.ndim == 1:
                exact = exact + torch.distributions.kl_divergence(Normal(mu, s), Normal(0.0, scale)).sum()
                continue
            a, d = spread[f"{name}/scale"], spread[f"{name}/scale_spread"].exp()
            m = mu / LogNormal(a, d).mean
            exact = exact + torch.distributions.kl_divergence(Normal(m, s), Normal(0.0, 1.0)).sum()
            z = torch.stack([(a + d * n[f"{name}/scale"]).exp() for n in rows])
            exact = exact + (LogNormal(a, d).log_prob(z) - HalfCauchy(scale).log_prob(z)).mean(0).sum()
        theirs.append(exact)
    # LogNormal's log q(z) has -eps^2 / 2, the mean of which is a constant that both q share, draw by draw
    assert float(ours[1] - ours[0]) == pytest.approx(float(theirs[1] - theirs[0]), abs=1e-9)
    assert abs(float(ours[1] - ours[0])) > 0.5


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("make", [make_rbm, make_grbm])
def test_its_gradient_is_that_of_the_bound(make: Any, prior: str) -> None:
    estimator, model = PersistentVI(prior=prior, samples=1, k=2), make()
    assert bound_error(estimator, model, samples(make(seed=1), 1500, 1)) < 4.5


def test_chains_go_on_at_the_parameters_that_were_drawn() -> None:
    estimator, model = PersistentVI(samples=2, k=1), make_rbm(3, 2)
    params = {"model": parameters(model), "spread": spread_of(estimator, model)}
    noise, batch = estimator.noise(model, (6, 3), draws(6)), samples(model, 6, 2)
    carry = estimator.init_carry(model, batch, 6, draws(7))
    _, after, _ = estimator.loss(state_of({}, model=model).bind(params), batch, noise, carry, hyper(estimator))
    for start, end, drawn in zip(carry["chains"], after["chains"], noise, strict=True):
        theta, _ = estimator.draw(params["model"], params["spread"], drawn["parameters"], hyper(estimator))
        at = RBM(3, 2).double()
        at.load_state_dict(theta)
        h = at.sample_hidden(start, drawn["chains"]["hidden"][0])
        assert torch.equal(end, at.sample_visible(h, drawn["chains"]["visible"][0]).detach())
    assert float(after["examples"]) == 6


def test_more_data_leave_less_spread() -> None:
    """In proportion to N^-1/2: of an RBM whose W stays near 0, by b alone, whose posterior is then nearly normal."""
    found = []
    for count in (40, 640):
        data = configurations(2).repeat(count // 4, 1).float()
        estimator = PersistentVI(lr=0.05, samples=1, k=1)
        trained = estimator.fit(RBM(2, 1), data, seeds=[0], steps=300, batch_size=40, compile=False)
        found.append(float(trained.state(0)["params"]["spread"]["b"].exp().mean()))
    assert found[0] / found[1] == pytest.approx(4, rel=0.35)
    assert found[1] == pytest.approx((640 / 4) ** -0.5, rel=0.35)


def test_a_model_without_a_sampler_is_refused() -> None:
    class Alone(nn.Module):
        visible_shape, latent = (2,), None

        def energy(self, v: Tensor) -> Tensor:
            return v.sum(-1)

        free_energy = energy

    assert "no transition()" in str(PersistentVI().unsupported(Alone()))
    with pytest.raises(InputError, match="prior must be one of gaussian, horseshoe"):
        PersistentVI(prior="flat")
