"""The deep energies of Section 5.2: their structure, and every derivative that training takes through them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad
from torch.fx import GraphModule
from torch.nn.functional import avg_pool2d, elu
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry

from baselines import DSM, MDSM, SSM, CoopNets, EnergyDiscrepancy, LangevinCD, LangevinPCD
from bism import BiDSM, BiMDSM, BiSSM, InputError
from bism.compiler import count_work, simplify, trace
from bism.engine import Trainer
from bism.posteriors import convolutional, default_posterior
from bism.resnet import BilinearEBLVM, ResidualBlock, ResNet, ResNetEBLVM, ResNetEBM
from tests.contracts.cases import discovered
from tests.maths.checks import bilevel_batch, start, step_gradient, whole_step
from tests.maths.exact import draws, flat, hyper, parameters, relative, state_of

SHAPE = (1, 8, 8)
SMALL: dict[str, Any] = {"sigma_min": 0.5, "sigma_max": 1.0, "sigma0": 0.5}


def ebm(width: int = 2) -> ResNetEBM:
    torch.manual_seed(0)
    return ResNetEBM(SHAPE, width).double()


def eblvm(hidden: int = 3, width: int = 2) -> ResNetEBLVM:
    torch.manual_seed(0)
    return ResNetEBLVM(SHAPE, hidden, width, posterior_width=2).double()


@pytest.mark.parametrize(
    ("make", "millions"),
    [
        (lambda: ResNetEBM((3, 32, 32), 128, 18), 196.5),
        (lambda: ResNetEBLVM((3, 32, 32), 50, 128, 18), 63.9),
        (lambda: convolutional((3, 32, 32), 50), 0.78),
    ],
)
def test_sizes_are_those_of_the_paper(make: Any, millions: float) -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in make().parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.parametrize(("layers", "convolutions"), [(12, 12), (18, 18)])
def test_layers_count_the_convolutions_of_the_blocks(layers: int, convolutions: int) -> None:
    net = ResNet(SHAPE, 2, layers)
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    assert 2 * len(blocks) == convolutions
    assert [block.halves for block in blocks] == ([True] + [False] * (layers // 6 - 1)) * 3
    assert net(torch.zeros(5, *SHAPE)).shape == (5, net.size) == (5, 16)


def test_a_block_is_what_it_says() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    for halves in (True, False):
        block = ResidualBlock(3, 5, halves)
        inner = block.second(elu(block.first(elu(x))))
        expected = avg_pool2d(inner, 2) + block.shortcut(avg_pool2d(x, 2)) if halves else inner + block.shortcut(x)
        torch.testing.assert_close(block(x), expected)
        assert block.first.bias is None


def test_the_energies_are_those_of_section_5_2() -> None:
    v, h = draws(1).normal((4, *SHAPE)), draws(2).normal((4, 3))
    model = ebm()
    torch.testing.assert_close(model.energy(v), elu(model.head(model.features(v))).square().sum(1))
    assert torch.equal(model.free_energy(v), model.energy(v))
    deep = eblvm()
    g1 = deep.code(deep.features(v))
    g2 = torch.cat([g1 + h, h], dim=1)
    torch.testing.assert_close(deep.energy(v, h), elu(deep.head(g2)).square().sum(1))
    torch.testing.assert_close(deep.energy(v, h[:1]), deep.energy(v, h[:1].expand(4, -1)))  # one h for all


def test_the_bilinear_energy_is_its_free_energy_and_its_posterior() -> None:
    """E(v, h) = F(v) - log N(h; g1(v), I) at any h, which is not near g1(v) only."""
    torch.manual_seed(0)
    model, v, h = BilinearEBLVM(SHAPE, 3, 2).double(), draws(1).normal((4, *SHAPE)), 2 * draws(2).normal((4, 3))
    with torch.no_grad():
        model.code.weight.mul_(30)
    code = model.code(model.features(v))
    given = torch.distributions.Normal(code, 1.0).log_prob(h).sum(1)
    torch.testing.assert_close(model.energy(v, h), model.free_energy(v) - given)
    expected = elu(model.head(model.features(v))).square().sum(1) - (h * code).sum(1) + 0.5 * h.square().sum(1)
    torch.testing.assert_close(model.energy(v, h), expected)
    assert float(code.detach().abs().mean()) > 0.3
    assert MDSM().unsupported(model) is None
    assert BiMDSM(lower="fisher").unsupported(model) is None


@pytest.mark.parametrize("shape", [(1, 28, 28), (64,), (3, 32, 0), (8, 8)])
def test_images_must_halve_three_times(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="multiples of 8"):
        ResNetEBM(shape)


def test_layers_are_12_or_18() -> None:
    with pytest.raises(InputError, match="layers must be one of 12, 18, got 20"):
        ResNetEBM(SHAPE, layers=20)


def test_every_seed_starts_from_its_own_parameters() -> None:
    fitted = MDSM().fit(ResNetEBM(SHAPE, 1), torch.rand(20, *SHAPE), seeds=[0, 1], steps=0, batch_size=10)
    first, second = (flat(dict(fitted.model(seed).named_parameters())) for seed in (0, 1))
    assert (first != second).float().mean() > 0.99


def test_the_posterior_of_images_is_convolutional_and_a_model_may_bring_its_own() -> None:
    found = default_posterior(eblvm())
    widths = [layer.out_channels for layer in found.network if isinstance(layer, nn.Conv2d)]
    assert widths == [2, 4, 8]
    v = draws(1).normal((4, *SHAPE))
    found = found.double()
    h = found.sample(v, torch.zeros(4, 3).double())
    torch.testing.assert_close(h, found.mean(v))
    log_std = found.log_std_head(found.network(v))
    expected = torch.distributions.Normal(found.mean(v), log_std.exp()).log_prob(h + 0.3).sum(1)
    torch.testing.assert_close(found.log_prob(h + 0.3, v), expected)


# --- derivatives ------------------------------------------------------------------------------------------------------


def along(function: Any, at: dict[str, Tensor], direction: dict[str, Tensor], width: float = 1e-5) -> Tensor:
    """The slope of a function along a direction, by central differences."""
    ends = [function(tree_map(lambda x, d, s=sign: x + s * width * d, at, direction)) for sign in (1, -1)]
    return (ends[0] - ends[1]) / (2 * width)


def directions(at: dict[str, Tensor], count: int = 3) -> list[dict[str, Tensor]]:
    rng = draws(7)
    return [tree_map(lambda x: rng.normal(x.shape), at) for _ in range(count)]


def test_the_score_against_finite_differences() -> None:
    model, v = ebm(), {"v": draws(1).normal((3, *SHAPE))}
    slope = grad(lambda at: model.energy(at["v"]).sum())(v)
    for direction in directions(v):
        expected = along(lambda at: model.energy(at["v"]).sum(), v, direction)
        torch.testing.assert_close((slope["v"] * direction["v"]).sum(), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("estimator", [MDSM(**SMALL), SSM()], ids=lambda x: x.id)
def test_the_gradient_of_score_matching_against_finite_differences(estimator: Any) -> None:
    """Through the derivative in v: second derivatives of every layer."""
    model = ebm()
    batch = draws(1).normal((5, *SHAPE))
    noise = estimator.noise(model, (5, *SHAPE), draws(2))

    def loss(theta: dict[str, Tensor]) -> Tensor:
        bound = state_of({}, model=model).bind({"model": theta})
        return estimator.loss(bound, batch, noise, {}, hyper(estimator))[0]

    theta = parameters(model)
    gradient = grad(loss)(theta)
    for direction in directions(theta):
        slope = sum((gradient[name] * direction[name]).sum() for name in theta)
        torch.testing.assert_close(slope, along(loss, theta, direction), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("lower", "unroll"), [("fisher", 0), ("fisher", 2), ("kl", 0), ("kl", 2)])
def test_the_hypergradient_against_finite_differences(lower: str, unroll: int) -> None:
    """BiMDSM on an EBLVM, eq. (14), with and without unrolled steps."""
    options: dict[str, Any] = {**SMALL, "lower": lower, "unroll_steps": unroll, "lr_posterior": 0.01}
    estimator = BiMDSM(**options, inner_steps=2)
    model = eblvm()
    batches, drawn = bilevel_batch(estimator, model, size=6)
    before = start(estimator, model, default_posterior(model).double())
    after, _ = whole_step(estimator, before, batches, drawn, hyper(estimator))
    theta, optimiser = before.params["model"], {**before.optimiser, "posterior": after.optimiser["posterior"]}

    def objective(at: dict[str, Tensor]) -> Tensor:
        state = before.replace(params={"model": at, "posterior": after.params["posterior"]}, optimiser=optimiser)
        return estimator.step(state, batches, drawn[0], hyper(estimator))[1]["objective"]

    gradient = step_gradient(estimator, before, after)
    for direction in directions(theta):
        slope = sum((gradient[name] * direction[name]).sum() for name in theta)
        torch.testing.assert_close(slope, along(objective, theta, direction, 1e-6), rtol=1e-5, atol=1e-5)


def test_the_lower_level_moves_the_posterior_and_is_reported() -> None:
    data = draws(1).normal((60, *SHAPE))
    estimator = BiMDSM(**SMALL, lower="fisher", unroll_steps=0, inner_steps=3, lr=1e-6, lr_posterior=0.02)
    trainer = Trainer(estimator, eblvm(), data, seeds=[0], batch_size=20, dtype=torch.float64)
    first = trainer.lower_objective_on(data)
    trainer.run(20)
    last = trainer.lower_objective_on(data)
    assert first is not None
    assert last is not None
    assert float(last) < 0.7 * float(first)
    assert Trainer(MDSM(), ebm(), data, seeds=[0], batch_size=20, dtype=torch.float64).lower_objective_on(data) is None


# --- what a step computes ---------------------------------------------------------------------------------------------


def trainer(steps: int, unroll: int = 0, precision: str = "float32", **settings: Any) -> Trainer:
    """One of BiMDSM with that many inner steps, the model's ResNet far larger than the posterior."""
    torch.manual_seed(0)
    estimator = BiMDSM(**SMALL, lower="fisher", inner_steps=steps, unroll_steps=unroll)
    model = ResNetEBLVM(SHAPE, 3, 8, posterior_width=1)
    return Trainer(estimator, model, torch.rand(40, *SHAPE), seeds=[0], batch_size=4, precision=precision, **settings)


