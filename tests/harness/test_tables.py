"""Tables at every width: no column is lost and no number is cut."""

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.system import tables

NUMBERS = ["-18907.123", "0.343 ± 0.001", "2.25", "123,456"]
HEADINGS = ["test/log_likelihood", "95% interval", "s per seed", "ms per seed and step"]
NAMES = ["BiDSM-5 [K=10, lr=0.001, steps=400]", "SM"]


def printed(width: int) -> list[str]:
    table = Table("method", title="digits: a smoke ranking, not a result", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for name in NAMES:
        table.add_row(Text(name), *NUMBERS)
    out = io.StringIO()
    tables.show(Console(file=out, width=width), table)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 140, 1000])
def test_nothing_is_cut_at_any_width(width: int) -> None:
    lines = printed(width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    for number in NUMBERS:
        assert text.count(number) == len(NAMES)
    words = text.replace("│", " ").split()
    for heading in HEADINGS:
        for word in heading.split():
            assert any(word == found.rstrip(":") for found in words), (word, width)


def test_a_wide_table_is_not_wider_than_it_must_be() -> None:
    assert max(map(len, printed(1000))) == max(map(len, printed(140))) < 140
    assert any(NAMES[0] in line for line in printed(140))


def test_names_wrap_before_rows_are_stacked() -> None:
    assert any(line.startswith("│ SM ") for line in printed(80))
    assert not any(NAMES[0] in line for line in printed(80))
    assert NAMES[0] in printed(50)
    assert f"  {HEADINGS[0]}: {NUMBERS[0]}" in printed(50)


@pytest.mark.parametrize("width", [40, 60, 1000])
def test_a_paragraph_is_broken_at_words_and_its_further_lines_stand_deeper(width: int) -> None:
    out, text = io.StringIO(), "task [one]: " + " ".join(["some words of a paragraph"] * 6)
    tables.say(Console(file=out, width=width), text, 2)
    first, *others = out.getvalue().splitlines()
    assert max(len(first), *map(len, others), 0) <= width
    assert first.startswith("  task [one]: some")
    assert bool(others) == (width < 1000)
    assert all(line.startswith(" " * 6) and line[6] != " " for line in others)
    assert " ".join(out.getvalue().split()) == text


@pytest.mark.parametrize(
    ("numbers", "text"), [([0, 1, 2, 5], "0-2,5"), ([7], "7"), ([3, 1, 3, 2], "1-3"), ([0, 2, 4], "0,2,4"), ([], "")]
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert tables.ranges(numbers) == text
