"""The supervisor: a process for each job, on cores and devices that are booked once; what breaks takes only itself
along, and what is stopped goes on from its checkpoint."""

import contextlib
import dataclasses
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from benchmark.data.datasets import DataSet
from benchmark.records.cells import DamagedFile
from benchmark.records.integrity import seal
from benchmark.records.rundir import RunDir, Timing
from benchmark.running import timing
from benchmark.running.executors import DeviceSlots, Executor, Worker
from benchmark.system import output
from benchmark.tasks.jobs import Job
from bism.errors import first_line

_LISTEN_SECONDS = 1.0  # at most, between looks at the clock
_STOP_SECONDS = 60.0  # for a job to write its checkpoint when it is asked to end
_RETRIES = 2  # of a job that was killed without having come further


class Listener(Protocol):
    """Who is told how the jobs go."""

    def started(self, job: Job) -> None: ...
    def stepped(self, job: Job, step: int, stage: str = "") -> None: ...
    def doing(self, job: Job, what: str, done: int, total: int) -> None: ...
    def ended(self, job: Job, state: str, seconds: float, text: str | None) -> None: ...
    def printed(self, job: Job, where: str) -> None: ...
    def note(self, text: str) -> None: ...


@dataclasses.dataclass
class _Waiting:
    """A job that is to be started.

    alone: beside no other one on its device, since it ran out of memory or was killed beside others.
    fresh: from the start, whatever checkpoints are there.
    retries: how often it may still be killed without having come further.
    claimed: whether its cells are ours already.
    """

    job: Job
    fresh: bool
    alone: bool = False
    retries: int = _RETRIES
    claimed: bool = False


@dataclasses.dataclass
class _Running:
    planned: _Waiting
    place: DeviceSlots
    worker: Worker
    started: float
    heard: float
    beside: int = 0
    importing: str = ""
    timed: dict[str, Any] | None = None
    saved: int | None = None
    hung: bool = False
    outcome: tuple[Any, ...] | None = None
    states: dict[str, tuple[str, str | None]] = dataclasses.field(default_factory=dict)

    @property
    def job(self) -> Job:
        return self.planned.job

    @property
    def when(self) -> str:
        """What its process was at, where that is a user's code."""
        return f" while {self.importing} was imported" if self.importing else ""

    @property
    def beside_others(self) -> bool:
        return self.beside > 0 or self.place.engine


