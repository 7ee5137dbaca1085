"""Latent-space energy-based priors against the linear-Gaussian model's closed forms and against quadrature."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad

from baselines.hoffman import Hoffman
from baselines.lebm import LEBM
from baselines.lebm_amortised import AmortisedLEBM
from baselines.vae import negative_elbo
from bism.engine import Trainer
from bism.functional import Bound, Methods
from bism.latent import LatentModel, latent_mlp
from bism.priors import StandardNormal, Tilted
from bism.state import Parts
from tests.maths.exact import hyper, parameters, relative, signs, state_of
from tests.maths.test_latent import Linear, exact_log_likelihood, exact_posterior, linear_gaussian, rng

GRID = torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None]


class Same(nn.Module):
    """g(h) = h, which nothing trains."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.visible_shape, self.codes = (size,), size

    def forward(self, h: Tensor) -> Tensor:
        return h


def tilted(visible: int = 2, seed: int = 3) -> LatentModel:
    """A tilted prior of one h, far from N(0, 1)."""
    torch.manual_seed(seed)
    model = LatentModel(Linear(visible, 1), Tilted(1, width=8, layers=1), sigma=0.8, learn_sigma=True).double()
    model.requires_grad_(False).prior.network[-1].weight.mul_(6)
    return model


def points(mean: Tensor, covariance: Tensor) -> Tensor:
    """Four points of this mean [2] and covariance [2, 2]."""
    return mean + signs(2)[0] @ torch.linalg.cholesky(covariance).T


def quantiles(log_density: Tensor, count: int = 4000) -> Tensor:
    """Points [count, 1] that stand for an unnormalised density on ``GRID``, each for as much of it."""
    mass = log_density.softmax(0).cumsum(0)
    places = torch.searchsorted(mass, (torch.arange(count, dtype=torch.float64) + 0.5) / count)
    return GRID[places.clamp(max=len(GRID) - 1)]


def langevin_error() -> float:
    """A step on p(h|v) of precision L leaves N(mean, (L - s^2/4 L^2)^-1) what it is: h <- A h + ... + s eps with
    A = I - s^2/2 L has the covariance C = A C A + s^2 I. At a small s it is the posterior."""
    model, estimator, v = linear_gaussian(), LEBM(posterior_step_size=0.5), rng(1).normal((1, 3))
    (mean,), covariance = exact_posterior(model, v)
    precision = covariance.inverse()
    stationary = (precision - 0.25 * 0.5**2 * precision @ precision).inverse()
    starts, eps = points(mean, stationary), signs(2)[0]
    h, noise = starts.repeat_interleave(4, 0), eps.repeat(4, 1)
    state = state_of({"model": parameters(model)}, model=model).replace(carry={"h": h})
    after = estimator.posterior_step(state, v.expand(1, 16, 3), noise, hyper(estimator)).carry["h"]
    return max(relative(after.mean(0), mean), relative(torch.cov(after.T, correction=0), stationary))


def gradient_errors() -> tuple[float, float]:
    """The loss's gradient at exact h+ and h- from that of -log p(v), in all parameters: by sums over points that have
    the moments of Gaussians, and by quadrature for a tilted prior."""
    linear, bent, v = linear_gaussian(), tilted(), rng(1).normal((1, 3))
    (mean,), covariance = exact_posterior(linear, v)
    starts = {"h": points(mean, covariance), "prior": points(torch.zeros(2).double(), torch.eye(2).double())}
    first = relative(*gradients(linear, v, starts, lambda model: -exact_log_likelihood(model, v).sum()))
    v = v[:, :2]

    def log_joint(model: Any) -> Tensor:
        return -model.energy(v.expand(len(GRID), 2), GRID)

    starts = {"h": quantiles(log_joint(bent)), "prior": quantiles(-bent.prior_energy(GRID))}
    exact = gradients(bent, v, starts, lambda m: (-m.prior_energy(GRID)).logsumexp(0) - log_joint(m).logsumexp(0))
    return first, relative(*exact)


def gradients(model: LatentModel, v: Tensor, carry: dict[str, Tensor], exact: Any) -> tuple[Any, Any]:
    batch = v.expand(len(carry["h"]), -1)

    def loss(given: dict[str, Tensor]) -> Tensor:
        return LEBM().loss(Parts({"model": Bound(Methods(model), given)}), batch, (), carry, {})[0]

    return grad(loss)(parameters(model)), grad(lambda given: exact(Bound(Methods(model), given)))(parameters(model))


def test_langevin_steps_have_the_posterior_s_mean_and_a_covariance_that_is_known() -> None:
    assert langevin_error() < 1e-12


def test_the_loss_s_gradient_is_that_of_the_likelihood_at_exact_samples() -> None:
    first, second = gradient_errors()
    assert first < 1e-12
    assert second < 1e-3  # by so many quantiles


