"""Compiles a pure function of tensors: traced to one graph, simplified, and turned into machine code by Inductor.

What Inductor does not do by itself, and what the toy models of this field live on:

- Products that share an operand are added up before they are multiplied, A x + B x = (A + B) x, and equal products are
  computed once. Derivatives of derivatives are full of both.
- Products too small for a call to the matrix library become sums of element-wise products, which fuse with what is
  around them. They are laid out with the longest axis innermost, as the noise and the minibatches are
  (``rng.laid_out``), so that the vector units are full even where a model has four units.
"""

import dataclasses
import math
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import flop_registry

from bism.private_torch import (
    Decompositions,
    compile_graph,
    is_operation,
    make_graph,
    with_known_instructions,
    without_common_subexpressions,
)

Program = Callable[..., Sequence[Tensor]]  # a flat list of tensors to a flat list of tensors

_SMALL_PRODUCT = 1 << 14  # multiplications per matrix product, up to which a fused loop is at least as fast as a call
_LARGE_KERNEL = 4  # pixels of a kernel per pixel that comes out, from which it is taken for a weight gradient
_VECTOR_BITS = {"AVX512": 512, "AVX2": 256}
_aten = torch.ops.aten
_COPIES = {_aten.detach.default, _aten.alias.default}  # mean something to autograd only, and the graph is past it
_RESHAPES = {
    _aten.view.default,
    _aten._unsafe_view.default,
    _aten.reshape.default,
    _aten.transpose.int,
    _aten.permute.default,
    _aten.unsqueeze.default,
    _aten.squeeze.dim,
    _aten.t.default,
}
_FREE = (
    _RESHAPES
    | _COPIES
    | {  # no arithmetic: how a tensor is looked at
        _aten.expand.default,
        _aten.select.int,
        _aten.slice.Tensor,
        _aten.cat.default,
        _aten.clone.default,
        _aten.squeeze.default,
        _aten.split.Tensor,
        _aten.movedim.int,
    }
)
_TRANSCENDENTAL = {
    _aten.exp,
    _aten.log,
    _aten.log1p,
    _aten.expm1,
    _aten.sigmoid,
    _aten.softplus,
    _aten.softplus_backward,
    _aten.logsumexp,
    _aten.sqrt,
    _aten.sin,
    _aten.cos,
    _aten.tanh,
    _aten.pow,
}
_SUMS = {_aten.sum, _aten.mean, _aten.logsumexp}


def compile_program(function: Program, example: Sequence[Tensor]) -> Program:
    """``function`` as machine code for tensors of the shapes, strides and types of ``example``, tried on it once.

    Raises:
        Exception: of whatever class, where ``function`` cannot be traced or there is no working compiler.
    """
    options: dict[str, Any] = {}
    if example[0].device.type == "cpu":
        options["cpp_wrapper"] = True  # one source file for all kernels: compiles and runs faster
        options["unroll_reductions_threshold"] = 1  # an unrolled sum would forget how its terms lie in memory
        options["max_fusion_size"] = 16  # larger ones take longer to compile and run no faster
        options["aot_inductor.enable_line_tables"] = False  # nobody debugs these sources
        # What is kept of a program does not say for what vectors its loops were made, but for this: computers that
        # share a home would take each other's, and compute something else.
        options["cpp.simdlen"] = _VECTOR_BITS.get(torch.backends.cpu.get_cpu_capability())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the compiler's own code
        program: Program = with_known_instructions(lambda known: _compiled(function, example, {**options, **known}))
        program(*example)  # whatever is wrong with it shows here
    return program


def _compiled(function: Program, example: Sequence[Tensor], options: dict[str, Any]) -> Program:
    """``function`` by Inductor, which decomposes the small products on its way: a trace of their own takes seconds."""
    graph = simplify(trace(function, example))
    if any(node.target is _aten.convolution.default for node in graph.graph.nodes):
        options = {**options, "force_layout_optimization": True}  # channels innermost: a quarter faster on a CPU

    def decompose(table: Decompositions) -> Decompositions:
        large: Callable[..., Any] = table.get(_aten.bmm.default, lambda *args: NotImplemented)

        def product(a: Tensor, b: Tensor) -> Any:
            small = _small_product(a, b)
            return large(a, b) if small is NotImplemented else small

        return {**table, _aten.bmm.default: product}

    return cast(Program, compile_graph(graph, example, options, decompose))


