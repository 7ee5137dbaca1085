"""How v is drawn: which way is chosen, and that each gives the model."""

import dataclasses
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from baselines import CD, SM
from bism import (
    GRBM,
    RBM,
    Bernoulli,
    DiagonalGaussian,
    EnergyModel,
    InputError,
    Posterior,
    RelaxedBernoulli,
    Sampler,
)
from bism.enumeration import exact_samples
from bism.langevin import Stretch
from bism.resnet import ResNetEBLVM, ResNetEBM
from bism.rng import Rng, generator
from bism.sampling import Enumeration, GibbsChains, LangevinChains, gibbs, gibbs_noise, sampler, walk
from bism.scaling import Scaling
from tests.maths.exact import LinearGaussian, configurations, draws, make_grbm, make_rbm

MANY = 20_000
SHORT = (Stretch(300, 4.0, 1.0), Stretch(300, 1.0, 1.0))


class Layered(nn.Module):
    """Two layers of hidden units, E(v, h, g) = -v.W h - h.U g - b.v, of which neither is independent given v."""

    def __init__(self) -> None:
        super().__init__()
        self.visible_shape, self.visible_units, self.latent = (3,), Bernoulli(3), Bernoulli(4)
        source = torch.Generator().manual_seed(4)
        self.W, self.U = (nn.Parameter(1.2 * torch.randn(*shape, generator=source)) for shape in ((3, 2), (2, 2)))
        self.b = nn.Parameter(torch.tensor([0.3, -0.5, 0.1]))

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        first, second = h[:, :2], h[:, 2:]
        return -((v @ self.W) * first).sum(1) - ((first @ self.U) * second).sum(1) - v @ self.b

    def transition_noise(self, rng: Rng, batch: tuple[int, ...]) -> dict[str, Tensor]:
        return {"start": rng.uniform((*batch, 2)), "v": rng.logistic((*batch, 3)), "h": rng.logistic((*batch, 2)),
                "g": rng.logistic((*batch, 2))}  # fmt: skip

    def transition(self, chains: dict[str, Tensor], noise: dict[str, Tensor]) -> dict[str, Tensor]:
        v = chains["v"]
        g = chains.get("g", (noise["start"] < 0.5).to(v.dtype))
        h = (v @ self.W + g @ self.U.T + noise["h"] > 0).to(v.dtype)
        return {
            "v": (h @ self.W.T + self.b + noise["v"] > 0).to(v.dtype),
            "g": (h @ self.U + noise["g"] > 0).to(v.dtype),
        }

    def probabilities(self) -> Tensor:
        """p(v), [8]."""
        v, h = configurations(3), configurations(4)
        energies = torch.stack([self.energy(one.expand(len(h), -1), h) for one in v])
        return (-energies).logsumexp(1).softmax(0).detach()


def moments(v: Tensor) -> Tensor:
    return torch.cat([v, v.square(), v[:, :1] * v[:, 1:]], dim=1)


def differs(found: Tensor, other: Tensor) -> float:
    """The largest distance of two samples' moments, in standard errors."""
    a, b = moments(found), moments(other)
    return float(((a.mean(0) - b.mean(0)).abs() / (a.var(0) / len(a) + b.var(0) / len(b) + 1e-30).sqrt()).max())


class Known(GRBM):
    """A model that draws from itself."""

    def draw(self, count: int, rng: Rng) -> Tensor:
        return rng.uniform((count, *self.visible_shape))


class EnergyAlone(nn.Module):
    """A model of binary v and h of which nothing else is known."""

    visible_shape, visible_units, latent = (3,), Bernoulli(3), Bernoulli(2)

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        return -(v[:, :2] * h).sum(1)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (GRBM(2, 3), Enumeration),
        (GRBM(2, 21), GibbsChains),
        (RBM(3, 30), Enumeration),
        (RBM(21, 21), GibbsChains),
        (Layered(), GibbsChains),
        (LinearGaussian(2, 2), LangevinChains),
        (ResNetEBM((1, 8, 8), width=2), LangevinChains),
        (ResNetEBLVM((1, 8, 8), hidden=2, width=2), LangevinChains),
        (Known(2, 3), Known),
        (EnergyAlone(), type(None)),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "",
)
def test_the_choice(model: Any, kind: type) -> None:
    chosen = sampler(model)
    assert type(chosen) is kind
    assert chosen is None or isinstance(chosen, Sampler)


