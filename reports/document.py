"""The report before it takes a form: sections of artefacts, and the files that all forms share."""

import dataclasses
import datetime
import functools
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG

from bism.errors import InputError
from reports import style, words
from reports.artefact import Artefact
from reports.artefacts import IN_ORDER, OF_STUDIES
from reports.store import Store
from reports.studies import ENDED, Studies
from reports.sweep import Sweep

TEMPLATES = Path(__file__).parent / "templates"
_PROVENANCE = {"git_commit": "commit", "torch_version": "torch", "python_version": "Python", "mlflow_version": "MLflow",
               "device": "device", "host": "host", "select": "selection"}  # fmt: skip
_WRITTEN: dict[str, Callable[[str], str]] = {"git_commit": lambda value: value[:12], "select": words.rule}

_CANVASES: dict[str, Any] = {  # by format, with what it must not write: the date, so that the same figure is the same
    "pdf": (FigureCanvasPdf, {"CreationDate": None}),
    "svg": (FigureCanvasSVG, {"Date": None}),
    "png": (FigureCanvasAgg, None),
}


@dataclasses.dataclass(frozen=True)
class Section:
    """What one preset of one suite shows, or how a suite was tuned.

    Attributes:
        preset: None for tuning.
        facts: provenance, as (name, value).
        missing: the cells that were planned and have no result.
        note: what must be known of all that is shown.
    """

    suite: str
    preset: str | None
    facts: Sequence[tuple[str, str]]
    artefacts: Sequence[Artefact]
    missing: pd.DataFrame
    note: str = ""

    @property
    def name(self) -> str:
        """For files and anchors."""
        return f"tuning-{self.suite}" if self.preset is None else f"{self.suite}-{self.preset}"

    @property
    def title(self) -> str:
        """Its heading."""
        return f"Suite {self.suite}, " + ("Tuning" if self.preset is None else f"preset {self.preset}")

    @property
    def short(self) -> str:
        """For a list of contents."""
        return f"{self.suite}: {'Tuning' if self.preset is None else self.preset}"

    @property
    def missing_names(self) -> list[str]:
        """For people: "checkerboard CD-5 seed 3 (failed)"."""
        return [f"{cell['task']} {cell['variant']} seed {cell['seed']} ({cell['state']})"
                for cell in self.missing.to_dict("records")]  # fmt: skip


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


def collect(
    store: Store,
    folder: Path,
    suites: Sequence[str] | None = None,
    presets: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
) -> Report:
    """Everything that the store has, or has of these suites, presets and tasks.

    Each preset is a section of its own, and so is the tuning of a suite.

    Args:
        folder: for files that are fetched from the store.

    Raises:
        InputError: there is nothing of what was asked for.
    """
    sections = []
    for suite in suites or store.suites:
        for preset in store.presets(suite):
            if presets is None or preset in presets:
                sections += _section(Sweep(store, suite, preset, folder, list(tasks) if tasks else None))
        sections += _tuning(Studies(store, suite, presets, tasks))
    if not sections:
        asked = [f"{name} {', '.join(values)}" for name, values in
                 (("suite", suites), ("preset", presets), ("task", tasks)) if values]  # fmt: skip
        raise InputError(
            f"the tracking store has no finished cells{' of ' + '; '.join(asked) if asked else ''}: it has "
            + (
                ", ".join(f"{suite} ({', '.join(store.presets(suite)) or 'studies'})" for suite in store.suites)
                or "no suite"
            )
        )
    made = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return Report(sections, store.uri, made)


