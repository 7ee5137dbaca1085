"""The checks of autoencoders can fail: a wrong sign, factor or term makes their residuals large."""

import pytest
import torch
from torch import Tensor

import baselines.autoencoder
import baselines.dvae
import baselines.rae
from baselines.autoencoder import jacobian_square, squares
from baselines.ex_post import ExPost
from bism.discrete import RBMPrior, SmoothedBernoulli
from bism.gaussian_mixture import GaussianMixture
from bism.hierarchy import BothPosteriors, CodePrior
from bism.models import RBM
from bism.smoothing import OverlappingExponential, SpikeExponential
from tests.maths.mutation import Mutation, replace
from tests.maths.test_autoencoders import fitted_variance_error, hierarchy_error, mixture_error, rae_error
from tests.maths.test_dvae import dvae_error

AVERAGED, OF_Z = SmoothedBernoulli.averaged, RBMPrior.energy
INVERSE, OVERLAPPING = SpikeExponential.inverse, OverlappingExponential.inverse
FREE_ENERGY = RBM.free_energy
LOG_JOINT, LOG_PROB = GaussianMixture.log_joint, BothPosteriors.log_prob


def spike() -> float:
    return dvae_error("spike_exponential")


def overlapping() -> float:
    return dvae_error("overlapping_exponential")


def of_zeta(self: RBMPrior, h: Tensor) -> Tensor:
    """The energy of zeta in the place of z: what DVAE++ must not do."""
    zeta = h.chunk(2, -1)[0]
    return OF_Z(self, torch.cat([zeta, zeta], -1))


def without_the_prior_of_u(self: CodePrior, h: Tensor) -> Tensor:
    energy: Tensor = self.second.energy(*h.chunk(2, -1)) - self.second.prior_energy(h.chunk(2, -1)[1])
    return energy


def first_alone(self: BothPosteriors, h: Tensor, v: Tensor) -> Tensor:
    found: Tensor = self.first.log_prob(h.chunk(2, -1)[0], v)
    return found


def unscaled_volume(self: GaussianMixture, h: Tensor) -> Tensor:
    return LOG_JOINT(self, h) + self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def hard(self: SmoothedBernoulli, v: Tensor, rho: Tensor) -> Tensor:
    """z in the place of its mean."""
    h = AVERAGED(self, v, rho)
    zeta, q = h.chunk(2, -1)
    return torch.cat([zeta, (rho > 1 - q).to(q)], -1)


MUTATIONS = [
    Mutation("dvae", "the prior sees zeta", spike, replace(RBMPrior, "energy", of_zeta), 1e-5),
    Mutation("dvae", "the prior sees zeta", overlapping, replace(RBMPrior, "energy", of_zeta), 1e-5),
    Mutation("dvae", "no gradient through the rounded z", spike, replace(SmoothedBernoulli, "averaged", hard), 1e-5),
    Mutation("dvae", "log Z has no gradient", spike,
             replace(RBM, "free_energy", lambda self, v: FREE_ENERGY(self, v).detach()), 1e-5),
    Mutation("dvae", "no gradient through zeta", overlapping,
             replace(OverlappingExponential, "inverse", lambda *given: OVERLAPPING(*given).detach()), 1e-5),
    Mutation("dvae", "zeta of too small a q", spike,
             replace(SpikeExponential, "inverse", lambda self, rho, q: INVERSE(self, rho, 0.9 * q)), 1e-5),
    Mutation("rae", "l2 without squares", lambda: rae_error("l2"),
             replace(baselines.rae, "squares", lambda decoder: squares(decoder).sqrt())),
    Mutation("rae", "half the Jacobian", lambda: rae_error("gradient_penalty"),
             replace(baselines.rae, "jacobian_square", lambda *given: 0.5 * jacobian_square(*given))),
    Mutation("rae", "a misfit of another kind", lambda: rae_error("none"),
             replace(baselines.rae, "sum_per_example", lambda x: x.sqrt().sum(-1))),
    Mutation("bimdsm_gmm", "codes without q's spread", fitted_variance_error,
             replace(ExPost, "codes", lambda self, posterior, v, rng: posterior.mean(v)), 0.03, 0.06),
    Mutation("vae_gmm", "a density without its volume", mixture_error,
             replace(GaussianMixture, "log_joint", unscaled_volume)),
    Mutation("two_stage_vae", "no prior of u", hierarchy_error,
             replace(CodePrior, "energy", without_the_prior_of_u), 4.0, 10.0),
    Mutation("two_stage_vae", "q(u|z) is left out", hierarchy_error,
             replace(BothPosteriors, "log_prob", first_alone), 4.0, 10.0),
]  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: f"{one.estimator}: {one.what}")
def test_a_mutation_is_noticed(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mutation.check() < mutation.small
    mutation.apply(monkeypatch)
    assert not mutation.check() < mutation.large