def test_a_model_s_own_transition_samples_its_layers() -> None:
    model = Layered().double()
    found = GibbsChains(model, sweeps=60).draw(MANY, draws(1))
    share = (found.long() * torch.tensor([4, 2, 1])).sum(1).bincount(minlength=8) / MANY
    p = model.probabilities()
    assert float(((share - p).abs() / (p * (1 - p) / MANY).sqrt()).max()) < 5
    uniform = torch.full((8,), 0.125)
    assert float((p - uniform).abs().max()) > 0.1
    noise = gibbs_noise(model, 5, 3, draws(2))  # what the layers are at is kept from sweep to sweep
    chains = {"v": torch.ones(5, 3).double()}
    for k in range(3):
        chains = model.transition(chains, {name: x[k] for name, x in noise.items()})
    with torch.no_grad():
        assert torch.equal(gibbs(model, torch.ones(5, 3).double(), noise), chains["v"])
        assert torch.equal(walk(model, {"v": torch.ones(5, 3).double()}, noise)["g"], chains["g"])


@pytest.mark.parametrize("make", [make_grbm, make_rbm])
def test_chains_from_anywhere_are_exact_samples_in_the_end(make: Any) -> None:
    model = make(3, 3)
    exact = Enumeration(model).draw(MANY, draws(3))
    assert differs(GibbsChains(model, sweeps=60).draw(MANY, draws(4)), exact) < 5
    rows = torch.ones(7, 3).double()
    assert differs(GibbsChains(model, rows, sweeps=60).draw(MANY, draws(5)), exact) < 5
    assert torch.equal(GibbsChains(model, rows, sweeps=0).draw(9, draws(5)), torch.ones(9, 3))
    begun = GibbsChains(model, sweeps=0).draw(MANY, draws(6))
    if make is make_rbm:
        assert set(begun.unique().tolist()) == {0, 1}
        assert float(begun.mean()) == pytest.approx(0.5, abs=0.02)
    else:
        assert float(begun.std()) == pytest.approx(1, abs=0.02)


class Joint(LinearGaussian):
    """A model whose h cannot be integrated out."""

    free_energy = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        if name == "free_energy":
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("kind", [LinearGaussian, Joint])
def test_langevin_chains_reach_the_model(kind: Any) -> None:
    torch.manual_seed(0)
    model = kind(2, 1).double()
    with torch.no_grad():
        model.W.mul_(0.5)
    assert hasattr(model, "free_energy") == (kind is LinearGaussian)
    found = LangevinChains(model, schedule=SHORT, step_size=0.2).draw(3000, draws(7))
    covariance = model.covariance().detach()
    torch.testing.assert_close(found.mean(0), model.b.detach(), atol=0.08, rtol=0)
    torch.testing.assert_close(found.T.cov(), covariance, atol=0.12 * float(covariance.max()), rtol=0)


def test_langevin_chains_move_in_the_units_of_the_training() -> None:
    torch.manual_seed(0)
    model = LinearGaussian(2, 1).double()
    scaling = Scaling("standard", torch.tensor([500.0, -3.0]).double(), torch.tensor([1e4, 0.01]).double())
    here = LangevinChains(model, schedule=SHORT[1:]).draw(50, draws(8))
    there = LangevinChains(scaling.model(model), scaling=scaling, schedule=SHORT[1:]).draw(50, draws(8))
    torch.testing.assert_close(scaling.scaled(there), here, atol=1e-6, rtol=1e-6)


