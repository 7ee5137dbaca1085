"""A figure or table of the report with all that belongs to it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure


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
