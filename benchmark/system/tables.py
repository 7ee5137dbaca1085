"""Tables that fit where they are printed: names and headings wrap, numbers are never cut, and where the columns do not
fit beside each other the cells of a row stand below each other."""

import os
import sys
from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WORD = 24  # characters: longer words of a text may be folded
_HANGING = 4  # columns
_LOG_WIDTH = 120  # columns, where the output is no terminal


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leaves it to the command that the reader has gone: rich would end the process."""
        raise


def console() -> Console:
    """Where a command prints: as wide as the terminal, or as ``COLUMNS`` says."""
    return _Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _LOG_WIDTH, highlight=False)


def show(console: Console, table: Table) -> None:
    """Prints a table whose numbers are in columns justified to the right; stacked where the console is narrow."""
    rows = [[_text(cell) for cell in column.cells] for column in table.columns]
    headings = [_text(column.header) for column in table.columns]
    numeric = [column.justify == "right" for column in table.columns]
    natural = [max([_width(heading), *map(_width, cells)]) for heading, cells in zip(headings, rows, strict=True)]
    least = [
        max(_longest(heading), *(map(_width, cells) if number else map(_longest, cells)), 1)
        for heading, cells, number in zip(headings, rows, numeric, strict=True)
    ]
    least = [min(a, b) for a, b in zip(least, natural, strict=True)]
    room = console.width - _frame(table)
    if sum(least) <= room:
        for column, width in zip(table.columns, _shared(natural, least, room), strict=True):
            column.width, column.min_width, column.no_wrap, column.overflow = width, None, False, "fold"
        console.print(table)
        return
    if table.title:
        console.print(table.title)
    for cells in zip(*rows, strict=True):
        _stack(console, headings, list(cells))
    if table.caption:
        console.print(table.caption)


def say(console: Console, text: str, indent: int = 0, bold: str = "") -> None:
    """Prints a paragraph that is broken at words where the console ends, its further lines deeper than the first.

    bold: a part of the text.
    """
    found, more = Text(text), " " * (indent + _HANGING)
    lines = found.wrap(console, max(console.width - len(more), _WORD))
    for line in lines:
        line.rstrip()
    whole = Text(" " * indent) + Text(f"\n{more}").join(lines)
    if bold:
        whole.highlight_words([bold], "bold")
    console.print(whole, highlight=False, soft_wrap=True)


def _stack(console: Console, headings: list[Text], cells: list[Text]) -> None:
    """One row: its first cell, and below it the others with their headings."""
    console.print(cells[0])
    for heading, cell in zip(headings[1:], cells[1:], strict=True):
        if cell.plain:
            console.print(Text("  ") + heading + Text(": " if heading.plain else "") + cell)


def _shared(natural: list[int], least: list[int], room: int) -> list[int]:
    """The columns' widths: as they would be if there is room, else what is left over the least in equal steps."""
    widths = [min(a, b) for a, b in zip(natural, least, strict=True)]
    left = min(room, sum(natural)) - sum(widths)
    while left > 0:
        wanting = [i for i, width in enumerate(widths) if width < natural[i]]
        for i in sorted(wanting, key=lambda i: widths[i])[:left]:
            widths[i] += 1
            left -= 1
    return widths


def _frame(table: Table) -> int:
    """What borders and padding take."""
    padding = sum(table.padding[1::2]) * len(table.columns)
    return padding + (len(table.columns) + 1 if table.box else 0)


def _text(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text.from_markup(str(cell))


def _width(text: Text) -> int:
    return max((cell_len(line) for line in text.plain.splitlines()), default=0)


def _longest(text: Text) -> int:
    """The longest word, as far as words must stay whole."""
    return min(_WORD, max((cell_len(word) for word in text.plain.split()), default=0))


def ranges(numbers: Iterable[int]) -> str:
    """ "0-4,7" for 0, 1, 2, 3, 4 and 7."""
    parts = list[list[int]]()
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def counted(count: int, noun: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
