"""What the compiler does to a graph: fewer products, the same values."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.exc import CppCompileError, InductorError
from torch._inductor.utils import fresh_cache
from torch.func import grad, vmap

from bism import GRBM, BiDSM
from bism.compiler import _SMALL_PRODUCT, Program, _small_product, compile_program, simplify, trace
from bism.rng import Rng

RNG = Rng(torch.Generator().manual_seed(0), torch.float64)
A, B, C, X, Y = (RNG.normal((2, 3, 3)) for _ in range(5))


def products(function: Callable[..., Tensor]) -> tuple[int, int]:
    """Matrix products before and after, with the values checked."""
    example = [A, B, C, X, Y]
    traced = trace(lambda *tensors: [function(*tensors)], example)
    before = sum(node.target is torch.ops.aten.bmm.default for node in traced.graph.nodes)
    simple = simplify(traced)
    torch.testing.assert_close(simple(*example)[0], function(*example), atol=1e-12, rtol=1e-12)
    return before, sum(node.target is torch.ops.aten.bmm.default for node in simple.graph.nodes)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a, b, c, x, y: a @ x + b @ x, (2, 1)),
        (lambda a, b, c, x, y: x @ a + x @ b + x @ c, (3, 1)),
        (lambda a, b, c, x, y: (a @ x + b @ y) + (c @ x + b @ x), (4, 2)),
        (lambda a, b, c, x, y: (a @ x).mT + 2 * y + (b @ x).mT, (2, 1)),
        (lambda a, b, c, x, y: (a @ x).exp() + (a @ x.detach()).sin(), (2, 1)),
        (lambda a, b, c, x, y: a @ x + (b @ x).mT, (2, 2)),  # reshaped differently
        (lambda a, b, c, x, y: a @ x - b @ x, (2, 2)),  # not a sum
        (lambda a, b, c, x, y: (p := a @ x) + b @ x + p.exp(), (2, 2)),  # needed on its own too
        (lambda a, b, c, x, y: a @ x + a @ x, (2, 1)),
        (lambda a, b, c, x, y: a @ x + x @ a, (2, 2)),  # from different sides
    ],
)
def test_products_that_share_an_operand_become_one(function: Callable[..., Tensor], expected: tuple[int, int]) -> None:
    assert products(function) == expected


def test_a_graph_that_writes_into_tensors_is_left_alone() -> None:
    def function(a: Tensor, b: Tensor, c: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return (a @ x).add_(b @ x)

    assert products(function) == (2, 2)


def test_derivatives_lose_the_products_that_they_repeat() -> None:
    # the gradient of two functions of W^T v: one product backwards instead of two
    def function(a: Tensor, b: Tensor, c: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return vmap(grad(lambda w, v: (v @ w).sin().sum() + (v @ w).exp().sum()))(a, x)

    assert products(function) == (4, 2)


@pytest.mark.parametrize(
    ("size", "settings", "restored"),
    [
        (3, {"padding": 1}, True),
        (1, {}, True),
        (3, {"padding": 1, "stride": 2}, True),
        (3, {"padding": 2, "dilation": 2}, True),
        (3, {"padding": 1, "groups": 2}, False),  # a sum over images alone, and no weight gradient of one group
        (7, {"padding": 3}, False),  # as large as the image: a convolution like any other
    ],
)
def test_a_weight_gradient_is_computed_as_one(size: int, settings: dict[str, int], restored: bool) -> None:
    groups = settings.get("groups", 1)
    images, weight = RNG.normal((3, 2, 11, 11)), RNG.normal((4, 2 // groups, size, size))

    def function(images: Tensor, weight: Tensor) -> list[Tensor]:
        def convolved(v: Tensor, w: Tensor) -> Tensor:
            return torch.nn.functional.conv2d(v, w, **settings).sin().sum()  # type: ignore[arg-type]

        return [grad(lambda w: grad(convolved)(images, w).square().sum())(weight)]

    def convolutions(graph: torch.fx.GraphModule) -> int:
        return sum(node.target is torch.ops.aten.convolution.default for node in graph.graph.nodes)

    traced = trace(function, [images, weight])
    before = convolutions(traced)
    simple = simplify(traced)
    assert before - convolutions(simple) == restored
    torch.testing.assert_close(simple(images, weight), function(images, weight), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("shape", [(100, 2, 4), (2, 100, 4), (4, 100, 2), (3, 4, 100), (1, 1, 1), (100, 1, 100)])
def test_small_products_are_products(shape: tuple[int, int, int]) -> None:
    n, k, m = shape
    a, b = RNG.normal((3, n, k)), RNG.normal((3, k, m))
    torch.testing.assert_close(_small_product(a, b), a @ b, atol=1e-12, rtol=1e-12)


def test_large_products_stay_with_the_matrix_library() -> None:
    assert _small_product(torch.ones(1, 1, _SMALL_PRODUCT + 1), torch.ones(1, _SMALL_PRODUCT + 1, 1)) is NotImplemented


@pytest.mark.long
def test_a_compiled_program_is_the_function() -> None:
    constant = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)  # of the function's own, not an argument

    def function(a: Tensor, x: Tensor) -> list[Tensor]:
        return [(a @ x) * constant, vmap(grad(lambda v: (v * v.sin()).sum()))(x)]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program = compile_program(function, [A, X])
    for inputs in ((A, X), (B, Y)):
        for mine, wanted in zip(program(*inputs), function(*inputs), strict=True):
            torch.testing.assert_close(mine, wanted, atol=1e-12, rtol=1e-12)
    with pytest.raises(Exception, match=r"item|data-dependent"):
        compile_program(lambda x: [x if float(x.sum()) > 0 else -x], [X])


@pytest.mark.long
def test_a_compiled_program_is_kept_and_not_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process does without the seconds that lowering it takes; one that differs by a number is another."""

    def scaled(by: list[float], power: float) -> list[Tensor]:
        constant = torch.tensor(by, dtype=torch.float64)
        torch._dynamo.utils.counters.clear()
        (answer,) = compile_program(lambda a, x: [constant * (a @ x).abs() ** power], [A, X])(A, X)
        torch.testing.assert_close(answer, constant * (A @ X).abs() ** power, atol=1e-12, rtol=1e-12)
        return [answer]

    def found() -> tuple[int, int]:
        counted = torch._dynamo.utils.counters["inductor"]
        assert counted["fxgraph_cache_bypass"] == 0
        return counted["fxgraph_cache_hit"], counted["fxgraph_cache_miss"]

    with fresh_cache():
        (first,) = scaled([2.0, 3.0, 5.0], 1.5)
        assert found() == (0, 1)
        (again,) = scaled([2.0, 3.0, 5.0], 1.5)
        assert found() == (1, 0)
        assert torch.equal(first, again)
        scaled([2.0, 3.0, 7.0], 1.5)
        scaled([2.0, 3.0, 5.0], 2.5)
        assert found() == (0, 1)
        with monkeypatch.context() as patch:
            patch.setattr("bism.compiler._SMALL_PRODUCT", 1)
            scaled([2.0, 3.0, 5.0], 1.5)
            assert found() == (0, 1)
        other = {"AVX512": "AVX2", "AVX2": "AVX512"}.get(torch.backends.cpu.get_cpu_capability())
        if other:  # a home may be that of computers of several kinds
            monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: other)
            scaled([2.0, 3.0, 5.0], 1.5)
            assert found() == (0, 1)


