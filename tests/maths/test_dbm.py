"""The deep Boltzmann machine's closed forms and everything that trains or measures it, against sums over all units."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from baselines import TrainDBM
from baselines.greedy import Pair
from bism import DBM, DBN, InputError, fisher_divergence, log_likelihood, log_partition
from bism.annealing import annealed, bracket
from bism.enumeration import exact_samples, free_energy
from bism.sampling import gibbs_noise, walk
from bism.scaling import Scaling
from bism.state import State
from tests.maths.exact import configurations, draws, flat, hyper, parameters, relative, state_of

Layers = list[Tensor]


def scrambled(model: nn.Module, scale: float = 0.8, seed: int = 0) -> Any:
    """The model in float64 with parameters that are all different."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.double().parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    return model


def states(model: Any) -> Layers:
    """Every configuration of all units, by layer, v first: [all, m_l] each."""
    return list(configurations(sum(model.sizes)).split(list(model.sizes), 1))


def energies(model: DBM, layers: Layers) -> Tensor:
    """E(v, h1, ...) as it is written, layer by layer."""
    biases = [model.bottom.b, model.bottom.c, *(layer.c for layer in model.upper)]
    weights = [model.bottom.W, *(layer.W for layer in model.upper)]
    linear = sum(x @ b for x, b in zip(layers, biases, strict=True))
    pairs = zip(itertools.pairwise(layers), weights, strict=True)
    return -(linear + sum(torch.einsum("bi,ij,bj->b", x, W, y) for (x, y), W in pairs)).detach()


def marginal(p: Tensor, units: Tensor) -> Tensor:
    """The probabilities of each configuration of some units, from p of every state and what they are in it."""
    index = (units.long() * 2 ** torch.arange(units.shape[1] - 1, -1, -1)).sum(1)
    return torch.zeros(2 ** units.shape[1], dtype=p.dtype).index_add(0, index, p)


every_depth = pytest.mark.parametrize("hidden", [[2, 3], [2, 3, 2]], ids=["two layers", "three"])


# --- closed forms -----------------------------------------------------------------------------------------------------


@every_depth
def test_energies_log_z_and_likelihoods_are_sums_over_all_units(hidden: list[int]) -> None:
    model = scrambled(DBM(3, hidden))
    layers = states(model)
    exact, odd = energies(model, layers), torch.cat(layers[1::2], 1)
    torch.testing.assert_close(model.joint_energy(layers[0], layers[1:]).detach(), exact, atol=1e-12, rtol=0)
    log_z = float((-exact).logsumexp(0))
    for found in (model, model.as_rbm()):
        assert log_partition(found) == pytest.approx(log_z, abs=1e-12)
    V, H = configurations(3), configurations(model.latent.size)
    p = (-exact - log_z).exp()
    torch.testing.assert_close(log_likelihood(model, V).exp(), marginal(p, layers[0]), atol=1e-12, rtol=0)
    torch.testing.assert_close((-model.hidden_free_energy(H) - log_z).exp(), marginal(p, odd), atol=1e-12, rtol=0)
    both = marginal(p, torch.cat([layers[0], odd], 1)).reshape(len(V), len(H))
    torch.testing.assert_close((-model.energies(V, H) - log_z).exp(), both, atol=1e-12, rtol=0)
    one_by_one = torch.stack([model.energy(V, h.expand(len(V), -1)) for h in H], 1)
    torch.testing.assert_close(model.energies(V, H), one_by_one, atol=1e-12, rtol=0)


def test_of_real_v_the_odd_layers_energies_are_sums_over_the_even_one() -> None:
    model = scrambled(DBM(2, [2, 3], units="gaussian"), 0.5)
    v, h1, h2 = draws(1).normal((5, 2)), configurations(2), configurations(3)
    joint = torch.stack(
        [torch.stack([model.joint_energy(v, [a.expand(5, -1), b.expand(5, -1)]) for b in h2]) for a in h1]
    )
    torch.testing.assert_close(model.energies(v, h1), -(-joint).logsumexp(1).T, atol=1e-12, rtol=0)
    grid = torch.linspace(-12, 12, 301, dtype=torch.float64)
    plane = torch.cartesian_prod(grid, grid)
    mass = log_likelihood(model, plane).exp().sum() * (grid[1] - grid[0]) ** 2
    assert float(mass) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(InputError, match="its v is real"):
        model.as_rbm()


