"""What the mathematics says, as functions: residuals that are zero when the code is right."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.functional import logsigmoid, softplus
from torch.utils._pytree import tree_map

from baselines.noise import fit_noise
from bism import GRBM, RBM, Estimator
from bism.flips import Flips
from bism.posteriors import RelaxedBernoulli
from bism.state import State
from bism.variables import has_binary_v
from tests.maths.exact import (
    Tree,
    configurations,
    data_of,
    draws,
    expected_gradient,
    flat,
    hermite,
    hyper,
    log_z,
    make_grbm,
    moved,
    parameters,
    product,
    relative,
    samples,
    set_grbm,
    signs,
    small_rbm,
    state_of,
    true_posterior,
    with_one_flipped,
)


def sm_slope(estimator: Estimator, truth: GRBM, theta: dict[str, Tensor]) -> float:
    """Norm at ``theta`` of the expected gradient of SM on data from ``truth``; zero at its parameters."""
    nodes, weights = data_of(truth)
    return float(flat(expected_gradient(estimator, {"model": theta}, nodes, (), weights, model=truth)).norm())


def ssm_slope(estimator: Estimator, truth: GRBM, theta: dict[str, Tensor]) -> float:
    """The same of SSM, over all directions in {-1, 1}^D."""
    nodes, u, weights = product(data_of(truth), signs(truth.b.numel()))
    gradient = expected_gradient(estimator, {"model": theta}, nodes, u.unsqueeze(1), weights, model=truth)
    return float(flat(gradient).norm())


def dsm_slope(estimator: Estimator, truth: GRBM, theta: dict[str, Tensor]) -> float:
    """The same of DSM; zero where the model is ``truth`` smoothed by sigma."""
    nodes, eps, weights = product(data_of(truth, 14), hermite(14, truth.b.numel()))
    gradient = expected_gradient(estimator, {"model": theta}, nodes, eps.unsqueeze(1), weights, model=truth)
    return float(flat(gradient).norm())


def smoothed(model: GRBM, sigma: float) -> GRBM:
    """The GRBM whose density is that of ``model`` plus noise of standard deviation sigma.

    Its components have variance s^2 + sigma^2 and the same means b + s^2 W h, hence W' = W s^2 / (s^2 + sigma^2).
    Their shares are those of a GRBM if sum_i r_i W_ij W_ik = 0 for j != k, r = s^2 sigma^2 / (s^2 + sigma^2): then
    (W h)_i^2 is linear in h and goes into c.
    """
    W, b, variance = model.W.detach(), model.b.detach(), (2 * model.log_s.detach()).exp()
    ratio = variance * sigma**2 / (variance + sigma**2)
    cross = W.T @ (ratio.unsqueeze(1) * W)
    assert (cross - cross.diag().diag()).abs().max() < 1e-12
    narrowed = W * (variance / (variance + sigma**2)).unsqueeze(1)
    c = model.c.detach() + b @ (W - narrowed) + 0.5 * cross.diag()
    return set_grbm(narrowed, b, c, (variance + sigma**2).sqrt())


def orthogonal_grbm() -> GRBM:
    """A GRBM with W != 0 that stays a GRBM when smoothed: orthogonal columns, one scale."""
    W = torch.tensor([[1.2, -0.8], [1.2, 0.8]], dtype=torch.float64)
    b, c = torch.tensor([0.3, -0.2], dtype=torch.float64), torch.tensor([-0.4, 0.2], dtype=torch.float64)
    return set_grbm(W, b, c, torch.full((2,), 0.7, dtype=torch.float64))


def mdsm_slope(estimator: Any, scale: float, a: float) -> float:
    """Expected derivative of MDSM in log s for data N(0, scale^2) and a model with score -a v; zero at the optimum.

    The model is a GRBM with W = 0 and a = 1 / s^2; the noise levels are 9 values evenly over the unit interval.
    """
    zero = torch.zeros(1, 1, dtype=torch.float64)
    model = set_grbm(zero, zero[0], zero[0], torch.tensor([a**-0.5], dtype=torch.float64))
    z, weights = hermite(4, 1)  # the objective is quadratic in v and in the noise
    levels = torch.linspace(0, 1, 9, dtype=torch.float64)
    nodes, eps, both = product((scale * z, weights), (z, weights))
    count = len(nodes)
    noise = {
        "normal": eps.repeat(len(levels), 1).unsqueeze(1),
        "level": levels.repeat_interleave(count).unsqueeze(1),
    }
    shares = both.repeat(len(levels)) / len(levels)
    params = {"model": parameters(model)}
    gradient = expected_gradient(estimator, params, nodes.repeat(len(levels), 1), noise, shares, model=model)
    return float(gradient["model"]["log_s"].abs())


def mdsm_optimum(estimator: Any, scale: float) -> float:
    """The best a, from the noise levels that ``mdsm_slope`` uses."""
    levels = {"level": torch.linspace(0, 1, 9, dtype=torch.float64)}
    sigma, sigma0 = estimator.sigma(levels, hyper(estimator)), estimator.sigma0
    if estimator.weighting == "none":
        second = float(sigma.square().mean())
        return second / (sigma0**2 * (scale**2 + second))
    return 1 / (sigma0**2 * (1 + scale**2 * float(sigma.pow(-2).mean())))


def flip_slope(estimator: Estimator, model: Any, theta: dict[str, Tensor]) -> float:
    """Norm at ``theta`` of the expected gradient of a criterion of flips on binary v from ``model``."""
    v = configurations(model.visible_shape[0])
    p = (-model.free_energy(v)).softmax(0).detach()
    return float(flat(expected_gradient(estimator, {"model": theta}, v, (), p, model=model)).norm())


def nce_slope(estimator: Any, truth: GRBM, theta: dict[str, Tensor], c: Tensor) -> float:
    """Norm of the expected gradient of NCE in theta and c; zero at the parameters of ``truth`` and c = log Z."""
    visible = truth.b.numel()
    nodes, eps, weights = product(data_of(truth, 60), hermite(60, visible))
    carry = fit_noise("standard_normal", nodes)
    noise = eps.unsqueeze(1).expand(-1, estimator.nu, -1)  # the same vector nu times: its mean has the expectation
    params = {"model": theta, "normaliser": {"c": c}}
    return float(flat(expected_gradient(estimator, params, nodes, noise, weights, carry, model=truth)).norm())


def cd_gradients(estimator: Any, truth: GRBM, theta: dict[str, Tensor], batches: int = 40, size: int = 5000) -> Tensor:
    """Gradients of CD or PCD at ``theta`` on batches of exact samples of ``truth`` (its chains too), [batches, p]."""
    state, rows = state_of({"model": theta}, model=truth), []
    for index in range(batches):
        rng, batch = draws(index), samples(truth, size, 10_000 + index)
        carry = {"chains": samples(truth, size, 20_000 + index)} if estimator.id == "pcd" else {}
        noise = estimator.noise(state.bind().model, tuple(batch.shape), rng)

        def loss(at: Tree, batch: Tensor = batch, noise: Tree = noise, carry: Tree = carry) -> Tensor:
            return estimator.loss(state.bind(at), batch, noise, carry, hyper(estimator))[0]

        rows.append(flat(grad(loss)({"model": theta})))
    return torch.stack(rows)


def standard_errors(rows: Tensor, expected: Tensor | float = 0.0) -> float:
    """The largest deviation of the mean of rows from what is expected, in standard errors."""
    return float(((rows.mean(0) - expected).abs() / (rows.std(0) / len(rows) ** 0.5)).max())


def likelihood_gradient(model: GRBM, theta: dict[str, Tensor], v: Tensor, weights: Tensor) -> Tensor:
    """Exact gradient of the expected -log p(v) in theta."""
    state = state_of({"model": theta}, model=model)

    def negative(at: Tree) -> Tensor:
        bound = state.bind(at).model
        return weights @ bound.free_energy(v) + log_z(bound)

    return flat(grad(negative)({"model": theta}))


def spread_of(estimator: Any, model: nn.Module) -> dict[str, Tensor]:
    """Persistent VI's log s and what the horseshoe adds, none of it where it starts."""
    source = torch.Generator().manual_seed(3)
    start = estimator.extra_parameters(model, draws(0))["spread"]
    return {name: -1 + 0.3 * torch.randn(x.shape, generator=source, dtype=torch.float64) for name, x in start.items()}