@pytest.mark.parametrize("wrapped", [True, False])
def test_instructions_that_do_not_compile_untried_are_tried(monkeypatch: pytest.MonkeyPatch, wrapped: bool) -> None:
    asked, error = [], CppCompileError(["g++"], "unrecognized command-line option -mavx512bf16")

    def compiled(function: Program, example: list[Tensor], options: dict[str, object]) -> Program:
        asked.append(options.get("cpp.vec_isa_ok"))
        if options.get("cpp.vec_isa_ok"):
            raise InductorError(error, None) if wrapped else error
        return function

    monkeypatch.setattr("bism.compiler._compiled", compiled)
    program = compile_program(lambda x: [2 * x], [X])
    assert asked == [True, None]
    torch.testing.assert_close(program(X)[0], 2 * X)


def test_without_the_private_parts_of_torch_training_runs_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a version of torch has moved them: nothing is traced or compiled, the numbers are the same."""
    data = torch.rand(50, 2, generator=torch.Generator().manual_seed(1))
    usual = BiDSM(inner_steps=1, unroll_steps=1).fit(GRBM(2, 3), data, steps=310, batch_size=10, compile=False)

    def gone(*_: Any, **__: Any) -> Any:
        raise ImportError("cannot import name 'make_fx'")

    monkeypatch.setattr("bism.compiler.make_graph", gone)
    with pytest.warns(UserWarning, match="training runs uncompiled .*: cannot import name 'make_fx'"):
        plain = BiDSM(inner_steps=1, unroll_steps=1).fit(GRBM(2, 3), data, steps=310, batch_size=10, compile=True)
    for part, tensors in usual.parameters(0).items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, plain.parameters(0)[part][name])
