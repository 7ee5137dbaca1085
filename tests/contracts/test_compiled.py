"""A compiled step is the step as it is written."""

import pytest
import torch
from torch.utils._pytree import tree_map

from tests.contracts.cases import Case, distance, kinds, one_seed, same, small, trainer

# Of steps of a kind one: test_capture compiles the rest, too, into the same kernels, called one by one.
CHOSEN = {"bidsm", "cd", "nce", "vages_dsm", "persistent_vi", "nvil", "lebm", "phased", "staged"}
ALONE = {"bidsm", "lebm", "staged"}  # a seed alone is a program of its own, and compiling it takes as long again


def test_those_that_are_compiled_here_are_there() -> None:
    assert {kind.id for kind in kinds()} >= CHOSEN >= ALONE


@pytest.mark.long
@pytest.mark.parametrize("case", [small(kind) for kind in kinds() if kind.id in CHOSEN], ids=lambda case: case.name)
def test_compiled_uncompiled_alone_and_together_agree(case: Case) -> None:
    seeds = tuple(range(10))
    plain, compiled = trainer(case, seeds), trainer(case, seeds, compile=True)
    for each in (plain, compiled):
        each.run(50)
    assert compiled.compiled
    assert compiled.compile_seconds > 0
    assert distance(plain._tensors, compiled._tensors) < 1e-10
    alone = trainer(case, (3,), compile=case.estimator.id in ALONE)
    alone.run(50)
    assert alone.compiled == (case.estimator.id in ALONE)
    assert distance(one_seed(compiled._tensors, 3), one_seed(alone._tensors, 0)) < 1e-10

    # and a seed that is not a number leaves the others as they were, to the last bit
    healthy = tree_map(torch.clone, compiled._tensors)
    sick = tree_map(torch.clone, compiled._tensors)
    next(iter(sick["state"]["params"]["model"].values()))[1] = float("nan")
    compiled.run(5)
    expected, compiled._tensors, compiled.step = compiled._tensors, sick, 50
    compiled.run(5)
    assert compiled.diverged_at == [50 if seed == 1 else None for seed in seeds]
    for seed in seeds:
        wanted = healthy if seed == 1 else expected
        others = [x["state"]["optimiser"] for x in (one_seed(wanted, seed), one_seed(compiled._tensors, seed))]
        assert same(*others)
