"""Where jobs run: the processes of this machine, or (``ray_cluster``) of a cluster.

An executor starts a job and brings what its process says; what becomes of a job is the supervisor's to decide, and the
same everywhere. A further engine is one more class with these few methods.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psutil

from benchmark.data.datasets import DataSet
from benchmark.records.provenance import cores
from benchmark.records.rundir import cell_folder
from benchmark.running.job import JobSettings, make_trainer, run_job
from benchmark.running.parallel import Group, follow
from benchmark.system.folders import cache_folder
from benchmark.system.limits import whole
from benchmark.system.signals import deaf
from benchmark.tasks.jobs import Job
from bism.errors import InputError, shown

_STARTS = 3  # of a job, by a fork server
_STARTING_SECONDS = 0.2
_END_SECONDS = 10.0  # for a process that is killed
_UNKNOWN = 255  # multiprocessing's exit code of a process whose fork server was killed before it


@dataclasses.dataclass
class DeviceSlots:
    """Where jobs run: a device, how many of them at once, and the memory that they share, in bytes.

    engine: whether a cluster's engine books what is behind it, and we only say what a job needs.
    """

    device: str
    slots: int
    memory: float
    engine: bool = False


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a job's process ended. killed: from outside, so that the job is worth another try."""

    text: str
    killed: bool


class Worker(Protocol):
    """The process of one job.

    Attributes:
        began: whether it has come to run; a cluster may let it wait.
        ending: None as long as it may still say something.
    """

    began: bool
    ending: Ending | None

    def take(self) -> list[tuple[Any, ...]]:
        """What it has said since, as ``worker.Report`` has it; does not wait."""
        ...

    def stop(self) -> None:
        """Asks it to write a checkpoint and end."""
        ...

    def kill(self) -> None:
        """Ends it at once; when this returns its files are left alone."""
        ...


OneWorker = TypeVar("OneWorker", bound=Worker)


class Executor(Protocol[OneWorker]):
    """Starts jobs. places: where; may change from one look to the next, as nodes come and go."""

    @property
    def places(self) -> Sequence[DeviceSlots]: ...

    def start(self, job: Job, data: DataSet, place: DeviceSlots, fresh: bool, alone: bool) -> OneWorker:
        """Starts a job.

        Args:
            fresh: from the start, whatever checkpoints there are.
            alone: beside no other job on its device.
        """
        ...

    def wait(self, workers: Sequence[OneWorker], seconds: float) -> None:
        """Waits until one of them has something to say, or for so long."""
        ...

    def close(self) -> None: ...


def places(text: str, threads: int = 1, jobs_per_device: int = 1, together: int = 1) -> list[DeviceSlots]:
    """``cpu``: as many jobs at once as there are groups of so many cores; ``cuda:0,1``: so many on each named GPU;
    ``cuda``: on each GPU. With ``together``, a job takes so many GPUs, or so many times those cores.

    Raises:
        InputError: not of this form, or a GPU that is not there.
    """
    import torch

    if text == "cpu":
        return [DeviceSlots("cpu", max(1, cores() // (threads * together)), psutil.virtual_memory().available)]
    kind, colon, numbers = text.partition(":")
    found = torch.cuda.device_count()
    named = numbers.split(",") if colon else [str(number) for number in range(found)]
    if kind != "cuda" or any(whole(part) is None for part in named):
        raise InputError(f"--devices must be cpu, cuda or like cuda:0,1, got {shown(text)}")
    if not named:
        raise InputError(f"--devices {text}: there is no GPU here")
    for number in named:
        if int(number) >= found:
            raise InputError(f"--devices {text}: there is no GPU {number} here ({found} found)")
    distinct = list(dict.fromkeys(named))
    groups = [distinct[start : start + together] for start in range(0, len(distinct) - together + 1, together)]
    if not groups:
        raise InputError(f"--data-parallel {together} needs as many GPUs, and --devices {text} has {len(distinct)}")
    return [
        DeviceSlots(
            ",".join(f"cuda:{number}" for number in group),
            jobs_per_device,
            min(float(torch.cuda.mem_get_info(int(number))[0]) for number in group),
        )
        for group in groups
    ]


def check_precision(configs: Iterable[Mapping[str, Any]], available: Sequence[DeviceSlots]) -> None:
    """Whether what is to be trained can be computed as it says on these places.

    Raises:
        InputError: TF32 on a CPU.
    """
    wanting = [config for config in configs if config["precision"] == "tf32"]
    if wanting and any(place.device == "cpu" for place in available):
        raise InputError(
            f"{wanting[0]['variant']} has precision tf32, which GPUs have: --devices cuda, "
            f"or precision: float32 or bf16 in the suite file"
        )


def context(available: Sequence[DeviceSlots]) -> Any:
    """How processes of jobs are started: forked from a server that has imported what they need, so that a job is under
    way at once; on a machine with a GPU each from nothing, since CUDA cannot be used in what was forked from a process
    that has touched it, and importing torch's compiler does so there."""
    import torch

    forked = "forkserver" in multiprocessing.get_all_start_methods()
    if not forked or torch.cuda.device_count() or any(place.device != "cpu" for place in available):
        return multiprocessing.get_context("spawn")
    server: Any = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["benchmark.running.job", "torch._inductor.compile_fx"])
    return server


def prepare_environment(available: Sequence[DeviceSlots] = ()) -> None:
    """What is read when a job's process starts: one thread for each, and compiled code kept from run to run.

    On a CPU a job compiles in its own process, on its own core; beside a GPU the cores are idle, and the jobs share
    them for the many small kernels that a program has there.

    And glibc keeps the memory that a step frees: given back to the system it would be asked for anew, page by page, in
    the next step (5,600 page faults and 15% of the time of a step of BiDSM-5 on the Frey faces).
    """
    jobs_on_gpus = sum(place.slots for place in available if place.device != "cpu")
    compilers = max(1, cores() // jobs_on_gpus) if jobs_on_gpus else 1
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(compilers))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 30))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 32))


