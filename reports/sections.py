"""What a report is made of: sections of figures, tables and facts."""

import dataclasses
from collections.abc import Mapping, Sequence

import pandas as pd

from reports import terms
from reports.artefact import Artefact


@dataclasses.dataclass(frozen=True)
class Subsection:
    """A part of a section: a heading, facts as (name, value), figures and tables."""

    title: str
    artefacts: Sequence[Artefact] = ()
    facts: Sequence[tuple[str, str]] = ()


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that something was made from: its variant and seed, and its page in MLflow's UI."""

    of: str
    name: str
    page: str


@dataclasses.dataclass(frozen=True)
class Section:
    """What one preset of one suite shows, or how a suite was tuned.

    Attributes:
        preset: None for tuning.
        parts: in the order of a reader's questions.
        missing: the cells that were planned and have no result.
        note: what must be known of all that is shown.
        steps: iterations that were asked for in place of the preset's, if they were.
        diverged: how many cells diverged.
        runs: by id.
        heading: of what is of no suite: the ledger of claims.
    """

    suite: str
    preset: str | None
    parts: Sequence[Subsection]
    missing: pd.DataFrame
    note: str = ""
    steps: int | None = None
    diverged: int = 0
    runs: Mapping[str, Run] = dataclasses.field(default_factory=dict)
    heading: str = ""

    @property
    def artefacts(self) -> list[Artefact]:
        """All figures and tables."""
        return [artefact for part in self.parts for artefact in part.artefacts]

    @property
    def facts(self) -> list[tuple[str, str]]:
        """All facts."""
        return [fact for part in self.parts for fact in part.facts]

    @property
    def name(self) -> str:
        """For files and anchors."""
        if self.heading:
            return self.suite
        if self.preset is None:
            return f"tuning-{self.suite}"
        return f"{self.suite}-{self.preset}" + (f"-steps{self.steps}" if self.steps else "")

    @property
    def title(self) -> str:
        """Its heading."""
        what = "Tuning" if self.preset is None else f"preset {self.preset}"
        return self.heading or f"Suite {self.suite}, {what}{self._instead}"

    @property
    def short(self) -> str:
        """For a list of contents."""
        return self.heading or f"{self.suite}: {'Tuning' if self.preset is None else self.preset}{self._instead}"

    @property
    def _instead(self) -> str:
        return f" with {self.steps:,} iterations" if self.steps else ""

    @property
    def missing_names(self) -> list[str]:
        """For people: "checkerboard CD-5 seed 3 (failed)", "checkerboard DSM seeds 0 to 4 (planned)"."""
        alike = dict[tuple[str, str, str], list[int]]()
        for cell in self.missing.to_dict("records"):
            alike.setdefault((cell["task"], cell["variant"], cell["state"]), []).append(int(cell["seed"]))
        return [f"{task} {variant} seed{'s' if len(seeds) > 1 else ''} {terms.ranges(seeds)} ({state})"
                for (task, variant, state), seeds in alike.items()]  # fmt: skip

    def made_from(self, artefact: Artefact) -> dict[str, list[Run]]:
        """The runs behind a figure or table, by what they are of; the trials of tuning are no one's."""
        found = dict[str, list[Run]]()
        for run in dict.fromkeys(artefact.runs):
            if run in self.runs:
                found.setdefault(self.runs[run].of, []).append(self.runs[run])
        return found


@dataclasses.dataclass(frozen=True)
class Report:
    """All sections, and where and when they were read."""

    sections: Sequence[Section]
    uri: str
    made: str

    @property
    def missing(self) -> int:
        """How many cells have no result."""
        return sum(len(section.missing) for section in self.sections)

    @property
    def diverged(self) -> int:
        """How many cells diverged."""
        return sum(section.diverged for section in self.sections)
