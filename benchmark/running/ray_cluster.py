"""The same plan on a Ray cluster: Ray finds the room, and what it needs to know of a job is how much.

The nodes need Python, torch and the other packages of the same versions; our own code, the data and the files of cells
that are gone on with are sent there. A job runs on its node as it does here, in a process and a folder of its own,
beside an actor that sends what it says and writes. So the run directory here has all that a checkpoint needs when
that checkpoint is reported, and a node that is lost with everything on it costs what came after the last checkpoint.
"""

import contextlib
import dataclasses
import importlib
import logging
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from benchmark.data.datasets import DataSet
from benchmark.records.rundir import RunDir, RunDirError, cell_folder, write_atomically
from benchmark.running.executors import DeviceSlots, Ending, JobProcess, prepare_environment
from benchmark.running.job import JobSettings
from benchmark.tasks.jobs import Job
from benchmark.tracking.check import knock
from bism.errors import InputError, first_line

_LISTEN_SECONDS = 1.0  # of the actor to its process, at most
_LOOK_SECONDS = 5.0  # between looks at which nodes there are
_WAITS_SECONDS = 60.0  # for room in the cluster, after which it is said
_KILL_SECONDS = 10.0  # for an actor to end its process
_PACKAGES = ("bism", "baselines", "benchmark")
_JOURNAL = "metrics.jsonl"
_UNFINISHED = (".partial", ".next.pt")  # files that are being written

Files = dict[str, dict[str, bytes | None]]  # by cell and name; None for what has gone


class Mirror:
    """The files of a job's cells in two places: tells what has changed since the last look."""

    def __init__(self, run_dir: Path, cells: Sequence[str]) -> None:
        self._folders = {cell: cell_folder(run_dir, cell).path for cell in cells}
        self._seen: dict[tuple[str, str], tuple[int, int, int]] = {}

    def changes(self) -> Files:
        """What is new. The journals are read last: they have at least the lines that a checkpoint counts."""
        found: Files = {}
        for cell, folder in self._folders.items():
            files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
            names = [name for name in files if not name.endswith(_UNFINISHED)]
            for name in sorted(names, key=lambda name: name == _JOURNAL):
                with contextlib.suppress(FileNotFoundError):  # renamed since: the next look finds it
                    stat = files[name].stat()
                    state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                    if self._seen.get((cell, name)) != state:
                        found.setdefault(cell, {})[name] = files[name].read_bytes()
                        self._seen[cell, name] = state
            for gone in [name for owner, name in self._seen if owner == cell and name not in files]:
                found.setdefault(cell, {})[gone] = None
                del self._seen[cell, gone]
        return found

    def apply(self, changes: Files) -> None:
        """Takes over what is new elsewhere: a journal before the checkpoint that counts its lines."""
        for cell, files in changes.items():
            for name in sorted(files, key=lambda name: name != _JOURNAL):
                path, content = self._folders[cell] / name, files[name]
                if content is None:
                    path.unlink(missing_ok=True)
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(path, content)


