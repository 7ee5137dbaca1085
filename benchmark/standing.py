"""Where the cells of a run directory stand, for people: rankings, and what went wrong."""

from collections.abc import Sequence

from rich.console import Console

from benchmark import ranking, tables, timing
from benchmark.cells import DamagedFile
from benchmark.integrity import Inspected
from benchmark.recovery import recover
from benchmark.rundir import DAMAGED, Record, RunDir


def recovered(console: Console, runs: RunDir) -> list[DamagedFile]:
    """Brings the index up to what lies in the folders, and says what came of it; what belongs to no known cell."""
    notes, unknown = recover(runs)
    for text in [*notes, *(f"damaged: {problem}: of no cell that is known, and left as it is" for problem in unknown)]:
        _say(console, text)
    return unknown


def print_rankings(console: Console, runs: RunDir, records: Sequence[Record], label: str | None) -> None:
    """A table for each task."""
    frame = ranking.results(runs, records)
    for task in [] if frame.empty else frame["task"].unique():
        cells = frame[frame["task"] == task].dropna(axis="columns", how="all")
        metric = next((name for name in ranking.BY if name in cells), None)
        title = f"{task}: {label}" if label else str(task)
        if metric is not None:  # every cell may have diverged
            tables.show(console, ranking.table(ranking.ranking(cells, metric), title, metric, ranking.rules(cells)))
            ended = [
                runs.folder(record.id).config for record in records if record.state == "done" and record.task == task
            ]
            if timed := timing.conditions(ended):
                console.print(f"times: {timed}", markup=False)


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
            "files back from a copy, or train them again with `python -m benchmark run ... --rerun damaged`.",
        )


def _name(record: Record) -> str:
    return f"{record.task} {record.variant} seed {record.seed}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
