"""A step of BiMDSM on CIFAR-10-sized images: this package beside the same step written plainly.

    python -m tests.harness.deep_speed [--device cuda] [--width 128] [--layers 18] [--hidden 50] [--batch 100]

A command and not a test: it times. The plain step is what one writes first (and what the paper's code does): modules,
``torch.autograd.grad(create_graph=True)``, ``torch.optim.Adam``, float32 without TF32. Both draw fresh noise in every
inner step. Prints medians of images per second, peak memory, and the share of the device's bf16 peak.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmark.provenance import machine
from bism import BiMDSM
from bism.engine import Trainer
from bism.resnet import ResNetEBLVM

LEVELS: dict[str, Any] = {"sigma_min": 0.05, "sigma_max": 1.2, "spacing": "linear", "sigma0": 0.1}
PEAK = 989.4e12  # dense bf16 operations per second of an H100 SXM and an H200, by their data sheets


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


def main() -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=18)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10, help="in each of six rounds")
    parser.add_argument("--side", type=int, default=32)
    options = parser.parse_args()
    print(machine(options.device))
    cuda = options.device.startswith("cuda")
    shape = (3, options.side, options.side)
    data = torch.rand(1000, *shape, device=options.device)

    def model() -> Any:
        return ResNetEBLVM(shape, options.hidden, options.width, options.layers).to(options.device)

    def report(name: str, took: float, share: str = "") -> None:
        memory = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if cuda else ""
        print(f"{name}: {1e3 * took:.1f} ms, {options.batch / took:.0f} images/s{memory}{share}", flush=True)
        if cuda:
            torch.cuda.reset_peak_memory_stats()

    for tf32 in (False, True) if cuda else (False,):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        one = model()
        step = plain_step(one, one.default_posterior().to(options.device), data, options.batch, 5)
        report(f"plain, float32{', TF32' if tf32 else ''}", seconds(step, options.device, options.steps))
        del one, step
    estimator = BiMDSM(**LEVELS, lower="fisher", unroll_steps=0, lr=5e-5, lr_posterior=5e-5)
    for precision in ("float32", "bf16") if cuda else ("float32",):
        trainer = Trainer(
            estimator, model().cpu(), data, seeds=[0], batch_size=options.batch, device=options.device,
            compile=True, precision=precision,
        )  # fmt: skip
        took = seconds(lambda t=trainer: t.run(1), options.device, options.steps)  # type: ignore[misc]
        work = trainer.work().products
        share = f", {work / took / 1e12:.1f} TFLOP/s" + (
            f", {100 * work / took / PEAK:.0f}% of the peak" if cuda else ""
        )
        report(f"this package, {precision}{'' if trainer.compiled else ', uncompiled'}", took, share)
        del trainer


if __name__ == "__main__":
    main()