class RemoteJob:
    """The actor beside a job's process, on its node."""

    def __init__(
        self, job: Job, data: DataSet, device: str, settings: JobSettings, plugins: Mapping[str, str], fresh: bool
    ) -> None:
        prepare_environment()
        self._folder = Path(tempfile.mkdtemp(prefix="bism-"))
        self._job, self._data, self._device, self._fresh = job, data, device, fresh
        self._settings = dataclasses.replace(settings, plugins=tuple(self._folder / name for name in plugins))
        for name, text in plugins.items():
            (self._folder / name).parent.mkdir(parents=True)
            (self._folder / name).write_text(text)
        RunDir(self._folder).close()
        self._mirror = Mirror(self._folder, [cell.id for cell in job.cells])

    def begin(self, files: Files) -> None:
        """Starts the process where the files of its cells are."""
        self._mirror.apply(files)
        self._mirror.changes()  # what is there now is known
        context = multiprocessing.get_context("spawn")
        self._process = JobProcess(
            context, self._job, self._data, self._device, self._folder, self._settings, self._fresh
        )

    def listen(self) -> tuple[list[tuple[Any, ...]], Files, Ending | None]:
        """What it has said, the files that are new since, and how it ended; waits a little."""
        wait([self._process.messages], timeout=_LISTEN_SECONDS)
        said = self._process.take()
        changes = self._mirror.changes() if said or self._process.ending else {}
        if self._process.ending:
            shutil.rmtree(self._folder, ignore_errors=True)
        return said, changes, self._process.ending

    def stop(self) -> None:
        """Asks it to write a checkpoint and end."""
        self._process.stop()

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class RayWorker:
    """A job's process in the cluster, seen from here."""

    def __init__(self, ray: Any, actor: Any, mirror: Mirror, files: Files, needs: str, note: Callable[[str], None]):
        self.began = False
        self.ending: Ending | None = None
        self._ray, self._actor, self._mirror, self._needs, self._note = ray, actor, mirror, needs, note
        self._asked = time.monotonic()
        self.answer = actor.begin.remote(files)

    def take(self) -> list[tuple[Any, ...]]:
        """What it has said since; what it has written is here before it is told."""
        if self.ending is not None or not self._ready():
            return []
        try:
            answer = self._ray.get(self.answer)
        except self._ray.exceptions.RayError as error:
            self.ending = self._ending(error)
            self._end_actor()
            return []
        if not self.began:
            self.began = True
            self.answer = self._actor.listen.remote()
            return []
        said, changes, self.ending = answer
        try:
            self._mirror.apply(changes)
        except OSError as error:  # a full disk, above all
            raise RunDirError(
                f"what a job wrote in the cluster cannot be written here: {first_line(error)}. What is here stays; "
                f"make room and run the same command again."
            ) from error
        if self.ending is None:
            self.answer = self._actor.listen.remote()
        else:
            self._end_actor()
        return list(said)

    def _ending(self, error: Any) -> Ending:
        """What does not come from a node's death would only come again: a package that is not there, say."""
        known = self._ray.exceptions
        hopeless = (known.RayTaskError, known.RuntimeEnvSetupError, known.ActorUnschedulableError)
        if isinstance(error, hopeless) or getattr(error, "actor_init_failed", False):
            return Ending(f"the cluster could not start it: {str(error).strip().splitlines()[-1]}", False)
        return Ending("its node was lost, or the process beside it was killed", True)

    def _ready(self) -> bool:
        ready, _ = self._ray.wait([self.answer], timeout=0)
        if not ready and not self.began and time.monotonic() > self._asked + _WAITS_SECONDS:
            self._asked = float("inf")  # said once
            self._note(f"{self._needs}: waits for room in the cluster")
        return bool(ready)

    def stop(self) -> None:
        """Asks it to write a checkpoint and end; what has not come to run ends at once."""
        if self.began:
            self._actor.stop.remote()
        else:
            self.kill()

    def kill(self) -> None:
        """Ends it at once."""
        if self.ending is None:
            if self.began:
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._ray.get(self._actor.kill.remote(), timeout=_KILL_SECONDS)
            self.ending = Ending("the process was ended", True)
            self._end_actor()

    def _end_actor(self) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor)


