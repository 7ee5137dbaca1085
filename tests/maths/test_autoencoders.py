"""Regularised autoencoders, mixtures of their codes, and VAEs of VAEs' codes."""

import itertools
import math

import pytest
import torch
from sklearn.mixture import GaussianMixture as Reference
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d

from baselines.autoencoder import Around, around, jacobian_square, squares
from baselines.bimdsm_gmm import BiMDSMMixture
from baselines.rae import RAE
from baselines.two_stage_vae import TwoStageVAE
from baselines.vae_gmm import VAEMixture
from bism.errors import InputError
from bism.gaussian_mixture import GaussianMixture, fitted_mixture, maximised
from bism.generator import Generator
from bism.hierarchy import CodePrior, code_model, code_posterior, hierarchy
from bism.latent import LatentModel, latent_mlp
from bism.likelihood import importance_bound
from bism.methods import BiMDSM
from bism.mlp import MLPEBLVM
from bism.posteriors import DiagonalGaussian
from bism.priors import StandardNormal
from bism.quadrature import log_integral
from bism.rng import Rng, generator
from bism.spectral import SpectralConvTranspose2d
from bism.state import Parts
from tests.maths.test_latent import Linear, linear_gaussian, standard_errors

GRID = torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None]


def rng(seed: int = 0) -> Rng:
    return Rng(generator(seed, 0, "tests"), torch.float64)


# --- penalties -------------------------------------------------------------------------------------------------------


def rae_loss(**options: float | str) -> tuple[Tensor, LatentModel, Tensor, Tensor]:
    """The loss on a linear autoencoder at every direction of signs, its model, v and codes."""
    model, encoder = linear_gaussian(), Around(nn.Linear(3, 2), torch.ones(())).double().requires_grad_(False)
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    v = rng().normal((1, 3)).expand(8, 3)
    method = RAE(**options)
    hyper = {name: torch.tensor(x, dtype=torch.float64) for name, x in method.hyper.items()}
    value, _, _ = method.loss(Parts({"model": model, "posterior": encoder}), v, signs, {}, hyper)
    return value, model, v, encoder.mean(v)


def rae_error(regulariser: str) -> float:
    """How far it is from its closed form."""
    value, model, v, h = rae_loss(regulariser=regulariser, weight=0.3, code_weight=0.7)
    W, b = model.decoder.layer.weight, model.decoder.layer.bias
    plain = (v - h @ W.T - b).square().sum(1).mean() + 0.35 * h.square().sum(1).mean()
    penalty = {"l2": W.square().sum() + b.square().sum(), "gradient_penalty": W.square().sum()}
    return abs(float(value - plain - 0.3 * penalty.get(regulariser, 0.0)))


@pytest.mark.parametrize("regulariser", ["l2", "gradient_penalty", "spectral_norm", "none"])
def test_the_loss_of_a_linear_autoencoder_in_closed_form(regulariser):
    assert rae_error(regulariser) < 1e-12


def test_the_penalties_of_a_decoder_with_the_datas_scale():
    decoder = Generator((3,), 2, width=4, layers=1).double().requires_grad_(False)
    decoder.visible.log_scale.copy_(torch.tensor([0.5, -0.2, 0.1]))
    assert float(squares(decoder)) == pytest.approx(sum(float(p.square().sum()) for p in decoder.network.parameters()))
    h, signs = rng(1).normal((1, 2)), torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3))).double()
    jacobian = torch.func.jacrev(lambda at: decoder(at[None])[0])(h[0])
    found = jacobian_square(decoder, h.expand(8, 2), signs).mean()
    assert float(found) == pytest.approx(float(jacobian.square().sum()), abs=1e-12)


def test_of_binary_v_the_misfit_is_cross_entropy():
    model = latent_mlp(3, 2, observation="bernoulli", width=4).double().requires_grad_(False)
    q, v = Around(nn.Linear(3, 2), torch.ones(())).double(), (rng().normal((5, 3)) > 0).double()
    q.requires_grad_(False)
    zero = {"code_weight": torch.zeros(()), "weight": torch.zeros(())}
    value, _, _ = RAE().loss(Parts({"model": model, "posterior": q}), v, (), {}, zero)
    logits = model.decoder(q.mean(v))
    cross = nn.functional.binary_cross_entropy_with_logits(logits, v, reduction="none").sum(1).mean()
    assert float(value) == pytest.approx(float(cross), abs=1e-12)