@dataclasses.dataclass(frozen=True)
class Work:
    """What a program has to do at least: operations by kind, and bytes that it must read and write.

    products: floating-point operations of matrix products, two for each multiplication.
    simple: element-wise operations and sums, by element.
    transcendental: exponentials, logarithms, roots, ..., by element.
    bytes: of its arguments and results.
    """

    products: float = 0
    simple: float = 0
    transcendental: float = 0
    bytes: float = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def __mul__(self, factor: float) -> "Work":
        return Work(*(factor * a for a in dataclasses.astuple(self)))


def count_work(function: Program, example: Sequence[Tensor]) -> Work:
    """The work of ``function``, counted on its graph after ``simplify``."""
    graph = simplify(trace(function, example)).graph
    work = Work(bytes=sum(x.nbytes for x in example))
    for node in graph.nodes:
        value = node.meta.get("val")
        if not is_operation(node.target) or node.target in _FREE:
            continue
        if node.target.overloadpacket in flop_registry:  # matrix products and convolutions
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda x: x.meta["val"])
            work += Work(products=flop_registry[node.target.overloadpacket](*args, **kwargs, out_val=value))
        elif not isinstance(value, Tensor):
            continue
        elif node.target.overloadpacket in _TRANSCENDENTAL:
            work += Work(transcendental=value.numel())
        else:  # sums are as long as what they add up
            inputs = [_numel(x) for x in node.all_input_nodes if node.target.overloadpacket in _SUMS]
            work += Work(simple=max([value.numel(), *inputs]))
    return work + Work(bytes=sum(x.meta["val"].nbytes for x in graph.output_node().all_input_nodes))


def trace(function: Program, example: Sequence[Tensor], decompositions: dict[Any, Any] | None = None) -> fx.GraphModule:
    """The torch operations of ``function`` as a graph; transforms of ``torch.func`` inside it are resolved."""
    traced = make_graph(function, example, decompositions)
    traced.graph.eliminate_dead_code()
    return traced


def traced_program(function: Program, example: Sequence[Tensor]) -> Program:
    """``function`` as its torch operations one after the other, for tensors shaped as ``example``: the same numbers to
    the last bit, without what the transforms of ``torch.func`` cost at every call, and equal operations done once.

    Raises:
        Exception: of whatever class, where ``function`` cannot be traced.
    """
    with torch.no_grad():
        graph = trace(function, example)
        return graph if _writes(graph) else _without_repetitions(graph)


def _writes(module: fx.GraphModule) -> bool:
    """Whether the graph writes into tensors."""
    return any(is_operation(node.target) and node.target._schema.is_mutable for node in module.graph.nodes)