def bound_error(estimator: Any, model: Any, batch: Tensor, examples: float = 50.0) -> float:
    """The largest deviation, in standard errors, of persistent VI's gradient in (mu, log s) from that of the exact
    bound at the same draws of the parameters; chains begin as exact samples of the model there."""
    params = {"model": parameters(model), "spread": spread_of(estimator, model)}
    state, options, rows = state_of({}, model=model), hyper(estimator), []
    (drawn,) = estimator.noise(model, tuple(batch.shape), draws(5))
    theta, _ = estimator.draw(params["model"], params["spread"], drawn["parameters"], options)
    at = type(model)(*model.W.shape).double()
    at.load_state_dict(theta)

    def exact(moving: Any) -> Tensor:
        theta, divergence = estimator.draw(moving["model"], moving["spread"], drawn["parameters"], options)
        bound = state.bind({"model": theta}).model
        return bound.free_energy(batch).mean() + log_z(bound) + divergence / examples

    for seed in range(30):
        carry = {"chains": samples(at, len(batch), 50 + seed)[None], "examples": torch.tensor(examples).double()}
        chains = estimator.noise(model, tuple(batch.shape), draws(60 + seed))[0]["chains"]

        def ours(moving: Any, carry: Any = carry, chains: Any = chains) -> Tensor:
            return estimator.loss(state.bind(moving), batch, [{**drawn, "chains": chains}], carry, options)[0]

        rows.append(flat(grad(ours)(params)))
    found, wanted = torch.stack(rows), flat(grad(exact)(params))
    return float(((found.mean(0) - wanted).abs() / (found.std(0) / 30**0.5 + 1e-9)).max())