def test_of_scaled_data_likelihoods_and_bounds_are_in_the_data_s_own_units() -> None:
    model, scaling = scrambled(DBM(2, [2, 3], units="gaussian"), 0.5), Scaling.standard(5 + 3 * draws(1).normal((9, 2)))
    v, volume = draws(2).normal((5, 2)), float(scaling.factor.log().sum())
    own = scaling.model(model)
    there = scaling.own(v)
    torch.testing.assert_close(log_likelihood(own, there), log_likelihood(model, v) - volume)
    bounds = [-x.variational_free_energy(at, x.mean_field(at, 20).hidden) for x, at in ((own, there), (model, v))]
    torch.testing.assert_close(*bounds)
    assert log_partition(own) == pytest.approx(log_partition(model) + volume)


def test_layers_that_cannot_be_are_refused() -> None:
    for hidden in ([3], [3, 2, 2, 2], 3, [3, 0], [3, 2.5]):
        for kind in (DBM, DBN):
            with pytest.raises(InputError, match=rf"{kind.__name__}: hidden must list the sizes of 2 or 3 layers"):
                kind(4, hidden)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="units must be one of binary, gaussian"):
        DBM(4, [3, 2], units="spins")


# --- Gibbs sampling ---------------------------------------------------------------------------------------------------


def logits_of(model: DBM, chains: dict[str, Tensor], fixed: dict[str, Tensor], name: str) -> Tensor:
    """Of the units of a layer in a sweep, from the noise at which they turn on, the noise of others being given."""
    low, high = (torch.full_like(chains[name], end) for end in (-60.0, 60.0))
    for _ in range(60):
        middle = (low + high) / 2
        on = model.transition(chains, {**fixed, name: middle})[name] > 0
        low, high = torch.where(on, low, middle), torch.where(on, middle, high)
    return -(low + high) / 2


def probability(units: Tensor, logits: Tensor) -> Tensor:
    return torch.where(units > 0, logits.sigmoid(), (-logits).sigmoid()).prod(-1)


@pytest.mark.parametrize("hidden", [[2, 2], [2, 2, 1]], ids=["two layers", "three"])
def test_a_sweep_s_transition_matrix_leaves_the_joint_distribution(hidden: list[int]) -> None:
    model = scrambled(DBM(2, hidden), 1.2)
    names = ["v", "h1", "h2", "h3"][: len(model.sizes)]
    layers = states(model)
    p, chains = (-energies(model, layers)).softmax(0), dict(zip(names, layers, strict=True))
    still = {name: torch.zeros_like(x) for name, x in chains.items()}
    odd, even, count = names[1::2], names[0::2], len(p)
    with torch.no_grad():
        found = {name: logits_of(model, chains, still, name) for name in odd}  # given where the chain is
        forced = {**still, **{name: 1e9 * (2 * chains[name] - 1) for name in odd}}
        found |= {name: logits_of(model, chains, forced, name) for name in even}  # given the new odd layers
    matrix = torch.ones(count, count, dtype=torch.float64)  # from row to column
    for name in odd:
        matrix *= probability(chains[name][None], found[name][:, None])
    for name in even:
        matrix *= probability(chains[name], found[name])[None]
    torch.testing.assert_close(matrix.sum(1), torch.ones_like(p), atol=1e-9, rtol=0)
    torch.testing.assert_close(p @ matrix, p, atol=1e-9, rtol=0)
    assert (p @ matrix.roll(1, 1) - p).abs().max() > 1e-3


def test_chains_and_exact_draws_find_the_model() -> None:
    model, many = scrambled(DBM(3, [2, 2]), seed=3), 20_000
    V = configurations(3)
    p = log_likelihood(model, V).exp()
    with torch.no_grad():
        exact = exact_samples(model, many, draws(1))
        chains = walk(model, {"v": exact}, gibbs_noise(model, many, 30, draws(2)))
    assert set(chains) == {"v", "h1", "h2"}
    for v in (exact, chains["v"]):
        share = marginal(torch.full((many,), 1 / many, dtype=torch.float64), v)
        assert ((share - p).abs() < 5 * (p * (1 - p) / many).sqrt()).all()


# --- mean field -------------------------------------------------------------------------------------------------------


