"""The report before it takes a form: what goes into its sections, and the files that all forms share."""

import datetime
import functools
import io
import re
import zlib
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
from reports import hover, style, terms
from reports.artefact import Artefact
from reports.artefacts import IN_ORDER, OF_STUDIES, RUN, SUMMARY
from reports.claims import LEDGER, PARTS, artefacts, judge
from reports.claims.choosing import shown_in
from reports.claims.claim import Claim
from reports.claims.verdict import NOT_MEASURED
from reports.progress import silent
from reports.results import NoCellsError, Results
from reports.sections import Report, Run, Section, Subsection
from reports.studies import ENDED, Studies
from reports.sweep import Sweep

TEMPLATES = Path(__file__).parent / "templates"
_PROVENANCE = {"git_commit": "commit", "torch_version": "torch", "python_version": "Python", "mlflow_version": "MLflow"}
_LONGEST = 120  # characters of a file's name
_WRITTEN: dict[str, Callable[[str], str]] = {"git_commit": lambda value: value[:12]}

_CANVASES: dict[str, Any] = {  # by format, with what it must not write: the date, so that the same figure is the same
    "pdf": (FigureCanvasPdf, {"CreationDate": None}),
    "svg": (FigureCanvasSVG, {"Date": None}),
    "png": (FigureCanvasAgg, None),
}


def collect(
    store: Results,
    folder: Path,
    suites: Sequence[str] | None = None,
    presets: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    say: Callable[[str], None] = silent,
) -> Report:
    """Everything that the store has, or has of these suites, presets, tasks and methods.

    Each preset is a section of its own; so are its runs with other numbers of iterations, and the tuning of a suite.

    Args:
        folder: for files that are fetched from the store.
        say: is told what is begun.

    Raises:
        InputError: there is nothing of what was asked for.
    """
    sections = []
    for suite in suites or store.suites:
        order = list[str]()  # of tasks
        for preset in store.presets(suite):
            if presets is None or preset in presets:
                say(f"{suite}, {preset}: reading the store")
                try:
                    own = Sweep(store, suite, preset, folder, tasks, methods)
                except NoCellsError:  # a plan of which no cell is left
                    continue
                order += own.tasks
                others = [Sweep(store, suite, preset, folder, tasks, methods, steps) for steps in own.others]
                sections += [section for sweep in (own, *others) for section in _section(sweep, say)]
        say(f"{suite}: studies")
        sections += _tuning(Studies(store, suite, presets, tasks, methods, order))
    if not sections:
        asked = [f"{name} {', '.join(values)}" for name, values in
                 (("suite", suites), ("preset", presets), ("task", tasks), ("method", methods)) if values]  # fmt: skip
        raise InputError(
            f"{store.uri} has no finished cells{' of ' + '; '.join(asked) if asked else ''}: it has "
            + (
                ", ".join(f"{suite} ({', '.join(store.presets(suite)) or 'studies'})" for suite in store.suites)
                or "no suite"
            )
        )
    say("claims")
    sections = [*_ledger(store, sections, shown_in(LEDGER, suites, presets, tasks, methods)), *sections]
    made = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return Report(sections, store.uri, made)


def _section(sweep: Sweep, say: Callable[[str], None]) -> list[Section]:
    """The section of a sweep; none where no cell has a result: an empty figure says nothing."""
    if sweep.cells.empty or not (sweep.cells["state"] == "done").any():
        return []

    def built(module: Any) -> list[Artefact]:
        say(f"{sweep.suite}, {sweep.preset}: {module.__name__.rpartition('.')[2]}")
        return list(module.build(sweep))

    summary, run, results = (
        [artefact for module in modules for artefact in built(module)] for modules in (SUMMARY, RUN, IN_ORDER)
    )
    label = _label(sweep)
    for artefact in (*summary, *results):
        if label and artefact.figure is not None:
            style.say(artefact.figure, terms.capital(label))
    parts = [
        Subsection("Summary", summary),
        Subsection("What was run", run, _what(sweep)),
        Subsection("Figures", [artefact for artefact in results if artefact.figure is not None]),
        Subsection("Tables", [artefact for artefact in results if artefact.figure is None]),
        Subsection("Provenance", [], _provenance(sweep)),
    ]
    columns = ["task", "variant", "seed", "state", "run"]
    return [
        Section(
            sweep.suite,
            sweep.preset,
            [part for part in parts if part.artefacts or part.facts],
            sweep.missing()[columns].reset_index(drop=True),
            " ".join(
                filter(
                    None,
                    (
                        f"{terms.capital(label)}." if label else "",
                        _whose(sweep),
                        _others(sweep),
                        _superseded(sweep),
                        *_mixed(sweep),
                        *_advice(sweep),
                    ),
                )
            ),
            steps=sweep.steps,
            diverged=int((sweep.cells["state"] == "diverged").sum()),
            runs=_runs(sweep),
        )
    ]


