"""In which numbers is computed."""

import dataclasses
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from baselines.cd import CD
from bism import GRBM
from bism.engine import Trainer
from bism.precision import computing
from bism.state import Info

CPU = torch.device("cpu")


def below_normal() -> bool:
    """Whether the product of two normal numbers is one that no normal number is."""
    return bool(torch.tensor([1e-38]) * torch.tensor([0.1]) != 0)


def test_on_a_cpu_numbers_below_the_normal_ones_are_zero_inside_and_what_they_were_outside() -> None:
    assert below_normal()
    with computing(CPU):
        assert not below_normal()
        with computing(CPU):
            pass
        assert not below_normal()
    assert below_normal()
    with pytest.raises(KeyError), computing(CPU):
        raise KeyError
    assert below_normal()
    torch.set_flush_denormal(True)  # somebody's own choice
    try:
        with computing(CPU):
            pass
        assert not below_normal()
    finally:
        torch.set_flush_denormal(False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiny(CD):
    """Its objective is 1e-39 of float32 numbers."""

    id: ClassVar[str] = "tiny"

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Any
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        loss, carry, info = super().loss(params, batch, noise, carry, hyper)
        return 0 * loss + 1e-38 * torch.full_like(loss, 0.1), carry, info


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_has_no_numbers_that_a_processor_is_slow_with(dtype: torch.dtype) -> None:
    """BiDSM-10 on the Frey faces took four times as long with them."""
    data = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)
    trainer = Trainer(Tiny(), GRBM(2, 3), data, seeds=(0,), batch_size=10, dtype=dtype)
    trainer.run(2)
    assert trainer.mean_objective().item() == (0.0 if dtype == torch.float32 else pytest.approx(1e-39))
    assert below_normal()
