"""What the mathematics says of methods that train a sampler beside the model, NVIL and AdVIL, by enumeration."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.utils._pytree import tree_map

from baselines import NVIL, AdVIL
from baselines.decoder import Decoder
from baselines.mixture import Mixture, mixture_noise
from bism import RBM
from bism.posteriors import RelaxedBernoulli
from tests.maths.exact import (
    GivenSamples,
    configurations,
    draws,
    expected_gradient,
    flat,
    hermite,
    hyper,
    make_rbm,
    moved,
    parameters,
    relative,
    state_of,
)

# --- NVIL -------------------------------------------------------------------------------------------------------------


class GivenPoints(Mixture):
    """Its samples are the noise itself, so that expectations can be sums."""

    def sample(self, noise: Any) -> Any:
        return noise


def states(model: Any, joint: bool) -> tuple[Tensor, ...]:
    """All v, or all (v, h), of a model of binary units."""
    v = configurations(model.visible_shape[0])
    h = configurations(model.latent.size)
    return (v.repeat_interleave(len(h), 0), h.repeat(len(v), 1)) if joint else (v,)


def some_mixture(model: Any, joint: bool, components: int = 2, seed: int = 0) -> Mixture:
    """One with parameters that are not near each other."""
    mixture = GivenPoints(model, components, joint).double()
    mixture.load_state_dict(moved(parameters(mixture), 0.7, seed))
    return mixture


def exact_mixture(model: RBM, joint: bool) -> Mixture:
    """The RBM's own distribution: a component for every h, of the product p(v|h) and, all but certainly, this h."""
    h = configurations(model.latent.size)
    mixture = GivenPoints(model, len(h), joint).double()
    with torch.no_grad():
        mixture.logits.copy_(-model.hidden_free_energy(h))
        mixture.visible.location.copy_(model.visible_logits(h))
        if mixture.hidden is not None:
            mixture.hidden.location.copy_(40 * (2 * h - 1))
    return mixture


def log_weights_of(estimator: NVIL, model: Any, mixture: Any) -> tuple[Tensor, Tensor]:
    """log q and log w = log p~ - log q of all states, differentiable."""
    points = states(model, estimator.joint)
    log_q = mixture.log_prob(*points)
    return log_q, -estimator.energy(model, points) - log_q


def exact_bound(estimator: NVIL, model: Any, mixture: Any) -> Tensor:
    """1/2 log E_q[w^2], differentiable in both."""
    log_q, log_w = log_weights_of(estimator, model, mixture)
    return 0.5 * (log_q + 2 * log_w).logsumexp(0)


def expected_gradients(estimator: NVIL, model: Any, mixture: Mixture, batch: Tensor, samples: int) -> tuple[Any, Any]:
    """The mean over all ``samples``-tuples of states, by their probability under q, of the model's gradient and of the
    proposal's: from tables of the gradients of log p~ and log q at every state, without the estimator."""
    points, state = states(model, estimator.joint), state_of({}, model=model, proposal=mixture)
    theta, phi = parameters(model), parameters(mixture)
    log_q, log_w = (found.detach() for found in log_weights_of(estimator, model, mixture))

    def each(function: Any, at: Any) -> Tensor:  # the gradient of a function of states, at each [states, p]
        return vmap(lambda *one: flat(grad(lambda p: function(p, [x[None] for x in one])[0])(at)))(*points)

    energies = each(lambda p, x: estimator.energy(state.bind({"model": p}).model, x), theta)
    scores = each(lambda p, x: state.bind({"proposal": p}).proposal.log_prob(*x), phi)
    data = flat(grad(lambda p: state.bind({"model": p}).model.free_energy(batch).mean())(theta))
    tuples = torch.tensor(list(itertools.product(range(len(log_q)), repeat=samples)))
    share = log_q[tuples].sum(1).exp()
    for_model = torch.einsum("t,ts,tsp->p", share, log_w[tuples].softmax(1), energies[tuples])
    for_proposal = -0.5 * torch.einsum("t,ts,tsp->p", share, (2 * log_w[tuples]).softmax(1), scores[tuples])
    return data - for_model, for_proposal


