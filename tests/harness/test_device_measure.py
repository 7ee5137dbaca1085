"""The script that measures on a GPU keeps what it has, whatever became of its parts."""

import json
from pathlib import Path

from tests.gpu.measure import table


def test_a_part_that_was_ended_while_it_wrote_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / "sampling.json").write_text(json.dumps({"plain-float32": {"ms_per_step": 3.675, "peak_bytes": 0}}))
    (tmp_path / "speed-table.json").touch()
    (tmp_path / "deep-plain-float32.json").write_text("[{")
    text = table(tmp_path, "cpu", {"speed-table": "ended after 60 s"}, {})
    assert "| plain-float32 | 3.67" in text or "| plain-float32 | 3.68" in text
    assert "- speed-table: ended after 60 s" in text