def _seen(pid: int | None) -> psutil.Process | None:
    """A process as the system knows it: multiprocessing loses sight of those whose fork server is killed."""
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:  # it has ended already
        return None


class JobProcess:
    """A job's process on this machine."""

    def __init__(
        self,
        context: Any,
        job: Job,
        data: DataSet,
        device: str,
        run_dir: Path,
        settings: JobSettings,
        fresh: bool,
    ) -> None:
        self.began, self._followers, self._meeting = True, list[Any](), Path()
        self.ending: Ending | None = None
        self.messages: Connection
        self.messages, sender = context.Pipe(duplex=False)
        output = cell_folder(run_dir, job.cells[0].id).output
        try:
            group = (
                self._start_followers(context, job, data, device, settings, output)
                if settings.data_parallel > 1
                else None
            )
            first = device.split(",")[0]
            self._process = context.Process(
                target=run_job, daemon=True, args=(job, data, first, run_dir, settings, fresh, sender, group)
            )
            with deaf():
                self._process.start()
        except BaseException:
            for follower in self._followers:
                follower.kill()
            self._clear()
            raise
        finally:
            sender.close()
        self._seen = _seen(self._process.pid)
        for line in group.lines if group else ():
            line.close()

    def _start_followers(
        self, context: Any, job: Job, data: DataSet, device: str, settings: JobSettings, output: Path
    ) -> Group:
        """Starts the processes that follow the job's; returns its group as it sees it."""
        size, lines, devices = settings.data_parallel, list[Connection](), device.split(",")
        self._meeting = Path(tempfile.mkdtemp(prefix="bism-"))
        meeting = str(self._meeting / "file")
        for rank in range(1, size):
            theirs, ours = context.Pipe(duplex=False)
            lines.append(ours)
            own = devices[rank % len(devices)]
            make = functools.partial(make_trainer, job, data, own, settings)
            process = context.Process(
                target=follow,
                daemon=True,
                args=(Group(rank, size, meeting, (theirs,)), own, settings.threads, make, output),
            )
            with deaf():
                process.start()
            theirs.close()
            self._followers.append(process)
        return Group(0, size, meeting, tuple(lines))

    def take(self) -> list[tuple[Any, ...]]:
        """What it has said since; does not wait."""
        said = []
        try:
            while self.ending is None and self.messages.poll():
                said.append(self.messages.recv())
        except (EOFError, OSError):  # the process has ended, however it did, and everything it said is taken
            self._process.join()
            self._clear()
            code = self._process.exitcode
            if code < 0:
                self.ending = Ending(f"the process ended with signal {signal.Signals(-code).name}", True)
            elif code == _UNKNOWN:
                self.ending = Ending("the process ended, nobody knows how", True)
            else:
                self.ending = Ending(f"the process ended with exit code {code}", False)
        return said

    def stop(self) -> None:
        """Asks it to write a checkpoint and end."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._seen:
                self._seen.terminate()

    def kill(self) -> None:
        """Ends it at once."""
        for process in [self._process, *self._followers]:
            process.kill()
            process.join()
        with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            if self._seen:
                self._seen.kill()
                self._seen.wait(_END_SECONDS)
        self._clear()

    def _clear(self) -> None:
        """Removes the file by which the processes of the job have met."""
        if self._followers:
            shutil.rmtree(self._meeting, ignore_errors=True)


class LocalExecutor:
    """A process for each job, on the cores and devices of this machine."""

    def __init__(self, run_dir: Path, settings: JobSettings, available: Sequence[DeviceSlots]) -> None:
        self.places = list(available)
        self._run_dir, self._settings = run_dir, settings
        prepare_environment(available)
        self._context = context(available)

    def start(self, job: Job, data: DataSet, place: DeviceSlots, fresh: bool, alone: bool) -> JobProcess:
        """Starts a job on a place. Where the server that jobs are forked from has been killed, a new one is started;
        one that ends again and again is done without."""
        for _ in range(_STARTS):
            try:
                return self._start(job, data, place, fresh)
            except (EOFError, ConnectionError):
                time.sleep(_STARTING_SECONDS)  # until the system says that it has ended
        self._context = multiprocessing.get_context("spawn")
        return self._start(job, data, place, fresh)

    def _start(self, job: Job, data: DataSet, place: DeviceSlots, fresh: bool) -> JobProcess:
        return JobProcess(self._context, job, data, place.device, self._run_dir, self._settings, fresh)

    def wait(self, workers: Sequence[JobProcess], seconds: float) -> None:
        """Waits until one of them has something to say, or for so long."""
        wait([worker.messages for worker in workers if worker.ending is None], timeout=seconds)

    def close(self) -> None:
        """Nothing is left to close."""
