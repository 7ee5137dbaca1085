"""How fast training is here, on the code path of ``run``, and how fast this machine would let it be."""

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmark.commands.compare import with_own
from benchmark.data.datasets import data_folder
from benchmark.records.provenance import cores, machine
from benchmark.records.rundir import RunDir
from benchmark.running import executors, supervisor
from benchmark.running.job import JobSettings, make_trainer
from benchmark.running.progress import Lines
from benchmark.system import tables
from benchmark.tasks import registry
from benchmark.tasks.jobs import Job, jobs
from benchmark.tasks.plan import Cell, Choices, choose_preset, choose_tasks, load_data, plan
from benchmark.tasks.suite_file import load_suite
from bism.compiler import Work, compile_program
from bism.engine import Trainer
from bism.errors import InputError
from bism.stream import block_steps

_PROBE_STEPS = 50  # at least, to find out how many fill the time that was asked for


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """What this machine does at most with so many threads, measured.

    In operations (and bytes) per second, by the kinds of ``Work``: the matrix library on a large product, fused loops
    over numbers in the nearest cache, and copying from one large piece of memory to another.
    """

    products: float
    simple: float
    transcendental: float
    bytes: float

    def seconds(self, work: Work) -> tuple[float, str]:
        """The least time for some work, and whether arithmetic or memory sets it."""
        arithmetic = (
            work.products / self.products + work.simple / self.simple + work.transcendental / self.transcendental
        )
        memory = work.bytes / self.bytes
        return max(arithmetic, memory), "arithmetic" if arithmetic >= memory else "memory"


def measure_ceiling(device: str, threads: int) -> Ceiling:
    """Measures it; takes some seconds, most of them for compiling two loops once."""
    torch.set_num_threads(threads)
    small = torch.rand(8192 if device == "cpu" else 1 << 24, device=device) + 0.5
    terms = 16  # independent of each other, so that none waits for another

    def simple(x: Any) -> list[Any]:
        return [sum((x * (i + 1.5) for i in range(terms)), start=x)]

    def transcendental(x: Any) -> list[Any]:
        return [sum(((x * -(i + 1.5)).exp() for i in range(terms)), start=x)]

    n = 1024 if device == "cpu" else 8192
    a, b = torch.rand(n, n, device=device), torch.rand(n, n, device=device)
    source = torch.rand(1 << 26, device=device)
    target = torch.empty_like(source)
    loops = [partial(compile_program(chain, [small]), small) for chain in (simple, transcendental)]
    return Ceiling(
        products=2 * n**3 / _best(lambda: a @ b, device),
        simple=2 * terms * small.numel() / _best(loops[0], device),
        transcendental=terms * small.numel() / _best(loops[1], device),
        bytes=2 * source.nbytes / _best(lambda: target.copy_(source), device),
    )


def _best(function: Callable[[], Any], device: str, seconds: float = 0.5) -> float:
    """The shortest of many runs, in seconds: what the machine can do, undisturbed."""
    times, end = list[float](), time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        started = time.perf_counter()
        for _ in range(5):
            function()
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - started) / 5)
    return min(times)


