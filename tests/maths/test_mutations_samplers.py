"""The checks of methods that draw from the model, by chains or by samplers that they learn, can fail."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import baselines.advil
import baselines.cd
import baselines.chains
import baselines.coopnets
import baselines.flow_contrast
import baselines.generative_convnet
import baselines.igebm
import baselines.langevin_cd
import baselines.persistent_vi
import baselines.short_run
import baselines.unbiased_cd
import bism.sampling
from baselines import (
    CD,
    IGEBM,
    NVIL,
    PCD,
    AdVIL,
    CoopNets,
    EnergyDiscrepancy,
    FlowContrast,
    GenerativeConvNet,
    LangevinCD,
    LangevinPCD,
    PersistentVI,
    ShortRun,
    UnbiasedCD,
)
from baselines.chains import contrast
from baselines.decoder import Decoder
from baselines.flow import Flow as NormalisingFlow
from baselines.revision import distance
from bism import GRBM
from tests.maths import checks, exact
from tests.maths.learnt_samplers import advil_error, nvil_error
from tests.maths.mutation import UPHILL, Mutation, Patch, kl_without_log_q, replace
from tests.maths.test_chains import IMPLICIT, PERSISTENT, SHORT, chains_error
from tests.maths.test_coopnets import coopnets_error
from tests.maths.test_dbm import bound_error
from tests.maths.test_dbn import wake_sleep_error
from tests.maths.test_energy_discrepancy import ed_error
from tests.maths.test_flow import fce_error

BOUND_BATCH = exact.samples(exact.make_rbm(seed=1), 1500, 1)
COUPLED_CHAINS = baselines.unbiased_cd.coupled_chains
BY_CHAINS = (
    (ShortRun, baselines.short_run, "slope", baselines.chains, SHORT),
    (IGEBM, baselines.igebm, "slope", baselines.igebm, IMPLICIT),
    (GenerativeConvNet, baselines.generative_convnet, "revised", baselines.chains, PERSISTENT),
)


def hidden_of_the_wrong_sign(self: Any, v: Tensor, noise: Tensor) -> Tensor:
    return (noise > self.hidden_logits(v)).to(v.dtype)


def gibbs_without_noise(model: Any, v: Tensor, noise: Any) -> Tensor:
    return bism.sampling.gibbs(model, v, {**noise, "visible": torch.zeros_like(noise["visible"])})


def cd_with(data: float, model: float) -> Any:
    def loss(self: Any, params: Any, batch: Tensor, noise: Any, carry: Any, hyper: Any) -> Any:
        fantasies = bism.sampling.gibbs(params.model, batch, noise).detach()
        energy = params.model.free_energy
        return data * energy(batch).mean() - model * energy(fantasies).mean(), carry, {}

    return loss


def bound_check(prior: str) -> float:
    return checks.bound_error(PersistentVI(prior=prior, samples=1, k=2), exact.make_rbm(), BOUND_BATCH)


def at_the_mean(bound: Any, tensors: Any) -> Any:
    return bound


def never_apart(ahead: Tensor, behind: Tensor) -> Tensor:
    return torch.zeros(ahead.shape[:2], dtype=torch.bool)


def late(model: Any, v: Tensor, noise: Any) -> Any:
    ahead, behind, short = COUPLED_CHAINS(model, v, noise)
    return torch.cat([v[None], ahead[:-1]]), behind, short


def swapped(model: Any, v: Tensor, noise: Any) -> Any:
    ahead, behind, short = COUPLED_CHAINS(model, v, noise)
    return torch.cat([ahead[:1], behind[1:]]), torch.cat([behind[:1], ahead[1:]]), short


def unscaled_visible(self: Any, h: Tensor, noise: Tensor) -> Tensor:
    return self.b + h @ self.W.T + self.log_s.exp() * noise


def pcd_from(chains: str) -> Any:
    def loss(self: Any, params: Any, batch: Tensor, noise: Any, carry: Any, hyper: Any) -> Any:
        begin = batch if chains == "batch" else carry["chains"]
        end = bism.sampling.gibbs(params.model, begin, noise).detach()
        value = params.model.free_energy(batch).mean() - params.model.free_energy(end).mean()
        return value, {"chains": carry["chains"] if chains == "stuck" else end}, {}

    return loss


def nvil_with(power: float, sign: float = 1.0) -> Any:
    """The model's loss with weights w^power."""

    def loss(self: Any, params: Any, batch: Tensor, noise: Any, carry: Any, hyper: Any) -> Any:
        points = params.proposal.sample(noise)
        energies = self.energy(params.model, points)
        log_w = (-energies - params.proposal.log_prob(*points)).detach()
        contrast = ((power * log_w).softmax(0) * energies).sum()
        return params.model.free_energy(batch).mean() - sign * contrast, carry, {}

    return loss