def _without_repetitions(module: fx.GraphModule) -> fx.GraphModule:
    for node in list(module.graph.nodes):
        if node.target in _COPIES:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module = without_common_subexpressions(module)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def simplify(module: fx.GraphModule) -> fx.GraphModule:
    """The same function with fewer matrix products; unchanged where it writes into tensors."""
    if _writes(module):
        return module
    module = _without_repetitions(module)
    for node in list(module.graph.nodes):
        if node.target is _aten.convolution.default:
            _restore_weight_gradient(module.graph, node)
    for node in list(module.graph.nodes):
        if _is_sum(node) and not all(_is_sum(user) for user in node.users):  # the last of a chain of additions
            _merge_products(module.graph, node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _is_sum(node: Any) -> bool:
    return (
        isinstance(node, fx.Node)
        and node.target is _aten.add.Tensor
        and not node.kwargs
        and all(isinstance(x, fx.Node) for x in node.args)
    )


def _terms(node: fx.Node) -> list[fx.Node]:
    """What a chain of additions adds up; sums that are also used elsewhere are terms."""
    terms: list[fx.Node] = []
    for argument in node.args:
        assert isinstance(argument, fx.Node)
        same_shape = _shape(argument) == _shape(node)
        terms += _terms(argument) if _is_sum(argument) and len(argument.users) == 1 and same_shape else [argument]
    return terms


def _numel(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.numel() if isinstance(value, Tensor) else 0


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


@dataclasses.dataclass(frozen=True)
class _Product:
    """A matrix product, and the reshapes that turn it into a term of a sum."""

    node: fx.Node
    reshapes: tuple[fx.Node, ...]

    @classmethod
    def behind(cls, term: fx.Node) -> "_Product | None":
        """The product that ``term`` is, if nobody else uses it."""
        node, reshapes = term, list[fx.Node]()
        while node.target in _RESHAPES and len(node.users) == 1:
            reshapes.insert(0, node)
            node = node.args[0]  # type: ignore[assignment]  # a reshape's first argument is a node
        return cls(node, tuple(reshapes)) if node.target is _aten.bmm.default and len(node.users) == 1 else None

    def shares(self, other: "_Product", side: int) -> bool:
        """Whether both multiply by the same matrix from that side, and are reshaped alike."""
        alike = [(a.target, a.args[1:]) for a in self.reshapes] == [(b.target, b.args[1:]) for b in other.reshapes]
        return alike and self.node.args[side] is other.node.args[side]


def _merge_products(graph: fx.Graph, root: fx.Node) -> None:
    """Rewrites a sum so that terms which multiply the same matrix from the same side become one product."""
    total, products = list[fx.Node](), list[_Product]()
    for term in _terms(root):
        product = _Product.behind(term)
        if product is None:
            total.append(term)
        else:
            products.append(product)
    merged = False
    with graph.inserting_before(root):
        while products:
            first = products.pop(0)
            for side in (1, 0):
                partners = [product for product in products if product.shares(first, side)]
                if partners:
                    products = [product for product in products if product not in partners]
                    first = _sum_of(graph, first, partners, side)
                    merged = True
            total.append(first.reshapes[-1] if first.reshapes else first.node)
        if merged:
            result = total[0]
            for term in total[1:]:
                result = _like(graph, root, _aten.add.Tensor, (result, term))
            root.replace_all_uses_with(result)


def _sum_of(graph: fx.Graph, first: _Product, partners: Sequence[_Product], side: int) -> _Product:
    """One product in place of several that share the operand on ``side``."""
    other: Any = first.node.args[1 - side]
    for partner in partners:
        other = _like(graph, other, _aten.add.Tensor, (other, partner.node.args[1 - side]))
    operands = (first.node.args[0], other) if side == 0 else (other, first.node.args[1])
    node = product = _like(graph, first.node, _aten.bmm.default, operands)
    reshapes = []
    for reshape in first.reshapes:
        node = _like(graph, reshape, reshape.target, (node, *reshape.args[1:]))
        reshapes.append(node)
    return _Product(product, tuple(reshapes))


def _restore_weight_gradient(graph: fx.Graph, node: fx.Node) -> None:
    """Rewrites a convolution of x^T [c_in, batch, ...] with kernels g^T [c_out, batch, ...] much larger than what comes
    out, k^T [c_in, c_out, ...], as what it is: the gradient k of a convolution's weight, where that convolution's
    argument is x, the gradient of its result is g, and stride and dilation are exchanged."""
    x, g, bias, stride, padding, dilation, transposed, output_padding, groups = cast(tuple[Any, ...], node.args)
    if not (_swaps_first(x) and _swaps_first(g)) or bias is not None or transposed or groups != 1:
        return
    result = node.meta["val"]
    sizes = zip(_shape(x)[2:], _shape(g)[2:], result.shape[2:], stride, padding, dilation, strict=True)
    if any((size + 2 * p - s * (kernel - 1) - 1) // d + 1 != of_g for size, of_g, kernel, s, p, d in sizes):
        return  # the other convolution's result would be larger than g
    if math.prod(_shape(g)[2:]) < _LARGE_KERNEL * math.prod(result.shape[2:]):
        return
    with graph.inserting_before(node):
        weight = graph.call_function(_aten.new_empty.default, (x, list(result.transpose(0, 1).shape)))  # for its shape
        weight.meta["val"] = result.new_empty(weight.args[1])
        settings = (None, dilation, padding, stride, False, output_padding, 1, [False, True, False])
        both = graph.call_function(_aten.convolution_backward.default, (g.args[0], x.args[0], weight, *settings))
        both.meta["val"] = (None, weight.meta["val"], None)
        gradient = _like(graph, weight, operator.getitem, (both, 1))
        node.replace_all_uses_with(_like(graph, node, _aten.transpose.int, (gradient, 0, 1)))


def _swaps_first(node: fx.Node) -> bool:
    return node.target is _aten.transpose.int and set(node.args[1:]) == {0, 1}


def _like(graph: fx.Graph, model: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
    """A new node whose value has the shape and type of another's."""
    node = graph.call_function(target, args)
    node.meta["val"] = model.meta["val"]
    return node


def _small_product(a: Tensor, b: Tensor) -> Tensor:
    """[s, n, k] @ [s, k, m] by element-wise products, or NotImplemented where the matrix library is faster."""
    (_, n, k), m = a.shape, b.shape[2]
    if n * k * m > _SMALL_PRODUCT:
        return NotImplemented
    if k >= max(n, m):
        return (a.unsqueeze(2) * b.transpose(1, 2).unsqueeze(1)).sum(3)
    if n > m:
        return (a.transpose(1, 2).unsqueeze(2) * b.unsqueeze(3)).sum(1).transpose(1, 2)
    return (a.unsqueeze(3) * b.unsqueeze(1)).sum(2)
