"""What training costs on a GPU: everything that docs/gpu.md has a table for, in under eight minutes of an H100.

    python -m tests.gpu.measure --out DIR [--device cuda] [--only NAME ...] [--minutes 8] [--small]

A command and not a test: it times. First the deep step is compiled alone, in an empty cache, on all cores; then all
other programs side by side. Then each part runs alone, in a process of its own, from what was compiled: after a
warm-up, medians of rounds of whole blocks through ``Trainer.run``, synchronised. What fails, or does not
fit the time, is said and takes nothing else along. DIR/NAME.json has what was found, as it comes; DIR/table.md all.

``--only speed-table --minutes 11`` runs the command ``speed`` on the checkerboard preset, from an empty cache, and
times the whole of it; it has to be asked for, since it does not fit beside the rest.

``--small --device cpu`` rehearses it anywhere, on sizes whose numbers mean nothing.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from baselines import CD, DSM
from benchmark.records.provenance import cores, machine
from bism import GRBM, BiDSM, Estimator, capture, engine
from bism.engine import Trainer
from bism.langevin import langevin
from bism.precision import computing
from bism.resnet import ResNetEBLVM
from tests.gpu.parallel import python, side_by_side

Record = dict[str, Any]
ROUNDS, ROUND_SECONDS = 5, 0.4
PART_SECONDS, COMPILING_SECONDS, TABLE_SECONDS = 90, 200, 600  # a process that takes longer is ended
SAMPLED = {"hidden": 50, "width": 128, "layers": 18, "batch": 100, "side": 32}


@dataclasses.dataclass(frozen=True)
class Part:
    """Training of a GRBM. ways: how, beside the usual way."""

    estimator: Estimator
    visible: int
    hidden: int
    seeds: int
    ways: tuple[str, ...] = ()


ALL = ("alone", "uncaptured", "combo")
PARTS = {
    "bidsm-1000": Part(BiDSM(), 2, 4, 1000, ALL),
    "bidsm-10": Part(BiDSM(), 2, 4, 10, ALL),
    "dsm-1000": Part(DSM(), 2, 4, 1000, ("alone", "uncaptured")),
    "cd-1000": Part(CD(), 2, 4, 1000),
    "frey-10": Part(BiDSM(), 560, 400, 10, ALL),
    "frey-1": Part(BiDSM(), 560, 400, 1),
}
DEEP = ("plain-float32", "plain-tf32", "package-bf16", "package-float32", "package-tf32")
COLD = "deep-package-bf16"  # the one whose compiling is timed alone
TABLE = "speed-table"
WAYS = {
    "usual": "",
    "alone": "one step in a replay",
    "uncaptured": "without CUDA graphs",
    "combo": "Inductor's combo_kernels",
}


# --- one part, in a process of its own --------------------------------------------------------------------------------


@contextlib.contextmanager
def going(way: str) -> Iterator[None]:
    """Trainers made inside go this way. Without graphs the program is the same one."""
    with contextlib.ExitStack() as stack:
        if way == "alone":
            stack.enter_context(mock.patch.object(capture, "TOGETHER", 1))
        if way == "uncaptured":
            stack.enter_context(mock.patch.object(engine, "capture_on_cuda", _nothing))
        if way == "combo":
            stack.enter_context(torch._inductor.config.patch(combo_kernels=True, benchmark_combo_kernel=False))
        yield


def _nothing() -> Any:
    raise RuntimeError("switched off, to see what it gains")


def made(part: Part, device: str, small: bool) -> Trainer:
    """Its trainer, compiled, on random points."""
    visible, hidden = (part.visible, part.hidden) if part.visible == 2 or not small else (12, 8)
    seeds = range(part.seeds if not small else min(part.seeds, 3))
    points = torch.rand(2000, visible, generator=torch.Generator().manual_seed(0))
    return Trainer(part.estimator, GRBM(visible, hidden), points, seeds=seeds, device=device, compile=True)


def trained(part: Part, way: str, device: str, small: bool) -> Record:
    """What a step of a part costs, and of what."""
    with going(way):
        _reset(device)
        mine = made(part, device, small)
        block = mine.stream.block_steps
        mine.run(block)  # steps are recorded at the first of them
    took = medians(lambda: mine.run(block), device, small)
    drawing = medians(lambda: mine.stream.draw(mine.data, 0, "timing", block), device, small)
    return {
        "way": way,
        "seeds": len(mine.seeds),
        "ms_per_step": 1e3 * took / block,
        "ms_per_step_drawing": 1e3 * drawing / block,
        "block_steps": block,
        "compiled": mine.compiled,
        "captured": mine.captured,
        "compile_seconds": mine.compile_seconds,
        "kernels_per_step": kernels(mine),
        "peak_bytes": _peak(device),
        "diverged": sum(step is not None for step in mine.diverged_at),
    }


def medians(function: Callable[[], Any], device: str, small: bool) -> float:
    """Seconds of a call: the median of rounds that are long enough to be timed, after a warm-up."""
    function()
    once = _seconds(function, 1, device)
    count = 1 if small else max(1, math.ceil(ROUND_SECONDS / max(once, 1e-6)))
    return statistics.median(_seconds(function, count, device) for _ in range(ROUNDS))


def _seconds(function: Callable[[], Any], count: int, device: str) -> float:
    _wait(device)
    started = time.perf_counter()
    for _ in range(count):
        function()
    _wait(device)
    return (time.perf_counter() - started) / count


def kernels(mine: Trainer, steps: int = capture.TOGETHER) -> float | None:
    """Kernels that a step launches, drawing left out; None where nobody counts them."""
    if mine.device.type != "cuda":
        return None
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    try:
        block = mine.stream.ahead(mine.step, steps)
        with torch.no_grad(), computing(mine.device), profile(activities=[ProfilerActivity.CUDA]) as seen:
            mine._advance(mine._leaves, block, mine._hyper_of(0))
            torch.cuda.synchronize(mine.device)
        found = [event for event in seen.events() or () if event.device_type == DeviceType.CUDA]
        return len([event for event in found if not event.name.startswith(("Mem", "Activity"))]) / len(block)
    except Exception as error:  # a profiler that does not work here is no reason to lose the timings
        print(f"kernels were not counted: {error}")
        return None


def sampled(device: str, small: bool) -> Record:
    """A step of Langevin dynamics on a batch of images given h: written plainly in float32, and in bf16 by ours."""
    size = {**SAMPLED, "hidden": 2, "width": 1, "layers": 12, "batch": 4} if small else SAMPLED
    model = ResNetEBLVM((3, size["side"], size["side"]), size["hidden"], size["width"], size["layers"]).to(device)
    v = torch.rand(size["batch"], 3, size["side"], size["side"], device=device)
    h = torch.randn(size["batch"], size["hidden"], device=device)
    steps = 2 if small else 20

    def plain() -> None:
        x = v
        for _ in range(steps):
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(model.energy(x, h).sum(), x)
            x = x - 0.0002 * slope + 0.02 * torch.randn_like(x)

    def ours(precision: str) -> None:
        for _ in langevin(lambda at: model.energy(at["v"], h), {"v": v}, torch.ones(steps), precision=precision):
            pass

    ways: dict[str, Callable[[], None]] = {
        "plain-float32": plain,
        **{f"package-{name}": partial(ours, name) for name in ("float32", "tf32", "bf16")},
    }
    found: Record = {}
    for name, way in ways.items():
        if device == "cpu" and name.endswith("tf32"):
            continue
        _reset(device)
        with computing(torch.device(device)):
            found[name] = {"ms_per_step": 1e3 * medians(way, device, small) / steps, "peak_bytes": _peak(device)}
    return found


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def _reset(device: str) -> None:
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: str) -> int | None:
    return None if device == "cpu" else torch.cuda.max_memory_allocated(device)


def one(name: str, device: str, small: bool, file: Path, compile_only: bool) -> None:
    """Runs a part and writes what it finds, anew after each way."""
    if name == "sampling":
        file.write_text(json.dumps(sampled(device, small), indent=1))
        return
    part, found = PARTS[name], list[Record]()
    for way in ("usual", *part.ways):
        if compile_only:
            with going(way if way == "combo" else "usual"):
                if way in ("usual", "combo"):
                    found.append({"way": way, "compile_seconds": made(part, device, small).compile_seconds})
        else:
            found.append(trained(part, way, device, small))
        file.write_text(json.dumps(found, indent=1))


# --- all of them ------------------------------------------------------------------------------------------------------


class Measuring:
    """The parts one after the other, until the time is up."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, options.out
        self.failed, self.took = dict[str, str](), dict[str, float]()
        self.end = time.monotonic() + 60 * options.minutes
        self.out.mkdir(parents=True, exist_ok=True)
        self.environment = {"TORCHINDUCTOR_CACHE_DIR": str(self.out / "compiled"), "OMP_NUM_THREADS": "1"}

    def wanted(self, names: Any) -> list[str]:
        return [name for name in names if self.options.only is None or name in self.options.only]

    def run(self) -> None:
        """Measures, and writes the table."""
        deep = self.wanted(f"deep-{name}" for name in DEEP if self.options.device != "cpu" or "tf32" not in name)
        parts, sampling = self.wanted(PARTS), self.wanted(["sampling"])
        if COLD in deep:
            self.alone(COLD, self.deep(COLD), COMPILING_SECONDS, threads=cores())
            deep.remove(COLD)
        self.compile(parts, [name for name in deep if "package" in name])
        for name in parts:
            self.alone(name, self.part(name), PART_SECONDS)
        for name in [*deep, *sampling]:
            self.alone(name, self.deep(name) if name in deep else self.part(name), PART_SECONDS)
        if TABLE in (self.options.only or ()):
            self.alone(TABLE, self.table(), TABLE_SECONDS, threads=cores())
        (self.out / "table.md").write_text(table(self.out, self.options.device, self.failed, self.took))

    def table(self) -> list[str]:
        preset = ["--preset", "quick", "--methods", "dsm"] if self.options.small else ["--preset", "paper"]
        asked = ["--tasks", "checkerboard", "--devices", self.options.device, "--json", str(self.out / f"{TABLE}.json")]
        return ["-m", "benchmark", "speed", "--suite", "grbm", *preset, *asked]

    def part(self, name: str, folder: str = "") -> list[str]:
        file = str(self.out / folder / f"{name}.json")
        small = ["--small"] if self.options.small else []
        return ["-m", "tests.gpu.measure", "--part", name, "--device", self.options.device, "--out", file, *small]

    def deep(self, name: str, folder: str = "", steps: int = 10) -> list[str]:
        small = ["--width", "1", "--layers", "12", "--hidden", "2", "--batch", "4", "--side", "8", "--steps", "1"]
        file = str(self.out / folder / f"{name}.json")
        asked = ["--device", self.options.device, "--only", name.removeprefix("deep-"), "--json", file]
        size = small if self.options.small else ["--steps", str(steps)]
        return ["-m", "tests.harness.deep_speed", *asked, *size]

    def compile(self, parts: list[str], deep: list[str]) -> None:
        """Fills the cache, in as many processes as there are programs; DIR/compiling has what each took."""
        (self.out / "compiling").mkdir(exist_ok=True)
        commands = [[*self.part(name, "compiling"), "--compile-only"] for name in parts]
        commands += [self.deep(name, "compiling", 1) for name in deep]
        seconds = min(COMPILING_SECONDS, self.left)
        if not commands or seconds < 1:
            return
        threads = {"TORCHINDUCTOR_COMPILE_THREADS": str(max(1, cores() // len(commands)))}
        endings = side_by_side(commands, seconds, cores(), {**self.environment, **threads})
        for name, (code, said) in zip([*parts, *deep], endings, strict=True):
            if code:
                print(f"compiling {name}: {_ending(code, said)}", flush=True)

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def alone(self, name: str, command: list[str], seconds: float, threads: int = 1) -> None:
        """One part; what it says, and how it fails."""
        if self.left < 1:
            self.failed[name] = "not measured: no time was left"
        else:
            started = time.monotonic()
            given = {**self.environment, "TORCHINDUCTOR_COMPILE_THREADS": str(threads)}
            if name == TABLE:  # nothing is compiled already
                given["TORCHINDUCTOR_CACHE_DIR"] = str(self.out / "compiled-for-the-table")
            patience = 5 if self.options.small else 1  # where nothing is timed, the machine may be busy
            code, said = python(command, min(patience * seconds, self.left), given)
            if code:
                self.failed[name] = _ending(code, said)
                (self.out / f"{name}.log").write_text(said)
            self.took[name] = time.monotonic() - started
            print(f"{name}: {self.failed.get(name, 'done')} in {self.took[name]:.0f} s", flush=True)


def _ending(code: int, said: str) -> str:
    last = (said.strip().splitlines() or [""])[-1]
    return "it took too long" if code == 124 else f"failed with {code}: {last}"


def table(out: Path, device: str, failed: dict[str, str], took: dict[str, float]) -> str:
    """What the files say, in Markdown."""
    of = machine(device)
    lines = [f"{of['machine']}, torch {of['torch']}, Python {of['python']}, commit {of['commit'][:7]}", ""]
    head = (
        "what",
        "seeds",
        "ms per step",
        "of it drawing",
        "kernels per step",
        "MB",
        "compile s, cold",
        "from the cache",
    )
    lines += [_row(head), _row(["---"] + ["---:"] * (len(head) - 1))]
    for name in PARTS:
        cold = {record["way"]: record["compile_seconds"] for record in _read(out / "compiling" / f"{name}.json", [])}
        for r in _read(out / f"{name}.json", []):
            fallen = "" if r["compiled"] and r["captured"] == (r["way"] != "uncaptured") else " (fell back)"
            count, before = r["kernels_per_step"], cold.get("combo" if r["way"] == "combo" else "usual")
            cells = [", ".join(filter(None, [name, WAYS[r["way"]]])) + fallen, f"{r['seeds']:,}"]
            cells += [f"{r['ms_per_step']:.3f}", f"{r['ms_per_step_drawing']:.3f}", _or_dash(count, "{:.0f}")]
            cells += [_megabytes(r["peak_bytes"]), _or_dash(before, "{:.0f}"), f"{r['compile_seconds']:.1f}"]
            lines.append(_row(cells))
    lines += ["", _row(["deep", "ms per step", "MB", "compile s"]), _row(["---", "---:", "---:", "---:"])]
    for name in (f"deep-{name}" for name in DEEP):
        before = _read(out / "compiling" / f"{name}.json", {"lines": []})["lines"]
        for r in _read(out / f"{name}.json", {"lines": []})["lines"]:
            took = (before[0] if before else r).get("compile_seconds")
            fallen = "" if r.get("compiled", True) else " (uncompiled)"
            how = ", alone, empty cache" if name == COLD else ", beside the others"
            cells = [name + fallen, f"{1e3 * r['seconds']:.1f}", _megabytes(r.get("peak_bytes"))]
            lines.append(_row([*cells, _or_dash(took, "{:.0f}" + how)]))
    lines += ["", _row(["sampling", "ms per step", "MB"]), _row(["---", "---:", "---:"])]
    for name, r in _read(out / "sampling.json", {}).items():
        lines.append(_row([name, f"{r['ms_per_step']:.2f}", _megabytes(r["peak_bytes"])]))
    if variants := _read(out / f"{TABLE}.json", []):
        lines += ["", f"`speed` on the checkerboard preset: {len(variants)} rows in {took[TABLE]:.0f} s."]
    lines += ["", *(f"- {name}: {why}" for name, why in failed.items())]
    return "\n".join(lines) + "\n"


def _read(file: Path, otherwise: Any) -> Any:
    """What a part has written; of one that was ended before or while it wrote, ``otherwise``."""
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return otherwise


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:,.0f}"


def main() -> None:
    """All parts, or with ``--part`` one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*PARTS, *(f"deep-{name}" for name in DEEP), "sampling", TABLE]
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument("--minutes", type=float, default=8.0, help="what has not begun by then is left out")
    parser.add_argument("--small", action="store_true", help="a rehearsal: sizes whose numbers mean nothing")
    parser.add_argument("--part", choices=names, help=argparse.SUPPRESS)
    parser.add_argument("--compile-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out.resolve()
    if options.part:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        one(options.part, options.device, options.small, options.out, options.compile_only)
        return
    measuring = Measuring(options)
    measuring.run()
    print((measuring.out / "table.md").read_text())
    raise SystemExit(1 if measuring.failed else 0)


if __name__ == "__main__":
    main()