def speed(
    suite_name: str,
    chosen: Choices,
    console: Console,
    *,
    counts: Sequence[int],
    seconds: float,
    file: Path | None,
    data_dir: Path | None,
    device: str,
    settings: JobSettings,
) -> int:
    """Times every chosen variant for every number of seeds, one after the other, each in a process of its own, after
    all of them have been compiled side by side. Methods of plug-ins that are named and that the preset has none of are
    timed as ``compare`` trains them."""
    methods = registry.methods(settings.plugins)
    suite = load_suite(suite_name, methods)
    place = executors.places(device)[0]
    if file is not None and not file.parent.is_dir():
        raise InputError(f"--json {file}: there is no folder {file.parent}")
    name, preset = choose_preset(suite, chosen)
    tasks = choose_tasks(preset, chosen)
    data = load_data(suite, tasks, data_folder(data_dir))
    if own := [one for one in registry.of_plugins(methods, settings.plugins) if one in (chosen.methods or ())]:
        suite = with_own(
            suite, dataclasses.replace(chosen, preset=name, tasks=tasks, methods=own), methods, data, console
        )
    timed = [
        job
        for count in counts
        for job in jobs(plan(suite, dataclasses.replace(chosen, seeds=range(count)), methods, data))
    ]
    executors.check_precision((job.config for job in timed), [place])
    if file is not None:
        try:
            file.open("a").close()
        except OSError as error:
            raise InputError(f"--json {file}: cannot be written: {error.strerror}") from error
    executors.prepare_environment([place])
    ceiling = measure_ceiling(place.device, settings.threads)
    console.print(_described(ceiling, place.device, settings.threads), soft_wrap=True)
    timer = _Timer(data, place, settings, console)
    probes = timer.compiled(timed)
    records, bad = [], 0
    for number, (job, probe) in enumerate(zip(timed, probes, strict=True), start=1):
        record = None if probe is None else timer.timed(job, probe, seconds)
        if record is None:
            bad += 1
            continue
        least, bound = ceiling.seconds(_counted(job, data, settings.plugins).work())
        record |= {"ceiling_ms_per_step": 1000 * least, "bound": bound}
        record["share_of_ceiling"] = record["ceiling_ms_per_step"] / record["train_ms_per_step"]
        records.append(record | {"threads": settings.threads, **machine(place.device)})
        console.print(
            f"[{number}/{len(timed)}] {job.title}, {record['seeds']} seeds: "
            f"{record['train_ms_per_step']:.3f} ms per iteration",
            markup=False,
            highlight=False,
        )
        if file is not None:
            file.write_text(json.dumps(records, indent=1) + "\n")
    tables.show(console, _table(records))
    return 1 if bad else 0


def _counted(job: Job, data: dict[str, Any], plugins: Sequence[Path]) -> Trainer:
    """A trainer of the job whose work can be counted; its products are as many in every precision."""
    plain = Job(tuple(Cell({**cell.config, "precision": "float32"}) for cell in job.cells))
    return make_trainer(plain, data[job.config["task"]], "cpu", JobSettings(tuple(plugins), compile=False))