def nvil_gradients(estimator: NVIL, model: Any, mixture: Mixture, batch: Tensor, noise: Any) -> tuple[Any, Any]:
    """The estimator's own, of the model and of the proposal."""
    state = state_of({}, model=model, proposal=mixture)
    params = {"model": parameters(model), "proposal": parameters(mixture)}

    def loss(at: Any) -> Tensor:
        return estimator.loss(state.bind({**params, "model": at}), batch, noise, {}, hyper(estimator))[0]

    def proposal_loss(at: Any) -> Tensor:
        return estimator.proposal_loss(state.bind({**params, "proposal": at}), noise)

    return flat(grad(loss)(params["model"])), flat(grad(proposal_loss)(params["proposal"]))


def nvil_replicates(estimator: NVIL, model: Any, mixture: Mixture, batch: Tensor, count: int) -> tuple[Any, Any]:
    """These from random numbers, over and over, [count, p] each."""
    noise = mixture_noise(model, count * estimator.samples, estimator.joint, draws(100))
    each = {name: x.reshape(count, estimator.samples, *x.shape[1:]) for name, x in noise.items()}
    found: tuple[Any, Any] = vmap(lambda one: nvil_gradients(estimator, model, mixture, batch, one))(each)
    return found


def nvil_error(estimator: NVIL) -> float:
    """Relative difference of the estimator's expected gradients, over all pairs of states, from those of the tables."""
    model = make_rbm(2, 2)
    mixture, batch = some_mixture(model, estimator.joint), configurations(2)[[1, 3, 3]]
    points = states(model, estimator.joint)
    pairs = torch.cartesian_prod(*[torch.arange(len(points[0]))] * 2)
    share = mixture.log_prob(*points)[pairs].sum(1).exp().detach()
    given = tuple(x[pairs] for x in points)
    found = vmap(lambda *noise: nvil_gradients(estimator, model, mixture, batch, noise))(*given)
    wanted = expected_gradients(estimator, model, mixture, batch, 2)
    return max(relative(share @ one, other) for one, other in zip(found, wanted, strict=True))


# --- AdVIL ------------------------------------------------------------------------------------------------------------


class GivenDecoder(Decoder):
    """Its samples are the noise itself."""

    def sample(self, noise: Any, temperature: Any) -> Any:
        return noise["code"], noise["hidden"], noise["visible"]

    def sample_hard(self, noise: Any) -> Any:
        return self.sample(noise, 0.0)


def some_decoder(model: Any, codes: int = 1, kind: type[Decoder] = Decoder, seed: int = 0) -> Decoder:
    """One with parameters away from where they start."""
    torch.manual_seed(seed)
    decoder = kind(model, codes, 3).double()
    decoder.load_state_dict(moved(parameters(decoder), 0.7, seed))
    return decoder


def joint_law(model: Any, decoder: Any, points: int = 60) -> tuple[dict[str, Tensor], Tensor]:
    """All (z, h, v), z at the nodes of a quadrature, and log q of each, differentiable: N(z) q(h|z) q(v|h)."""
    z, weights = hermite(points, 1)
    v, h = states(model, joint=True)
    rows = torch.cartesian_prod(torch.arange(len(z)), torch.arange(len(v))).T
    given = {"code": z[rows[0]], "hidden": h[rows[1]], "visible": v[rows[1]]}
    log_h, log_v = (
        decoder.hidden.log_prob(given["hidden"], given["code"]),
        decoder.visible.log_prob(given["visible"], given["hidden"]),
    )
    return given, weights.log()[rows[0]] + log_h + log_v


def law(model: Any, decoder: Any, points: int = 60) -> Tensor:
    """log q(v, h) of all states, in the order of ``states``."""
    _, log_q = joint_law(model, decoder, points)
    return log_q.reshape(points, -1).logsumexp(0)


