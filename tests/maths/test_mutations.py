"""The checks can fail: for every estimator, a wrong sign, factor or term makes its residual large."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

import baselines.nce
import baselines.pseudo_likelihood
import baselines.vages
import baselines.vnce
import bism.bilevel
import bism.flips
import bism.hooks
import bism.methods
import bism.score_matching
from baselines import (
    DSM,
    MDSM,
    MPF,
    NCE,
    SM,
    SSM,
    VNCE,
    BiMPF,
    BiPseudoLikelihood,
    BiRatioMatching,
    PseudoLikelihood,
    RatioMatching,
    VaGESDSM,
    VaGESKSD,
    VaGESMDSM,
)
from baselines.latent_scores import covariance_surrogate, mean_score, residual
from baselines.mpf import Flow
from baselines.ratio_matching import Ratios
from bism import GRBM, BiDSM, BiMDSM, BiSM, BiSSM
from bism.bilevel import DIVERGENCES, descend, kl_divergence, log_ratio
from bism.flips import Flips
from bism.objectives import curvature, perturb, score, sm, sum_per_example
from bism.optimisers import adam_update
from bism.posteriors import DiagonalGaussian, RelaxedBernoulli
from bism.score_matching import Multiscale
from tests.contracts.cases import discovered
from tests.maths import checks, exact
from tests.maths.exact import LinearGaussian, make_grbm, parameters
from tests.maths.mutation import Mutation, Patch, kl_without_log_q, replace

SCORE_AND_LAPLACIAN = GRBM.score_and_laplacian


# --- what is checked --------------------------------------------------------------------------------------------------


def sm_check(kind: type[GRBM] = exact.GRBMByAutograd) -> float:
    truth = make_grbm(hidden=2, kind=kind)
    return checks.sm_slope(SM(), truth, parameters(truth))


def ssm_check() -> float:
    truth = make_grbm(hidden=2)
    return checks.ssm_slope(SSM(), truth, parameters(truth))


def dsm_check() -> float:
    data = checks.orthogonal_grbm()
    return checks.dsm_slope(DSM(sigma=0.5), data, parameters(checks.smoothed(data, 0.5)))


def mdsm_check() -> float:
    estimator = MDSM(sigma_min=0.2, sigma_max=1.5, sigma0=0.4)
    return checks.mdsm_slope(estimator, 0.9, checks.mdsm_optimum(estimator, 0.9))


def nce_check() -> float:
    truth = make_grbm(visible=1, hidden=2)
    return checks.nce_slope(NCE(nu=2), truth, parameters(truth), exact.log_z(truth).detach())


def vnce_check() -> float:
    return checks.vnce_gap(VNCE(nu=2, noise_particles=3), NCE(nu=2), make_grbm())


def vages_check(make: Any, **options: Any) -> Callable[[], float]:
    """The expected gradient against the marginal objective's."""
    return lambda: checks.vages_error(make(particles=2, **options), make_grbm(hidden=1), 2)


def bilevel_check(make: Any, marginal: Any) -> Callable[[], float]:
    return lambda: checks.theorem_one(make(), marginal())


def unrolled_check(make: Any, **options: Any) -> Callable[[], float]:
    """The hypergradient against finite differences."""
    settings = {"inner_steps": 2, "unroll_steps": 3, "lr_posterior": 0.05, **options}

    def check() -> float:
        torch.manual_seed(0)
        if options.get("lower") == "fisher":
            model: Any = LinearGaussian(2, 2).double()
            return checks.hypergradient_error(make, model, DiagonalGaussian((2,), 2).double(), **settings)
        posterior = RelaxedBernoulli((2,), 2).double()
        return checks.hypergradient_error(make, exact.small_rbm(make, hidden=2), posterior, **settings)

    return check


def inner_check(make: Any) -> Callable[[], float]:
    def check() -> float:
        torch.manual_seed(0)
        return checks.inner_steps_error(make(inner_steps=3, unroll_steps=1, lr_posterior=0.05))

    return check