def test_a_transposed_convolution_divides_by_its_kernels_largest_singular_value():
    torch.manual_seed(2)
    layer = SpectralConvTranspose2d(3, 2, 4, stride=2, padding=1).double().requires_grad_(False)
    layer.weight.mul_(5)
    x = rng().normal((2, 3, 4, 4))
    largest = torch.linalg.svdvals(layer.weight.transpose(0, 1).flatten(1))[0]
    wanted = conv_transpose2d(x, layer.weight / largest, layer.bias, 2, 1)
    assert torch.allclose(layer(x), wanted, atol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (1, 8, 8)])
def test_a_decoder_with_spectral_norm_does_not_know_how_large_its_weights_are(shape):
    torch.manual_seed(3)
    decoder, h = Generator(shape, 2, width=4, spectral_norm=True).double().requires_grad_(False), rng().normal((2, 2))
    before = decoder(h)
    for name, parameter in decoder.network.named_parameters():
        if name.endswith("weight"):
            parameter.mul_(7)
    assert torch.allclose(decoder(h), before, atol=1e-12)


# --- mixtures --------------------------------------------------------------------------------------------------------


def mixture(components: int = 3, codes: int = 2) -> GaussianMixture:
    source = rng(4)
    factors = source.normal((components, codes, codes))
    scales = torch.linalg.cholesky(factors @ factors.mT + 0.3 * torch.eye(codes, dtype=torch.float64))
    return GaussianMixture(source.normal((components,)).log_softmax(0), 2 * source.normal((components, codes)), scales)


def reference(own: GaussianMixture) -> Reference:
    other = Reference(len(own.means))
    other.weights_, other.means_ = own.log_weights.exp().numpy(), own.means.numpy()
    other.covariances_ = (own.scale_tril @ own.scale_tril.mT).numpy()
    other.precisions_cholesky_ = torch.linalg.inv(own.scale_tril).mT.numpy()
    return other


def mixture_error() -> float:
    own, h = mixture(), 3 * rng(5).normal((50, 2))
    return float((-own.energy(h) - torch.from_numpy(reference(own).score_samples(h.numpy()))).abs().max())


def test_a_mixtures_energy_is_scikit_learns_and_integrates_to_one():
    assert mixture_error() < 1e-10
    assert log_integral(lambda h: -mixture().energy(h), 2).log_z == pytest.approx(0.0, abs=1e-4)


def test_draws_of_a_mixture_have_its_moments():
    own = mixture()
    pi = own.log_weights.exp()
    mean = pi @ own.means
    second = torch.einsum(
        "k,kij->ij", pi, own.scale_tril @ own.scale_tril.mT + own.means[..., None] * own.means[:, None]
    )
    h = own.draw(100_000, rng(6))
    for found, exact in ((h, mean), (h[:, :, None] * h[:, None], second)):
        assert bool(((found.mean(0) - exact).abs() < 4.5 * found.std(0) / math.sqrt(100_000)).all())


def test_a_step_of_maximisation_is_scikit_learns_and_no_step_loses():
    x, own = mixture().draw(300, rng(7)), mixture()
    found = []
    for _ in range(5):
        joint = own.log_joint(x)
        found.append(float(joint.logsumexp(1).mean()))
        own = maximised(x, joint.softmax(1), 0.0)
    assert found == sorted(found)
    other = Reference(3, reg_covar=0.0)
    other._m_step(x.numpy(), joint.log_softmax(1).numpy())
    assert torch.allclose(own.means, torch.from_numpy(other.means_), atol=1e-10)
    assert torch.allclose(own.scale_tril @ own.scale_tril.mT, torch.from_numpy(other.covariances_), atol=1e-10)


def test_a_fitted_mixture_is_as_good_as_scikit_learns_and_close_to_the_truth():
    x, fresh = mixture().draw(3000, rng(8)), mixture().draw(3000, rng(9))
    own, other = fitted_mixture(x.float(), 3, rng(10)), Reference(3, random_state=0).fit(x.numpy())
    assert float(own.energy(x).mean()) < -other.score(x.numpy()) + 1e-3
    assert float(own.energy(fresh).mean() - mixture().energy(fresh).mean()) < 0.03