def value_parts(model: Any, posterior: Any, decoder: Any, batch: Tensor, points: int = 60) -> dict[str, Tensor]:
    """E_data,Q [E + log Q], E_q [E] and the bound of H(q), exactly and differentiably."""
    h = configurations(model.latent.size)
    rows = torch.cartesian_prod(torch.arange(len(batch)), torch.arange(len(h))).T
    v, hidden = batch[rows[0]], h[rows[1]]
    log_posterior = posterior.log_prob(hidden, v)
    data = (log_posterior.exp() * (model.energy(v, hidden) + log_posterior)).sum() / len(batch)
    given, log_q = joint_law(model, decoder, points)
    log_r = decoder.code.log_prob(given["code"], given["hidden"])
    log_z = -0.5 * given["code"].square().sum(-1) - 0.5 * math.log(2 * math.pi)
    conditional = decoder.hidden.log_prob(given["hidden"], given["code"])
    conditional = conditional + decoder.visible.log_prob(given["visible"], given["hidden"])
    return {
        "data": data,
        "energy": log_q.exp() @ model.energy(given["visible"], given["hidden"]),
        "entropy": log_q.exp() @ (log_r - log_z - conditional),
    }


def players(hidden: int = 2, kind: type[Decoder] = Decoder, posterior: Any = RelaxedBernoulli) -> tuple[Any, ...]:
    """A tiny RBM, an encoder and a decoder, none of which knows of the others, and a minibatch."""
    model = make_rbm(2, hidden)
    torch.manual_seed(4)
    return model, posterior((2,), hidden).double(), some_decoder(model, kind=kind), configurations(2)[[1, 3, 3]]


def advil_error(estimator: AdVIL) -> float:
    """The largest error of the game's value, of the decoder's and the encoder's objective, and of the model's gradient,
    expectations being sums over all samples of Q and q."""
    model, posterior, decoder, batch = players(kind=GivenDecoder, posterior=GivenHard)
    params = {"model": parameters(model), "posterior": parameters(posterior), "decoder": parameters(decoder)}
    modules = {"model": model, "posterior": posterior, "decoder": decoder}
    state, exact = state_of({}, **modules), value_parts(*players(), points=4)
    given, log_q = joint_law(model, decoder, 4)
    h = configurations(2)
    rows = torch.cartesian_prod(torch.arange(len(batch)), torch.arange(len(h)), torch.arange(len(log_q))).T
    v, hidden = batch[rows[0]], h[rows[1]]
    log_weights = posterior.log_prob(hidden, v) + log_q[rows[2]]
    weights = (log_weights.exp() / len(batch)).detach()
    noise = {"data": hidden[:, None], "decoder": {name: x[rows[2]][:, None] for name, x in given.items()}}
    found = expected_gradient(estimator, params, v, noise, weights, **modules)["model"]

    def exactly(at: Any) -> Tensor:
        parts = value_parts(state.bind({"model": at}).model, posterior, decoder, batch, 4)
        return parts["data"] - parts["energy"]

    bound, options = state.bind(params), hyper(estimator)
    each = {name: x[:, None] for name, x in given.items()}
    in_decoder = log_q.exp() @ vmap(lambda one: estimator.decoder_loss(bound, one, options))(each)
    some = rows[:, rows[2] == 0]
    encoder = vmap(lambda v, h: estimator.encoder_loss(bound, v[None], h[None], options))(batch[some[0]], h[some[1]])
    share = posterior.log_prob(h[some[1]], batch[some[0]]).exp() / len(batch)
    errors = [
        relative(found, tree_map(Tensor.detach, grad(exactly)(params["model"]))),
        float((in_decoder - (exact["energy"] - exact["entropy"])).detach().abs()),
        float((share @ encoder - exact["data"]).detach().abs()),
    ]
    return max(errors)


class GivenHard(GivenSamples):
    """Its samples, relaxed or not, are the noise itself."""

    def sample_hard(self, v: Tensor, noise: Tensor) -> Tensor:
        return noise