# --- what is broken ---------------------------------------------------------------------------------------------------


def sm_with(half: float, trace: float) -> Any:
    def mutated(log_density: Any, v: Tensor) -> Tensor:
        square = sum_per_example(score(log_density, v).square())
        return half * square + trace * (sm(log_density, v) - 0.5 * square)

    return mutated


def downward(model: GRBM, v: Tensor) -> tuple[Tensor, Tensor]:
    s, trace = SCORE_AND_LAPLACIAN(model, v)
    return s, -trace


def ssm_with(half: float, second: float) -> Any:
    def mutated(log_density: Any, v: Tensor, u: Tensor) -> Tensor:
        s, along = curvature(log_density, v, u)
        return half * sum_per_example(s.square()) + second * along

    return mutated


def dsm_with(sign: float = 1.0, power: int = 1, moved: float = 1.0) -> Any:
    def mutated(log_density: Any, v: Tensor, noise: Tensor, sigma: Any) -> Tensor:
        s = score(log_density, perturb(v, moved * noise, sigma))
        return 0.5 * sum_per_example((s + sign * noise / sigma**power).square())

    return mutated


def mdsm_with(sign: float = 1.0, power: int = 2, weight: int = 2) -> Any:
    def mutated(log_density: Any, v: Tensor, noise: Tensor, sigma: Tensor, sigma0: Any, weighting: str) -> Tensor:
        s, each = score(log_density, perturb(v, noise, sigma)), sigma.unsqueeze(1)
        return 0.5 * sum_per_example((s + sign * each * noise / sigma0**power).square()) / sigma**weight

    return mutated


def half_log_q(model: Any, posterior: Any, v: Tensor, h: Tensor) -> Tensor:
    return -model.energy(v, h) - 0.5 * posterior.log_prob(h, v)


def no_log_q(model: Any, posterior: Any, v: Tensor, h: Tensor) -> Tensor:
    return -model.energy(v, h)


def constant_descend(lower: Any, phi: Any, optimiser: Any, noises: Any, *how: Any) -> Any:
    """The unrolled steps without their derivative: the second term of eq. (14) is lost."""
    return tree_map(Tensor.detach, descend(lower, phi, optimiser, noises, *how))


def one_step_short(patch: pytest.MonkeyPatch) -> None:
    """The last inner step changes nothing."""
    whole, made = BiSM.inner_step, []

    def descended(self: Any, state: Any, *given: Any) -> Any:
        made.append(1)
        return state if len(made) % self.inner_steps == 0 else whole(self, state, *given)

    patch.setattr(BiSM, "inner_step", descended)


def adam_without_momentum_in_the_derivative(gradient: Any, params: Any, state: Any, lr: Any, **options: Any) -> Any:
    params, state = adam_update(gradient, params, state, lr, **options)
    return params, {**state, "second": tree_map(Tensor.detach, state["second"])}


def upward_kl(*args: Any) -> Tensor:
    return -kl_divergence(*args)


def flip_check(make: Any) -> Callable[[], float]:
    """The expected gradient at the parameters that made the data."""
    model = exact.make_rbm()
    return lambda: checks.flip_slope(make(), model, parameters(model))


def of_other_ratios(change: Callable[[Tensor], Tensor]) -> Any:
    return lambda self, d: change(d).sum(-1)


def flips_of_the_energy(model: Any, posterior: Any, v: Tensor, h: Tensor) -> Tensor:
    """Without log q."""
    return -model.flip_energies(v, h)


def of_the_data_alone(self: Any, v: Tensor, noise: Tensor, hyper: Any) -> Tensor:
    return v


