"""Configurations side by side get the numbers that they get alone."""

import dataclasses
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from baselines import CD, DSM, NCE, PCD, VNCE
from bism import GRBM, BiDSM, BiMDSM, BiSSM, Estimator, InputError
from bism.cohort import Cohort, Member, structure
from bism.engine import Trainer

SEEDS, SIZE = (3, 7), 20
KIND: dict[str, Any] = {"seeds": SEEDS, "batch_size": SIZE, "dtype": torch.float64}
GROUPS: list[list[Estimator]] = [
    [
        BiDSM(unroll_steps=2, inner_steps=k, lr=lr, lr_posterior=0.01, sigma=s)
        for k, lr, s in ((3, 0.01, 0.1), (0, 0.02, 0.05), (1, 0.1, 0.2))
    ],
    [BiSSM(unroll_steps=1, inner_steps=2, lr=lr, temperature=t) for lr, t in ((0.01, 0.1), (0.1, 0.5))],
    [BiMDSM(unroll_steps=0, inner_steps=k, lower_optimiser="sgd", lr_posterior=0.1) for k in (4, 1)],
    [BiDSM(inner_steps=k, unroll_steps=1, inner_batches="fresh", lr=lr) for k, lr in ((2, 0.01), (3, 0.1))],
    [BiDSM(inner_steps=k, unroll_steps=1, ema=0.9, decay_steps=6, lr=0.1) for k in (1, 2)],
    [VNCE(inner_steps=k, lr=lr) for k, lr in ((2, 0.01), (0, 0.05))],
    [CD(k=2, lr=lr) for lr in (0.01, 0.1)],
    [PCD(k=1, lr=lr) for lr in (0.01, 0.1)],
    [NCE(nu=2, lr=lr) for lr in (0.01, 0.1)],
    [DSM(sigma=s, lr=0.01) for s in (0.1, 0.3)],
]
every_group = pytest.mark.parametrize("group", GROUPS, ids=lambda group: f"{group[0].id}-{GROUPS.index(group)}")


def data() -> torch.Tensor:
    return torch.rand(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def cohort(estimator: Estimator, places: int = 4, **more: Any) -> Cohort:
    return Cohort(estimator, GRBM(2, 3), data(), places=places, **{**KIND, **more})


def alone(estimator: Estimator, steps: int, **more: Any) -> Any:
    trainer = Trainer(estimator, GRBM(2, 3), data(), **{**KIND, **more})
    trainer.run(steps)
    return trainer._tensors


def same(ours: Any, theirs: Any, tolerance: float = 1e-12) -> bool:
    pairs = zip(tree_leaves(ours), tree_leaves(theirs), strict=True)
    return all(torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance) for a, b in pairs)


@every_group
def test_a_configuration_gets_the_numbers_that_it_gets_alone(group: list[Estimator]) -> None:
    """Whoever is beside it, however often the company changes."""
    side = cohort(group[0])
    members = [side.begin(estimator) for estimator in group]
    side.advance(members, 5)
    side.advance(members[:1], 3)
    for member in members:
        assert same(member.tensors, alone(member.estimator, member.step)), member.estimator
    assert [member.step for member in members] == [8, *[5] * (len(group) - 1)]
    assert not same(members[0].tensors, members[1].tensors, 1e-4)


def test_the_data_s_noise_and_single_precision_are_as_alone() -> None:
    group = GROUPS[0]
    more: dict[str, Any] = {"data_noise": 0.3, "dtype": torch.float32}
    side = Cohort(group[0], GRBM(2, 3), data(), places=3, **{**KIND, **more})
    members = [side.begin(estimator) for estimator in group]
    side.advance(members, 4)
    for member in members:
        assert same(member.tensors, alone(member.estimator, 4, **more), 1e-6)


@pytest.mark.long
@pytest.mark.parametrize("group", [GROUPS[-1], GROUPS[0]], ids=["dsm", "bidsm"])
def test_compiled_programs_give_the_same_numbers(group: list[Estimator]) -> None:
    side = cohort(group[0], places=3, compile=True)
    assert side.compiled
    assert side.compile_seconds > 0
    members = [side.begin(estimator) for estimator in group]
    side.advance(members, 4)
    for member in members:
        assert same(member.tensors, alone(member.estimator, 4), 1e-10)


def test_who_diverges_is_frozen_and_the_others_do_not_notice() -> None:
    bad, good = BiDSM(inner_steps=1, lr=1e200, sigma=0.1), BiDSM(inner_steps=2, lr=0.01, sigma=0.1)
    side = cohort(bad)
    members = [side.begin(bad), side.begin(good)]
    side.advance(members, 6)
    assert all(at is not None and at < 6 for at in members[0].diverged_at)
    assert members[1].diverged_at == [None, None]
    assert all(leaf.isfinite().all() for leaf in tree_leaves(members[0].tensors["state"]))
    for member in members:
        assert same(member.tensors, alone(member.estimator, 6))


def test_results_are_asked_of_a_member_as_of_a_trainer() -> None:
    side = cohort(GROUPS[0][0])
    member = side.begin(GROUPS[0][0])
    side.advance([member], 5)
    theirs = GROUPS[0][0].fit(GRBM(2, 3), data(), steps=5, **KIND)
    torch.testing.assert_close(side.fitted(member).log_likelihood(data()), theirs.log_likelihood(data()))
    averaged = cohort(GROUPS[4][0])
    mean = averaged.begin(GROUPS[4][0])
    averaged.advance([mean], 5)
    theirs = GROUPS[4][0].fit(GRBM(2, 3), data(), steps=5, **KIND)
    torch.testing.assert_close(averaged.fitted(mean).log_likelihood(data()), theirs.log_likelihood(data()))


def test_structures() -> None:
    one, other = BiDSM(inner_steps=3, lr=0.1, sigma=0.2), BiDSM(inner_steps=7, temperature=0.5)
    assert structure(one) == structure(other) == BiDSM()
    assert structure(BiDSM(unroll_steps=1)) != structure(BiDSM(unroll_steps=2))
    fresh = [structure(BiDSM(inner_batches="fresh", inner_steps=k)) for k in (1, 2)]
    assert fresh == [BiDSM(inner_batches="fresh")] * 2
    assert structure(BiDSM(ema=0.5)) != structure(BiDSM())
    assert structure(CD(k=1, lr=0.1)) == CD(k=1)


def test_what_does_not_belong_together_is_refused() -> None:
    side = cohort(BiDSM(unroll_steps=2), places=2)
    with pytest.raises(InputError, match="not of the cohort's structure"):
        side.begin(BiDSM(unroll_steps=3))
    first, second = (side.begin(BiDSM(unroll_steps=2)) for _ in range(2))
    side.advance([first], 1)
    for members in ([first, second], [], [first, first], [dataclasses.replace(first) for _ in range(3)]):
        with pytest.raises(InputError, match="2 places takes one to 2 members, each once, all at one iteration"):
            side.advance(members, 1)


def test_time_is_shared_by_what_was_done() -> None:
    """A configuration without inner steps pays for none; one alone does not pay for the empty places."""
    few, many = (BiDSM(inner_steps=k, unroll_steps=0) for k in (0, 20))
    side = cohort(few, places=4)
    members: list[Member] = [side.begin(few), side.begin(many)]
    side.advance(members, 30)
    assert 0 < members[0].train_seconds < members[1].train_seconds
