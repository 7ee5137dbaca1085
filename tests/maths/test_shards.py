"""Minibatches in shards, one after another and over processes; running means; learning rates that fall."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from baselines import DSM, MDSM, PCD, VNCE
from bism import GRBM, BiDSM, InputError
from bism.engine import Trainer
from bism.gradients import Shards
from bism.posteriors import RelaxedBernoulli
from tests.maths.checks import bilevel_batch, start, whole_step
from tests.maths.exact import draws, flat, hyper, make_grbm, parameters, relative, state_of

DATA = draws(5).normal((60, 2))


def trainer(estimator: Any, **options: Any) -> Trainer:
    torch.manual_seed(0)
    return Trainer(estimator, GRBM(2, 3), DATA, **{"seeds": [0], "batch_size": 20, "dtype": torch.float64, **options})


# --- shards -----------------------------------------------------------------------------------------------------------


def joined(parts: list[Any], axes: dict[str, int]) -> Any:
    """The noise of the whole minibatch from that of its shards; ``axes``: where the lower level has its examples."""

    def put(*leaves: Tensor, axis: int) -> Tensor:
        return torch.cat(leaves, dim=axis)

    upper = {name: put(*[own["upper"][name] for own, _ in parts], axis=0) for name in ("visible", "hidden")}
    levels: list[Any] = []
    for level in ([own["unroll"] for own, _ in parts], [inner for _, (inner,) in parts]):
        levels.append(
            [
                {name: put(*[one[name] for one in drawn], axis=axes[name]) for name in axes}
                for drawn in zip(*level, strict=True)
            ]
        )
    return {"upper": upper, "unroll": levels[0]}, [levels[1]]


def test_a_bilevel_step_in_shards_is_the_step_on_the_whole() -> None:
    """K inner steps and the gradient in theta, on three shards with the same noise as on the whole minibatch."""
    estimator, model, posterior = BiDSM(unroll_steps=0, inner_steps=3, lr_posterior=0.05), make_grbm(), None
    posterior = RelaxedBernoulli((2,), 3).double()
    parts = [bilevel_batch(estimator, model, seed=seed, size=5) for seed in (1, 2, 3)]
    batches = torch.stack([batch for batch, _ in parts])
    before = start(estimator, model, posterior)
    ours, info = whole_step(estimator, before, batches, Shards(noise for _, noise in parts), hyper(estimator))
    noise = joined([noise for _, noise in parts], {"visible": 0, "hidden": 1})
    whole, other = whole_step(estimator, before, torch.cat(list(batches), dim=1), noise, hyper(estimator))
    for name in ("params", "optimiser"):
        assert relative(getattr(ours, name), getattr(whole, name)) < 1e-12
    torch.testing.assert_close(info["objective"], other["objective"])


def test_a_step_of_vnce_in_shards_is_the_step_on_the_whole() -> None:
    """K steps on the posterior, then one on the model and c, on two shards with the noise of the whole."""
    estimator, model = VNCE(inner_steps=2, nu=2, noise_particles=3, lr_posterior=0.05), make_grbm()
    posterior = RelaxedBernoulli((2,), 3).double()
    parts = [bilevel_batch(estimator, model, seed=seed, size=5) for seed in (1, 2)]
    params = {"model": parameters(model), "posterior": parameters(posterior)}
    params["normaliser"] = {"c": torch.tensor(0.3, dtype=torch.float64)}
    carry = estimator.fit_to(draws(3).normal((50, 2)), 0.0)
    state = state_of(params, model=model, posterior=posterior).replace(carry=carry)
    state = state.replace(optimiser=estimator.init_optimiser(params))
    batches, noises = torch.stack([batch for batch, _ in parts]), [noise for _, noise in parts]
    ours, info = whole_step(estimator, state, batches, Shards(noises), hyper(estimator))
    noise = {
        "visible": torch.cat([one["visible"] for one, _ in noises]),
        "data": torch.cat([one["data"] for one, _ in noises]),
        "particles": torch.cat([one["particles"] for one, _ in noises], dim=1),
    }
    inner = [torch.cat(drawn) for drawn in zip(*(calls for _, (calls,) in noises), strict=True)]
    together = torch.cat(list(batches), dim=1)
    whole, other = whole_step(estimator, state, together, (noise, [inner]), hyper(estimator))
    for name in ("params", "optimiser"):
        assert relative(getattr(ours, name), getattr(whole, name)) < 1e-12
    torch.testing.assert_close(info["objective"], other["objective"])


def test_a_step_of_one_level_in_shards_is_the_step_on_the_whole() -> None:
    estimator, model = DSM(), make_grbm()
    batches, noises = draws(1).normal((4, 1, 5, 2)), [draws(seed).normal((5, 2)) for seed in range(4)]
    params = {"model": {name: x.detach() for name, x in model.named_parameters()}}
    state = state_of(params, model=model).replace(optimiser=estimator.init_optimiser(params))
    ours, info = estimator.step(state, batches, Shards(noises), hyper(estimator))
    whole, other = estimator.step(state, batches.reshape(1, 20, 2), torch.cat(noises), hyper(estimator))
    assert relative(ours.params, whole.params) < 1e-12
    torch.testing.assert_close(info["objective"], other["objective"])


def test_training_in_shards_uses_the_same_minibatches() -> None:
    """The data is drawn as without shards; only the noise is in another order."""
    found = {count: trainer(DSM(sigma=1e-9), accumulate=count) for count in (1, 4)}
    for one in found.values():
        one.run(1)
    first, second = (one.stream.block.batches for one in found.values())
    assert torch.equal(first[:, 0], second[:, 0])


@pytest.mark.parametrize(
    ("estimator", "options", "said"),
    [
        (PCD(), {"accumulate": 2}, "pcd cannot take a minibatch in 2 shards: its steps need the whole minibatch"),
        (DSM(), {"accumulate": 3}, "batch_size must be a multiple of the 3 shards of a minibatch, got 20"),
        (DSM(), {"accumulate": 0}, "accumulate must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_cut_is_refused(estimator: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        trainer(estimator, **options)


# --- processes --------------------------------------------------------------------------------------------------------


def together(rank: str, size: str, meeting: str, file: str, compile: str) -> None:
    """One process of several that train together; run in a process of its own."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=int(rank), world_size=int(size))
    for estimator in (MDSM(), BiDSM(unroll_steps=0, inner_steps=2)):
        one = trainer(estimator, seeds=[0, 1], compile=compile == "compiled")
        assert one.compiled is (compile == "compiled")
        one.run(5)
        torch.save(one.fitted().state(1), f"{file}-{estimator.id}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("compile", ["uncompiled", pytest.param("compiled", marks=pytest.mark.long)])
def test_two_processes_train_as_one_in_two_shards(tmp_path: Path, compile: str) -> None:
    """The same parameters in both after every step, and those of one process that takes the shards in turn."""
    arguments = ["2", str(tmp_path / "meeting"), str(tmp_path / "state"), compile]
    processes = [
        subprocess.Popen([sys.executable, "-m", "tests.maths.test_shards", rank, *arguments]) for rank in ("0", "1")
    ]
    alone = {}
    for estimator in (MDSM(), BiDSM(unroll_steps=0, inner_steps=2)):
        one = trainer(estimator, seeds=[0, 1], accumulate=2)
        one.run(5)
        alone[estimator.id] = one.fitted().state(1)
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    for name, expected in alone.items():
        first, second = (torch.load(f"{tmp_path}/state-{name}-{rank}.pt") for rank in (0, 1))
        assert torch.equal(flat(first["params"]), flat(second["params"]))
        assert relative(first["params"], expected["params"]) < 1e-10


# --- schedules and running means --------------------------------------------------------------------------------------


def test_learning_rates_fall_along_half_a_cosine() -> None:
    estimator = BiDSM(lr=0.1, lr_posterior=0.2, decay_steps=100, lr_final=0.01)
    values = hyper(estimator)
    for step, left in ((0, 1.0), (25, (1 + math.cos(math.pi / 4)) / 2), (50, 0.5), (100, 0.0), (900, 0.0)):
        found = estimator.scheduled(values, torch.tensor(step))
        assert float(found["lr"]) == pytest.approx(0.01 + 0.09 * left)
        assert float(found["lr_posterior"]) == pytest.approx(0.01 + 0.19 * left)
        assert found["sigma"] is values["sigma"]
    assert BiDSM().scheduled(values, torch.tensor(50)) is values


def test_training_follows_the_schedule() -> None:
    """With a rate that has fallen to 0 nothing moves any more."""
    one = trainer(DSM(decay_steps=3, lr_final=0.0))
    one.run(3)
    before = flat(one.fitted().state(0)["params"])
    one.run(2)
    assert torch.equal(flat(one.fitted().state(0)["params"]), before)
    other = trainer(DSM(decay_steps=4, lr_final=0.0))
    other.run(3)
    assert not torch.equal(flat(other.fitted().state(0)["params"]), before)


def test_what_is_evaluated_is_the_running_mean() -> None:
    plain, averaged = trainer(DSM(lr=0.05)), trainer(DSM(lr=0.05, ema=0.7))
    mean = plain.fitted().state(0)["params"]
    for _ in range(4):
        plain.run(1)
        averaged.run(1)
        mean = tree_map(lambda m, x: 0.7 * m + 0.3 * x, mean, plain.fitted().state(0)["params"])
    assert relative(averaged.fitted().parameters(0), mean) < 1e-12
    v = DATA[:3]
    assert not torch.allclose(averaged.fitted().energy(v), plain.fitted().energy(v))
    resumed = trainer(DSM(lr=0.05, ema=0.7))
    resumed.restore(averaged.checkpoint(), "checkpoint")
    averaged.run(2)
    resumed.run(2)
    assert torch.equal(flat(averaged.fitted().parameters(0)), flat(resumed.fitted().parameters(0)))


if __name__ == "__main__":
    together(*sys.argv[1:])
