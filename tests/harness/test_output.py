"""What commands print arrives wherever it goes: in any encoding, and where nobody reads it."""

import io
import json
import sys

import pytest

from benchmark.commands.cli import main as benchmark
from reports.__main__ import main as reports

LISTS = {
    **{form: (reports, ["claims", "--list", "--format", form]) for form in ("text", "markdown", "json", "csv")},
    "suite": (benchmark, ["list", "toy2d"]),
}


@pytest.mark.parametrize("form", LISTS)
def test_what_an_encoding_lacks_is_written_in_plain_letters(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command, line = LISTS[form]
    plain, rich = io.TextIOWrapper(io.BytesIO(), "ascii"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    for stream in (plain, rich):
        monkeypatch.setattr(sys, "stdout", stream)
        assert command(line) == 0
        stream.flush()
    said = plain.buffer.getvalue().decode("ascii")
    meant = rich.buffer.getvalue().decode()
    assert said.count("?") == meant.count("?")
    assert said.count("-") >= meant.count("-") + meant.count("−")
    if form == "json":
        as_meant = json.dumps(json.loads(meant), ensure_ascii=False)
        for rich_one, plain_one in {"−": "-", "×": "x", "±": "+-", "≥": ">=", "≤": "<=", "²": "^2"}.items():
            as_meant = as_meant.replace(rich_one, plain_one)
        assert json.loads(said) == json.loads(as_meant)


def test_each_character_has_its_counterpart_or_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    benchmark(["list"])
    print("−1 ± 2 ≥ 3 × 4… “φ” \U0001d465 \udcff", end="")
    stream.flush()
    said = stream.buffer.getvalue().decode("ascii")
    assert said.endswith("-1 +- 2 >= 3 x 4... '\\u03c6' \\U0001d465 \\udcff")


@pytest.mark.parametrize("form", LISTS)
def test_closed_streams_stop_nothing(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command, line = LISTS[form]
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert command(line) == 0
    for name in ("stdout", "stderr"):
        getattr(sys, name).close()  # what stands in for it
