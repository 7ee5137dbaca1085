"""Where the cells of a run directory stand, for people: rankings, and what went wrong."""

from collections.abc import Sequence

from rich.console import Console

from benchmark.measures import ranking
from benchmark.records.cells import DamagedFile
from benchmark.records.integrity import Inspected
from benchmark.records.metrics import ranked_by
from benchmark.records.recovery import recover
from benchmark.records.rundir import DAMAGED, FINISHED, Record, RunDir
from benchmark.running import timing
from benchmark.system import tables
from benchmark.system.invocation import call


def recovered(console: Console, runs: RunDir) -> list[DamagedFile]:
    """Brings the index up to what lies in the folders, and says what came of it; what belongs to no known cell."""
    notes, unknown = recover(runs)
    for text in [*notes, *(f"damaged: {problem}: of no cell that is known, and left as it is" for problem in unknown)]:
        _say(console, text)
    return unknown


def print_rankings(
    console: Console, runs: RunDir, records: Sequence[Record], preset: str = "", *, advised: bool = False
) -> None:
    """A ranking for each task and number of iterations, below which stands how it was timed and what to think of.

    preset: stands in the titles.
    advised: what there is to think of has been said already.
    """
    for asked, group in ranking.apart(records):
        frame = ranking.results(runs, group)
        for task in [] if frame.empty else frame["task"].unique():
            cells = frame[frame["task"] == task].dropna(axis="columns", how="all")
            metric = ranked_by(cells)
            if metric is None:
                tables.say(console, f"{ranking.heading(task, asked, preset)}: {ranking.unranked(cells)}")
                continue
            ended = [
                runs.folder(record.id).config for record in group if record.state in FINISHED and record.task == task
            ]
            label = ", ".join(filter(None, [preset, *ranking.labels(ended, "preset_label")]))
            title, rule = ranking.heading(task, asked, label), ranking.rules(cells, metric)
            tables.show(console, ranking.table(ranking.ranking(cells, metric), title, metric, rule))
            if timed := ranking.conditions(ended):
                console.print(f"times: {timed}", markup=False)
            if went := timing.spent(ended):
                tables.say(console, f"the jobs took {went}")
            for text in [] if advised else ranking.labels(ended, "advice"):
                tables.say(console, f"note: {text}")


def print_stages(console: Console, runs: RunDir, records: Sequence[Record]) -> None:
    """In which stage those cells are under way whose methods have several, by their last checkpoints."""
    for record in records:
        stage = runs.folder(record.id).config.get("stage") if record.state == "running" and record.progress else None
        if stage:
            _say(console, f"running: {_name(record)}: {record.progress:,} of {record.steps:,} iterations, {stage}")


def print_problems(console: Console, runs: RunDir, known: Inspected) -> int:
    """Lists cells that ended badly, and what is damaged; the exit code: 0 where all are done and whole."""
    for record in known.records:
        if record.state in ("diverged", "failed", "stopped"):
            more = f"; see {runs.folder(record.id).path / 'error.txt'}" if record.state == "failed" else ""
            _say(console, f"{record.state}: {_name(record)}: {record.message or '-'}{more}")
    print_damage(console, known)
    return 0 if all(record.state == "done" for record in known.records) and not known.damage else 1


def print_damage(console: Console, known: Inspected) -> None:
    """Lists the files that are damaged, and says how they can be mended."""
    for record in known.records:
        for problem in known.damage.get(record.id, ()):
            mends = "" if record.state == DAMAGED else "; the next run goes on from what is whole"
            _say(console, f"damaged: {_name(record)}: {problem}{mends}")
    if any(record.state == DAMAGED for record in known.records):
        _say(
            console,
            "Finished cells that are damaged are in no ranking and are not trained again by themselves: put their "
            f"files back from a copy, or train them again with `{call('benchmark', 'run ... --rerun damaged')}`.",
        )


def _name(record: Record) -> str:
    return f"{record.task} {record.variant} seed {record.seed}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