def traced_step(of: Trainer) -> GraphModule:
    with torch.no_grad():
        return simplify(trace(of._as_written(), of._example("training")))


def test_a_step_is_so_many_passes_through_the_resnet() -> None:
    # the upper level: forward, score, and the derivative of both in the score and in the weights, two each
    model, v = ResNetEBLVM(SHAPE, 3, 8), torch.rand(4, *SHAPE)
    forward = count_work(lambda *x: [model.features(x[0])], [v]).products
    without, one, three = (trainer(steps).work().products for steps in (0, 1, 3))
    assert without / forward == pytest.approx(6, rel=0.05)
    assert (one - without) / forward == pytest.approx(1, rel=0.05)  # of an inner step: no pass backwards
    assert (three - without) / forward == pytest.approx(3, rel=0.05)


@pytest.mark.long
@pytest.mark.parametrize("unroll", [0, 1])
def test_in_bf16_every_product_of_a_step_is(unroll: int) -> None:
    graph = traced_step(trainer(1, unroll, "bf16")).graph
    products = [node for node in graph.nodes if getattr(node.target, "overloadpacket", None) in flop_registry]
    kinds = {str(node.target.overloadpacket): node.all_input_nodes[0].meta["val"].dtype for node in products}
    assert {"aten.convolution", "aten.convolution_backward", "aten.mm", "aten.addmm"} <= set(kinds)
    assert {x.meta["val"].dtype for node in products for x in node.all_input_nodes} == {torch.bfloat16}


