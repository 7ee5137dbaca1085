"""The MLflow projection of a run directory: what talks to MLflow, imported only when tracking is on.

Experiment = suite; one parent run per plan (suite, preset); one child run per cell, found by its tags and by what
``RunDir.synced`` remembers. Everything is written from the run directory, any number of times with the same result.
"""

import json
import time
import warnings
from collections.abc import Iterable, Sequence

from benchmark.records.cells import DamagedFile, understood
from benchmark.records.integrity import check as check_cell
from benchmark.records.rundir import FINISHED, CellFolder, Measurement, Record, RunDir
from benchmark.tracking.check import Unreachable, brief
from benchmark.tracking.store import INSTEAD, PLANNED, PLANS, patience, resolve, start_ui
from benchmark.tracking.store_writer import StoreWriter
from bism.errors import InputError

# After the store's writer, which keeps MLflow quiet while it is imported.
from benchmark.tracking import labels, logged_models, notes  # isort: skip
from mlflow.entities import Metric, Run  # isort: skip
from mlflow.exceptions import MlflowException  # isort: skip

__all__ = ["Tracker", "Unreachable", "resolve", "start_ui"]
_STATUS = {"running": "RUNNING", "done": "FINISHED", "diverged": "FAILED", "failed": "FAILED", "stopped": "KILLED"}