def encoder_error(estimator: Any) -> float:
    """The error of the gradients of a loss with an encoder: of the ELBO in q; in the model of E(v, h) at the chains' h
    and, where there are chains on the prior, of -E_prior at theirs."""
    model, v, noise = tilted(), rng(1).normal((5, 2)), rng(3).normal((5, 1))
    posterior = model.default_posterior().double()
    start = {"model": parameters(model), "posterior": parameters(posterior)}
    carry = {"h": rng(2).normal((5, 1)), "prior": rng(4).normal((7, 1))}
    rest = torch.ones(()).double(), torch.zeros(()).double()
    carry |= dict(zip(("factor", "accepted"), rest, strict=True))

    def loss(given: Any) -> Tensor:
        return estimator.loss(bind(given), v, noise, carry, hyper(estimator))[0]

    def bind(given: Any) -> Any:
        networks = {"model": model, "posterior": posterior}
        return Parts({name: Bound(Methods(networks[name]), given[name]) for name in given})

    def expected(given: Any) -> Tensor:
        parts, fixed = bind(given), bind(start)
        of_model = parts.model.energy(v, carry["h"]).mean()
        if estimator.id != "hoffman":
            of_model = of_model - parts.model.prior_energy(carry["prior"]).mean()
        return of_model + negative_elbo(fixed.model, parts.posterior, v, noise).mean()

    return relative(grad(loss)(start), grad(expected)(start))


@pytest.mark.parametrize("estimator", [AmortisedLEBM(), Hoffman()], ids=lambda one: one.id)
def test_with_an_encoder_q_goes_along_the_elbo_and_the_model_along_the_energy_at_h(estimator: Any) -> None:
    assert encoder_error(estimator) < 1e-12


def test_the_prior_has_a_rate_of_its_own() -> None:
    """Adam's first step is as long as the rate, whatever the gradient."""
    estimator = LEBM(lr=0.01, prior_rate=0.3, prior_steps=1, posterior_steps=1)
    trainer = Trainer(estimator, tilted(), rng(4).normal((50, 2)), seeds=(0,), batch_size=10, dtype=torch.float64)
    before = trainer.fitted().parameters(0)["model"]
    trainer.run(1)
    after = trainer.fitted().parameters(0)["model"]
    for name, x in before.items():
        step = float((after[name] - x).abs().max())
        assert step == pytest.approx(0.003 if name.startswith("prior.") else 0.01, rel=1e-3) or step == 0.0, name
    assert float((after["prior.network.2.weight"] - before["prior.network.2.weight"]).abs().max()) > 0


def rows_error() -> float:
    """How many rows of the examples' chains are not what they must be, over several epochs: those of a minibatch have
    moved, all others are as they were to the last bit; and measuring other data moves none."""
    estimator = LEBM(posterior_chains="persistent", prior_chains="persistent", prior_steps=1, posterior_steps=2)
    data, seeds, wrong = rng(5).normal((12, 2)), (0, 1), 0
    trainer = Trainer(estimator, tilted(), data, seeds=seeds, batch_size=5, dtype=torch.float64)
    for step in range(8):
        which = trainer.stream.draw(trainer.data, step, "training", 1).at(0)[-1].clone()
        before = trainer.fitted()
        trainer.run(1)
        trainer.objective_on(rng(6).normal((9, 2)), 1)
        for index, seed in enumerate(seeds):
            old, new = (fitted.state(seed)["carry"]["examples"] for fitted in (before, trainer.fitted()))
            moved = torch.zeros(13, dtype=torch.bool).index_fill(0, which[index, 0].unique(), True)
            wrong += int(((old != new).any(1) != moved).sum())
    return float(wrong)


def test_each_example_has_its_chain_and_nobody_else_s_moves() -> None:
    assert rows_error() == 0


def test_of_an_example_that_comes_twice_the_first_chain_is_kept_and_strangers_start_afresh() -> None:
    estimator = LEBM(posterior_chains="persistent")
    model, bank, fresh = tilted(), rng(1).normal((6, 1)), rng(2).normal((4, 1))
    state = state_of({"model": parameters(model)}, model=model)
    state = state.replace(carry={"examples": bank, "h": fresh}, examples=torch.tensor([[3, 1, 3, 0]]))
    none = torch.zeros(0)
    begun = estimator.start(state, none, fresh, {}).carry["h"]
    assert torch.equal(begun, bank[[3, 1, 3, 0]])
    kept = estimator.keep(state, none, (), {}).carry["examples"]
    assert torch.equal(kept, torch.stack([fresh[3], fresh[1], bank[2], fresh[0], bank[4], bank[5]]))
    strangers = state.replace(examples=torch.full((1, 4), -1))
    assert torch.equal(estimator.start(strangers, none, fresh, {}).carry["h"], fresh)
    assert torch.equal(estimator.keep(strangers, none, (), {}).carry["examples"][:5], bank[:5])