@dataclasses.dataclass(frozen=True)
class _Timer:
    """Runs jobs through the supervisor, in folders that are gone afterwards."""

    data: dict[str, Any]
    place: executors.DeviceSlots
    settings: JobSettings
    console: Console

    def compiled(self, timed: Sequence[Job]) -> list[dict[str, Any] | None]:
        """Every job run shortly, as many side by side as there are cores: so all are compiled, and it is known about
        how long a step takes."""
        slots = max(1, min(len(timed), cores() // self.settings.threads))
        place, found = dataclasses.replace(self.place, slots=slots), dict[int, dict[str, Any] | None]()
        for count in sorted({len(job.cells) for job in timed}):  # jobs of other numbers of seeds have cells in common
            some = [number for number, job in enumerate(timed) if len(job.cells) == count]
            shortened = [_shortened(timed[number], _whole(_PROBE_STEPS, self._block(timed[number]))) for number in some]
            found |= zip(some, self._run(shortened, place), strict=True)
        return [found[number] for number in range(len(timed))]

    def timed(self, job: Job, probe: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """A job run for about so long, alone, its program compiled already; again where it was far shorter."""
        found: dict[str, Any] | None = probe
        for _ in range(2):
            assert found is not None
            steps = _whole(round(1000 * seconds / found["train_ms_per_step"]), self._block(job))
            (found,) = self._run([_shortened(job, steps)], dataclasses.replace(self.place, slots=1))
            if found is None or found["train_ms_per_step"] * found["steps"] > 1000 * seconds / 3:
                break
        return None if found is None else found | {"compile_seconds": probe["compile_seconds"]}

    def _block(self, job: Job) -> int:
        """Noise and minibatches are drawn for a block of steps at once: only whole blocks show what a step costs."""
        stream = _counted(job, self.data, self.settings.plugins).stream
        return block_steps(stream.step_bytes, len(job.cells), torch.device(self.place.device))

    def _run(self, wanted: Sequence[Job], place: executors.DeviceSlots) -> list[dict[str, Any] | None]:
        """What each job has cost; None where it fails. A seed that diverges costs what the others cost."""
        with tempfile.TemporaryDirectory() as folder:
            runs = RunDir(Path(folder))
            try:
                runs.plan(cell.record for job in wanted for cell in job.cells)
                executor = executors.LocalExecutor(Path(folder), self.settings, [place])
                quiet = _Quiet(self.console, list(wanted), lambda _: "")
                supervisor.Supervisor(self.data, runs, executor, quiet).run(list(wanted))
                return [_cost(job, runs) for job in wanted]
            finally:
                runs.close()


def _whole(steps: int, block: int) -> int:
    """At least so many steps, in whole blocks."""
    return block * max(1, -(-steps // block))


def _shortened(job: Job, steps: int) -> Job:
    """The job with so many steps, evaluations as far apart as they were, and nothing measured beside them."""
    config = job.config
    evaluations = max(1, round(steps * config["evaluations"] / config["steps"]))
    changes = {"steps": steps, "evaluations": evaluations, "pictures": False, "probes": [], "rule": "last"}
    return Job(tuple(Cell({**cell.config, **changes}) for cell in job.cells))


class _Quiet(Lines):
    """Says what goes wrong and nothing else."""

    def ended(self, job: Job, state: str, seconds: float, text: str | None) -> None:
        if state == "failed":
            self.note(f"{job.title}: {state} ({text})")

    def stepped(self, job: Job, step: int, stage: str = "") -> None:
        pass

    def printed(self, job: Job, where: str) -> None:
        pass  # the folder is gone when one would look


def _cost(job: Job, runs: RunDir) -> dict[str, Any] | None:
    """What a job has cost, by the last line of its journals."""
    if any(record.state == "failed" for record in runs.records(cell.id for cell in job.cells)):
        return None
    last = max((runs.folder(cell.id).measurements()[-1] for cell in job.cells), key=lambda line: line.step)
    seeds, steps, cost = len(job.cells), last.step, last.metrics
    per_step = 1000 * seeds / steps  # times are a seed's share
    return {
        "variant": job.config["variant"],
        "task": job.config["task"],
        "method": job.config["method"],
        "seeds": seeds,
        "steps": steps,
        "hidden": job.config["model"].get("hidden", 0),
        "hyper": job.config["hyper"],
        "drawn_as": job.config["drawn_as"],
        "ms_per_step": per_step * cost["time/wall_seconds"],
        "train_ms_per_step": per_step * cost["time/train_seconds"],
        "train_ms_per_seed_step": per_step * cost["time/train_seconds"] / seeds,
        "compile_seconds": seeds * cost["time/compile_seconds"],
        "peak_bytes": cost["memory/peak_bytes"],
    }


def _described(ceiling: Ceiling, place: str, threads: int) -> str:
    where = f"{threads} thread{'s' if threads > 1 else ''}" if place == "cpu" else place
    return (
        f"ceiling ({where}): {ceiling.products / 1e9:.0f} GFLOP/s in products, {ceiling.simple / 1e9:.1f} G simple and "
        f"{ceiling.transcendental / 1e9:.2f} G transcendental operations/s, {ceiling.bytes / 1e9:.1f} GB/s"
    )


def _table(records: Sequence[dict[str, Any]]) -> Table:
    table = Table("task", "variant")
    for name in ("seeds", "ms per iteration", "per seed", "wall", "compile s", "MB", "ceiling"):
        table.add_column(name, justify="right")
    for r in records:
        table.add_row(
            r["task"],
            r["variant"],
            f"{r['seeds']:,}",
            f"{r['train_ms_per_step']:.3f}",
            f"{r['train_ms_per_seed_step']:.4f}",
            f"{r['ms_per_step']:.3f}",
            f"{r['compile_seconds']:.1f}",
            f"{r['peak_bytes'] / 1e6:,.0f}",
            f"{r['share_of_ceiling']:.0%} of {r['bound']}",
        )
    return table
