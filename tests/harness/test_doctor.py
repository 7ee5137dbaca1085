"""What the doctor says of GPUs, told of ones that are not there."""

import warnings
from typing import Any

import pytest
import torch

from benchmark.commands import doctor

STATE = {"0.W": torch.ones(2)}


def told(monkeypatch: pytest.MonkeyPatch, there: Any, cards: int = 1, tool: str | None = None) -> list[tuple[Any, ...]]:
    """What is said where the CPU's steps end in ``STATE`` and a GPU's in what ``there()`` gives."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6e9, 8e9))
    monkeypatch.setattr(doctor, "prepare_environment", lambda places: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: tool)
    monkeypatch.setattr(doctor, "_trained", lambda device, compile: there() if device.type == "cuda" else STATE)
    return list(doctor._gpus())


def test_a_card_that_works_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said = told(monkeypatch, lambda: {"0.W": torch.ones(2) + 1e-6}, cards=2)
    detail = "Card, 6 of 8 GB free: ten steps compiled, captured and as the CPU's"
    assert said == [("GPU 0", True, detail), ("GPU 1", True, detail)]


def test_one_that_computes_something_else_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (1.1, float("nan")):
        ((_, works, detail),) = told(monkeypatch, lambda wrong=wrong: {"0.W": torch.tensor([1.0, wrong])})
        assert not works
        assert "from where the CPU's do" in detail


def test_one_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise RuntimeError("no kernel image is available\nfor execution")

    (line,) = told(monkeypatch, fails)
    assert line == (
        "GPU 0", False, "cuda:0 does not work: no kernel image is available; docs/gpu.md says which torch fits"
    )  # fmt: skip


def test_one_that_trains_uncompiled_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow() -> Any:
        warnings.warn("training runs uncompiled (slower, same numbers): no Triton", stacklevel=1)
        return STATE

    ((_, works, detail),) = told(monkeypatch, slow)
    assert not works
    assert detail.endswith("training runs uncompiled (slower, same numbers): no Triton")


def test_a_card_that_this_torch_cannot_use_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = told(monkeypatch, None, cards=0, tool="/usr/bin/nvidia-smi")
    assert line[:2] == ("GPUs", False)
    assert "docs/gpu.md" in line[2]
    assert told(monkeypatch, None, cards=0) == [("GPUs", True, "none; everything runs on the CPU")]