LOG_OF_ONE = SimpleNamespace(log=lambda x: 0.0)  # drops log nu
SCALED = {"nce": lambda *x: 0.5 * baselines.noise.noise_log_prob(*x)}
ONES = replace(Multiscale, "lower_weight", lambda self, v, noise, hyper: v.new_ones(len(v)))
VAGES: list[tuple[Any, dict[str, float]]] = [
    (VaGESDSM, {"sigma": 0.5}),
    (VaGESMDSM, {}),
    (VaGESKSD, {"bandwidth": 1.0}),
]
BILEVEL = [(BiSSM, SSM), (BiDSM, DSM), (BiMDSM, MDSM)]
BILEVEL_FLIPS = [(BiPseudoLikelihood, PseudoLikelihood), (BiRatioMatching, RatioMatching), (BiMPF, MPF)]

MUTATIONS = [
    Mutation("sm", "twice the square", sm_check, replace(bism.score_matching, "sm", sm_with(1.0, 1.0))),
    Mutation("sm", "sign of the trace", sm_check, replace(bism.score_matching, "sm", sm_with(0.5, -1.0))),
    Mutation("sm", "no trace", sm_check, replace(bism.score_matching, "sm", sm_with(0.5, 0.0))),
    Mutation("sm", "sign of the closed trace", partial(sm_check, GRBM), replace(GRBM, "score_and_laplacian", downward)),
    Mutation("ssm", "twice the square", ssm_check, replace(bism.score_matching, "ssm", ssm_with(1.0, 1.0))),
    Mutation("ssm", "sign of the curvature", ssm_check, replace(bism.score_matching, "ssm", ssm_with(0.5, -1.0))),
    Mutation("ssm", "half the curvature", ssm_check, replace(bism.score_matching, "ssm", ssm_with(0.5, 0.5))),
    Mutation("dsm", "sign", dsm_check, replace(bism.score_matching, "dsm", dsm_with(sign=-1)), small=1e-4),
    Mutation("dsm", "sigma squared", dsm_check, replace(bism.score_matching, "dsm", dsm_with(power=2)), small=1e-4),
    Mutation("dsm", "clean data", dsm_check, replace(bism.score_matching, "dsm", dsm_with(moved=0)), small=1e-4),
    Mutation("mdsm", "sign", mdsm_check, replace(bism.score_matching, "mdsm", mdsm_with(sign=-1))),
    Mutation("mdsm", "sigma0", mdsm_check, replace(bism.score_matching, "mdsm", mdsm_with(power=1))),
    Mutation("mdsm", "no weight", mdsm_check, replace(bism.score_matching, "mdsm", mdsm_with(weight=0))),
    Mutation("mdsm", "1/sigma", mdsm_check, replace(bism.score_matching, "mdsm", mdsm_with(weight=1))),
    Mutation(
        "pseudo_likelihood",
        "sign",
        flip_check(PseudoLikelihood),
        replace(baselines.pseudo_likelihood, "softplus", lambda x: torch.nn.functional.softplus(-x)),
    ),
    *[
        Mutation(make.id, what, flip_check(make), replace(kind, "of_log_ratios", of_other_ratios(change)))
        for make, kind, changes in (
            (RatioMatching, Ratios, {"no square": torch.sigmoid, "sign": lambda d: (-d).sigmoid().square()}),
            (MPF, Flow, {"no root": torch.exp, "sign": lambda d: (-d / 2).exp()}),
        )
        for what, change in changes.items()
    ],
    Mutation("nce", "no log nu", nce_check, replace(baselines.nce, "math", LOG_OF_ONE)),
    Mutation("nce", "half the noise's density", nce_check, replace(baselines.nce, "noise_log_prob", SCALED["nce"])),
    Mutation("nce", "sign", nce_check, replace(baselines.nce, "softplus", lambda x: torch.nn.functional.softplus(-x))),
    Mutation("vnce", "no log q", vnce_check, replace(baselines.vnce, "log_ratio", no_log_q)),
    Mutation("vnce", "half log q", vnce_check, replace(baselines.vnce, "log_ratio", half_log_q)),
    Mutation("vnce", "half the noise's density", vnce_check, replace(baselines.vnce, "noise_log_prob", SCALED["nce"])),
    *[
        Mutation(make.id, what, vages_check(make, **options), replace(baselines.vages, name, mutated), large=5e-3)
        for make, options in VAGES
        for what, name, mutated in (
            ("sign of the covariance", "covariance_surrogate", lambda *given: -covariance_surrogate(*given)),
            ("L for L - 1", "covariance_surrogate", lambda *given: covariance_surrogate(*given[:-1], True)),
            ("twice the residual", "residual", lambda *given: (2 * residual(*given)[0], residual(*given)[1])),
            ("no second derivative", "second_surrogate", lambda f, v, h, z: f(v, h[0]) * 0),
            ("score of one particle", "mean_score", lambda f, v, h: mean_score(f, v, h[:1].roll(1, 1))),
        )
    ],
    *[
        mutation
        for make, marginal in BILEVEL
        for mutation in (
            Mutation(make.id, "no log q", bilevel_check(make, marginal), replace(bism.methods, "log_ratio", no_log_q)),
            Mutation(
                make.id, "half log q", bilevel_check(make, marginal), replace(bism.methods, "log_ratio", half_log_q)
            ),
            Mutation(
                make.id,
                "no second term",
                unrolled_check(make),
                replace(bism.bilevel, "descend", constant_descend),
                large=1e-3,
            ),
            Mutation(
                make.id,
                "Adam's second moment held fixed",
                unrolled_check(make),
                replace(bism.hooks, "adam_update", adam_without_momentum_in_the_derivative),
                large=1e-4,
            ),
            Mutation(make.id, "a step too few", inner_check(make), one_step_short),
            Mutation(
                make.id,
                "lower level without log q",
                inner_check(make),
                lambda patch: patch.setitem(DIVERGENCES, "kl", kl_without_log_q),
            ),
            Mutation(
                make.id,
                "lower level upwards",
                inner_check(make),
                lambda patch: patch.setitem(DIVERGENCES, "kl", upward_kl),
            ),
        )
    ],
    *[
        mutation
        for make, marginal in BILEVEL_FLIPS
        for mutation in (
            Mutation(
                make.id,
                "no log q",
                bilevel_check(make, marginal),
                replace(bism.flips, "joint_log_ratios", flips_of_the_energy),
            ),
            Mutation(
                make.id,
                "no second term",
                unrolled_check(make),
                replace(bism.bilevel, "descend", constant_descend),
                large=1e-3,
            ),
            Mutation(
                make.id,
                "lower level at the data alone",
                inner_check(make),
                replace(Flips, "points", of_the_data_alone),
            ),
        )
    ],
    Mutation("bimdsm", "lower level without its weight", inner_check(BiMDSM), ONES, large=1e-3),
    Mutation(
        "bidsm",
        "no second term, Fisher",
        unrolled_check(BiDSM, lower="fisher", lr_posterior=0.1),
        replace(bism.bilevel, "descend", constant_descend),
    ),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.estimator}: {m.what}")
def test_a_mutation_is_noticed(mutation: Mutation, monkeypatch: Patch) -> None:
    assert mutation.check() < mutation.small
    mutation.apply(monkeypatch)
    assert not mutation.check() < mutation.large  # not a number counts as large


def test_every_estimator_has_a_mutation() -> None:
    others = [import_module(f"tests.maths.{file.stem}") for file in Path(__file__).parent.glob("test_mutations_*.py")]
    found = [*MUTATIONS, *(mutation for other in others for mutation in other.MUTATIONS)]
    assert {mutation.estimator for mutation in found} == {kind.id for kind in discovered()}


def test_the_ratio_of_eq_8_is_log_p_minus_log_q() -> None:
    model, posterior, v = make_grbm(), RelaxedBernoulli((2,), 3).double(), torch.ones(4, 2).double()
    h = torch.full((4, 3), 0.5).double()
    expected = -model.energy(v, h) - posterior.log_prob(h, v)
    torch.testing.assert_close(log_ratio(model, posterior, v, h), expected)
