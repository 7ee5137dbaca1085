"""A step of BiMDSM on CIFAR-10-sized images: this package beside the same step written plainly.

    python -m tests.harness.deep_speed [--device cuda] [--width 128] [--layers 18] [--hidden 50] [--batch 100]
        [--only plain-float32 package-bf16] [--json FILE]

A command and not a test: it times. The plain step is what one writes first (and what the paper's code does): modules,
``torch.autograd.grad(create_graph=True)``, ``torch.optim.Adam``. Both draw fresh noise in every inner step. Each line
says its precision and is timed at no other: float32 is without TF32. Prints medians of images per second, peak memory,
the time it took to compile, and the share of the device's bf16 peak.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.records.provenance import machine
from bism import BiMDSM
from bism.engine import Trainer
from bism.resnet import ResNetEBLVM

LEVELS: dict[str, Any] = {"sigma_min": 0.05, "sigma_max": 1.2, "spacing": "linear", "sigma0": 0.1}
INNER = 5
PEAK = 989.4e12  # dense bf16 operations per second of an H100 SXM and an H200, by their data sheets

Line = dict[str, Any]  # name, seconds and images a second, peak memory, and of this package's steps how they were made


def plain_step(model: Any, posterior: Any, data: Tensor, batch: int, inner: int) -> Callable[[], None]:
    """One step, each time on a new minibatch."""
    adam: dict[str, Any] = {"lr": 5e-5, "betas": (0.9, 0.95)}
    upper, lower = torch.optim.Adam(model.parameters(), **adam), torch.optim.Adam(posterior.parameters(), **adam)
    sigma = torch.linspace(LEVELS["sigma_min"], LEVELS["sigma_max"], batch, device=data.device).reshape(-1, 1, 1, 1)

    def noisy(v: Tensor) -> tuple[Tensor, Tensor]:
        eps = torch.randn_like(v)
        return v + sigma * eps, eps

    def log_q(h: Tensor, v: Tensor) -> Tensor:
        density: Tensor = posterior.log_prob(h, v)
        return density

    def step() -> None:
        v = data[torch.randint(len(data), (batch,), device=data.device)]
        for _ in range(inner):
            points, _ = noisy(v)
            h = posterior.sample(points, torch.randn(batch, model.latent.size, device=v.device))
            value = -model.energy(points, h) - log_q(h, points)
            (slope,) = torch.autograd.grad(value.sum(), h, create_graph=True)
            loss = (0.5 * slope.square().sum(1) / sigma.flatten()).mean()
            gradients = torch.autograd.grad(loss, list(posterior.parameters()))
            for parameter, gradient in zip(posterior.parameters(), gradients, strict=True):
                parameter.grad = gradient
            lower.step()
        points, eps = noisy(v)
        points.requires_grad_()
        h = posterior.sample(points, torch.randn(batch, model.latent.size, device=v.device)).detach()
        value = -model.energy(points, h) - log_q(h, points)
        (score,) = torch.autograd.grad(value.sum(), points, create_graph=True)
        residual = score / sigma + eps / LEVELS["sigma0"] ** 2
        upper.zero_grad(set_to_none=True)
        (0.5 * residual.square().flatten(1).sum(1)).mean().backward()  # type: ignore[no-untyped-call]
        upper.step()

    return step


def seconds(step: Callable[[], None], device: str, steps: int) -> float:
    """Median of a step's time over five rounds, after a warm-up."""
    rounds = []
    for _ in range(6):
        started = time.perf_counter()
        for _ in range(steps):
            step()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        rounds.append((time.perf_counter() - started) / steps)
    return statistics.median(rounds[1:])


def ways(options: argparse.Namespace) -> dict[str, Callable[[], Line]]:
    """What can be timed, by name: each makes its own model, compiles, times and lets go of all of it."""
    shape, cuda = (3, options.side, options.side), options.device.startswith("cuda")
    data = torch.rand(1000, *shape, device=options.device)

    def model() -> Any:
        return ResNetEBLVM(shape, options.hidden, options.width, options.layers)

    def plain() -> Line:
        one = model().to(options.device)
        posterior = one.default_posterior().to(options.device)
        took = seconds(plain_step(one, posterior, data, options.batch, INNER), options.device, options.steps)
        return {"seconds": took}

    def package(precision: str) -> Line:
        estimator = BiMDSM(**LEVELS, lower="fisher", inner_steps=INNER, unroll_steps=0, lr=5e-5, lr_posterior=5e-5)
        trainer = Trainer(
            estimator, model(), data, seeds=[0], batch_size=options.batch, device=options.device,
            compile=True, precision=precision,
        )  # fmt: skip
        took = seconds(lambda: trainer.run(1), options.device, options.steps)
        rate = trainer.work().products / took
        line = {"seconds": took, "compiled": trainer.compiled, "compile_seconds": trainer.compile_seconds}
        return {**line, "products_per_second": rate, "share_of_peak": rate / PEAK if cuda else None}

    precisions = ("float32", "tf32", "bf16") if cuda else ("float32", "bf16")
    return {
        "plain-float32": plain,
        **({"plain-tf32": plain} if cuda else {}),
        **{f"package-{precision}": partial(package, precision) for precision in precisions},
    }


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Float32 products and convolutions in TF32 on a GPU, or not; afterwards as before."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def timed(name: str, way: Callable[[], Line], options: argparse.Namespace) -> Line:
    """One line: what ``way`` measured, at the precision in its name, and what memory it took."""
    cuda = options.device.startswith("cuda")
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with tf32(name.endswith("tf32")):
        line = way()
    peak = torch.cuda.max_memory_allocated() if cuda else None
    return {"name": name, "images_per_second": options.batch / line["seconds"], "peak_bytes": peak, **line}


def described(line: Line) -> str:
    """A line of the table, in words."""
    parts = [f"{line['name']}: {1e3 * line['seconds']:.1f} ms", f"{line['images_per_second']:.0f} images/s"]
    if line["peak_bytes"] is not None:
        parts.append(f"{line['peak_bytes'] / 1e9:.1f} GB")
    if "compiled" in line:
        parts.append(f"{line['products_per_second'] / 1e12:.2f} TFLOP/s")
        compiled = f"compiled in {line['compile_seconds']:.0f} s"
        parts.append(compiled if line["compiled"] else "uncompiled")
    if line.get("share_of_peak") is not None:
        parts.append(f"{100 * line['share_of_peak']:.0f}% of the bf16 peak")
    return ", ".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each way, as it comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=18)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10, help="in each of six rounds")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the lines to time; by default all of the device's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the lines, anew after each")
    options = parser.parse_args(arguments)
    found = ways(options)
    names = options.only or list(found)
    if unknown := [name for name in names if name not in found]:
        parser.error(f"--only: no line {', '.join(unknown)} on {options.device}; there are {', '.join(found)}")
    host = machine(options.device)
    print(host, flush=True)
    lines: list[Line] = []
    for name in names:
        lines.append(timed(name, found[name], options))
        print(described(lines[-1]), flush=True)
        if options.json:
            sizes = {key: getattr(options, key) for key in ("width", "layers", "hidden", "batch", "side")}
            options.json.write_text(json.dumps({"machine": host, **sizes, "lines": lines}, indent=1))


if __name__ == "__main__":
    main()