@every_depth
def test_mean_field_comes_to_a_fixed_point_below_the_likelihood(hidden: list[int]) -> None:
    model, V = scrambled(DBM(3, hidden)), configurations(3)
    exact = log_likelihood(model, V)
    with torch.no_grad():
        means, converged = model.mean_field(V, 500, 1e-12)
        assert converged.all()
        around = [V, *means]
        for number, mean in enumerate(means, start=1):
            above = around[number + 1] if number + 1 < len(around) else None
            wanted = model.layer_logits(number, around[number - 1], above).sigmoid()
            torch.testing.assert_close(mean, wanted, atol=1e-10, rtol=0)
        free = [model.variational_free_energy(V, model.mean_field(V, steps).hidden) for steps in (0, 1, 2, 500)]
    for before, after in itertools.pairwise(free):
        assert (after <= before + 1e-12).all()
    gap = exact - (-free[-1] - log_partition(model))
    assert (gap > 1e-4).all()
    p = (-energies(model, states(model))).softmax(0)
    own = p.reshape(len(V), -1) / p.reshape(len(V), -1).sum(1, keepdim=True)
    q = torch.stack([probability(torch.cat(states(model)[1:], 1)[: own.shape[1]], torch.cat(means, 1)[i].logit())
                     for i in range(len(V))])  # fmt: skip
    torch.testing.assert_close(gap, (q * (q.log() - own.log())).sum(1), atol=1e-9, rtol=0)  # KL(q || p(h|v))


def test_the_bound_is_the_likelihood_where_the_layers_decouple() -> None:
    model, V = scrambled(DBM(3, [2, 3])), configurations(3)
    with torch.no_grad():
        model.upper[0].W.zero_()
    bound = -model.variational_free_energy(V).detach() - log_partition(model)
    torch.testing.assert_close(bound, log_likelihood(model, V), atol=1e-12, rtol=0)


def test_an_example_at_rest_stays_and_seeds_are_mapped() -> None:
    model, V = scrambled(DBM(3, [2, 3]), 1.5), configurations(3)
    with torch.no_grad():
        counts = [int((~model.mean_field(V, steps, 1e-3).converged).sum()) for steps in range(15)]
        assert counts[0] == len(V)
        assert counts[-1] == 0
        assert any(0 < left < len(V) for left in counts)  # not all at once
        few, more = (model.mean_field(V, steps, 1e-3) for steps in (counts.index(0), 40))
        assert all(torch.equal(x, y) for x, y in zip(few.hidden, more.hidden, strict=True))

        def of(theta: dict[str, Tensor]) -> Tensor:
            return torch.cat(functional_call(Called(model), {f"model.{name}": x for name, x in theta.items()}, (V,)), 1)

        seeds = [parameters(scrambled(DBM(3, [2, 3]), seed=seed)) for seed in (1, 2)]
        stacked = {name: torch.stack([seed[name] for seed in seeds]) for name in seeds[0]}
        torch.testing.assert_close(vmap(of)(stacked), torch.stack([of(seed) for seed in seeds]), atol=1e-12, rtol=0)


class Called(nn.Module):
    """Mean field as what a module does when it is called."""

    def __init__(self, model: DBM) -> None:
        super().__init__()
        self.model = model

    def forward(self, v: Tensor) -> tuple[Tensor, ...]:
        return self.model.mean_field(v, 20, 1e-3).hidden


# --- annealing --------------------------------------------------------------------------------------------------------


@every_depth
def test_ais_is_within_its_error_and_the_two_sides_hold_log_z(hidden: list[int]) -> None:
    model = scrambled(DBM(3, hidden), 1.2)
    data = (draws(4).uniform((300, 3)) < 0.4).double()
    rbm, examples = annealed(model, data)
    assert examples.shape == (300, 3 + hidden[1])
    exact = log_partition(model)
    for found in (bracket(rbm, examples, chains=2000, steps=(3,), sweeps=1),
                  bracket(rbm.float(), examples.float(), chains=1000, steps=(100,), sweeps=1)):  # fmt: skip
        for estimate in (found.lower, found.upper["exact"]):
            assert 0 < estimate.standard_error < 0.1
            assert abs(estimate.log_z - exact) < 4 * estimate.standard_error + 1e-4
    low, high = found.interval()
    assert low < exact < high < low + 0.5
    assert log_partition(model, "ais", data=data, chains=1000, steps=100) == pytest.approx(exact, abs=0.1)