def vnce_gap(estimator: Any, nce: Any, model: GRBM | RBM) -> float:
    """Relative difference of VNCE's gradient from NCE's with the true posterior as q, whatever h is drawn."""
    rng, batch = draws(3), samples(model, 50, 4)
    theta, c = moved(parameters(model), 0.3), torch.tensor(0.7, dtype=torch.float64)
    posterior = RelaxedBernoulli((model.b.numel(),), model.latent.size)
    state = state_of({}, model=model, posterior=posterior)
    noise, carry = estimator.noise(model, tuple(batch.shape), rng), estimator.fit_to(batch, 0.0)

    def variational(at: Tree) -> Tensor:
        params = state.bind({**at, "posterior": true_posterior(at["model"])})
        return estimator.loss(params, batch, noise, carry, hyper(estimator))[0]

    def marginal(at: Tree) -> Tensor:
        return nce.loss(state.bind(at), batch, noise["visible"], carry, hyper(nce))[0]

    params = {"model": theta, "normaliser": {"c": c}}
    return relative(grad(variational)(params), grad(marginal)(params))


def vages_error(estimator: Any, model: GRBM, size: int = 1) -> float:
    """Relative difference of VaGES's expected gradient from the marginal objective's, q being the exact posterior.

    The expectation is over all values of all samples of h of ``size`` examples, 2^(samples * size * hidden) of them.
    """
    theta, posterior = parameters(model), RelaxedBernoulli(model.visible_shape, model.latent.size).double()
    state = state_of({}, model=model, posterior=posterior)
    batch = draws(3).normal((size, *model.visible_shape))
    noise = estimator.noise(model, tuple(batch.shape), draws(4))
    shape = noise["hidden"].shape
    h = configurations(noise["hidden"].numel()).reshape(-1, *shape)
    fixed = true_posterior(theta)
    points = estimator.points(batch, noise["visible"], hyper(estimator))
    logits = state.bind({"posterior": fixed}).posterior.logits(points)
    given = (2 * h - 1) * (logits.abs() + 1)  # the noise whose sample is h
    shares = (h * logsigmoid(logits) + (1 - h) * logsigmoid(-logits)).sum((1, 2, 3)).exp()

    def expected(at: dict[str, Tensor]) -> Tensor:
        params = state.bind({"model": at, "posterior": fixed})

        def one(hidden: Tensor) -> Tensor:
            return estimator.loss(params, batch, {**noise, "hidden": hidden}, {}, hyper(estimator))[0]

        return shares @ vmap(one)(given)

    def marginal(at: dict[str, Tensor]) -> Tensor:
        bound = state.bind({"model": at}).model
        return estimator.objective(lambda v: -bound.free_energy(v), batch, noise["visible"], hyper(estimator)).mean()

    return relative(grad(expected)(theta), grad(marginal)(theta))


def bilevel_batch(estimator: Any, model: Any, seed: int = 1, size: int = 64) -> tuple[Tensor, Tree]:
    """Minibatches [minibatches, size, D] and the noise of one step, its own and that of its K inner steps."""
    rng, (stage,) = draws(seed), estimator.stages
    batches = rng.normal((stage.all_minibatches, size, *model.visible_shape))
    batches = (batches > 0).double() if has_binary_v(model) else batches
    own, (inner,) = stage.draw(model, tuple(batches.shape[1:]), rng)
    return batches, (own, [inner])


def whole_step(estimator: Any, state: State, batches: Tensor, drawn: Tree, values: Any) -> tuple[State, Any]:
    """A step with its inner steps before it."""
    return estimator.stages[0].whole(state, batches, drawn, values)