def test_chains_of_scaled_models_with_a_transition_or_a_draw_of_their_own() -> None:
    scaling = Scaling("standard", torch.tensor([5.0, -3.0]).double(), torch.tensor([10.0, 0.1]).double())
    known = Known(2, 3).double()
    found = sampler(scaling.model(known)).draw(4, draws(9))  # type: ignore[union-attr]
    torch.testing.assert_close(found, scaling.own(known.draw(4, draws(9))))

    class Own(LinearGaussian):
        def transition_noise(self, rng: Rng, batch: tuple[int, ...]) -> dict[str, Tensor]:
            return {"v": rng.normal((*batch, 2))}

        def transition(self, chains: dict[str, Tensor], noise: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"v": 0.5 * chains["v"] + noise["v"]}

    model, noise = Own(2, 1).double(), gibbs_noise(Own(2, 1), 4, 3, draws(10))
    v = draws(11).normal((4, 2))
    torch.testing.assert_close(gibbs(scaling.model(model), scaling.own(v), noise), scaling.own(gibbs(model, v, noise)))


def test_the_samples_of_what_was_trained() -> None:
    v = 0.5 * draws(12).normal((200, 2)).float()
    fitted = SM(lr=0.01).fit(GRBM(2, 3), v, seeds=[2, 3], steps=5, compile=False)
    for seed in (2, 3):
        rng = Rng(generator(seed, 1, "samples"), torch.float32)
        assert torch.equal(fitted.draw(6, seed, index=1), exact_samples(fitted.model(seed), 6, rng))
    assert not torch.equal(fitted.draw(6, 2), fitted.draw(6, 2, index=1))
    long = SM(lr=0.01).fit(GRBM(2, 21), v, steps=5, compile=False)
    assert torch.equal(long.draw(4, 0, rows=v[:4], sweeps=9), long.sample(v[:4], sweeps=9)[0])
    scaling = Scaling("standard", torch.tensor([500.0, -3.0]).double(), torch.tensor([1e4, 0.01]).double())
    torch.testing.assert_close(scaling.fitted(long).draw(4, 0, sweeps=0).mean(0), scaling.shift, rtol=50, atol=0)


def test_a_diverged_model_draws_what_is_no_number() -> None:
    model = make_grbm()
    with torch.no_grad():
        model.W.fill_(torch.inf)
    assert Enumeration(model).draw(3, draws(13)).isnan().all()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learnt(CD):
    """CD whose samples come from elsewhere."""

    id: ClassVar[str] = "learnt"

    def sampler(self, parts: Any) -> Sampler:
        return Known(*parts.model.W.shape)


def test_a_method_s_own_sampler_comes_first() -> None:
    v = draws(14).normal((50, 2)).float()
    fitted = Learnt().fit(GRBM(2, 3), v, steps=1, batch_size=5)
    expected = Known(2, 3).draw(4, Rng(generator(0, 0, "samples"), torch.float32))
    assert torch.equal(fitted.draw(4, 0), expected)
    scaling = Scaling("unit", torch.tensor(5.0).double(), torch.tensor(10.0).double())
    assert torch.equal(scaling.fitted(fitted).draw(4, 0), scaling.own(expected))


def test_a_model_that_cannot_be_sampled_is_named() -> None:
    class Odd(EnergyAlone):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.ones(()))

        def free_energy(self, v: Tensor) -> Tensor:
            return self.a * v.sum(1)

    many = Odd()
    many.visible_shape, many.visible_units = (30,), Bernoulli(30)  # too many to enumerate
    from baselines import NCE

    fitted = NCE(noise_distribution="bernoulli").fit(many, torch.eye(30), steps=0, batch_size=5)
    with pytest.raises(InputError, match="Odd cannot be sampled: it has no draw"):
        fitted.draw(3, 0)


def test_what_models_posteriors_and_samplers_are() -> None:
    for model in (GRBM(2, 3), RBM(2, 3), LinearGaussian(2, 2), ResNetEBM((1, 8, 8), width=2)):
        assert isinstance(model, EnergyModel)
        assert not isinstance(model, (Posterior, Sampler))
    assert isinstance(RelaxedBernoulli((2,), 3), Posterior)
    assert isinstance(DiagonalGaussian((2,), 3), Posterior)
    assert isinstance(Known(2, 3), Sampler)
    assert not isinstance(nn.Linear(2, 2), (EnergyModel, Posterior, Sampler))