def _ledger(store: Results, sections: Sequence[Section], claims: Sequence[Claim]) -> list[Section]:
    """What the runs say of these claims, where something of them is measured."""
    ledger = judge(claims, store, len(LEDGER))
    if all(judged.verdict == NOT_MEASURED for judged in ledger):
        return []
    none = pd.DataFrame(columns=["task", "variant", "seed", "state", "run"])
    runs = {name: run for section in sections for name, run in section.runs.items()}
    parts = [Subsection("Verdicts of these runs", list(artefacts.build(ledger, PARTS, len(LEDGER))))]
    return [Section("claims", None, parts, none, artefacts.NOTE, runs=runs, heading="Do the claims hold?")]


def _label(sweep: Sweep) -> str:
    """What a preset says of itself; those named "quick" of older stores are smoke rankings, too."""
    said = [str(label) for label in sweep.cells["preset_label"] if label]
    return said[0] if said else "a smoke ranking, not a result" if sweep.preset == "quick" else ""


def _whose(sweep: Sweep) -> str:
    """Whose results are shown, where not all of them are one's own."""
    others = [source for source in sweep.sources if source]
    if not others:
        return ""
    if "" in sweep.sources:
        marks = " and ".join(f'"({source})"' for source in others)
        return f"Variants marked {marks} are results of others, trained elsewhere; all the rest are your own."
    return f"All of these are results of others ({', '.join(others)}), trained elsewhere: none is your own."


def _superseded(sweep: Sweep) -> str:
    if not sweep.superseded:
        return ""
    return (
        f"{terms.counted(sweep.superseded, 'cell')} of an earlier version of the suite, by name and seed the same as "
        f"later ones, {'is' if sweep.superseded == 1 else 'are'} left out."
    )


def _mixed(sweep: Sweep) -> list[str]:
    """Tasks whose data changed between runs: their averages are of neither."""
    known = sweep.cells[sweep.cells["data_hash"] != ""]
    return [
        f"Task {task}: its runs are of {found.nunique()} data sets of different content (hashes beginning with "
        f"{', '.join(sorted({str(name)[:8] for name in found}))}), and averages mix them: a store for each keeps them "
        f"apart."
        for (_, task), found in known.groupby(["source", "task"], sort=False)["data_hash"]
        if found.nunique() > 1
    ]


def _advice(sweep: Sweep) -> list[str]:
    """What is to be thought of with the results of a task: data that are far from where models start."""
    told = dict.fromkeys(zip(sweep.cells["task"], sweep.cells["advice"], strict=True))
    return [f"Task {task}: {text}." for task, text in told if text]


def _others(sweep: Sweep) -> str:
    if sweep.steps:
        return f"Trained for {sweep.steps:,} iterations in place of the preset's: ranked and compared apart from them."
    if sweep.others:
        lengths = " and ".join(f"{steps:,}" for steps in sweep.others)
        return f"Runs of this preset with {lengths} iterations have a section of their own."
    return ""


