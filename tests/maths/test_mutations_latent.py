"""The checks of methods that move h by chains, or play against an energy of v and h, can fail."""

from functools import partial
from typing import Any

import pytest
from torch import Tensor

import baselines.hoffman
import baselines.latent_chains
import baselines.lebm_amortised
import baselines.vae_ebm
from baselines.hoffman import Hoffman
from baselines.lebm import LEBM
from baselines.lebm_amortised import AmortisedLEBM
from baselines.vae import negative_elbo
from baselines.vae_ebm import VAEEBM
from bism.hmc import hmc
from tests.maths.mutation import UPHILL, Mutation, replace
from tests.maths.test_hoffman import invariance_error
from tests.maths.test_lebm import encoder_error, gradient_errors, langevin_error, rows_error
from tests.maths.test_vae_ebm import game_error

LEBM_LOSS, GAME = LEBM.loss, VAEEBM.loss


def without_prior(self: Any, params: Any, batch: Tensor, noise: Any, carry: Any, hyper: Any) -> Any:
    return params.model.energy(batch, carry["h"]).mean(), carry, {}


def upside_down(self: Any, *given: Any) -> Any:
    value, *rest = LEBM_LOSS(self, *given)
    return -value, *rest


def neighbours(self: Any, state: Any) -> Tensor:
    return (state.examples[0] + 1).remainder(len(state.carry["examples"]))


def elbo_alone(params: Any, v: Tensor, noise: Tensor, h: Tensor) -> Tensor:
    return negative_elbo(params.model, params.posterior, v, noise)


def every_step_accepted(energy: Any, x: Tensor, momentum: Tensor, uniform: Tensor, *how: Any) -> Any:
    return hmc(energy, x, momentum, 0 * uniform, *how)


def cold(energy: Any, x: Tensor, momentum: Tensor, *how: Any) -> Any:
    return hmc(energy, x, 0.7 * momentum, *how)


def without_entropy(self: Any, params: Any, *given: Any) -> Any:
    value, *rest = GAME(self, params, *given)
    return value + params.model.log_sigma * params.model.visible_units.size, *rest


def entropy_of_q(self: Any, params: Any, batch: Tensor, noise: Any, *given: Any) -> Any:
    value, *rest = GAME(self, params, batch, noise, *given)
    h = params.posterior.sample(batch, noise["posterior"])
    return value + params.posterior.log_prob(h, batch).mean(), *rest


INVARIANT, AMORTISED = invariance_error, partial(encoder_error, AmortisedLEBM())


def of_tilted() -> float:
    return gradient_errors()[1]


MUTATIONS = [
    Mutation("lebm", "uphill", langevin_error, replace(baselines.latent_chains, "revised", UPHILL["revised"])),
    Mutation("lebm", "no h-", of_tilted, replace(LEBM, "loss", without_prior), 1e-3, 0.1),
    Mutation("lebm", "sign", of_tilted, replace(LEBM, "loss", upside_down), 1e-3, 0.1),
    Mutation("lebm", "chains of other examples", rows_error, replace(LEBM, "rows", neighbours), 0.5, 0.5),
    Mutation("lebm", "chains are lost", rows_error, replace(LEBM, "keep", lambda self, state, *_: state), 0.5, 0.5),
    Mutation(
        "lebm_amortised", "h of q alone", AMORTISED, replace(baselines.lebm_amortised, "bound_and_energy", elbo_alone)
    ),
    Mutation(
        "hoffman",
        "h of q alone",
        partial(encoder_error, Hoffman()),
        replace(baselines.hoffman, "bound_and_energy", elbo_alone),
    ),
    Mutation("hoffman", "all accepted", INVARIANT, replace(baselines.hoffman, "hmc", every_step_accepted), 4.5, 8),
    Mutation("hoffman", "too little momentum", INVARIANT, replace(baselines.hoffman, "hmc", cold), 4.5, 8),
    Mutation("vae_ebm", "the energy descends", game_error, replace(baselines.vae_ebm, "against", lambda x: x)),
    Mutation("vae_ebm", "no H(P)", game_error, replace(VAEEBM, "loss", without_entropy)),
    Mutation("vae_ebm", "H(Q) stays", game_error, replace(VAEEBM, "loss", entropy_of_q)),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.estimator}: {m.what}")
def test_a_mutation_is_noticed(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mutation.check() < mutation.small
    mutation.apply(monkeypatch)
    assert not mutation.check() < mutation.large
