"""An iteration of score matching and of Langevin CD beside libraries that train the same energies.

    pip install --no-deps --target DIR ebmkit==0.16 torchebm==0.8.9
    python -m tests.harness.peers DIR [--seeds 10] [--batch 100] [--width 128] [--steps 200] [--json FILE]

A command and not a test: it times. The energy is the same module everywhere, an MLP 2-128-128-1 (``bism.mlp.MLPEBM``);
an iteration draws a minibatch, the loss and its gradient, and takes a step of Adam; one thread. A library trains one
model at a time, this package ``--seeds`` of them side by side, compiled, and both are told as milliseconds per
iteration and model. On the way each library's DSM is compared with ours at the same noise, value and gradient, in
float64: what is timed should be the same thing.
"""

import argparse
import importlib
import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baselines import DSM, SSM, LangevinCD
from benchmark.records.provenance import machine
from bism.engine import Trainer
from bism.mlp import MLPEBM
from bism.objectives import dsm

SIGMA, CHAIN, LANGEVIN = 0.1, 20, 0.05  # of DSM; steps of a chain, and their size
ROUNDS = 5
Line = dict[str, Any]  # library, method, milliseconds per iteration and model, and what else there is to say


class Energy(torch.nn.Module):
    """The energy as libraries call it: a module from x [batch, 2] to [batch]."""

    def __init__(self, model: MLPEBM) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.energy(x)

    gradient = None  # torchebm asks whether there is one in closed form


def losses_of_ebmkit(energy: Energy, dtype: torch.dtype) -> dict[str, Callable[[Tensor], Tensor]]:
    """ebmkit's losses of a minibatch, by the name of our method."""
    ebm, samplers = importlib.import_module("ebm.losses"), importlib.import_module("ebm.samplers")
    chain = samplers.LangevinDynamics(step_size=LANGEVIN**2 / 2, steps=CHAIN)
    made = {
        "DSM": ebm.DenoisingScoreMatching(SIGMA),
        "SSM": ebm.SlicedScoreMatching(1),
        f"Langevin CD-{CHAIN}": ebm.ContrastiveDivergence(chain),
    }
    return {name: lambda x, of=loss: of(energy, x).loss for name, loss in made.items()}


def losses_of_torchebm(energy: Energy, dtype: torch.dtype) -> dict[str, Callable[[Tensor], Tensor]]:
    """torchebm's, likewise."""
    module = importlib.import_module("torchebm.losses")
    options: dict[str, Any] = {"model": energy, "dtype": dtype, "device": "cpu"}
    return {
        "DSM": module.DenoisingScoreMatching(noise_scale=SIGMA, **options),
        "SSM": module.SlicedScoreMatching(n_projections=1, **options),
    }


LIBRARIES = {"ebmkit": losses_of_ebmkit, "torchebm": losses_of_torchebm}


def difference(losses: Callable[..., Any], width: int) -> str:
    """How far a library's DSM is from ours at the same noise, in float64, in words."""
    torch.manual_seed(0)
    energy = Energy(MLPEBM(2, width)).double()
    x = torch.randn(100, 2, dtype=torch.float64)
    parameters = list(energy.parameters())[:-1]  # the energy's additive constant has no part in a score
    state = torch.random.get_rng_state()
    theirs = losses(energy, torch.float64)["DSM"](x)
    torch.random.set_rng_state(state)
    eps = torch.randn_like(x)
    found = [theirs.detach(), *torch.autograd.grad(theirs, parameters)]

    def ours(sign: float) -> list[Tensor]:
        value = dsm(lambda v: -sign * energy(v), x, eps, torch.tensor(SIGMA, dtype=torch.float64)).mean()
        return [value.detach(), *torch.autograd.grad(value, parameters)]

    def away(from_: list[Tensor]) -> float:
        return max(float((a - b).norm() / b.norm()) for a, b in zip(found, from_, strict=True) if float(b.norm()) > 0)

    said = f"DSM's value and gradient at the same noise: {away(ours(1.0)):.0e} of their size from ours"
    if away(ours(1.0)) > 1e-6 > away(ours(-1.0)):
        said += "; with the energy's sign turned around they agree: it learns exp(+E)"
    return said


def library(name: str, options: argparse.Namespace) -> Iterator[Line]:
    """A line for each method of a library."""
    torch.manual_seed(0)
    data, energy = torch.randn(10_000, 2), Energy(MLPEBM(2, options.width))
    for method, loss in LIBRARIES[name](energy, torch.float32).items():
        optimiser = torch.optim.Adam(energy.parameters())

        def step(loss: Callable[[Tensor], Tensor] = loss, optimiser: Any = optimiser) -> None:
            x = data[torch.randint(len(data), (options.batch,))]
            optimiser.zero_grad(set_to_none=True)
            loss(x).backward()  # type: ignore[no-untyped-call]
            optimiser.step()

        yield {"library": name, "method": method, "ms": milliseconds(lambda n, step=step: [step() for _ in range(n)],
                                                                       options.steps)}  # fmt: skip


def package(options: argparse.Namespace) -> Iterator[Line]:
    """A line for each of our methods."""
    data = torch.randn(10_000, 2)
    chains = LangevinCD(k=CHAIN, step_size=LANGEVIN, start="noise")
    for name, method in (("DSM", DSM(sigma=SIGMA)), ("SSM", SSM()), (f"Langevin CD-{CHAIN}", chains)):
        trainer = Trainer(
            method, MLPEBM(2, options.width), data, seeds=range(options.seeds), batch_size=options.batch, compile=True
        )
        ms = milliseconds(trainer.run, options.steps) / options.seeds
        yield {"library": "this package", "method": name, "ms": ms, "seeds": options.seeds,
               "compiled": trainer.compiled, "compile_seconds": trainer.compile_seconds}  # fmt: skip


def milliseconds(run: Callable[[int], Any], steps: int) -> float:
    """Of an iteration: the median of some rounds after a warm-up, which compiles."""
    run(steps)
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        run(steps)
        rounds.append((time.perf_counter() - started) / steps)
    return 1e3 * statistics.median(rounds)


def described(line: Line, ours: dict[str, float]) -> str:
    """A line of the table, in words."""
    text = f"{line['library']:>12} {line['method']:<16} {line['ms']:8.3f} ms"
    if "compile_seconds" in line:
        how = f"compiled in {line['compile_seconds']:.0f} s" if line["compiled"] else "not compiled"
        return f"{text} per seed, {line['seeds']} seeds side by side, {how}"
    return f"{text}, {line['ms'] / ours[line['method']]:.1f} times ours"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each method, ours first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the libraries were installed")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200, help=f"in each of {ROUNDS + 1} rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(options.folder))
    found = [name for name, module in (("ebmkit", "ebm"), ("torchebm", "torchebm")) if _has(module)]
    if not found:
        parser.error(f"{options.folder}: neither ebmkit nor torchebm is there; the text of --help says how to install")
    torch.set_num_threads(1)
    print(
        *machine("cpu").values(),
        *(f"{name} {importlib.metadata.version(name)}" for name in found),
        sep=", ",
        flush=True,
    )
    lines = list[Line]()
    for line in package(options):
        lines.append(line)
        print(described(line, {}), flush=True)
    ours = {line["method"]: line["ms"] for line in lines}
    for name in found:
        print(f"{name}: {difference(LIBRARIES[name], options.width)}", flush=True)
        for line in library(name, options):
            lines.append(line)
            print(described(line, ours), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine("cpu"), "lines": lines}, indent=1))


def _has(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    main()