def test_the_step_s_graph_is_the_step_with_no_kernel_as_large_as_the_images() -> None:
    of = trainer(1, dtype=torch.float64)
    graph = traced_step(of)
    convolutions = [node for node in graph.graph.nodes if node.target is torch.ops.aten.convolution.default]
    assert max(node.args[1].meta["val"].shape[-1] for node in convolutions) <= 4
    arguments = [*of._leaves, *of.stream.draw(of.data, 0, "training", 1).at(0), *of._hyper]
    torch.testing.assert_close(graph(*arguments), of._as_written()(*arguments), rtol=1e-10, atol=1e-12)


# --- bfloat16 ---------------------------------------------------------------------------------------------------------


def test_in_bf16_the_products_are_and_the_energy_is_not() -> None:
    torch.manual_seed(0)
    model, v = ResNetEBM(SHAPE, 4), torch.rand(6, *SHAPE)
    exact = model.energy(v)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.features(v).dtype is torch.bfloat16
        found = model.energy(v)
    assert found.dtype is torch.float32
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, rtol=0.03, atol=0.0)


@pytest.mark.parametrize(
    "estimator", [MDSM(**SMALL), BiMDSM(**SMALL, lower="fisher", unroll_steps=0)], ids=lambda x: x.id
)
def test_training_in_bf16_is_near_that_in_float32(estimator: Any) -> None:
    torch.manual_seed(0)
    data = torch.rand(40, *SHAPE)
    model = ResNetEBM(SHAPE, 4) if estimator.id == "mdsm" else ResNetEBLVM(SHAPE, 3, 4, posterior_width=4)
    found = {}
    for precision in ("float32", "bf16"):
        fitted = estimator.fit(model, data, steps=3, batch_size=20, precision=precision)
        found[precision] = flat(fitted.parameters(0)["model"])
        assert found[precision].dtype is torch.float32
    begun = flat(estimator.fit(model, data, steps=0, batch_size=20).parameters(0)["model"])
    assert not torch.equal(found["bf16"], found["float32"])
    assert relative(found["bf16"] - begun, found["float32"] - begun) < 0.35  # Adam's first steps are little but signs