def proposal_with(power: float, factor: float = -0.5) -> Any:
    """The proposal's loss with weights w^power."""

    def loss(self: Any, params: Any, noise: Any) -> Tensor:
        points = params.proposal.sample(noise)
        log_q = params.proposal.log_prob(*points)
        log_w = (-self.energy(params.model, points) - log_q).detach()
        return factor * ((power * log_w).softmax(0) * log_q).sum()

    return loss


def without_r(self: Any, z: Tensor, h: Tensor, v: Tensor) -> Tensor:
    return ENTROPY_BOUND(self, z, h, v) - self.code.log_prob(z, h)


def half_entropy_in_value(self: Any, params: Any, noise: Any, hyper: Any) -> Tensor:
    z, h, v = params.decoder.sample(noise, hyper["temperature"])
    return (params.model.energy(v, h) - 0.5 * params.decoder.entropy_bound(z, h, v)).mean()


def push_without_gradient_in_q(self: Any, z: Tensor) -> tuple[Tensor, Tensor]:
    v, log_q = PUSH(self, z)
    return v, log_q.detach()


def push_without_scale(self: Any, z: Tensor) -> tuple[Tensor, Tensor]:
    v, log_q = PUSH(self, z)
    return v, log_q + self.visible.log_scale.sum()


def ed_with(away: float = 1.0, back: float = 1.0, sign: float = 1.0) -> Any:
    """Its loss at other perturbations, or upside down."""

    def loss(self: Any, params: Any, batch: Tensor, noise: Any, carry: Any, hyper: Any) -> Any:
        other = {"away": away * noise["away"], "back": back * noise["back"]}
        value, *rest = ED_LOSS(self, params, batch, other, carry, hyper)
        return sign * value, *rest

    return loss


ENTROPY_BOUND = Decoder.entropy_bound
PUSH = NormalisingFlow.push
ED_LOSS = EnergyDiscrepancy.loss
COOPNETS_LOSS = CoopNets.loss
FCE_ERROR = partial(fce_error, FlowContrast(memory=0.99))
COOPNETS_ERROR = partial(coopnets_error, CoopNets(k=3, step_size=0.4, codes=1, code_steps=2))
ED_ERROR = partial(ed_error, EnergyDiscrepancy(variance=0.5, points=1000, stabilisation=0.0))
NVIL_ERROR = partial(nvil_error, NVIL(samples=2))
ADVIL_ERROR = partial(advil_error, AdVIL(codes=1))
CD_SLOPE, CD_BIAS = (lambda: checks.cd_slope(CD(k=2))), (lambda: checks.cd_bias(CD(k=30)))
UNBIASED = partial(checks.cd_bias, UnbiasedCD(max_steps=12), size=1500)

