"""Steps with phases. What holds for every method holds for them too: ``Phased`` is one of its cases."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from bism import GRBM, BiDSM, InputError
from bism.cohort import Cohort
from bism.engine import Trainer
from bism.phases import Phase
from bism.rng import StoredRng
from bism.stages import check_stages
from tests.contracts.cases import data, same
from tests.contracts.phased import Phased
from tests.maths.exact import relative

KIND: dict[str, Any] = {"seeds": (3, 7), "batch_size": 8, "dtype": torch.float64}


def trainer(estimator: Any, called: bool, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Trainer:
    """One whose phases are part of its step's program, or programs of their own."""
    monkeypatch.setattr(Trainer, "_inlined", lambda self: not called)
    return Trainer(estimator, GRBM(2, 3), data(), **{**KIND, **options})


def by_hand(estimator: Phased, one: Trainer, index: int, steps: int) -> dict[str, dict[str, Tensor]]:
    """The parts after some steps, written out with torch's optimiser."""
    begun = one.fitted().state(one.seeds[index])["params"]
    model, generator = GRBM(2, 3).double(), nn.Linear(2, 2).double()
    model.load_state_dict(begun["model"])
    generator.load_state_dict(begun["generator"])
    betas = (estimator.beta1, estimator.beta2)
    rates = ((model, estimator.lr), (generator, estimator.lr_generator))
    upper, lower = (torch.optim.Adam(one.parameters(), lr=lr, betas=betas, eps=1e-8) for one, lr in rates)
    for step in range(steps):
        batches, uniforms, normals = (x[index] for x in one.stream.draw(one.data, step, "training", 1).at(0))
        rng = StoredRng(uniforms, normals)
        own = rng.normal((8, 2))
        with torch.no_grad():
            v = generator(rng.normal((8, 2)))
        for _ in range(estimator.chain_steps):
            x = v.clone().requires_grad_()
            (slope,) = torch.autograd.grad(model.free_energy(x).sum(), x)
            v = v - 0.5 * estimator.step_size**2 * slope + estimator.step_size * rng.normal((8, 2))
        for i in range(estimator.generator_steps):
            made = functional_call(generator, dict(generator.named_parameters()), (rng.normal((8, 2)),))
            lower.zero_grad()
            (made - v - 0.1 * batches[1 + 2 * i] + 0.2 * batches[2 + 2 * i]).square().mean().backward()
            lower.step()
        upper.zero_grad()
        (model.free_energy(batches[0] + 0.01 * own).mean() - model.free_energy(v).mean()).backward()
        upper.step()
    return {"model": dict(model.state_dict()), "generator": dict(generator.state_dict())}