class Tracker(StoreWriter):
    """Writes cells to an MLflow store. To be used in the thread that opened the run directory.

    Its ``store`` is the store's name in the run directory's index; it is ``behind`` where the store lacks something
    that the journals have.
    """

    _MEANWHILE = "Training goes on and the run directory keeps everything; the command 'sync' catches up."
    _INSTEAD = INSTEAD

    def __init__(self, uri: str | None, run_dir: RunDir) -> None:
        super().__init__(uri)
        self._run_dir = run_dir
        self._held: dict[str, dict[str, tuple[str, int | None]]] = {}  # what the store has: see _cell_runs
        self._plans: dict[tuple[str, str], str] = {}  # ids of the plans' runs
        self._plan_status: dict[str, str] = {}  # by id
        self._planned: set[tuple[str, str]] = set()  # plans whose cells are written
        self._written: dict[str, tuple[int, str, float]] = {}  # by cell: length of the journal, state, when it changed

    def sync(self, records: Iterable[Record], *, command: str | None = None, last: bool = False) -> bool:
        """Brings the runs of these cells up to date; repeating it changes nothing.

        A store that fails is a warning, once: nothing is lost, as every later call writes what is missing. After a
        failure that took long, calls return at once for a while, unless it is the ``last``.

        Returns:
            Whether the store now holds everything.
        """
        if not last and time.monotonic() < self._retry_at:
            return False
        records = list(records)
        with self._tolerating_failures():
            self._write_plans(records, command)
            for record in records:
                if record.state != "planned":
                    self._sync_cell(record, command)
                if record.state == "running":
                    self._set_plan_status(self._plan_run(record, command), "RUNNING")
        return not self.behind

    def finish(self, suite: str, preset: str) -> None:
        """Ends a plan's run as its cells have ended: finished, failed, or stopped; not while one of them runs. Its
        description has the ranking so far.

        Left to a later ``sync`` and ``finish`` where the store is behind.
        """
        ours = [record for record in self._run_dir.records() if (record.suite, record.preset) == (suite, preset)]
        states = {record.state for record in ours}
        if self.behind or not ours:
            return
        with self._tolerating_failures():
            self._describe_plan(self._plan_run(ours[0]), ours)
            self._set_plan_status(self._plan_run(ours[0]), _plan_status(states))

    def forget(self, records: Iterable[Record]) -> None:
        """Moves the runs and models of cells to MLflow's bin, a plan's with its last cell; plans name them no more.

        Raises:
            InputError: the store fails; what has been deleted up to there stays so, and the rest can be tried again.
        """
        gone = list(records)
        try:
            with patience(seconds=30, retries=2):
                for record in gone:
                    for run in self._search(record.suite, cell=record.id):
                        self._discard(run)
                for plan in dict.fromkeys((record.suite, record.preset) for record in gone):
                    self._shrink_plan(*plan, {record.id for record in gone})
        except (MlflowException, OSError) as error:
            raise InputError(f"tracking store {self.store} fails: {brief(error)} No cell is deleted.") from error

    def _discard(self, run: Run) -> None:
        """Moves a cell's run to MLflow's bin, after its models: those stay findable without it, and would be taken for
        those of a later training."""
        for model in run.outputs.model_outputs if run.outputs else ():
            self._client.delete_logged_model(model.model_id)
        self._client.delete_run(run.info.run_id)

    def _shrink_plan(self, suite: str, preset: str, gone: set[str]) -> None:
        """Writes a plan's file without these cells; a plan of which the store has no run any more goes, too."""
        run = self._find_plan(suite, f"{suite}/{preset}")
        if run is None:
            return
        left = [
            record
            for record in self._run_dir.records()
            if (record.suite, record.preset) == (suite, preset) and record.id not in gone
        ]
        self._write_plan(run.info.run_id, left)
        self._describe_plan(run.info.run_id, left)
        if not left and not self._search(suite, kind="cell", preset=preset):
            self._client.delete_run(run.info.run_id)

    def log_models(self, records: Iterable[Record], which: str) -> None:
        """Logs models of finished cells that are not logged yet: ``best`` seed of each variant, ``all`` or ``none``."""
        chosen = logged_models.choose(records, which, self._run_dir)
        if self.behind:
            return
        with self._tolerating_failures():
            for record in chosen:
                run, _, _ = self._run_dir.synced(record.id, self.store)
                if run is not None and run in self._cell_runs(record.suite):
                    logged_models.log_model(self._client, run, self._run_dir.folder(record.id))

    def _cell_runs(self, suite: str) -> dict[str, tuple[str, int | None]]:
        """The runs of cells that the store has: by id, the journal they were written from and when they ended.

        Asked once and kept up to date: what the index remembers may have been deleted from the store since.
        """
        if suite not in self._held:
            self._held[suite] = {
                run.info.run_id: (run.data.tags.get("journal", ""), run.info.end_time)
                for run in self._search(suite, kind="cell")
            }
        return self._held[suite]

    def _plan_run(self, record: Record, command: str | None = None) -> str:
        """The parent run of a plan, found by its tag or made."""
        plan = record.suite, record.preset
        if plan not in self._plans:
            name = "/".join(plan)
            tags = {"suite": record.suite, "preset": record.preset, "plan": name, "kind": "plan"}
            with self._lock:
                run = self._find_plan(record.suite, name)
                if run is None:
                    tags |= labels.provenance(command)
                    made = self._client.create_run(self._experiment(record.suite), tags=tags, run_name=name)
                    run = self._find_plan(record.suite, name) or made
                    if run.info.run_id != made.info.run_id:  # another machine was faster
                        self._client.delete_run(made.info.run_id)
            self._plans[plan], self._plan_status[run.info.run_id] = run.info.run_id, run.info.status
        return self._plans[plan]

    def _write_plans(self, records: Iterable[Record], command: str | None) -> None:
        """Says in each plan's run which cells there are to be, so that a report knows what is missing.

        One file for each run directory: machines that share a plan write theirs beside each other.
        """
        for plan in {(record.suite, record.preset) for record in records} - self._planned:
            ours = [record for record in self._run_dir.records() if (record.suite, record.preset) == plan]
            self._write_plan(self._plan_run(ours[0], command), ours)
            self._planned.add(plan)

    def _write_plan(self, run: str, records: Sequence[Record]) -> None:
        content = [{name: getattr(record, name) for name in PLANNED} for record in records]
        self._client.log_text(run, json.dumps(content), f"{PLANS}/{self._run_dir.name}.json")

    def _find_plan(self, suite: str, name: str) -> Run | None:
        """The parent run of a plan: the first, where several machines have just made one each."""
        found = self._search(suite, kind="plan", plan=name)
        return min(found, key=lambda run: (run.info.start_time, run.info.run_id), default=None)

    def _describe_plan(self, run: str, records: Sequence[Record]) -> None:
        self._client.set_tag(run, "mlflow.note.content", notes.plan_note(self._run_dir, records))

    def _set_plan_status(self, run: str, status: str) -> None:
        if self._plan_status[run] != status:
            self._set_status(run, status)
            self._plan_status[run] = status

    def _sync_cell(self, record: Record, command: str | None) -> None:
        folder = self._run_dir.folder(record.id)
        if not (folder.path / "config.json").exists():
            return  # claimed, and not begun yet
        now = folder.journal_bytes, record.state, record.updated
        if self._written.get(record.id) != now:
            try:
                with self._lock:
                    self._bring(record, folder, command)
            except DamagedFile as error:  # the others go on
                warnings.warn(f"not brought to the tracking store: {error}", stacklevel=2)
            self._written[record.id] = now

    def _bring(self, record: Record, folder: CellFolder, command: str | None) -> None:
        """Writes what the store lacks of a cell."""
        journal = folder.measurements()
        run, lines, state = self._run_dir.synced(record.id, self.store)
        held = self._cell_runs(record.suite)
        if run is None or run not in held or not _same_journal(held[run][0], journal):
            run, lines, state = None, 0, None
        ended = None if record.state == "running" else _milliseconds(record)
        if run is not None and (lines, state) == (len(journal), record.state) and ended in (None, held[run][1]):
            return
        if record.state in FINISHED:
            check_cell(folder)
        run = run or self._cell_run(record, folder, journal, command)
        self._write(run, record, journal, lines, state)
        held[run] = _journal_name(journal), ended
        self._run_dir.set_synced(record.id, self.store, run, len(journal), record.state)

    def _cell_run(self, record: Record, folder: CellFolder, journal: list[Measurement], command: str | None) -> str:
        """The run of a cell, found by its tag or made. One of an earlier training from the start goes to MLflow's bin.

        MLflow cannot take back metrics, so a training from the start cannot go on in the run of the one before.
        """
        for run in self._search(record.suite, cell=record.id):
            if _same_journal(run.data.tags.get("journal", ""), journal):
                return str(run.info.run_id)
            self._discard(run)
        config = folder.config
        with understood(folder.path / "config.json"):
            tags = labels.cell_tags(record, config) | labels.provenance(command, config)
        tags["mlflow.parentRunId"] = self._plan_run(record, command)
        started = journal[0].time_ms if journal else _milliseconds(record)
        run = self._client.create_run(self._experiment(record.suite), started, tags, labels.run_name(record))
        self._cell_runs(record.suite)[run.info.run_id] = "", None
        return str(run.info.run_id)

    def _write(self, run: str, record: Record, journal: list[Measurement], lines: int, before: str | None) -> None:
        """Sends the journal from ``lines`` on, and what a change of state ``before`` -> ``record.state`` brings."""
        folder = self._run_dir.folder(record.id)
        config, failed = folder.config, record.state in ("failed", "diverged")
        with understood(folder.path / "config.json"):
            tags = {"state": record.state, "journal": _journal_name(journal), **labels.timing(config)}
            params, data = labels.params(config), labels.dataset(config["data"])
        if failed or before in ("failed", "diverged"):
            tags["error"] = _last_line(folder.error or record.message or "") if failed else ""
        self._send(run, journal[lines:], params if before is None else {}, tags)
        if before is None:
            self._client.log_inputs(run, [data])
        if record.state != "running":
            self._upload(run, folder)
        if record.state != "running" or before != "running":
            self._set_status(run, _STATUS[record.state], _milliseconds(record))

    def _send(self, run: str, journal: list[Measurement], params: dict[str, str], tags: dict[str, str]) -> None:
        metrics = [
            Metric(name, float(value), line.time_ms, line.step)
            for line in journal
            for name, value in line.metrics.items()
        ]
        self._log(run, metrics, params, tags)

    def _upload(self, run: str, folder: CellFolder) -> None:
        if folder.artifacts.is_dir():
            self._client.log_artifacts(run, str(folder.artifacts))
        for name in ("config.json", "error.txt"):
            if (folder.path / name).exists():
                self._client.log_artifact(run, str(folder.path / name))


def _same_journal(held: str, journal: Sequence[Measurement]) -> bool:
    """Whether a run that was written from the journal ``held`` can go on from this one."""
    return held in ("", _journal_name(journal))


def _journal_name(journal: Sequence[Measurement]) -> str:
    """What tells a journal from that of an earlier training from the start: when its first line was taken."""
    return str(journal[0].time_ms) if journal else ""


def _milliseconds(record: Record) -> int:
    return int(record.updated * 1000)


def _plan_status(states: set[str]) -> str:
    if "running" in states:
        return "RUNNING"
    if states <= set(FINISHED):
        return "FINISHED"
    return "FAILED" if "failed" in states else "KILLED"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:1000]
