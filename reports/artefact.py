"""A figure or table of the report with all that belongs to it."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmark.measures import statistics

_DECIMALS, _FAR = 4, 1e6


@dataclasses.dataclass(frozen=True)
class Table:
    """What is shown as a table: numbers stay numbers, and ``formats`` says how they are written.

    Attributes:
        formats: by column, like "{:.3f}"; other columns are text.
        measured: columns whose values have as many digits as the interval of their row leaves them
            (``benchmark.measures.statistics.written``), each with its sign's format: "+" or nothing.
        half_widths: of these intervals, a value for each row.
        long: the column of texts that are broken into lines, if there is one.
    """

    frame: pd.DataFrame
    formats: Mapping[str, str] = dataclasses.field(default_factory=dict)
    measured: Mapping[str, str] = dataclasses.field(default_factory=dict)
    half_widths: Sequence[float] | pd.Series = ()
    long: str = ""

    def is_number(self, column: str) -> bool:
        """Whether a column stands to the right and is sorted by its values."""
        return column in self.formats or column in self.measured or self.frame[column].dtype.kind in "if"

    @functools.cached_property
    def written(self) -> pd.DataFrame:
        """All values as they are written; nothing for what is not known."""
        return pd.DataFrame({str(name): self._column(str(name)) for name in self.frame})

    def _column(self, name: str) -> list[str]:
        halves = self.half_widths if name in self.measured else [math.nan] * len(self.frame)
        return [self._text(name, value, half) for value, half in zip(self.frame[name], halves, strict=True)]

    def _text(self, name: str, value: Any, half_width: float) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if name in self.measured:
            text = statistics.written(value, half_width, self.measured[name])
        else:
            text = self.formats[name].format(value) if name in self.formats else str(value)
        return text.replace("-", "−") if self.is_number(name) else text


@dataclasses.dataclass(frozen=True, eq=False)
class Artefact:
    """One figure or table.

    Attributes:
        name: of its files; unique in a report.
        caption: plain text, a paragraph.
        alt: the figure in words, for those who cannot see it.
        numbers: every number that is shown, and more: the CSV file.
        arrays: what is shown as images, in a file beside the CSV file.
        runs: the MLflow runs that it was made from.
        missing: how many cells it lacks.
    """

    name: str
    title: str
    caption: str
    numbers: pd.DataFrame
    runs: Sequence[str]
    missing: int = 0
    figure: Figure | None = None
    alt: str = ""
    table: Table | None = None
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def width(self) -> float:
        """Of the figure, in inches."""
        return float(self.figure.get_figwidth()) if self.figure is not None else 0.0


def fixed(values: Iterable[float], digits: int = 2, least: int = 0, sign: str = "") -> str:
    """A format with as many decimals as the smallest of these needs to show so many digits: ``least`` to 4 of them; an
    exponent where these do not show the largest either, or where that ran away to a million and more."""
    sizes = np.abs(np.fromiter(values, dtype=float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if len(sizes) and sizes.max() < 10.0 ** (digits - 1 - _DECIMALS):
        return f"{{:{sign}.{digits - 1}e}}"
    decimals = digits - 1 - math.floor(math.log10(sizes.min())) if len(sizes) else least
    if decimals > 0 and sizes.max(initial=0.0) >= _FAR:
        return f"{{:{sign}.{digits}g}}"
    return f"{{:{sign},.{min(max(decimals, least), _DECIMALS)}f}}"