def theorem_one(estimator: Any, marginal: Any, *, frozen: bool = False, temperature: float = 0.1) -> float:
    """Relative difference of BiSM's gradient with phi*(theta) = (W, c) from the marginal objective's.

    ``frozen``: phi* is a constant, so that its dependence on theta is left out.
    """
    model = small_rbm(estimator)
    theta, posterior = parameters(model), RelaxedBernoulli((2,), 3)
    state = state_of({}, model=model, posterior=posterior)
    (batch, *_), (noise, _) = bilevel_batch(estimator, model)
    fixed = true_posterior(theta)

    def upper(at: dict[str, Tensor]) -> Tensor:
        params = state.bind({"model": at, "posterior": fixed if frozen else true_posterior(at)})
        return estimator.loss(params, batch, noise, {}, hyper(estimator, temperature=temperature))[0]

    def reference(at: dict[str, Tensor]) -> Tensor:
        return marginal.loss(state.bind({"model": at}), batch, noise["upper"]["visible"], {}, hyper(marginal))[0]

    return relative(grad(upper)(theta), grad(reference)(theta))


def start(estimator: Any, model: nn.Module, posterior: nn.Module) -> State:
    """A state in float64 with the modules' own parameters, the optimisers at their start."""
    params = {"model": parameters(model), "posterior": parameters(posterior)}
    return state_of(params, model=model, posterior=posterior).replace(optimiser=estimator.init_optimiser(params))


def step_gradient(estimator: Any, before: State, after: State) -> Tree:
    """The upper level's gradient in a step, from Adam's first moments."""
    first = [state.optimiser["model"]["first"] for state in (before, after)]
    return tree_map(lambda m, n: (n - estimator.beta1 * m) / (1 - estimator.beta1), *first)


def hypergradient_error(make: Any, model: nn.Module, posterior: nn.Module, **options: Any) -> float:
    """Relative difference of a step's gradient in theta from central differences of its objective.

    ``make(inner_steps=..., **options)`` builds the estimator. phi^0 and the optimiser's state after the K inner steps
    are constants of the gradient: the differences start there, with no inner steps.
    """
    estimator = make(**options)
    batches, drawn = bilevel_batch(estimator, model, size=16)
    values = hyper(estimator, temperature=0.5)
    before = start(estimator, model, posterior)
    after, _ = whole_step(estimator, before, batches, drawn, values)
    gradient = flat(step_gradient(estimator, before, after))
    theta, lower = before.params["model"], {**before.optimiser, "posterior": after.optimiser["posterior"]}

    def objective(at: dict[str, Tensor]) -> Tensor:
        state = before.replace(params={"model": at, "posterior": after.params["posterior"]}, optimiser=lower)
        return estimator.step(state, batches[:1], drawn[0], values)[1]["objective"]

    return relative(central_differences(objective, theta), gradient)


def central_differences(function: Any, at: dict[str, Tensor], width: float = 1e-5) -> Tensor:
    """Gradient of ``function`` by central differences, one number after the other."""
    slopes = []
    for name, value in at.items():
        for index in range(value.numel()):
            change = torch.zeros(value.numel(), dtype=value.dtype)
            change[index] = width
            change = change.reshape(value.shape)
            above, below = function({**at, name: value + change}), function({**at, name: value - change})
            slopes.append((above - below) / (2 * width))
    return torch.stack(slopes)


def exact_kl(model: Any, posterior: Any, v: Tensor) -> Tensor:
    """Eq. (10) with the expectation over all h, [batch]."""
    h = configurations(model.latent.size)
    logits = posterior.logits(v).unsqueeze(1)
    log_q = (h * logsigmoid(logits) + (1 - h) * logsigmoid(-logits)).sum(-1)
    energy = torch.stack([model.energy(v, each.expand(len(v), -1)) for each in h], dim=1)
    return (log_q.exp() * (log_q + energy)).sum(1)


