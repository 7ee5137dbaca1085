"""Files of results as a place that reports are drawn from, alone or beside a store of one's own."""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.records import reference
from benchmark.records.reference import Reference
from benchmark.records.results import OPEN, Header, Seed, Variant
from bism.errors import InputError, nearest, shown
from reports.results import NoCellsError, Results
from reports.store import LABELS, STUDY
from reports.variants import by_task, called

NAME = "reference"
_JSON = ("symbols", "drawn_as")  # labels that are mappings, and in a store texts
_NOT = {*_JSON, "param", "seeds"}


class ReferenceStore:
    """Files of results, one for each preset, with what ``Store`` offers.

    Attributes:
        files: by suite and preset.
        name: whose they are, as legends and tables say it.
    """

    def __init__(self, files: Mapping[tuple[str, str], Path], name: str = NAME) -> None:
        self.name, self.left_out, self.files = name, set[str](), dict(files)
        self._runs = dict[str, tuple[Variant, Seed]]()
        self._asked = set[tuple[str, str]]()

    @property
    def uri(self) -> str:
        """The files' names: of those that cells were taken from, as long as none were, of all."""
        named = [path.name for of, path in self.files.items() if of in self._asked or not self._asked]
        return f"{self.name}: {', '.join(named)}"

    @property
    def suites(self) -> list[str]:
        """Those that there are files of."""
        return list(dict.fromkeys(suite for suite, _ in self.files))

    def presets(self, suite: str) -> list[str]:
        """Those of a suite."""
        found = [preset for one, preset in self.files if one == suite]
        if not found:
            raise InputError(f"the {self.name} has no suite '{suite}': {nearest(suite, self.suites)}")
        return found

    @functools.cache  # noqa: B019  a store lives as long as its report
    def _read(self, suite: str, preset: str) -> Reference:
        return reference.read(self.files[suite, preset])

    def cells(self, suite: str, preset: str) -> pd.DataFrame:
        """As ``Store.cells``; ``source`` is whose they are."""
        if (suite, preset) not in self.files:
            raise InputError(f"the {self.name} has no preset '{preset}': {nearest(preset, self.presets(suite))}")
        self._asked.add((suite, preset))
        found = self._read(suite, preset)
        rows = [self._row(found.header, variant, seed) for variant in found.variants for seed in variant.seeds]
        frame = pd.DataFrame(rows).astype({"seed": int, "steps": int})
        return by_task(frame, found.header.tasks)

    def _row(self, header: Header, variant: Variant, seed: Seed) -> dict[str, Any]:
        cell = "/".join((header.suite, header.preset, variant.task, variant.variant, str(seed.seed)))
        run = "" if seed.state in OPEN else f"{self.name}/{cell}"
        if run:
            self._runs[run] = variant, seed
        labels = variant.model_dump(exclude=_NOT) | {
            name: json.dumps(getattr(variant, name), ensure_ascii=False) for name in _JSON
        }
        return {
            **dict.fromkeys(LABELS, ""),
            **seed.last,
            "run": run,
            "started": 0,
            **labels,
            "cell": cell,
            "seed": seed.seed,
            "state": seed.state,
            "error": seed.error,
            "preset_label": header.label,
            "command": "; ".join(header.commands),
            "source": self.name,
            **{f"param.{name}": value for name, value in variant.param.items()},
        }

    def holds(self, run: str) -> bool:
        """Whether it is of a cell that was read here."""
        return run in self._runs

    def histories(self, runs: Sequence[str], metric: str) -> pd.DataFrame:
        """As ``Store.histories``; a curve's last value is the one that was measured."""
        rows = [(run, step, value) for run in runs if run in self._runs for step, value in self._curve(run, metric)]
        return pd.DataFrame(rows, columns=["run", "step", "value"]).sort_values(["run", "step"], ignore_index=True)

    def _curve(self, run: str, metric: str) -> Iterable[tuple[int, float]]:
        variant, seed = self._runs[run]
        if metric in seed.curves:
            curve = seed.curves[metric]
            yield from zip(curve.steps, [*curve.values[:-1], seed.last[metric]], strict=True)
        elif metric in seed.last:
            yield variant.steps, seed.last[metric]

    def artifact(self, run: str, prefix: str, folder: Path) -> Path | None:
        """None: pictures are not in these files."""
        return None

    def page(self, suite: str, run: str) -> str:
        """None of them has a page."""
        return ""

    def studies(self, suite: str) -> pd.DataFrame:
        """There are none."""
        return pd.DataFrame(columns=["run", "started", *STUDY])

    def trials(self, suite: str) -> pd.DataFrame:
        """There are none."""
        return pd.DataFrame()

    def reading(self) -> AbstractContextManager[None]:
        """Files say themselves what is wrong with them."""
        return nullcontext()