def test_a_wrong_precision_is_refused() -> None:
    with pytest.raises(InputError, match="precision must be one of float32, tf32, bf16, got 'half'"):
        MDSM().fit(ebm(), torch.rand(20, *SHAPE), steps=1, precision="half")
    with pytest.raises(InputError, match="precision bf16 needs parameters in float32"):
        MDSM().fit(ebm(), torch.rand(20, *SHAPE).double(), steps=1, precision="bf16", dtype=torch.float64)


# --- every method that can --------------------------------------------------------------------------------------------

FOR_EBM = [MDSM(**SMALL), DSM(), SSM(), LangevinCD(k=2), LangevinPCD(k=2, buffer=3, start="noise")]
FOR_EBM += [CoopNets(k=2, code_steps=1, width=2), EnergyDiscrepancy(points=2)]
FOR_EBLVM = [kind(lower="fisher", unroll_steps=n, inner_steps=1) for kind in (BiMDSM, BiDSM, BiSSM) for n in (0, 1)]


@pytest.mark.parametrize("estimator", [*FOR_EBM, *FOR_EBLVM], ids=lambda x: x.name)
def test_every_method_trains_the_model_that_suits_it(estimator: Any) -> None:
    model, other = (ebm(1), eblvm(2, 1)) if estimator in FOR_EBM else (eblvm(2, 1), ebm(1))
    assert estimator.unsupported(model) is None
    assert estimator.unsupported(other) is not None
    data = draws(1).normal((30, *SHAPE))
    trainer = Trainer(estimator, model, data, seeds=[0, 1], batch_size=10, dtype=torch.float64)
    before = trainer.fitted().state(1)["params"]
    trainer.run(2)
    after = trainer.fitted().state(1)["params"]
    alone = Trainer(estimator, model, data, seeds=[1], batch_size=10, dtype=torch.float64)
    alone.run(2)
    assert relative(after, alone.fitted().state(1)["params"]) < 1e-9  # with an axis of seeds and without
    for part in before:
        assert relative(after[part], before[part]) > 1e-4


@pytest.mark.parametrize("method", ["sm", "cd", "nce"])
def test_methods_that_need_more_say_what(method: str) -> None:
    kind = {one.id: one for one in discovered()}[method]
    reason = kind().unsupported(eblvm())
    assert reason is not None
    assert "ResNetEBLVM lacks" in reason or "free_energy" in reason


def test_what_is_not_tractable_is_said() -> None:
    fitted = BiMDSM(lower="fisher").fit(ResNetEBLVM(SHAPE, 2, 1), torch.rand(20, *SHAPE), steps=0, batch_size=10)
    for asked in (fitted.energy, fitted.score):
        with pytest.raises(InputError, match=r"has no free_energy.*log_density_bound"):
            asked(torch.rand(2, *SHAPE))