def test_codes_that_are_none_or_all_alike_make_no_error():
    assert bool(fitted_mixture(torch.full((5, 2), torch.nan), 2, rng()).energy(torch.zeros(1, 2)).isnan().all())
    assert bool(fitted_mixture(torch.ones(20, 2), 3, rng()).draw(4, rng()).isfinite().all())
    with pytest.raises(InputError, match="a mixture of 3 components needs as many examples, got 2"):
        fitted_mixture(torch.zeros(2, 2), 3, rng())


# --- autoencoders as models with a likelihood ------------------------------------------------------------------------


def test_the_noise_around_a_linear_autoencoder_is_the_best_there_is():
    model, v = linear_gaussian(), rng(11).normal((4000, 3))
    q = Around(nn.Linear(3, 2), torch.ones(())).double().requires_grad_(False)
    q.encoder.weight.mul_(3)
    found, best = around(model, q, v)
    residual = (v - model.decoder(q.mean(v))).square().mean().sqrt()
    assert float(found.sigma) == pytest.approx(float(residual), rel=1e-12)
    W = model.decoder.layer.weight  # E_q [log p(v, h)] + m log s is largest where s^2 tr(I + W^T W / sigma^2) = m
    scale = math.sqrt(2 / float(2 + W.square().sum() / residual**2))
    assert float(best.scale) == pytest.approx(scale, rel=10 ** (1.6 * 3 / 40) - 1)  # of a grid, by 500 draws


def test_the_bound_of_an_autoencoder_goes_to_the_likelihood_of_its_mixture():
    data = torch.where(rng(12).uniform((400, 1)) < 0.5, 1.0, -1.0) * torch.tensor([[1.0, 0.5]]).double()
    data = data + 0.2 * rng(13).normal((400, 2))
    model = LatentModel(Linear(2, 1), StandardNormal(1))
    method = RAE(lr=0.02, lr_posterior=0.02, components=2, kept=300)
    options = {"steps": 150, "dtype": torch.float64, "compile": False}
    q = Around(nn.Linear(2, 1), torch.ones(()))
    fitted = method.fit(model, data, seeds=[0], parts={"posterior": q}, **options)
    joint, posterior = fitted.joint(0)
    v = data[:3]
    exact = [log_integral(lambda h, x=x: -joint.energy(x.expand(len(h), 2), h), 1).log_z for x in v]
    each = importance_bound(joint, posterior, v.repeat(20_000, 1), particles=1).reshape(-1, 3)
    found = each.logsumexp(0) - math.log(len(each))
    assert torch.allclose(found, torch.tensor(exact, dtype=torch.float64), atol=0.1)
    drawn = fitted.draw(1000, 0)
    sides = drawn[:, 0].sign() * (drawn - data.mean(0))[:, 0].abs()
    assert float((sides.abs() > 0.4).double().mean()) > 0.95  # N(0, I) would put a third of them in the middle
    assert joint.how == "independent draws of a Gaussian mixture of the codes, decoded"


# --- codes that are not Gaussian -------------------------------------------------------------------------------------


def bimodal(count: int = 600) -> Tensor:
    signs = torch.where(rng(14).uniform((count, 1)) < 0.5, 1.0, -1.0).double()
    return signs * torch.tensor([[1.0, 0.5]]).double() + 0.2 * rng(15).normal((count, 2))


def kl(log_q: Tensor, log_p: Tensor) -> float:
    """KL of two densities on ``GRID``."""
    return float(torch.trapezoid(log_q.exp() * (log_q - log_p), GRID[:, 0]))


def aggregate(posterior: DiagonalGaussian, data: Tensor) -> Tensor:
    """log of the mean of q(z|v) over the data, on ``GRID``."""
    each = [posterior.log_prob(GRID, v.expand(len(GRID), 2)) for v in data[:200]]
    return torch.stack(each).logsumexp(0) - math.log(len(each))


