"""What a GPU can do that a CPU cannot: run out of its memory, round its products, be one of several."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from baselines import DSM
from bism import GRBM, InputError
from bism.engine import Trainer
from bism.errors import out_of_memory
from tests.gpu.device import DEVICE, gpu_alone, on_the_device
from tests.harness.tiny import cell, command, replaced, states, write

pytestmark = on_the_device
FOUND = torch.cuda.device_count()


def points(count: int = 500, units: int = 64) -> Tensor:
    return torch.rand(count, units, generator=torch.Generator().manual_seed(3))


def trained(precision: str, steps: int = 20) -> Trainer:
    mine = Trainer(
        DSM(lr=1e-3), GRBM(64, 128), points(), seeds=(0, 1), batch_size=64, device=DEVICE, precision=precision
    )
    mine.run(steps)
    return mine


# --- precision --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["tf32 off", "tf32 left on"])
def left(request: pytest.FixtureRequest) -> Iterator[bool]:
    """What somebody has left the flags at."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = request.param
    yield request.param
    matmul.allow_tf32, cudnn.allow_tf32 = before


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@gpu_alone
def test_tf32_is_a_choice_and_not_what_was_left_on(left: bool) -> None:
    exact, rounded = trained("float32"), trained("tf32")
    assert flags() == (left, left)
    found, expected = rounded.objective_on(points(200)), exact.objective_on(points(200))
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    on_the_cpu = Trainer(DSM(lr=1e-3), GRBM(64, 128), points(), seeds=(0, 1), batch_size=64)
    on_the_cpu.run(20)
    torch.testing.assert_close(expected.cpu(), on_the_cpu.objective_on(points(200)), rtol=1e-5, atol=0)
    assert flags() == (left, left)


def test_bf16_is_close_and_said() -> None:
    found, expected = trained("bf16"), trained("float32")
    assert (found.checkpoint()["precision"], expected.checkpoint()["precision"]) == ("bf16", "float32")
    assert not torch.equal(found.objective_on(points(200)), expected.objective_on(points(200)))
    torch.testing.assert_close(found.objective_on(points(200)), expected.objective_on(points(200)), rtol=3e-2, atol=0)


# --- memory -----------------------------------------------------------------------------------------------------------


@gpu_alone
@pytest.mark.parametrize("compiled", [False, True])
def test_want_of_memory_is_said_and_not_fallen_back_from(compiled: bool) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.02, DEVICE)
    try:
        with pytest.raises(Exception, match="out of memory") as caught:  # of a fallback the tests here make an error
            Trainer(DSM(), GRBM(64, 4096), points(), seeds=[0], batch_size=1 << 18, device=DEVICE, compile=compiled)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)
        torch.cuda.empty_cache()
    assert out_of_memory(caught.value)
    trained("float32", 1)  # the card is as good as before


@gpu_alone
def test_a_job_that_cannot_fit_says_so(tmp_path: Path) -> None:
    text = replaced(("{name: grbm, hidden: 3}", "{name: grbm, hidden: 512}\n    batch_size: 134217728"))
    write(tmp_path, text)
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--devices", DEVICE, "--methods", "cd")
    assert said.code == 1
    assert "out of memory with 2 seeds at once, tried again with half" in said.out
    assert "training runs" not in said.out
    assert set(states(tmp_path).values()) == {"failed"}
    assert "OutOfMemoryError" in str(cell(tmp_path, "CD-1", 0).error)


# --- cards that are not there -----------------------------------------------------------------------------------------


def test_a_card_that_is_not_there_is_refused_with_a_sentence(tmp_path: Path) -> None:
    write(tmp_path)
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--devices", f"cuda:{FOUND}")
    there = f"there is no GPU {FOUND} here ({FOUND} found)"
    assert (said.code, said.err) == (2, f"error: --devices cuda:{FOUND}: {there}\n")
    with pytest.raises(InputError, match=f"^device cuda:{FOUND}: there is no GPU {FOUND} here .{FOUND} found.$"):
        Trainer(DSM(), GRBM(64, 2), points(), seeds=[0], device=f"cuda:{FOUND}")


@gpu_alone
def test_the_last_card_is_worked_on_whichever_is_current() -> None:
    mine = Trainer(DSM(), GRBM(64, 8), points(), seeds=[0], device=f"cuda:{FOUND - 1}")
    mine.run(12)
    assert mine.captured
    assert torch.cuda.current_device() == 0
    assert mine.objective_on(points(200)).device.index == FOUND - 1
