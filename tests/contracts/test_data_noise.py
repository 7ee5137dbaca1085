"""Noise added to every minibatch: as large as asked for, anew each time, and as repeatable as the rest."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines import SSM
from bism import GRBM, InputError
from bism.engine import Trainer
from tests.contracts.cases import fit, same, small, trainer

POINT = torch.full((10, 2), 3.0, dtype=torch.float64)  # data without any spread: what varies is the noise


def minibatches(seeds: tuple[int, ...] = (0, 1), index: int = 0, data_noise: float = 0.5) -> Tensor:
    """The minibatches of 20 steps, [seeds, steps, 1, batch, 2]."""
    mine = Trainer(SSM(), GRBM(2, 3), POINT, seeds=seeds, batch_size=40, dtype=torch.float64, data_noise=data_noise)
    return mine.stream.draw(mine.data, 20 * index, "training", 20).batches.clone()


def test_minibatches_are_the_data_plus_noise_of_that_size() -> None:
    drawn = minibatches()
    count = drawn.numel()
    assert float(drawn.mean()) == pytest.approx(3, abs=4 * 0.5 / count**0.5)
    assert float(drawn.var()) == pytest.approx(0.25, abs=4 * 0.25 * (2 / count) ** 0.5)
    assert torch.equal(minibatches(data_noise=0.0), torch.full_like(drawn, 3.0))


def test_every_number_has_noise_of_its_own() -> None:
    drawn = minibatches()
    assert len(drawn.unique()) == drawn.numel()
    assert not set(minibatches(index=1).flatten().tolist()) & set(drawn.flatten().tolist())


def test_it_is_not_the_noise_that_the_method_draws() -> None:
    mine = trainer(small(SSM, directions="gaussian"), data_noise=1.0)
    block = mine.stream.draw(mine.data, 0, "training", 1)
    noise = block.batches[0, 0].flatten()
    assert not any(abs(float(x - y)) < 1e-9 for x in block.normals[0, 0] for y in noise)


def test_a_seed_alone_is_the_seed_in_a_group() -> None:
    assert torch.equal(minibatches((3, 5, 8))[1:2], minibatches((5,)))


def test_resuming_changes_nothing(tmp_path: Path) -> None:
    case, options = small(SSM), {"data_noise": 0.3}
    whole, begun, resumed = (trainer(case, **options) for _ in range(3))
    whole.run(12)
    begun.run(5)
    begun.save(tmp_path / "begun")
    resumed.load(tmp_path / "begun")
    resumed.run(7)
    assert same(whole._tensors, resumed._tensors)
    plain = fit(case, 12)
    assert not torch.equal(plain.energy(POINT), whole.fitted().energy(POINT))


def test_a_checkpoint_with_other_noise_is_refused(tmp_path: Path) -> None:
    trainer(small(SSM), data_noise=0.3).save(tmp_path / "saved")
    with pytest.raises(InputError, match=r"data_noise = 0.3, this run has 0.0"):
        trainer(small(SSM)).load(tmp_path / "saved")


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "0.3", True])
def test_a_wrong_value_is_named(value: Any) -> None:
    with pytest.raises(InputError, match="data_noise must be a finite number of at least 0, got"):
        SSM().fit(GRBM(2, 3), POINT, steps=1, data_noise=value)