def test_samples_are_ends_of_the_method_s_own_chains_decoded() -> None:
    model, bank = tilted(), 0.1 * rng(7).normal((4, 1)) + 5
    parts: Any = Parts({"model": model, "carry": {"prior": bank}})
    short = LEBM(prior_steps=3).sampler(parts)
    assert short is not None
    assert short.how == "ends of 3 steps of the method's own Langevin dynamics, from N(0, I), decoded"
    source, h = rng(8), rng(8).normal((6, 1))
    source.normal((6, 1))
    for _ in range(3):
        slope = grad(lambda at: model.prior_energy(at).sum())(h)
        h = h - 0.08 * slope + 0.4 * source.normal((6, 1))
    assert torch.allclose(short.runs.draw(6, rng(8)), h)
    assert torch.allclose(short.draw(6, rng(8)), model.shown(h, source))
    going_on = LEBM(prior_chains="persistent", prior_steps=1, prior_step_size=1e-6).sampler(parts)
    assert going_on is not None
    assert "its persistent chains" in going_on.how
    assert float((going_on.runs.draw(8, rng(9)).mean() - bank.mean()).abs()) < 1e-4
    plain: Any = Parts({"model": linear_gaussian(), "carry": {"prior": bank}})
    assert LEBM().sampler(plain) is None


def test_there_is_an_encoder_for_measurements_where_one_was_trained() -> None:
    model, data, options = latent_mlp(2, 2, prior="tilted", width=4, prior_width=4), torch.randn(50, 2), {"steps": 1}
    assert LEBM(prior_steps=1, posterior_steps=1).fit(model, data, **options).joint(0)[1] is None
    assert AmortisedLEBM(prior_steps=1).fit(model, data, **options).joint(0)[1] is not None


@pytest.mark.parametrize("steps", [20, 60])
def test_short_chains_lag_behind_a_tilt_by_what_makes_it_grow(steps: int) -> None:
    """With f(h) = w h the prior is N(w, 1). An encoder follows it, as the decoder may have codes anywhere; K steps
    from N(0, 1) come as far as w (1 - (1 - s^2/2)^K), so that w grows along what is missing. From N(w, 1) none is."""
    w, v, none = 1.5, torch.zeros(8, 2, dtype=torch.float64), torch.zeros(8, 1, dtype=torch.float64)
    model = tilted()
    model.prior.network = nn.Linear(1, 1).double()
    start = {**parameters(model), "prior.network.weight": torch.full((1, 1), w, dtype=torch.float64)}
    estimator = AmortisedLEBM(prior_steps=steps)

    def growth(h: Tensor) -> float:
        state = state_of({"model": start}, model=model).replace(carry={"h": none + w, "prior": h})
        for _ in range(steps):
            state = estimator.prior_step(state, v, none, hyper(estimator))

        def loss(weight: Tensor) -> Tensor:
            given = Parts({"model": Bound(Methods(model), {**start, "prior.network.weight": weight})})
            return LEBM().loss(given, v, none, state.carry, {})[0]

        return -float(grad(loss)(start["prior.network.weight"]))

    assert growth(none) == pytest.approx(w * 0.92**steps)
    assert growth(none + w) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("codes", [1, 2])
@pytest.mark.parametrize("kind", [LEBM, AmortisedLEBM])
def test_a_tilt_learns_a_density_of_h(kind: Any, codes: int) -> None:
    """v = h + 0.1 eps, of which each h_i is a mixture of two Gaussians."""
    source, noise, centre, width = rng(9), 0.1, 0.8, 0.35
    data = centre * source.rademacher((3000, codes)) + math.hypot(width, noise) * source.normal((3000, codes))
    own: dict[str, Any] = {"prior_chains": "persistent", "prior_steps": 10, "prior_step_size": 0.2}
    if kind is LEBM:
        own |= {"posterior_chains": "persistent", "posterior_steps": 3, "posterior_step_size": 0.08}
    estimator = kind(lr=0.002 * codes, prior_rate=1.0, lr_final=1e-4, ema=0.98, **own)
    model = LatentModel(Same(codes), Tilted(codes, 32), sigma=noise, width=32)
    fitted = estimator.fit(model, data, seeds=[0], steps=500 * codes, dtype=torch.float64, compile=False)
    axis = torch.linspace(-4, 4, 161, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * codes).reshape(-1, codes)
    log_mixture = torch.stack([-0.5 * ((grid - c) / width).square() for c in (-centre, centre)]).logsumexp(0).sum(1)
    log_p, log_q = log_mixture.log_softmax(0), (-fitted.model(0).prior_energy(grid)).log_softmax(0)
    untrained = (-StandardNormal(codes).energy(grid)).log_softmax(0)
    assert float((log_p.exp() * (log_p - untrained)).sum()) > 0.2 * codes
    assert float((log_p.exp() * (log_p - log_q)).sum()) < 0.05 * codes