@pytest.mark.long
def test_a_second_stage_and_a_mixture_find_the_codes_density():
    """Without the warm-up it stays where it knows nothing of u, as others saw too: KL 0.756 of N(0, I)'s 0.759."""
    data, model = bimodal(), LatentModel(Linear(2, 1), StandardNormal(1), learn_sigma=True)
    method = TwoStageVAE(share=0.4, second_width=16, second_layers=1, lr=0.02, lr_posterior=0.02, kl_warmup=200)
    parts = {"posterior": DiagonalGaussian((2,), 1)}
    fitted = method.fit(model, data, seeds=[0], steps=700, parts=parts, dtype=torch.float64, compile=False)
    log_q = aggregate(fitted.posterior(0), data)
    of_normal = kl(log_q, -StandardNormal(1).energy(GRID))
    codes = fitted.part("second", 0)
    u = torch.linspace(-6, 6, 601, dtype=torch.float64)
    pairs = -codes.energy(GRID.repeat_interleave(601, 0), u.repeat(len(GRID))[:, None]).reshape(len(GRID), 601)
    of_second = kl(log_q, pairs.logsumexp(1) + math.log(float(u[1] - u[0])))
    assert of_normal > 0.6
    assert -1e-3 < of_second < 0.35 * of_normal
    # draws are of that density, decoded: E|v_i| given z is a folded Gaussian's
    given = torch.distributions.Normal(fitted.model(0).decoder(GRID), fitted.model(0).sigma)
    at = given.mean / given.stddev
    folded = (
        given.mean * torch.erf(at / math.sqrt(2)) + given.stddev * math.sqrt(2 / math.pi) * (-at.square() / 2).exp()
    )
    of_draws = fitted.draw(4000, 0).abs()
    assert standard_errors(of_draws, pairs.logsumexp(1).softmax(0) @ folded) < 4
    assert standard_errors(of_draws, (-StandardNormal(1).energy(GRID)).softmax(0) @ folded) > 8

    of_mixture = Parts({"model": fitted.model(0), "posterior": fitted.posterior(0), "carry": {"kept": data}})
    mixed, _ = VAEMixture(components=2).joint_model(of_mixture)
    assert kl(log_q, -mixed.prior_energy(GRID)) < 0.05 * of_normal
    assert float(mixed.sigma) == pytest.approx(float(fitted.model(0).sigma), rel=1e-6)


def hierarchy_error() -> float:
    """How far the mean of importance weights of two stages is from the likelihood by quadrature, in its own error."""
    torch.manual_seed(6)
    model, q = linear_gaussian(2, 1), DiagonalGaussian((2,), 1).double().requires_grad_(False)
    parts = [module.double().requires_grad_(False) for module in (code_model(1, 4, 1), code_posterior(1, 4, 1))]
    joint, posterior = hierarchy(model, q, *parts)
    v = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    exact = log_integral(lambda h: -joint.energy(v.expand(len(h), 2), h), 2).log_z
    weights = importance_bound(joint, posterior, v.expand(100_000, 2), particles=1).exp()
    return abs(float(weights.mean()) - math.exp(exact)) / float(weights.std() / math.sqrt(len(weights)))


def test_two_stages_are_one_normalised_model_with_their_posteriors():
    torch.manual_seed(6)
    codes = code_model(1, 4, 1).double().requires_grad_(False)
    prior = CodePrior(codes)
    assert log_integral(lambda h: -prior.energy(h), 2).log_z == pytest.approx(0.0, abs=1e-3)
    assert hierarchy_error() < 4
    z, u = prior.draw(50_000, rng(16)).chunk(2, 1)
    residual = (z - codes.decoder(u)) / codes.sigma
    for found in (u, residual):
        assert abs(float(found.mean())) < 4.5 / math.sqrt(50_000)
        assert float(found.square().mean()) == pytest.approx(1.0, abs=0.03)


class Far:
    """A posterior whose codes are far from N(0, I)."""

    def mean(self, v: Tensor) -> Tensor:
        return v[:, :1] + 5

    def sample(self, v: Tensor, noise: Tensor, temperature: float) -> Tensor:
        return self.mean(v) + 0.3 * noise