def inner_steps_error(estimator: Any) -> float:
    """Relative difference of phi after the K inner steps of one step from eq. (12) written out with torch's Adam."""
    model, posterior = small_rbm(estimator, hidden=2), RelaxedBernoulli((2,), 2).double()
    before = start(estimator, model, posterior)
    batches, drawn = bilevel_batch(estimator, model, size=16)
    after, _ = whole_step(estimator, before, batches, drawn, hyper(estimator))
    fresh = getattr(estimator, "inner_batches", "same") == "fresh"
    seen = batches[1:] if fresh else [batches[0]] * estimator.inner_steps
    phi = {name: nn.Parameter(p) for name, p in parameters(posterior).items()}
    betas = (estimator.beta1, estimator.beta2)
    optimiser = torch.optim.Adam(phi.values(), lr=estimator.lr_posterior, betas=betas, eps=1e-8)
    for v, noise in zip(seen, drawn[1][0], strict=True):
        eps, h_noise = noise["visible"], noise["hidden"]
        x, weight = v, torch.ones(len(v), dtype=torch.float64)
        if estimator.id in ("bidsm", "vages_dsm"):
            x = v + estimator.sigma * eps
        if estimator.id in ("bimdsm", "vages_mdsm"):
            sigma = estimator.sigma_min * (estimator.sigma_max / estimator.sigma_min) ** eps["level"]
            x, weight = v + sigma.unsqueeze(1) * eps["normal"], 1 / sigma
        if isinstance(estimator, Flips):
            x = torch.stack([with_one_flipped(row, int(4 * u)) for row, u in zip(v, eps, strict=True)])
        logits = x @ phi["network.1.weight"].T + phi["network.1.bias"]
        h = ((logits + h_noise[0]) / estimator.temperature).sigmoid()
        log_q = (h * logits - softplus(logits)).sum(1)
        optimiser.zero_grad()
        (weight * (log_q + model.energy(x, h))).mean().backward()
        optimiser.step()
    return relative(after.params["posterior"], {name: p.detach() for name, p in phi.items()})


def chains_error(estimator: Any) -> float:
    """Distance of PCD's next chains from k sweeps over its last ones."""
    model, rng = make_grbm(), draws(6)
    chains, batch = rng.normal((7, 2)), rng.normal((7, 2))
    noise = estimator.noise(model, (7, 2), rng)
    bound = state_of({"model": parameters(model)}, model=model).bind()
    _, carry, _ = estimator.loss(bound, batch, noise, {"chains": chains}, hyper(estimator))
    expected = chains
    for hidden, visible in zip(noise["hidden"], noise["visible"], strict=True):
        expected = model.sample_visible(model.sample_hidden(expected, hidden), visible)
    return relative(carry["chains"], expected.detach())


def cd_bias(estimator: Any, size: int = 5000) -> float:
    """Standard errors between the expected gradients of CD-k and of the likelihood, beside the optimum."""
    truth = make_grbm()
    theta = moved(parameters(truth), 0.4)
    exact = likelihood_gradient(truth, theta, *data_of(truth))
    return standard_errors(cd_gradients(estimator, truth, theta, batches=30, size=size), exact)


def cd_slope(estimator: Any) -> float:
    """Standard errors of the expected gradient of CD or PCD at the true parameters; small for every k."""
    truth = make_grbm()
    return standard_errors(cd_gradients(estimator, truth, parameters(truth)))


def langevin_error(estimator: Any) -> float:
    """Relative difference of Langevin CD's (or PCD's) gradient in theta from that of mean F(v) - mean F(v_k), with the
    chains written out."""
    model, data = make_grbm(), draws(3).normal((6, 2))
    noise, points = estimator.noise(model, (6, 2), draws(1)), draws(2).normal((50, 2))
    carry = estimator.init_carry(model, points, 6, draws(4))
    start = data
    if carry:
        anew = (noise["restart"] < estimator.restart)[:, None]
        start = torch.where(anew, data, carry["buffer"][int(noise["block"][0] * estimator.buffer)])
    fantasies = langevin_chain(start, noise["steps"], estimator.step_size, estimator.langevin_temperature)
    state = state_of({}, model=model)

    def loss(theta: Tree) -> Tensor:
        return estimator.loss(state.bind({"model": theta}), data, noise, carry, hyper(estimator))[0]

    def expected(theta: Tree) -> Tensor:
        energy = state.bind({"model": theta}).model.free_energy
        squares = energy(data).square().mean() + energy(fantasies).square().mean()
        return energy(data).mean() - energy(fantasies).mean() + estimator.regulariser * squares

    theta = parameters(model)
    return relative(grad(loss)(theta), grad(expected)(theta))


def langevin_chain(v: Tensor, steps: Tensor, a: float, temperature: float) -> Tensor:
    """Langevin dynamics on the free energy of ``make_grbm()``, from v, with the given noise."""
    model = make_grbm()
    for eps in steps:
        slope = grad(lambda x: model.free_energy(x).sum())(v)
        v = (v - 0.5 * a**2 * slope + temperature**0.5 * a * eps).detach()
    return v