# --- greedy pre-training ----------------------------------------------------------------------------------------------


def of_pair(pair: Pair, x: Tensor, y: Tensor) -> Tensor:
    """E of a pair, of copies x [below, batch, size] and y [above, batch, size]: the mean of e over both, weighted."""
    each = [pair.alone(one) - (two * pair.logits(one)).sum(-1) for one in x for two in y]
    return pair.weight * torch.stack(each).mean(0)


def pretrained(hidden: list[int]) -> tuple[TrainDBM, State, list[Pair], Any]:
    """An estimator, a state before the last stage, the pairs with biases of their own, and the DBM that they make."""
    method, model = TrainDBM(layers=len(hidden)), DBM(3, hidden)
    state = method.init(model, configurations(3), draws(1), batch_size=5)
    moved = {name: draws(i).normal(x.shape) for i, (name, x) in enumerate(state.params["model"].items())}
    below = {name: draws(20 + i).normal(moved[name].shape) for i, name in enumerate(method.shared)}
    state = state.replace(params={"model": moved}, carry={**state.carry, **below})
    lower = state.replace(params={"model": {**moved, **below}})
    # a pair has the bias of its upper layer from below it (carried), and that of its lower layer from above
    pairs = [method.pair(state.bind(), i) for i in range(1, len(hidden) + 1)]
    for i in range(1, len(hidden)):
        pairs[i - 1] = Pair(**{**vars(pairs[i - 1]), "logits": method.pair(lower.bind(), i).logits})
    made = method.begin(len(hidden) + 1, state, hyper(method))
    return method, state, pairs, made.bind().model


@every_depth
def test_half_the_sum_of_the_pairs_energies_is_the_dbm_s(hidden: list[int]) -> None:
    method, state, pairs, model = pretrained(hidden)
    layers = list(configurations(3 + sum(hidden)).split([3, *hidden], 1))
    total = torch.zeros(len(layers[0]), dtype=torch.float64)
    for i, pair in enumerate(pairs):
        assert (pair.below, pair.above) == method.copies(i + 1)
        total += of_pair(pair, layers[i].expand(pair.below, -1, -1), layers[i + 1].expand(pair.above, -1, -1))
    torch.testing.assert_close(model.joint_energy(layers[0], layers[1:]), total / 2, atol=1e-12, rtol=0)
    own = state.params["model"]  # weights count double upwards at the bottom, and downwards at the top
    below = 2 * (state.carry["bottom.c"] + layers[0] @ own["bottom.W"])
    torch.testing.assert_close(pairs[0].upward(layers[0].expand(2, -1, -1)), below)
    torch.testing.assert_close(pairs[-1].upward(layers[-2][None]), model.upper[-1].logits(layers[-2]))
    for i in range(1, len(hidden)):  # what is inferred is by the biases from below
        x = layers[i - 1]
        torch.testing.assert_close(method.below(state, i).upward(x[None]), pairs[i - 1].upward(x[None]))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_pair_s_conditionals_and_free_energy_are_those_of_its_energy(number: int) -> None:
    _, _, pairs, _ = pretrained([2, 2, 2])
    pair, sizes = pairs[number - 1], [3, 2, 2, 2]
    below, above = pair.below * sizes[number - 1], pair.above * sizes[number]
    X = configurations(below).reshape(-1, pair.below, sizes[number - 1]).transpose(0, 1)
    Y = configurations(above).reshape(-1, pair.above, sizes[number]).transpose(0, 1)
    table = torch.stack([of_pair(pair, X, y[:, None].expand(-1, X.shape[1], -1)) for y in Y.unbind(1)], 1)
    torch.testing.assert_close(pair.free_energy(X), -(-table).logsumexp(1), atol=1e-12, rtol=0)
    given_x, given_y = (-table).softmax(1), (-table).softmax(0)
    on_y = torch.einsum("xy,cys->cxs", given_x, Y)
    torch.testing.assert_close(pair.upward(X).sigmoid().expand_as(on_y), on_y, atol=1e-12, rtol=0)
    on_x = torch.einsum("xy,cxs->cys", given_y, X)
    for beside in (-1e-9, 1e-9):  # a unit is on as soon as the noise exceeds minus its logit
        drawn = pair.draw(Y.mean(0), -on_x.logit() + beside)
        assert (drawn == (1.0 if beside > 0 else 0.0)).all()