class Beside:
    """Results of one's own with those of others beside them, whose variants are called "CD-1 (reference)".

    Args:
        everything: also suites and presets that others have alone.
    """

    def __init__(self, own: Results, others: Sequence[ReferenceStore], everything: bool = False) -> None:
        self._own, self._others, self._everything = own, others, everything
        self.left_out, self._met = own.left_out, set[str]()

    @property
    def uri(self) -> str:
        """All of them."""
        return "; ".join([self._own.uri, *(other.uri for other in self._others)])

    @property
    def suites(self) -> list[str]:
        """Those of one's own, and of others where these are wanted too."""
        return list(dict.fromkeys([*self._own.suites, *(name for one in self._wanted for name in one.suites)]))

    @property
    def _wanted(self) -> Sequence[ReferenceStore]:
        return self._others if self._everything else ()

    def presets(self, suite: str) -> list[str]:
        """As ``suites``."""
        holders = [one for one in (self._own, *self._wanted) if suite in one.suites]
        if not holders:
            return self._own.presets(suite)  # which says what there is
        return list(dict.fromkeys(name for one in holders for name in one.presets(suite)))

    def cells(self, suite: str, preset: str) -> pd.DataFrame:
        """All cells; ``source`` is "" of one's own."""
        frames = list[pd.DataFrame]()
        if _has(self._own, suite, preset):
            with suppress(NoCellsError):  # those of others are there still
                frames.append(self._own.cells(suite, preset).assign(source=""))
        for other in self._others:
            if _has(other, suite, preset):
                self._met.add(other.name)
                found = other.cells(suite, preset)
                frames.append(found.assign(variant=[called(name, other.name) for name in found["variant"]]))
        if not frames:
            raise NoCellsError(f"{self.uri}: no cells of suite '{suite}', preset '{preset}'")
        cells = pd.concat(frames, ignore_index=True)
        labels = [name for name in (*LABELS, "data_hash") if name in cells]
        return by_task(cells.assign(**cells[labels].fillna("")), cells["task"])

    @property
    def unmet(self) -> list[str]:
        """Of what stands in no section, since one's own store has nothing like it: what there is."""
        return [
            f"nothing of the {one.name} is drawn, for this store has no preset of it: it has "
            + ", ".join(f"{suite} {preset}" for suite in one.suites for preset in one.presets(suite))
            + "; --suite and --preset name what is to be drawn of it"
            for one in self._others
            if one.name not in self._met
        ]

    def histories(self, runs: Sequence[str], metric: str) -> pd.DataFrame:
        """Of whomever they are."""
        found = [one.histories(theirs, metric) for one, theirs in self._by_holder(runs) if theirs]
        full = [part for part in found if len(part)]
        if not full:
            return pd.DataFrame(columns=["run", "step", "value"])
        return pd.concat(full).sort_values(["run", "step"], ignore_index=True)

    def _by_holder(self, runs: Sequence[str]) -> list[tuple[Results, list[str]]]:
        return [
            (one, [run for run in runs if self._holder(run) is one])
            for one in (self._own, *self._others)
        ]  # fmt: skip

    def _holder(self, run: str) -> Results:
        return next((other for other in self._others if other.holds(run)), self._own)

    def artifact(self, run: str, prefix: str, folder: Path) -> Path | None:
        """One's own have pictures."""
        return self._holder(run).artifact(run, prefix, folder)

    def page(self, suite: str, run: str) -> str:
        """One's own have pages."""
        return self._holder(run).page(suite, run)

    def studies(self, suite: str) -> pd.DataFrame:
        """One's own."""
        return self._own.studies(suite) if suite in self._own.suites else ReferenceStore({}).studies(suite)

    def trials(self, suite: str) -> pd.DataFrame:
        """One's own."""
        return self._own.trials(suite)

    def reading(self) -> AbstractContextManager[None]:
        """Files say themselves what is wrong with them."""
        return self._own.reading()


def _has(store: Results, suite: str, preset: str) -> bool:
    return suite in store.suites and preset in store.presets(suite)


def opened(given: Sequence[str]) -> list[ReferenceStore]:
    """What ``--reference`` names: the files that ship with the package where it names none, else each file, called by
    its name.

    Raises:
        InputError: a file is none of results, or there is none.
    """
    if not given:
        found = reference.shipped()
        if not found:
            raise InputError("this version of the package ships no results; --reference FILE names those of others")
        return [ReferenceStore(found)]
    stores, names = list[ReferenceStore](), set[str]()
    for path in map(Path, given):
        header, name = reference.read(path).header, path.name.removesuffix(reference.ENDING)  # all of it is checked
        if not (name.strip() and name.isprintable()):
            raise InputError(
                f"--reference: variants are called by the name of their file, and {shown(path.name)} has none that can "
                f"be printed: rename it, as ann{reference.ENDING}"
            )
        if name in names:
            raise InputError(
                f"--reference: two files are called {path.name}, and their variants could not be told apart"
            )
        names.add(name)
        stores.append(ReferenceStore({(header.suite, header.preset): path}, name))
    return stores


def alone(given: Sequence[str]) -> ReferenceStore:
    """The files that ``opened`` finds as one place.

    Raises:
        InputError: also where two files are of the same preset.
    """
    found = dict[tuple[str, str], Path]()
    for store in opened(given):
        for place, path in store.files.items():
            if place in found:
                raise InputError(
                    f"--reference: {found[place]} and {path} are both of suite {place[0]}, preset {place[1]}: give one"
                )
            found[place] = path
    return ReferenceStore(found)


def beside(own: Results | None, others: Sequence[ReferenceStore], everything: bool) -> Results:
    """One's own results with those of others, or these alone. ``everything``: see ``Beside``."""
    if own is not None:
        return Beside(own, others, everything)
    return others[0] if len(others) == 1 else Beside(ReferenceStore({}), others, everything=True)