class RayExecutor:
    """Jobs as actors of a Ray cluster, each with so many cores, or a share of a GPU, and the memory it needs.

    Args:
        address: of the cluster, as ``ray.init`` takes it; None for what $RAY_ADDRESS names, or the one on this machine.
        devices: ``cpu`` or ``cuda``.
        jobs_per_device: of which a GPU takes so many at once.
        note: is called with what people should know.

    Raises:
        InputError: there is no Ray, no cluster, another version there, or no GPU in it.
    """

    def __init__(
        self,
        address: str | None,
        devices: str,
        jobs_per_device: int,
        run_dir: Path,
        settings: JobSettings,
        note: Callable[[str], None],
    ) -> None:
        if devices not in ("cpu", "cuda"):
            raise InputError(f"--executor ray: --devices must be cpu or cuda, Ray chooses which; got {devices!r}")
        self._ray = _connect(address)
        self._note, self._run_dir, self._devices, self._settings = note, run_dir, devices, settings
        self._jobs_per_device, self._data = jobs_per_device, dict[str, Any]()
        self._plugins = {f"plugins/{i}/{file.name}": file.read_text() for i, file in enumerate(settings.plugins)}
        self._place, self._looked = DeviceSlots(devices, 0, float("inf"), engine=True), -float("inf")
        self._cores = self._memory = 0.0
        if not self.places[0].slots:
            self.close()
            what = "GPU" if devices == "cuda" else f"node with {settings.threads} free cores (--threads)"
            raise InputError(f"--executor ray: there is no {what} in the cluster")

    @property
    def places(self) -> Sequence[DeviceSlots]:
        """One, with room for as many jobs as the nodes that are there now have."""
        if time.monotonic() > self._looked + _LOOK_SECONDS:
            self._looked = time.monotonic()
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self._cores = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
            self._memory = max((node.get("memory", 0.0) for node in nodes), default=0.0)
            if self._devices == "cuda":
                self._place.slots = int(sum(node.get("GPU", 0) for node in nodes)) * self._jobs_per_device
            else:
                self._place.slots = sum(int(node.get("CPU", 0) // self._settings.threads) for node in nodes)
        return [self._place]

    def start(self, job: Job, data: DataSet, place: DeviceSlots, fresh: bool, alone: bool) -> RayWorker:
        """Asks the cluster for a job's room; alone means a whole GPU, or all cores of a node."""
        threads, cuda = self._settings.threads, self._devices == "cuda"
        needs: dict[str, float] = {"num_cpus": float(self._cores if alone and not cuda else threads)}
        if cuda:
            needs |= {"num_cpus": 1.0, "num_gpus": 1.0 if alone else 1.0 / self._jobs_per_device}
        else:
            needs["memory"] = float(int(min(job.memory, self._memory)))
        task = job.config["task"]
        if task not in self._data:
            self._data[task] = self._ray.put(data)
        mirror = Mirror(self._run_dir, [cell.id for cell in job.cells])
        if fresh:
            for cell in job.cells:
                cell_folder(self._run_dir, cell.id).clear()
        files = mirror.changes()
        actor_class = self._ray.remote(RemoteJob).options(max_restarts=0, **needs)
        device = "cuda:0" if cuda else "cpu"  # of those that Ray lets it see
        actor = actor_class.remote(job, self._data[task], device, self._settings, self._plugins, fresh)
        return RayWorker(self._ray, actor, mirror, files, job.title, self._note)

    def wait(self, workers: Sequence[RayWorker], seconds: float) -> None:
        """Waits until one of them has something to say, or for so long."""
        answers = [worker.answer for worker in workers if worker.ending is None]
        if answers:
            self._ray.wait(answers, timeout=seconds)

    def close(self) -> None:
        """Leaves the cluster; what still runs there for us ends."""
        self._ray.shutdown()


def _connect(address: str | None) -> Any:
    try:
        import ray
    except ImportError:
        raise InputError("--executor ray needs Ray: pip install 'bism-benchmark[cluster]'") from None
    code = [str(Path(importlib.import_module(name).__file__ or "").parent) for name in _PACKAGES]
    try:
        if address is not None:  # Ray itself would try for a minute
            knock(address if "//" in address else f"ray://{address}")
        ray.init(
            address=address or "auto",
            runtime_env={"py_modules": code},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (OSError, RuntimeError, ValueError) as error:
        text = str(error).strip().splitlines()[0]
        raise InputError(
            f"no Ray cluster to use at {address or 'this machine'}: {text}\n"
            f"start one with `ray start --head`, and name another by --address HOST:PORT"
        ) from error
    return ray
