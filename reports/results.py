"""What reports are drawn from: a tracking store, files of results, or both."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pandas as pd

from bism.errors import InputError


class NoCellsError(InputError):
    """A preset was planned, and no cell of it is left."""


class Results(Protocol):
    """What figures and tables ask of a place that holds results; ``reports.store.Store`` says what each gives.

    A run is "" of cells that were not begun, and its page is "" where there is none to be looked at.
    """

    left_out: set[str]

    @property
    def uri(self) -> str:
        """What it is, for people."""

    @property
    def suites(self) -> list[str]:
        """Those that it has plans or studies of."""

    def presets(self, suite: str) -> list[str]:
        """Those that were planned."""

    def cells(self, suite: str, preset: str) -> pd.DataFrame:
        """A row per cell; with ``source``, whose they are, where that is not who asks.

        Raises:
            NoCellsError: there is none.
        """

    def histories(self, runs: Sequence[str], metric: str) -> pd.DataFrame:
        """run, step, value."""

    def artifact(self, run: str, prefix: str, folder: Path) -> Path | None:
        """A file of a run, if there is one."""

    def page(self, suite: str, run: str) -> str:
        """The address of a run."""

    def studies(self, suite: str) -> pd.DataFrame:
        """A row per study."""

    def trials(self, suite: str) -> pd.DataFrame:
        """A row per trial."""

    def reading(self) -> AbstractContextManager[None]:
        """Inside, what fails is an InputError."""
