"""The command that times a deep step beside the same step written plainly: its lines, not its times."""

import json
from pathlib import Path

import pytest
import torch

from tests.harness import deep_speed

TINY = ["--width", "1", "--layers", "12", "--hidden", "2", "--batch", "2", "--side", "8", "--steps", "1"]


def test_one_line_alone_and_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep_speed.main([*TINY, "--only", "plain-float32", "--json", str(tmp_path / "deep.json")])
    written = json.loads((tmp_path / "deep.json").read_text())
    (line,) = written["lines"]
    assert (line["name"], line["peak_bytes"], written["batch"], written["side"]) == ("plain-float32", None, 2, 8)
    assert line["images_per_second"] == pytest.approx(2 / line["seconds"])
    assert "plain-float32: " in capsys.readouterr().out


def test_lines_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> deep_speed.Line:
        raise RuntimeError("out of memory")

    found = {"plain-float32": lambda: {"seconds": 0.5}, "package-bf16": fails}
    monkeypatch.setattr(deep_speed, "ways", lambda options: found)
    with pytest.raises(RuntimeError, match="out of memory"):
        deep_speed.main([*TINY, "--json", str(tmp_path / "deep.json")])
    assert [line["name"] for line in json.loads((tmp_path / "deep.json").read_text())["lines"]] == ["plain-float32"]


def test_a_line_that_there_is_not_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        deep_speed.main([*TINY, "--only", "package-tf32"])
    assert (
        "no line package-tf32 on cpu; there are plain-float32, package-float32, package-bf16" in capsys.readouterr().err
    )


@pytest.mark.parametrize("left_on", [False, True])
def test_every_line_is_timed_at_its_own_precision(left_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn

    def way(name: str) -> deep_speed.Line:
        seen[name] = matmul.allow_tf32, cudnn.allow_tf32
        return {"seconds": 1.0}

    names = ("plain-float32", "plain-tf32", "package-float32", "package-tf32", "package-bf16")
    monkeypatch.setattr(deep_speed, "ways", lambda options: {name: lambda name=name: way(name) for name in names})
    with deep_speed.tf32(left_on):
        deep_speed.main(TINY)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (left_on, left_on)
    assert seen == {name: (name.endswith("tf32"),) * 2 for name in names}
