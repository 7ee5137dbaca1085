"""The scaling figure shows the records it is given."""

import json
from pathlib import Path
from typing import Any

import pytest

from bism.errors import InputError
from reports import scaling
from reports.__main__ import main


def record(variant: str, seeds: int, hidden: int, cost: float, **hyper: int) -> dict[str, Any]:
    return {
        "task": f"hidden{hidden}", "variant": variant, "method": "bidsm" if hyper else "dsm", "seeds": seeds,
        "hidden": hidden, "hyper": hyper, "train_ms_per_step": cost, "ceiling_ms_per_step": cost / 4,
    }  # fmt: skip


STEPS = [
    record(f"BiDSM-{n} [K={k}]", 10, 4, 1 + n + k, inner_steps=k, unroll_steps=n)
    for k, n in ((5, 0), (5, 5), (5, 10), (0, 0), (10, 0))
]
SIZES = [record("DSM", seeds, hidden, seeds * hidden) for seeds in (1, 10) for hidden in (4, 16)]


def test_each_panel_varies_one_thing() -> None:
    panels = scaling.draw(scaling.frame(STEPS + SIZES)).axes
    lines = {axes.get_xlabel(): [line.get_xydata().tolist() for line in axes.lines] for axes in panels}  # type: ignore[union-attr]
    assert lines["inner steps K, at N = 0"][0] == [[0, 1], [5, 6], [10, 11]]
    assert lines["unrolled steps N, at K = 5"][0] == [[0, 6], [5, 11], [10, 16]]
    assert [[1, 4], [10, 40]] in lines["seeds"]
    assert [[4, 40], [16, 160]] in lines["hidden units"]
    assert [[4, 10], [16, 40]] in lines["hidden units"]  # the ceiling
    assert all("10 seeds" in axes.get_title() for axes in panels[1:])


def test_other_records_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="seeds"):
        scaling.frame([{"task": "a"}])
    (tmp_path / "bad.json").write_text("{")
    assert main(["scaling", str(tmp_path / "bad.json")]) == 2
    assert "bad.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        "5",
        "[1]",
        "[" * 100_000,
        json.dumps([{**STEPS[0], "hyper": 3}]),
        json.dumps([{**STEPS[0], "seeds": "x"}]),
        json.dumps([{**STEPS[0], "train_ms_per_step": {}}]),
        json.dumps([]),
    ],
    ids=range(7),
)
def test_records_that_are_none_are_one_message(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text(content)
    assert main(["scaling", str(tmp_path / "bad.json"), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_scaling_writes_the_figure(tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text(json.dumps(STEPS + SIZES))
    assert main(["scaling", str(tmp_path / "speed.json"), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