def _section(sweep: Sweep) -> list[Section]:
    """The section of a sweep; none where no cell has a result: an empty figure says nothing."""
    if sweep.cells.empty or not (sweep.cells["state"] == "done").any():
        return []
    artefacts = [artefact for module in IN_ORDER for artefact in module.build(sweep)]
    cells, missing = sweep.cells, sweep.missing()
    seeds = cells.groupby(["task", "variant"])["seed"].nunique()
    facts = [
        ("tasks", ", ".join(sweep.tasks)),
        ("cells", f"{len(cells):,}{f', {len(missing):,} missing' if len(missing) else ''}"),
        ("variants", str(cells["variant"].nunique())),
        ("seeds", f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"),
        ("iterations", ", ".join(f"{steps:,}" for steps in sorted(cells["steps"].unique()))),
    ]
    for column, name in _PROVENANCE.items():
        write = _WRITTEN.get(column, str)
        facts.append((name, ", ".join(sorted({write(str(value)) for value in cells[column] if value}))))
    columns = ["task", "variant", "seed", "state", "run"]
    return [Section(sweep.suite, sweep.preset, facts, artefacts, missing[columns].reset_index(drop=True))]


_NOTE = (
    "How hyper-parameters were searched. All values are on validation data, of seeds that are for tuning alone, and "
    'the best is chosen by these very values: they are no results. Those are the preset "tuned" of the suite.'
)


def _tuning(studies: Studies) -> list[Section]:
    """How a suite was tuned; nothing where it has no studies."""
    if not studies.all:
        return []
    artefacts = [artefact for module in OF_STUDIES for artefact in module.build(studies)]
    states = pd.concat([study.trials["state"] for study in studies.all])
    counts = ", ".join(f"{(states == state).sum():,} {state}" for state in ENDED if (states == state).any())
    facts = [("tasks", ", ".join(studies.tasks)), ("studies", f"{len(studies.all):,}"),
             ("trials", f"{len(states):,}{f': {counts}' if counts else ''}")]  # fmt: skip
    for name, attribute in (("preset", "preset"), ("tuning seeds", "seeds"), ("iterations", "steps"),
                            ("sampler", "sampler"), ("pruner", "pruner")):  # fmt: skip
        values = dict.fromkeys(str(getattr(study, attribute)) for study in studies.all)
        facts.append((name, "; ".join(f"{int(text):,}" if text.isdigit() else text for text in values if text)))
    none = pd.DataFrame(columns=["task", "variant", "seed", "state", "run"])
    return [Section(studies.suite, None, facts, artefacts, none, _NOTE)]


def template(name: str, **syntax: Any) -> jinja2.Template:
    """A template of the report; one that names what it is not given fails. syntax: as ``jinja2.Environment``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, **syntax,
    )  # fmt: skip
    environment.globals["words"] = words
    return environment.get_template(name)


def write_files(report: Report, out: Path, images: Iterable[str]) -> None:
    """``data/*.csv`` with every number, ``data/*.npz`` of images, and ``figures/`` in these image formats."""
    for section in report.sections:
        for artefact in section.artefacts:
            name = file_name(section, artefact)
            (out / "data").mkdir(parents=True, exist_ok=True)
            (out / "data" / f"{name}.csv").write_text(csv(artefact))
            if artefact.arrays:
                np.savez_compressed(out / "data" / f"{name}.npz", **artefact.arrays)  # type: ignore[arg-type]
            if artefact.figure is not None:
                (out / "figures").mkdir(parents=True, exist_ok=True)
                for image in images:
                    (out / "figures" / f"{name}.{image}").write_bytes(render(artefact, image))


def file_name(section: Section, artefact: Artefact) -> str:
    """Of an artefact's files, without their ending."""
    return f"{section.name}-{artefact.name}"


def csv(artefact: Artefact) -> str:
    """Every number that an artefact shows."""
    text: str = artefact.numbers.to_csv(index=False)
    return text


@functools.cache
def render(artefact: Artefact, image: str) -> bytes:
    """The figure as a file of this format, drawn once for all forms; fonts are embedded.

    A PNG stands on white, others on what is behind them.
    """
    figure = artefact.figure
    assert figure is not None
    content = io.BytesIO()
    # The canvases are asked directly: `savefig` draws everything twice, and on a large figure legends take seconds.
    with style.look():
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()  # the layout takes most of the time: once is enough
            figure.set_layout_engine("none")
        if image == "png":
            figure.set_dpi(style.PNG_DPI)
        figure.set_facecolor("white" if image == "png" else "none")
        canvas, metadata = _CANVASES[image]
        getattr(canvas(figure), f"print_{image}")(content, metadata=metadata)
    return content.getvalue()
