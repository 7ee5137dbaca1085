"""A figure or table of the report with all that belongs to it."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

_DECIMALS = 4


@dataclasses.dataclass(frozen=True)
class Table:
    """What is shown as a table: numbers stay numbers, and ``formats`` says how they are written.

    Attributes:
        formats: by column, like "{:.3f}"; other columns are text.
    """

    frame: pd.DataFrame
    formats: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def text(self, column: str, value: Any) -> str:
        """A value as it is written; nothing for what is not known."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        return self.formats[column].format(value).replace("-", "−") if column in self.formats else str(value)

    def is_number(self, column: str) -> bool:
        """Whether a column stands to the right and is sorted by its values."""
        return column in self.formats or self.frame[column].dtype.kind in "if"

    @property
    def written(self) -> pd.DataFrame:
        """All values as they are written."""
        columns = {str(name): [self.text(str(name), value) for value in self.frame[name]] for name in self.frame}
        return pd.DataFrame(columns)


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
    """A format with as many decimals as the smallest of these needs to show so many digits: ``least`` to 4 of them."""
    sizes = np.abs(np.fromiter(values, dtype=float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    decimals = digits - 1 - math.floor(math.log10(sizes.min())) if len(sizes) else least
    return f"{{:{sign},.{min(max(decimals, least), _DECIMALS)}f}}"