def test_equal_priors_of_h1_in_both_rbms_are_the_dbm_s() -> None:
    """What the doubling is for: a DBM's p(h1) is the geometric mean of that of the RBMs below and above it."""
    method, state, _, _ = pretrained([2, 3])
    own, half = state.params["model"], state.carry["bottom.c"]
    alike = {"bottom.c": half, "upper.0.W": own["bottom.W"].T, "upper.0.c": own["bottom.b"]}
    model = method.begin(3, state.replace(params={"model": {**own, **alike}}), hyper(method)).bind().model
    H = configurations(2)
    two_copies = 2 * H @ half + 2 * torch.nn.functional.softplus(own["bottom.b"] + H @ own["bottom.W"].T).sum(1)
    torch.testing.assert_close((-model.hidden_free_energy(H)).softmax(0), two_copies.softmax(0), atol=1e-12, rtol=0)


# --- training ---------------------------------------------------------------------------------------------------------


def bound_error() -> float:
    """Of the gradient of the loss, with chains that are samples of the model, from that of the exact bound."""
    model, many, V = scrambled(DBM(3, [2, 2]), seed=4), 40_000, configurations(3)[[1, 3, 6]]
    method, theta = TrainDBM(mean_field_steps=200, tolerance=0.0), parameters(model)
    with torch.no_grad():
        chains = walk(model, {"v": exact_samples(model, many, draws(1))}, gibbs_noise(model, many, 1, draws(2)))
        noise = gibbs_noise(model, many, 1, draws(3))
    carry = {**chains, "bottom.c": torch.zeros(2, dtype=torch.float64)}

    def loss(params: Any) -> Tensor:
        return method.loss(state_of({"model": params}, model=model).bind(), V, noise, carry, hyper(method))[0]

    def bound(params: Any) -> Tensor:
        bind = state_of({"model": params}, model=model).bind().model
        means = [mean.detach() for mean in model.mean_field(V, 200).hidden]
        log_z = (-bind.hidden_free_energy(configurations(2))).logsumexp(0)
        return bind.variational_free_energy(V, means).mean() + log_z

    found, exact = grad(loss)(theta), grad(bound)(theta)
    assert float(flat(exact).norm()) > 0.1
    return float(relative(found, exact))


def test_the_gradient_is_that_of_the_bound() -> None:
    assert bound_error() < 0.03


def test_dbm_says_which_models_it_trains() -> None:
    assert TrainDBM().unsupported(DBM(3, [2, 2])) is None
    assert TrainDBM(layers=3).unsupported(DBM(3, [2, 2, 2], units="gaussian")) is None
    reason = TrainDBM().unsupported(DBM(3, [2, 2, 2]))
    assert reason == "layers is 2, and this model has 3 hidden layers"
    assert "DBN is not one" in str(TrainDBM().unsupported(DBN(3, [2, 2])))
    assert [stage.name for stage in TrainDBM(layers=3).stages] == ["layer 1", "layer 2", "layer 3", "joint"]
    assert [stage.name for stage in TrainDBM(pretraining=0.0).stages] == ["joint"]
    assert math.isclose(sum(stage.share for stage in TrainDBM(pretraining=0.3).stages), 1.0)


def test_of_no_examples_there_are_no_log_likelihoods() -> None:
    assert DBM(4, [3, 2]).latent.size == 3
    assert free_energy(DBM(4, [3, 2]), torch.zeros(0, 4)).shape == (0,)


@pytest.mark.parametrize("visible", [0, -1, 2.5, "a", None, True])
def test_a_wrong_number_of_visible_units_is_refused(visible: Any) -> None:
    with pytest.raises(InputError, match="visible must be a whole number above 0"):
        DBM(visible, [3, 2])


def test_wrong_units_are_refused() -> None:
    with pytest.raises(InputError, match="units must be one of"):
        DBM(4, [3, 2], units=["binary"])  # type: ignore[arg-type]


def test_what_is_no_number_has_not_come_to_rest() -> None:
    assert not DBM(2, [3, 2]).mean_field(torch.full((1, 2), torch.nan)).converged.any()


def test_a_real_dbm_has_no_fisher_divergence() -> None:
    with pytest.raises(InputError, match="needs free_energy"):
        fisher_divergence(DBM(4, [3, 2], units="gaussian"), torch.zeros(2, 4))