def _what(sweep: Sweep) -> list[tuple[str, str]]:
    cells, missing = sweep.cells, len(sweep.missing())
    seeds = cells.groupby(["task", "variant"])["seed"].nunique()
    return [
        *_by_source(sweep, "command", _commands),
        ("suite and preset", f"{sweep.suite}, {sweep.preset}"),
        ("tasks", ", ".join(sweep.tasks)),
        ("cells", f"{len(cells):,}{f', {missing:,} missing' if missing else ''}"),
        ("variants", str(cells["variant"].nunique())),
        ("seeds", f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"),
        ("iterations", ", ".join(f"{steps:,}" for steps in sorted(cells["steps"].unique()))),
        ("selection", _values(cells["select"], terms.rule)),
        *_by_source(sweep, "machine", _machines),
    ]


def _commands(cells: pd.DataFrame) -> str:
    found = [command for command in cells.get("command", pd.Series(dtype=object)).dropna() if command]
    return "; ".join(dict.fromkeys(found))


def _machines(cells: pd.DataFrame) -> str:
    return ", ".join(filter(None, (_values(cells[name]) for name in ("host", "machine", "device"))))


def _provenance(sweep: Sweep) -> list[tuple[str, str]]:
    return [
        fact
        for column, name in _PROVENANCE.items()
        for fact in _by_source(sweep, name, functools.partial(_written, column))
    ]


def _written(column: str, cells: pd.DataFrame) -> str:
    return _values(cells[column], _WRITTEN.get(column, str))


def _by_source(sweep: Sweep, name: str, of: Callable[[pd.DataFrame], str]) -> list[tuple[str, str]]:
    """A fact, of one's own cells and of those of others by themselves."""
    return [
        (f"{name} ({source})" if source else name, of(sweep.cells[sweep.cells["source"] == source]))
        for source in sweep.sources
    ]


def _values(column: pd.Series, write: Callable[[str], str] = str) -> str:
    return ", ".join(sorted({write(str(value)) for value in column if value}))


def _runs(sweep: Sweep) -> dict[str, Run]:
    several, found = len(sweep.tasks) > 1, {}
    for cell in sweep.cells[sweep.cells["run"] != ""].to_dict("records"):
        page = sweep.store.page(sweep.suite, cell["run"])
        if not page:
            continue
        of = f"{cell['variant']}, {cell['task']}" if several else str(cell["variant"])
        found[cell["run"]] = Run(of, f"seed {cell['seed']}", page)
    return found


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
        facts.append((name, "; ".join(f"{int(text):,}" if text.isdecimal() else text for text in values if text)))
    none = pd.DataFrame(columns=["task", "variant", "seed", "state", "run"])
    parts = [Subsection("What was run", [], facts), Subsection("What was found", artefacts)]
    return [Section(studies.suite, None, parts, none, _NOTE)]


def template(name: str, **syntax: Any) -> jinja2.Template:
    """A template of the report; one that names what it is not given fails. syntax: as ``jinja2.Environment``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, **syntax,
    )  # fmt: skip
    environment.globals["terms"] = terms
    return environment.get_template(name)


def write_files(report: Report, out: Path, images: Iterable[str], say: Callable[[str], None] = silent) -> None:
    """``data/*.csv`` with every number, ``data/*.npz`` of images, and ``figures/`` in these image formats."""
    for section in report.sections:
        for artefact in section.artefacts:
            name = file_name(section, artefact)
            say(f"writing {name}")
            (out / "data").mkdir(parents=True, exist_ok=True)
            (out / "data" / f"{name}.csv").write_text(csv(artefact))
            if artefact.arrays:
                np.savez_compressed(out / "data" / f"{name}.npz", **artefact.arrays)  # type: ignore[arg-type]
            if artefact.figure is not None:
                (out / "figures").mkdir(parents=True, exist_ok=True)
                for image in images:
                    (out / "figures" / f"{name}.{image}").write_bytes(render(artefact, image))


def file_name(section: Section, artefact: Artefact) -> str:
    """Of an artefact's files, without their ending: names of presets and tasks as file systems and pages take them."""
    name = f"{section.name}-{artefact.name}"
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:_LONGEST]
    return plain if plain == name else f"{plain}-{zlib.crc32(name.encode()):08x}"


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
        style.as_written(figure)
        hover.mark(figure)
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()  # the layout takes most of the time: once is enough
            figure.set_layout_engine("none")
        if image == "png":
            figure.set_dpi(style.PNG_DPI)
        figure.set_facecolor("white" if image == "png" else "none")
        canvas, metadata = _CANVASES[image]
        getattr(canvas(figure), f"print_{image}")(content, metadata=metadata)
    return content.getvalue()