MUTATIONS = [
    Mutation("cd", "sign of the logits", CD_SLOPE, replace(GRBM, "sample_hidden", hidden_of_the_wrong_sign), 5, 12),
    Mutation("cd", "no noise in v", CD_SLOPE, replace(baselines.cd, "gibbs", gibbs_without_noise), 5, 12),
    Mutation("cd", "mean without s^2", CD_SLOPE, replace(GRBM, "sample_visible", unscaled_visible), 5, 12),
    Mutation("cd", "twice the data's term", CD_SLOPE, replace(CD, "loss", cd_with(2, 1)), 5, 12),
    Mutation("cd", "sign", CD_BIAS, replace(CD, "loss", cd_with(-1, -1)), 5, 12),
    Mutation("cd", "factor", CD_BIAS, replace(CD, "loss", cd_with(2, 2)), 5, 12),
    Mutation(
        "pcd", "starts at the data", lambda: checks.chains_error(PCD(k=2)), replace(PCD, "loss", pcd_from("batch"))
    ),
    Mutation("pcd", "never moves", lambda: checks.chains_error(PCD(k=2)), replace(PCD, "loss", pcd_from("stuck"))),
    *[
        Mutation("persistent_vi", what, partial(bound_check, prior), change, 4.5, 12)
        for prior in ("gaussian", "horseshoe")
        for what, change in {
            "at the mean": replace(baselines.persistent_vi, "rebound", at_the_mean),
            "chains stand still": replace(baselines.persistent_vi, "gibbs", lambda model, v, noise: v * 0),
        }.items()
    ],
    Mutation("unbiased_cd", "no correction", UNBIASED, replace(baselines.unbiased_cd, "apart", never_apart), 5, 12),
    Mutation("unbiased_cd", "a lag too few", UNBIASED, replace(baselines.unbiased_cd, "coupled_chains", late), 5, 12),
    Mutation("unbiased_cd", "sign", UNBIASED, replace(baselines.unbiased_cd, "coupled_chains", swapped), 5, 12),
    *[
        Mutation(make.id, what, partial(checks.langevin_error, make(k=2, step_size=0.2, regulariser=0.1)), change)
        for make in (LangevinCD, LangevinPCD)
        for what, change in {
            "uphill": replace(baselines.langevin_cd, "slope", UPHILL["slope"]),
            "sign": replace(baselines.langevin_cd, "contrast", lambda *given: -contrast(*given)),
        }.items()
    ],
    *[
        Mutation(make.id, what, partial(chains_error, estimator), change)
        for make, moves, move, loss, estimator in BY_CHAINS
        for what, change in {
            "uphill": replace(moves, move, UPHILL[move]),
            "sign": replace(loss, "contrast", lambda *given: -contrast(*given)),
        }.items()
    ],
    Mutation(
        "igebm",
        "no restarts",
        partial(chains_error, IMPLICIT),
        replace(baselines.igebm, "within", lambda low, high, uniform: low + 0 * uniform),
    ),
    Mutation("nvil", "w^2", NVIL_ERROR, replace(NVIL, "loss", nvil_with(2))),
    Mutation("nvil", "samples weigh alike", NVIL_ERROR, replace(NVIL, "loss", nvil_with(0))),
    Mutation("nvil", "sign", NVIL_ERROR, replace(NVIL, "loss", nvil_with(1, -1))),
    Mutation("nvil", "w for w^2", NVIL_ERROR, replace(NVIL, "proposal_loss", proposal_with(1))),
    Mutation("nvil", "proposal upwards", NVIL_ERROR, replace(NVIL, "proposal_loss", proposal_with(2, 0.5))),
    *[
        Mutation("flow_contrast", what, FCE_ERROR, change)
        for what, change in {
            "the flow descends": replace(baselines.flow_contrast, "against", lambda x: x),
            "no gradient through q": replace(NormalisingFlow, "push", push_without_gradient_in_q),
            "no scale in q": replace(NormalisingFlow, "push", push_without_scale),
            "sign": replace(baselines.flow_contrast, "softplus", lambda x: torch.nn.functional.softplus(-x)),
        }.items()
    ],
    *[
        Mutation("coopnets", what, COOPNETS_ERROR, change)
        for what, change in {
            "uphill": replace(baselines.coopnets, "revised", UPHILL["revised"]),
            "half the distance": replace(baselines.coopnets, "distance", lambda *of: 0.5 * distance(*of)),
            "unrevised": replace(CoopNets, "revise", lambda self, state, *_: state),
            "sign": replace(CoopNets, "loss", lambda *of: (-COOPNETS_LOSS(*of)[0], of[4], {})),
        }.items()
    ],
    *[
        Mutation("energy_discrepancy", what, ED_ERROR, replace(EnergyDiscrepancy, "loss", ed_with(*given)), 5e-3, 5e-2)
        for what, given in {"not away": (0.0,), "half the way back": (1.0, 0.5), "sign": (1.0, 1.0, -1.0)}.items()
    ],
    Mutation(
        "dbm",
        "chains are pushed aside",
        bound_error,
        replace(baselines.dbm, "walk", lambda model, chains, noise: {name: 1 - x for name, x in chains.items()}),
        0.03,
        0.1,
    ),
    Mutation(
        "dbn",
        "chains end at 0",
        wake_sleep_error,
        replace(baselines.dbn, "gibbs", lambda _, h, noise: h * 0),
        0.03,
        0.1,
    ),
    Mutation("advil", "half the entropy", ADVIL_ERROR, replace(AdVIL, "decoder_loss", half_entropy_in_value)),
    Mutation("advil", "no r", ADVIL_ERROR, replace(Decoder, "entropy_bound", without_r)),
    Mutation("advil", "no log Q", ADVIL_ERROR, replace(baselines.advil, "kl_divergence", kl_without_log_q)),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.estimator}: {m.what}")
def test_a_mutation_is_noticed(mutation: Mutation, monkeypatch: Patch) -> None:
    assert mutation.check() < mutation.small
    mutation.apply(monkeypatch)
    assert not mutation.check() < mutation.large  # not a number counts as large
