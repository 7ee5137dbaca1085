"""What training any estimator promises: alone and in a group, stopped and resumed, diverged."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from baselines import SM
from bism import BiDSM, InputError, stream
from bism.capture import CapturedSteps
from bism.checkpoint import load_checkpoint
from bism.engine import Trainer
from bism.mlp import MLPEBM
from tests.contracts.cases import (
    Case,
    cases,
    data,
    distance,
    fit,
    one_seed,
    parameters_of,
    same,
    small,
    smallest,
    to_resume,
    trainer,
)

ROOT = Path(__file__).parents[2]
every_case = pytest.mark.parametrize("case", parameters_of(cases()))
every_small = pytest.mark.parametrize("case", parameters_of(smallest()))


@every_case
def test_training_stays_finite_and_moves_every_parameter(case: Case) -> None:
    mine = trainer(case)
    before = tree_map(torch.clone, mine._tensors)
    mine.run(30)
    assert mine.diverged_at == [None, None]
    assert all(leaf.isfinite().all() for leaf in tree_leaves(mine._tensors))
    # without the covariance the gradient goes through d^2 E / dv dtheta alone, of which the terms in h have none
    still = {"c"} if getattr(case.estimator, "covariance", "") == "none" else set()
    if isinstance(case.model, MLPEBM):
        still.add("network.2.bias")  # a constant of the energy, which contrasts and scores do not see
    still |= {"prior.network.2.bias", "head.4.bias"}  # likewise, of a tilted prior and an energy of v and h
    for part, tensors in mine._tensors["state"]["params"].items():
        for name, value in tensors.items():
            assert name in still or not torch.equal(value, before["state"]["params"][part][name]), (
                f"{part}.{name} did not move"
            )
    assert mine.mean_objective().isfinite().all()


@every_small
def test_training_does_not_depend_on_the_global_generator(case: Case) -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        mine = trainer(case)
        mine.run(3)
        results.append(mine._tensors)
        torch.randn(seed)
    assert same(*results)


@every_small
def test_training_leaves_the_given_model_and_data_alone(case: Case) -> None:
    own, given = tree_map(torch.clone, case.model.state_dict()), case.data()
    before = given.clone()
    case.estimator.fit(case.model, given, seeds=(0, 1), steps=2, batch_size=20, dtype=torch.float64, compile=False)
    assert same(dict(case.model.state_dict()), dict(own))
    assert torch.equal(given, before)


@every_small
def test_a_seed_alone_is_the_seed_in_a_group(case: Case) -> None:
    group, alone = trainer(case, seeds=(0, 3, 7)), trainer(case, seeds=(3,))
    group.run(25)
    alone.run(25)
    assert distance(one_seed(group._tensors, 1), one_seed(alone._tensors, 0)) < 1e-10
    first, other = (one_seed(group._tensors, i)["state"]["params"] for i in (0, 1))
    assert distance(first, other) > 1e-3  # seeds differ


@every_small
def test_a_seed_that_diverges_is_frozen_and_harms_no_other(case: Case) -> None:
    healthy, sick = trainer(case, seeds=(0, 1, 2)), trainer(case, seeds=(0, 1, 2))
    healthy.run(5)
    sick.run(5)
    params = tree_map(torch.clone, sick._tensors)
    next(iter(params["state"]["params"]["model"].values()))[1] = float("nan")
    sick._tensors = params
    frozen = tree_map(torch.clone, one_seed(params["state"], 1))
    for mine in (healthy, sick):
        mine.run(6)
    assert sick.diverged_at == [None, 5, None]
    assert sick.fitted().diverged_at == [None, 5, None]
    assert healthy.diverged_at == [None, None, None]
    for index in (0, 2):
        assert same(one_seed(sick._tensors, index), one_seed(healthy._tensors, index))
    pairs = zip(tree_leaves(frozen), tree_leaves(one_seed(sick._tensors["state"], 1)), strict=True)
    assert all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in pairs)
    assert sick.mean_objective()[[0, 2]].isfinite().all()


def test_a_diverged_seed_s_objective_is_that_of_the_steps_before() -> None:
    healthy, sick = trainer(small(SM)), trainer(small(SM))
    for mine in (healthy, sick):
        mine.run(5)
    sick._tensors["state"]["params"]["model"]["b"][1] = float("nan")
    sick.run(20)
    torch.testing.assert_close(sick.mean_objective()[1], healthy.mean_objective()[1])
    sick.run(2)
    assert sick.mean_objective().isnan().tolist() == [False, True]


def test_a_seed_that_overflows_is_frozen_with_its_last_finite_numbers() -> None:
    mine = trainer(small(SM, lr=1e200), seeds=(0, 1))
    mine.run(5)
    assert all(step is not None for step in mine.diverged_at)
    assert all(leaf.isfinite().all() for leaf in tree_leaves(mine._tensors["state"]))


@pytest.mark.long
def test_60_steps_are_23_steps_a_new_process_and_37_steps(tmp_path: Path) -> None:
    for case in to_resume():
        fit(case, 60).save(tmp_path / f"{case.name}.whole")
        fit(case, 23).save(tmp_path / f"{case.name}.begun")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-m", "tests.contracts.cases", str(tmp_path), "60"]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    for case in to_resume():
        whole, resumed = (load_checkpoint(tmp_path / f"{case.name}.{end}") for end in ("whole", "resumed"))
        assert same(whole["tensors"], resumed["tensors"]), case.name
        assert resumed["step"] == whole["step"] == 60


@every_small
def test_stopping_between_and_inside_blocks_changes_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_LONGEST_BLOCK", 4)
    whole, parts = trainer(case), trainer(case)
    whole.run(12)
    for steps in (1, 3, 4, 0, 3, 1):
        parts.run(steps)
    assert same(whole._tensors, parts._tensors)
    assert parts.step == 12


def test_asking_for_results_changes_nothing() -> None:
    case = small(BiDSM)
    plain, asked = trainer(case), trainer(case)
    plain.run(8)
    asked.run(4)
    held_out = asked.objective_on(data(50))
    fitted = asked.fitted()
    parameters = fitted.parameters(1)
    fitted.sample(data(5), sweeps=3)
    fitted.log_likelihood(data(5))
    assert torch.equal(held_out, asked.objective_on(data(50)))
    asked.run(4)
    assert same(plain._tensors, asked._tensors)
    assert same(parameters, fitted.parameters(1))  # training on does not change what was handed out
    assert not same(parameters, asked.fitted().parameters(1))


def test_results_of_a_seed_are_those_of_its_model() -> None:
    fitted, v = fit(small(BiDSM), 3), data(5)
    for row, seed in enumerate(fitted.seeds):
        model = fitted.model(seed)
        assert torch.equal(fitted.energy(v)[row], model.free_energy(v))
        torch.testing.assert_close(fitted.score(v)[row], model.score_and_laplacian(v)[0])
        bias = fitted.parameters(seed)["posterior"]["network.1.bias"]
        assert torch.equal(fitted.posterior(seed).network[1].bias, bias)
        assert torch.equal(fitted.sample(v, 4)[row], fitted.sample_seed(seed, v, 4))
    with pytest.raises(InputError, match=r"seed 9 .* 0, 1"):
        fitted.model(9)
    with pytest.raises(InputError, match="sm trains no posterior"):
        fit(small(SM), 1).posterior(0)


def record(trainer: Trainer, program: Any, together: int) -> None:
    """Trains by the buffers of a CUDA graph's replay, without the graph."""
    steps = CapturedSteps(
        program, trainer._leaves, trainer._drawn(data(), 0, "x"), trainer._hyper_of(0), lambda step: step, together
    )
    trainer._advance = lambda leaves, block, _: steps(leaves, block)


@every_small
def test_a_captured_step_is_the_step(case: Case, tmp_path: Path) -> None:
    # what is handed out and taken in must not be mixed up, whether steps are replayed by threes or one by one
    plain, captured = trainer(case), trainer(case)
    record(captured, captured._program, together=3)
    plain.run(7)
    captured.run(7)
    assert same(plain._tensors, captured._tensors)
    handed_out = captured.checkpoint()["tensors"]
    before = tree_map(torch.clone, handed_out)
    captured.save(tmp_path / "seven.pt")
    assert torch.equal(plain.mean_objective(), captured.mean_objective())
    assert torch.equal(plain.objective_on(data(50)), captured.objective_on(data(50)))
    plain.run(7)
    captured.run(7)
    assert same(plain._tensors, captured._tensors)
    assert same(before, handed_out)
    captured.load(tmp_path / "seven.pt")
    captured.run(7)
    assert same(plain._tensors["state"], captured._tensors["state"])
