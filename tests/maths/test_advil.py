"""AdVIL's players against the enumerated game, its decoder's entropy bound against the entropy."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from baselines import AdVIL
from baselines.decoder import Decoder, decoder_noise
from bism import GRBM, RBM
from tests.maths.checks import standard_errors
from tests.maths.exact import LinearGaussian, configurations, draws, flat, hyper, log_z, make_rbm, parameters, state_of
from tests.maths.learnt_samplers import advil_error, joint_law, law, players, some_decoder, states, value_parts

# --- the decoder ------------------------------------------------------------------------------------------------------


def entropies(model: Any, decoder: Decoder) -> tuple[float, float, float]:
    """H(v, h), its bound, and E_h KL(q(z|h) || r(z|h)), which is what is between them."""
    with torch.no_grad():
        given, log_joint = joint_law(model, decoder)
        log_q = law(model, decoder)
        bound = log_joint.exp() @ decoder.entropy_bound(given["code"], given["hidden"], given["visible"])
        # log q(z|h) as a density: N(z) q(h|z) / q(h)
        log_h = (log_q - decoder.visible.log_prob(*states(model, joint=True))).repeat(len(log_joint) // len(log_q))
        log_code = -0.5 * given["code"].square().sum(-1) - 0.5 * math.log(2 * math.pi)
        log_posterior = log_code + decoder.hidden.log_prob(given["hidden"], given["code"]) - log_h
        divergence = log_joint.exp() @ (log_posterior - decoder.code.log_prob(given["code"], given["hidden"]))
    return float(-(log_q.exp() @ log_q)), float(bound), float(divergence)


def test_the_bound_is_below_the_entropy_by_the_divergence_of_r() -> None:
    model = make_rbm(2, 2)
    for seed in range(5):
        entropy, bound, divergence = entropies(model, some_decoder(model, seed=seed))
        assert divergence > 0.01
        assert bound < entropy
        assert entropy - bound == pytest.approx(divergence, rel=1e-7)


def test_they_are_equal_where_r_is_the_code_s_posterior() -> None:
    """Of a decoder that makes no use of its codes."""
    model, decoder = make_rbm(2, 2), some_decoder(make_rbm(2, 2))
    with torch.no_grad():
        decoder.hidden.network[-1].weight.zero_()
        for head in (decoder.code.mean_head, decoder.code.log_std_head):
            head.weight.zero_()
            head.bias.zero_()
    entropy, bound, _ = entropies(model, decoder)
    assert bound == pytest.approx(entropy, abs=1e-9)


def test_its_samples_are_of_its_law() -> None:
    model = make_rbm(2, 2)
    decoder, count = some_decoder(model), 40_000
    _, h, v = decoder.sample_hard(decoder_noise(model, 1, count, draws(1)))
    index = (torch.cat([v, h], 1).long() * torch.tensor([8, 4, 2, 1])).sum(1)
    found, p = index.bincount(minlength=16) / count, law(model, decoder).exp().detach()
    assert ((found - p).abs() / (p * (1 - p) / count).sqrt()).max() < 3.5
    drawn = decoder.draw(count, draws(1))
    assert torch.equal(drawn, v)
    relaxed = decoder.sample(decoder_noise(model, 1, count, draws(1)), 1e-6)
    for soft, hard in zip(relaxed[1:], (h, v), strict=True):
        assert ((soft - hard).abs() < 1e-3).double().mean() > 0.999


@pytest.mark.parametrize("make", [lambda: RBM(3, 2), lambda: GRBM(3, 2), lambda: LinearGaussian(3, 2)])
def test_it_starts_around_the_data_and_gives_v_of_the_model_s_kind(make: Any) -> None:
    model = make()
    data = (draws(1).uniform((4000, 3)) < torch.tensor([0.1, 0.5, 0.8]).double()).double()
    if not isinstance(model, RBM):
        data = 5 + 3 * data
    torch.manual_seed(1)
    decoder = Decoder(model, 4, 8).double()
    decoder.start_from(data)
    v = decoder.draw(5000, draws(2))
    assert v.shape == (5000, 3)
    assert set(v.unique().tolist()) == {0.0, 1.0} or not isinstance(model, RBM)
    assert ((v.mean(0) - data.mean(0)) / data.std(0)).abs().max() < 1


# --- the game ---------------------------------------------------------------------------------------------------------


def test_objectives_and_the_model_s_gradient_are_those_of_the_enumerated_game() -> None:
    assert advil_error(AdVIL()) < 1e-9


def test_the_value_is_between_no_bounds_but_its_parts_are() -> None:
    """E + log Q is at least the free energy, and E - H at least -log Z."""
    model, posterior, decoder, batch = players()
    parts = value_parts(model, posterior, decoder, batch)
    assert parts["data"] > model.free_energy(batch).mean() + 1e-3
    assert parts["energy"] - parts["entropy"] > -log_z(model) + 1e-3


def gradients(loss: Any, params: Any, noise: Any) -> Tensor:
    """Of a loss in params, for each set of random numbers, [sets, p]."""
    found: Tensor = vmap(lambda one: flat(grad(lambda at: loss(at, one))(params)))(noise)
    return found


def test_players_at_random_numbers_follow_the_enumerated_game() -> None:
    """The model's gradient in the mean; the other two's where the temperature goes to 0."""
    model, posterior, decoder, batch = players()
    modules = {"model": model, "posterior": posterior, "decoder": decoder}
    params = {name: parameters(module) for name, module in modules.items()}
    estimator, state, sets, size = AdVIL(codes=1, temperature=0.03), state_of({}, **modules), 400, 60
    rng, options, rows = draws(7), hyper(estimator), batch.repeat(size // 3, 1)
    noise = {
        "decoder": decoder_noise(model, 1, sets * size, rng),
        "data": model.latent.noise(rng, (sets * size,)),
    }
    noise = {
        "decoder": {name: x.reshape(sets, size, -1) for name, x in noise["decoder"].items()},
        "data": noise["data"].reshape(sets, size, -1),
    }

    def enumerated(part: str, *signs: tuple[str, int]) -> Tensor:
        def objective(at: Any) -> Tensor:
            seen = state.bind({**params, part: at})
            found = value_parts(seen.model, seen.posterior, seen.decoder, batch)
            return sum((sign * found[name] for name, sign in signs), torch.zeros(()).double())

        return flat(grad(objective)(params[part])).detach()

    def of_model(at: Any, one: Any) -> Tensor:
        return estimator.loss(state.bind({**params, "model": at}), rows, one, {}, options)[0]

    def of_decoder(at: Any, one: Any) -> Tensor:
        return estimator.decoder_loss(state.bind({**params, "decoder": at}), one, options)

    def of_encoder(at: Any, one: Any) -> Tensor:
        return estimator.encoder_loss(state.bind({**params, "posterior": at}), rows, one, options)

    found = {
        "model": (gradients(of_model, params["model"], noise), (("data", 1), ("energy", -1))),
        "decoder": (gradients(of_decoder, params["decoder"], noise["decoder"]), (("energy", 1), ("entropy", -1))),
        "posterior": (gradients(of_encoder, params["posterior"], noise["data"]), (("data", 1),)),
    }
    for part, (rows_of, signs) in found.items():
        exact = enumerated(part, *signs)
        assert exact.norm() > 0.05
        assert standard_errors(rows_of, exact) < 4, part


def test_the_decoder_learns_the_model_s_distribution() -> None:
    """KL(q || p) falls, the model standing still, and what is drawn is the decoder's."""
    model = make_rbm(2, 2)
    model.reset_parameters = lambda: None  # type: ignore[method-assign]
    estimator = AdVIL(lr=1e-9, decoder_steps=40, inner_steps=0, lr_decoder=0.03, codes=1, width=3, temperature=0.2)
    first, last = (
        estimator.fit(model, configurations(2), steps=steps, batch_size=100, dtype=torch.float64, compile=False)
        for steps in (0, 3)
    )
    log_p = -model.energy(*states(model, joint=True)).detach() - log_z(model).detach()
    gaps = []
    for fitted in (first, last):
        log_q = law(model, fitted.part("decoder", 0)).detach()
        gaps.append(float(log_q.exp() @ (log_q - log_p)))
    assert gaps[0] > 0.2
    assert gaps[1] < 0.25 * gaps[0]
    assert torch.equal(last.draw(50, seed=0).unique(), torch.tensor([0.0, 1.0]).double())


def test_a_model_known_by_its_energy_alone() -> None:
    """No free energy, no conditional: what a Boltzmann machine of several layers has."""

    class EnergyAlone(RBM):
        free_energy = hidden_free_energy = sample_hidden = sample_visible = property()  # type: ignore[assignment]

    model = EnergyAlone(3, 2)
    assert AdVIL().unsupported(model) is None
    fitted = AdVIL(decoder_steps=2).fit(model, configurations(3), steps=3, batch_size=8, compile=False)
    assert fitted.diverged_at == [None]