def fitted_variance_error() -> float:
    """How far the variance of the mixture that follows BiMDSM is from that of draws of q."""
    kept = torch.randn(4000, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    parts = Parts({"model": latent_mlp(2, 1, width=4, layers=1), "posterior": Far(), "carry": {"kept": kept}})
    prior = BiMDSMMixture(components=2).joint_model(parts)[0].prior
    share, mean = prior.log_weights.exp(), prior.means[:, 0]
    variance = share @ (prior.scale_tril[:, 0, 0].square() + mean.square()) - (share @ mean).square()
    return abs(float(variance - Far().mean(kept).var() - 0.09))


def test_a_mixture_is_fitted_to_codes_after_bilevel_score_matching():
    """Training is BiMDSM's; what is drawn then are draws of q at the examples that were kept, decoded."""
    data, model = bimodal(), latent_mlp(2, 1, width=4, layers=1, sigma=0.2)
    method, how = BiMDSMMixture(components=2, kept=200), {"seeds": [3], "steps": 4, "compile": False}
    fitted, plain = method.fit(model, data.float(), **how), BiMDSM().fit(model, data.float(), **how)
    for part in ("model", "posterior"):
        for name, tensor in plain.part(part, 3).state_dict().items():
            assert torch.equal(fitted.part(part, 3).state_dict()[name], tensor), name
    kept = fitted.state(3)["carry"]["kept"]
    assert kept.shape == (200, 2)
    parts = Parts({"model": fitted.model(3), "posterior": Far(), "carry": {"kept": kept}})
    mixed, posterior = method.joint_model(parts)
    draws, codes = mixed.prior.draw(4000, Rng(generator(2, 0, "tests"), torch.float32)), Far().mean(kept)
    assert isinstance(posterior, Far)
    assert float(draws.mean()) == pytest.approx(float(codes.mean()), abs=0.1)
    assert float(draws.var()) == pytest.approx(float(codes.var()) + 0.09, rel=0.1)
    assert torch.equal(mixed.visible_mean(draws), fitted.model(3).visible_mean(draws))
    assert fitted_variance_error() < 0.03
    assert "log_visible" in str(method.unsupported(MLPEBLVM(2, 2, width=4)))


def test_the_kl_of_each_stage_warms_up_anew():
    data, model = bimodal(40), latent_mlp(2, 1, learn_sigma=True, width=4, layers=1)
    method = TwoStageVAE(kl_warmup=4, second_width=4, second_layers=1, share=0.5)
    for steps, counted in ((3, 3), (5, 5), (6, 1), (9, 4)):
        fitted = method.fit(model, data, seeds=[0], steps=steps, iterations=10, compile=False, batch_size=10)
        assert float(fitted.state(0)["carry"]["steps"]) == counted
    first, state = fitted.model(0), Parts({"model": fitted.model(0), "posterior": fitted.posterior(0)})
    v, noise, hyper = data[:10].float(), torch.zeros(10, 1), {"kl_weight": torch.tensor(2.0)}
    divergence = fitted.posterior(0).kl_to_standard_normal(v).mean()
    misfit = -first.log_visible(v, fitted.posterior(0).mean(v)).mean()
    for steps, weight in ((0.0, 0.0), (1.0, 0.5), (4.0, 2.0), (9.0, 2.0)):
        value, _, _ = method.loss(state, v, noise, {"steps": torch.tensor(steps)}, hyper)
        assert float(value) == pytest.approx(float(misfit + weight * divergence), rel=1e-5)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        (TwoStageVAE(), {}, "its first stage learns the model's sigma: learn_sigma must be true"),
        (RAE(), {"learn_sigma": True}, "would not train the model's sigma: learn_sigma must be false"),
        (
            RAE(regulariser="spectral_norm"),
            {},
            "with regulariser: spectral_norm the model's spectral_norm must be true",
        ),
        (RAE(), {"spectral_norm": True}, "with regulariser: l2 the model's spectral_norm must be false"),
        (RAE(components=60), {}, "a density of 60 components needs as many examples, got 50"),
    ],
)
def test_what_does_not_fit_is_refused(method, options, said):
    with pytest.raises(InputError, match=said):
        method.fit(latent_mlp(2, 2, **options), torch.randn(50, 2), seeds=[0], steps=1)


def test_a_density_needs_as_many_codes_as_components():
    assert RAE(components=5, kept=5).kept == 5
    with pytest.raises(InputError, match=r"rae: kept must be at least components, 9, .* got 5"):
        RAE(components=9, kept=5)


def test_a_part_that_is_no_encoder_is_refused():
    with pytest.raises(InputError, match="posterior must be an encoder, Around, got DiagonalGaussian"):
        RAE().fit(latent_mlp(2, 2), torch.randn(50, 2), steps=1, parts={"posterior": DiagonalGaussian((2,), 2)})
    model = latent_mlp(2, 2, learn_sigma=True)
    with pytest.raises(InputError, match="two_stage_vae makes the networks of its second stage itself"):
        TwoStageVAE().fit(model, torch.randn(50, 2), steps=1, parts={"second": latent_mlp(2, 2)})
