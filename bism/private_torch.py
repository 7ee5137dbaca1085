"""The parts of torch that it promises nothing about, in one place and imported when they are first used: where a
version of it lacks one, training runs as it is written, uncompiled, and says so."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

Decompositions = dict[Any, Callable[..., Any]]


def make_graph(
    function: Callable[..., Any], example: Sequence[Tensor], decompositions: Decompositions | None = None
) -> fx.GraphModule:
    """The torch operations of ``function`` on tensors like ``example``."""
    from torch.fx.experimental.proxy_tensor import make_fx

    made = make_fx(function, decomposition_table=decompositions, tracing_mode="fake", _allow_non_fake_inputs=True)
    return made(*example)


def without_common_subexpressions(module: fx.GraphModule) -> fx.GraphModule:
    """Equal operations done once."""
    from torch.fx.passes.dialect.common.cse_pass import CSEPass

    passed = CSEPass()(module)
    return module if passed is None else passed.graph_module


def compile_graph(
    graph: fx.GraphModule,
    example: Sequence[Tensor],
    options: dict[str, Any],
    decompose: Callable[[Decompositions], Decompositions],
) -> Any:
    """A graph as machine code, by Inductor, which keeps it: a process that asks for the same has it sooner.

    Args:
        options: of ``torch._inductor.config``; those that this version lacks are left out.
        decompose: changes Inductor's table of decompositions.
    """
    from torch._inductor.compile_fx import compile_fx  # initialises CUDA where there is a GPU
    from torch._inductor.decomposition import select_decomp_table

    known = torch._inductor.list_options()  # they differ between versions
    taken = {option: value for option, value in options.items() if option in known}
    decompositions = _Decompositions(decompose(dict(select_decomp_table())))
    with torch._functorch.config.patch(enable_autograd_cache=False):  # which knows it by the graph before that
        return compile_fx(graph, list(example), config_patches=taken, decompositions=decompositions)


class _Decompositions(dict[Any, Callable[..., Any]]):
    """A table that says nothing of what it holds. Inductor knows what it has kept by all that it is given, and not all
    of its own table can be pickled for that; the graph that it knows it by is what the table has made already."""

    def __reduce_ex__(self, protocol: object) -> tuple[type[str], tuple[str]]:
        return str, (type(self).__name__,)


def with_known_instructions(compiled: Callable[[dict[str, Any]], Any]) -> Any:
    """What ``compiled`` makes with the processor's instructions untried: to try them all takes longer than to compile a
    small program. With those that were tried where that fails."""
    from torch._inductor.cpu_vec_isa import valid_vec_isa_list
    from torch._inductor.exc import CppCompileError, InductorError

    try:
        return compiled({"cpp.vec_isa_ok": True})
    except (InductorError, CppCompileError):  # the other where what was lowered has been kept, of another compiler
        valid_vec_isa_list.cache_clear()
        return compiled({})


def is_operation(target: Any) -> bool:
    """Whether a node of a graph calls an operation of torch's own."""
    return isinstance(target, torch._ops.OpOverload)


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum over the default group of ``torch.distributed``, as an operation that a graph may hold."""
    from torch import distributed
    from torch.distributed import _functional_collectives as collectives

    return collectives.all_reduce(x, "sum", distributed.distributed_c10d._get_default_group())


def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copies tensors of one type to others in one launch."""
    torch._foreach_copy_(list(targets), list(sources))