@pytest.mark.parametrize("called", [False, True])
def test_the_calls_of_all_phases_in_their_order(called: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = Phased(chain_steps=4, generator_steps=3, lr=0.02)
    one = trainer(estimator, called, monkeypatch)
    expected = [by_hand(estimator, one, index, 3) for index in range(2)]
    one.run(3)
    for index, seed in enumerate(one.seeds):
        for part, tensors in one.fitted().state(seed)["params"].items():
            assert relative(tensors, expected[index][part]) < 1e-12


@pytest.mark.parametrize(
    ("estimator", "options"),
    [
        (Phased(), {}),
        (Phased(chain_steps=0), {"data_noise": 0.1}),
        (BiDSM(inner_steps=3, unroll_steps=1), {"accumulate": 2}),
        (BiDSM(inner_steps=2, unroll_steps=0, inner_batches="fresh", ema=0.5), {"accumulate": 4}),
        (BiDSM(inner_steps=2, lower_optimiser="sgd"), {"seeds": (1,)}),
    ],
    ids=["phased", "no chain", "shards", "fresh in shards", "one seed"],
)
def test_programs_of_their_own_give_the_same_bits(
    estimator: Any, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for called in (False, True):
        one = trainer(estimator, called, monkeypatch, **options)
        one.run(5)
        lower = one.lower_objective_on(data()[:50])
        asked = [one.objective_on(data()[:50]), *([] if lower is None else [lower])]
        found.append((one.checkpoint()["tensors"], asked))
    traced = trainer(estimator, True, monkeypatch, iterations=10_000, **options)
    traced.run(5)
    assert same(traced.checkpoint()["tensors"], one.checkpoint()["tensors"])
    assert same(*found)


def test_only_what_phases_change_goes_from_call_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer(BiDSM(inner_steps=2), True, monkeypatch)
    numbered = [name for name in _places(one) if "posterior" in name]
    assert [_places(one)[at] for at in one._changed_at] == numbered
    assert len(numbered) < len(_places(one)) / 2


def _places(one: Trainer) -> list[str]:
    from torch.utils._pytree import keystr, tree_leaves_with_path

    return [keystr(path) for path, _ in tree_leaves_with_path(one._tensors)]


def test_long_phases_and_large_models_are_called() -> None:
    def inlined(estimator: Any, model: Any) -> bool:
        return not Trainer(estimator, model, torch.rand(20, model.visible_shape[0]), seeds=(0,), batch_size=4)._called

    assert inlined(BiDSM(inner_steps=20), GRBM(2, 4))
    assert not inlined(BiDSM(inner_steps=21), GRBM(2, 4))
    assert not inlined(BiDSM(inner_steps=1), GRBM(200, 100))
    assert inlined(BiDSM(inner_steps=0), GRBM(200, 100))  # there is nothing to call


def test_configurations_with_other_counts_side_by_side() -> None:
    group = [Phased(chain_steps=c, generator_steps=g, lr=lr) for c, g, lr in ((0, 3, 0.01), (4, 1, 0.1), (2, 3, 0.02))]
    side = Cohort(group[0], GRBM(2, 3), data(), places=4, **KIND)
    members = [side.begin(estimator) for estimator in group]
    side.advance(members, 4)
    side.advance(members[1:], 2)
    for member in members:
        alone = Trainer(member.estimator, GRBM(2, 3), data(), **KIND)
        alone.run(member.step)
        assert relative(member.tensors["state"], alone._tensors["state"]) < 1e-12


@pytest.mark.long
def test_compiled_phases_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for estimator in (Phased(chain_steps=30, lr=0.02), BiDSM(inner_steps=25, unroll_steps=1)):
        plain, compiled = (
            Trainer(estimator, GRBM(2, 3), data(), **{**KIND, "compile": compile}) for compile in (False, True)
        )
        assert compiled.compiled
        assert compiled._called
        for one in (plain, compiled):
            one.run(10)
        assert relative(compiled._tensors["state"]["params"], plain._tensors["state"]["params"]) < 1e-9


def doing_nothing(**changes: Any) -> Phase:
    given: dict[str, Any] = {"name": "idle", "count": 1, "step": lambda state, *_: state, "noise": lambda *_: {}}
    return Phase(**{**given, **changes})


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ([doing_nothing()], r"bidsm: phases must be a tuple of Phase, got \[Phase"),
        ((doing_nothing(), doing_nothing()), "bidsm: there can be 100 phases, each of a name of its own"),
        ((doing_nothing(name=""),), "a phase's name must be a text of 1 to 60 characters"),
        ((doing_nothing(count=-1),), "phase 'idle': ``count`` must be a whole number from 0 to 1,000, got -1"),
        ((doing_nothing(step=3),), "step of phase 'idle' must be a function, got 3"),
        ((doing_nothing(minibatches=0.5),), "phase 'idle': ``minibatches`` must be a whole number"),
        ((doing_nothing(count=1000, minibatches=10**6),), "``all_minibatches`` must be a whole number"),
    ],
)
def test_bad_phases(phases: Any, said: str) -> None:
    (stage,) = BiDSM().stages
    with pytest.raises(InputError, match=said):
        check_stages("bidsm", (dataclasses.replace(stage, phases=phases),), 100)
