"""How a run shows itself: bars in a terminal, plain lines in a log."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from benchmark.tasks.jobs import Job

Left = Callable[[Mapping[str, int]], str]
_SILENCE_SECONDS = 60  # a log says at least this often that something moves


class Lines:
    """One line per event, for logs.

    left: says how long the rest takes, from the iterations that are done of cells under way.
    """

    def __init__(self, console: Console, jobs: list[Job], left: Left) -> None:
        self.console, self.total, self.ended_count, self.left = console, len(jobs), 0, left
        self.steps, self.rest, self.ask_again = dict[str, int](), "", 0.0
        self.spoke = time.monotonic()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def started(self, job: Job) -> None:
        pass

    def stepped(self, job: Job, step: int, stage: str = "") -> None:
        self.steps.update((cell.id, step) for cell in job.cells)
        if time.monotonic() > self.spoke + _SILENCE_SECONDS:
            self.note(f"{_titled(job, stage)}: {step:,} of {job.config['steps']:,} iterations")

    def doing(self, job: Job, what: str, done: int, total: int) -> None:
        """What a job does beside training, and how far it is with it."""
        if time.monotonic() > self.spoke + _SILENCE_SECONDS:
            self.note(f"{job.title}: {what}, {done:,} of {total:,} steps")

    def ended(self, job: Job, state: str, seconds: float, text: str | None) -> None:
        if state == "retry":
            self.note(f"{job.title}: {text}")
            return
        self.ended_count += 1
        detail = f" ({text})" if text else ""
        self.note(f"[{self.ended_count}/{self.total}] {job.title}: {state}{detail} in {seconds:.0f} s{self._rest()}")

    def _rest(self) -> str:
        began = time.monotonic()
        if began >= self.ask_again:
            self.rest, now = self.left(self.steps), time.monotonic()
            self.ask_again = now + 20 * (now - began)  # of very many jobs it takes a while
        return f", {self.rest}" if self.ended_count < self.total else ""

    def printed(self, job: Job, where: str) -> None:
        """Where the file is with what a job has printed."""
        self.note(f"{job.title}: what it printed is in {where}")

    def note(self, text: str) -> None:
        self.spoke = time.monotonic()
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Left(TimeRemainingColumn):
    """What is left: of a job by how fast it goes, of all by ``Lines.left``, since they differ in cost."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["left"], style="progress.remaining") if "left" in task.fields else super().render(task)


class Bars(Lines):
    """Live bars: one for the whole, one for each running job."""

    def __init__(self, console: Console, jobs: list[Job], left: Left) -> None:
        super().__init__(console, jobs, left)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _Left(),
            console=console,
        )
        self.all = self.progress.add_task("jobs", total=self.total, left="")
        self.rows: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def started(self, job: Job) -> None:
        self.rows[job.cells[0].id] = self.progress.add_task(job.title, total=job.config["steps"])

    def stepped(self, job: Job, step: int, stage: str = "") -> None:
        self.steps.update((cell.id, step) for cell in job.cells)
        row, steps = self.rows[job.cells[0].id], job.config["steps"]
        self.progress.update(row, description=_titled(job, stage), completed=step, total=steps)

    def doing(self, job: Job, what: str, done: int, total: int) -> None:
        row = self.rows[job.cells[0].id]
        self.progress.update(row, description=f"{job.title}: {what}", completed=done, total=total)

    def ended(self, job: Job, state: str, seconds: float, text: str | None) -> None:
        self.progress.remove_task(self.rows.pop(job.cells[0].id))
        super().ended(job, state, seconds, text)
        if state != "retry":
            self.progress.update(self.all, advance=1, left=self.rest if self.ended_count < self.total else "")


def _titled(job: Job, stage: str) -> str:
    return f"{job.title}, {stage}" if stage else job.title


def display(console: Console, jobs: list[Job], left: Left) -> Lines:
    """Bars where the console is a terminal, lines elsewhere."""
    return Bars(console, jobs, left) if console.is_terminal else Lines(console, jobs, left)


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