class Supervisor:
    """Runs jobs until all have ended, each in a process of its own.

    A job's cells are claimed when it starts: what another process trains or has finished meanwhile is left out. A job
    that runs out of memory is tried again alone on its device, then as two jobs with half of its seeds each. One that
    is killed goes on from its checkpoint; killed again without having come further it is tried alone on its device,
    since the system's guard against running out of memory kills like anybody else, and then no more. One that raises is
    recorded as failed. One that gives no sign of life is killed and recorded as failed.

    Args:
        again: train finished cells too, from the start.
        stall_seconds: without a sign of life, after which a job is taken to hang.
        tick: called now and then.
    """

    def __init__(
        self,
        data: dict[str, DataSet],
        run_dir: RunDir,
        executor: Executor[Any],
        progress: Listener,
        again: bool = False,
        stall_seconds: float = 1800.0,
        tick: Callable[[], None] | None = None,
    ) -> None:
        self.tick = tick or (lambda: None)
        self.data, self.run_dir, self.executor, self.progress = data, run_dir, executor, progress
        self.again, self.stall_seconds = again, stall_seconds
        self._waiting: list[_Waiting] = []
        self._running: list[_Running] = []

    def run(self, jobs: Sequence[Job]) -> None:
        """Runs the jobs in this order, as far as there is room.

        Raises:
            KeyboardInterrupt: Ctrl-C, after the jobs have written their checkpoints and ended; a second Ctrl-C does
                not wait for them.
        """
        self._waiting = [_Waiting(job, self.again) for job in jobs]
        try:
            while self._waiting or self._running:
                self._start_what_fits()
                if self._running:  # none where others have taken all that was waiting
                    self._listen()
                self._settle_ended()
                self.tick()
        except BaseException:
            self._stop()
            raise

    @property
    def left(self) -> list[Job]:
        """The jobs that have not ended, with the cells that are ours as far as that is known."""
        return [one.job for one in self._running] + [planned.job for planned in self._waiting]

    # --- starting ---------------------------------------------------------------------------------------------------

    def _start_what_fits(self) -> None:
        for planned in list(self._waiting):
            place = self._room(planned)
            if place is not None:
                self._waiting.remove(planned)
                if planned.claimed or self._claim(planned):
                    self._start(planned, place)
            elif planned.alone:
                break  # the others wait until it has its room

    def _room(self, planned: _Waiting) -> DeviceSlots | None:
        """A place for a job: where nothing runs, or where it fits beside what does."""
        for place in self.executor.places:
            here = [one for one in self._running if one.place is place]
            if not here or (place.engine and len(here) < place.slots):
                return place
            booked = sum(one.job.memory for one in here)
            crowded = planned.alone or any(one.planned.alone for one in here)
            if not crowded and len(here) < place.slots and booked + planned.job.memory <= place.memory:
                return place
        return None

    def _claim(self, planned: _Waiting) -> bool:
        """Whether there is something to do: the job is left with the cells that are free."""
        cells = planned.job.cells
        claimed = set(self.run_dir.claim([cell.id for cell in cells], self.again))
        if len(claimed) < len(cells):
            self.progress.note(f"{planned.job.title}: {len(cells) - len(claimed)} cells are another process's")
        planned.job, planned.claimed = Job(tuple(cell for cell in cells if cell.id in claimed)), True
        return bool(claimed)

    def _start(self, planned: _Waiting, place: DeviceSlots) -> None:
        job = planned.job
        worker = self.executor.start(job, self.data[job.config["task"]], place, planned.fresh, planned.alone)
        now = time.monotonic()
        self._running.append(_Running(planned, place, worker, now, now))
        for one in self._running:
            if one.place is place:
                one.beside = max(one.beside, sum(other.place is place for other in self._running) - 1)
        self.progress.started(job)

    # --- listening --------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Waits a little for messages or the end of a process, takes in what has come, and ends what hangs."""
        self.executor.wait([one.worker for one in self._running], _LISTEN_SECONDS)
        for one in self._running:
            for message in one.worker.take():
                self._take(one, message)
            now = time.monotonic()
            if not one.worker.began:
                one.started = one.heard = now
            if one.worker.ending is None and not one.hung and now > one.heard + self.stall_seconds:
                one.hung = True
                one.worker.kill()

    def _take(self, one: _Running, message: tuple[Any, ...]) -> None:
        one.heard = time.monotonic()
        match message:
            case ("step", step, *stage):
                self.progress.stepped(one.job, step, *stage)
            case ("doing", what, done, total):
                self.progress.doing(one.job, what, done, total)
            case ("saved", step):
                one.saved = step
                self.run_dir.set_progress([cell.id for cell in one.job.cells], step)
            case ("importing", plugins):
                one.importing = plugins
            case ("note", text):
                self.progress.note(text)
            case ("timed", timed):
                one.timed = timed
            case ("cell", cell, state, text):
                one.states[cell] = (state, text)
            case _:
                one.outcome = message

    # --- ends -------------------------------------------------------------------------------------------------------

    def _settle_ended(self) -> None:
        for ended in [one for one in self._running if one.worker.ending is not None]:
            self._running.remove(ended)
            self._settle(ended)

    def _settle(self, one: _Running) -> None:
        """Decides what becomes of a job whose process has ended."""
        kind, detail = one.outcome or ("killed", None)
        if kind == "done":
            self._finish(one, detail)
        elif one.hung:
            limit = f"{self.stall_seconds / 60:g} minutes"
            self._fail(one, f"gave no sign of life for {limit}{one.when} and was ended (--stall-limit)")
        elif kind == "memory":
            self._retry_with_more_room(one, str(detail))
        elif kind == "killed":
            ending = one.worker.ending
            assert ending is not None
            text = ending.text + one.when
            self._retry_killed(one, text) if ending.killed else self._fail(one, text)
        else:
            self._fail(one, str(detail))

    def _finish(self, one: _Running, train_seconds: float) -> None:
        self._keep_timing(one)  # before the cells are done, and so written to the tracking store for good
        self.run_dir.set_states(one.states, train_seconds / len(one.job.cells))
        self._seal(one.job)
        bad = [text for state, text in one.states.values() if state != "done"]
        text = f"{len(bad)} of {len(one.states)} seeds" if bad else None
        self._told(one, "diverged" if bad else "done", text)

    def _seal(self, job: Job) -> None:
        """Writes the proofs of cells that are finished: after the index has them all, since a part of a job that is
        known as finished would leave another to go on with. Only then their checkpoints go: those of a cell without a
        proof say that nobody has removed it."""
        for record in self.run_dir.records(cell.id for cell in job.cells):
            try:
                seal(self.run_dir.folder(record.id), record)
                self.run_dir.folder(record.id).end()
            except OSError as error:  # a full disk, above all
                self.progress.note(
                    f"{job.title}: the proof that seed {record.seed} is whole is not written: {first_line(error)}"
                )

    def _keep_timing(self, one: _Running) -> None:
        """How the job's times came about, with each cell; and what a whole job took, for estimates."""
        if one.timed is None:
            return
        how = {name: one.timed[name] for name in ("compiled", "threads")} | {"jobs_beside": one.beside}
        for cell in one.job.cells:
            with contextlib.suppress(OSError, DamagedFile):  # the disk may be full
                self.run_dir.folder(cell.id).describe(timing=how)
        whole = one.timed["whole"] and all(state == "done" for state, _ in one.states.values())
        if whole and one.worker.began and not one.place.engine:
            times = {name: one.timed[name] for name in ("device", "threads", "compiled", "train_seconds")}
            self.run_dir.add_timing(
                Timing(
                    key=timing.key(one.job.config),
                    host=platform.node(),
                    beside=one.beside,
                    seeds=len(one.job.cells),
                    steps=one.job.config["steps"],
                    compile_seconds=one.timed["compile_seconds"],
                    wall_seconds=time.monotonic() - one.started,
                    **times,
                )
            )

    def _fail(self, one: _Running, text: str) -> None:
        for cell in one.job.cells:
            folder = self.run_dir.folder(cell.id)
            if folder.error is None:
                with contextlib.suppress(OSError):  # the disk may be full
                    folder.path.mkdir(parents=True, exist_ok=True)
                    (folder.path / "error.txt").write_text(text + "\n")
        self.run_dir.set_states({cell.id: ("failed", text) for cell in one.job.cells})
        self._told(one, "failed", text)

    def _retry_with_more_room(self, one: _Running, text: str) -> None:
        planned, cells = one.planned, one.job.cells
        if one.beside_others and not planned.alone:
            self._again(one, [planned.job], f"out of memory beside other jobs, tried again alone ({text})", True)
        elif len(cells) > 1:
            half = len(cells) // 2
            halves = [Job(cells[:half]), Job(cells[half:])]
            text = f"out of memory with {len(cells)} seeds at once, tried again with half ({text})"
            self._again(one, halves, text, True)
        else:
            self._fail(one, text)

    def _retry_killed(self, one: _Running, text: str) -> None:
        planned = one.planned
        if one.saved is not None:
            planned.retries = _RETRIES
        if not one.worker.began:  # a cluster may take a while to notice that a node has gone, and send more jobs there
            self._again(one, [planned.job], text, planned.alone)
        elif planned.retries > 0:
            planned.retries -= 1
            alone = planned.retries == 0
            self._again(one, [planned.job], f"{text}; it goes on from its last checkpoint", planned.alone or alone)
        else:
            self._fail(one, text)

    def _again(self, one: _Running, jobs: list[Job], text: str, alone: bool) -> None:
        self._told(one, "retry", text)
        fresh = one.planned.fresh and one.saved is None
        again = [_Waiting(job, fresh, alone=alone, retries=one.planned.retries, claimed=True) for job in jobs]
        self._waiting = again + self._waiting

    def _told(self, one: _Running, state: str, text: str | None) -> None:
        self.progress.ended(one.job, state, time.monotonic() - one.started, text)
        printed = output.kept(self.run_dir.folder(one.job.cells[0].id).output)
        if printed is not None:
            self.progress.printed(one.job, printed)

    def _stop(self) -> None:
        """Asks the running jobs to write their checkpoints and end, and marks what is claimed as stopped."""
        try:
            if self._running:
                self.progress.note("stopping: checkpoints are written; Ctrl-C again stops at once")
            for one in self._running:
                one.worker.stop()
            deadline = time.monotonic() + _STOP_SECONDS
            while time.monotonic() < deadline and any(one.worker.ending is None for one in self._running):
                self._listen()
        finally:
            for one in self._running:
                one.worker.kill()
            for one in self._running:
                kind, detail = one.outcome or ("stopped", "interrupted")
                if kind == "done":
                    self._finish(one, detail)
                elif kind == "failed":
                    self._fail(one, detail)
                else:
                    self._mark_stopped(one.job, f"interrupted: {detail}" if kind == "memory" else detail)
            for planned in self._waiting:
                if planned.claimed:
                    self._mark_stopped(planned.job, "interrupted")

    def _mark_stopped(self, job: Job, text: str) -> None:
        self.run_dir.set_states({cell.id: ("stopped", text) for cell in job.cells})
