"""Several processes that train one job together, each on its share of every minibatch (``--data-parallel``).

Gradients are averaged (``bism.gradients``), so that all have the same parameters at every step. One of them leads: it
alone measures and writes, and tells the others what to do.
"""

import dataclasses
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from benchmark.system import output
from bism.engine import Trainer
from bism.precision import computing


@dataclasses.dataclass(frozen=True)
class Group:
    """The processes of a job, as one of them sees it.

    rank: its number; 0 leads.
    size: how many there are.
    meeting: a file that is not there yet, by which they find each other.
    lines: to the others, for who leads; from who leads, for the others.
    """

    rank: int
    size: int
    meeting: str
    lines: tuple[Connection, ...]

    def join(self, device: str) -> None:
        """Meets the others; returns when all are there."""
        kind = "nccl" if device.startswith("cuda") else "gloo"
        if kind == "nccl":
            torch.cuda.set_device(device)
        distributed.init_process_group(kind, init_method=f"file://{self.meeting}", rank=self.rank, world_size=self.size)

    def leave(self) -> None:
        """Ends the others."""
        for line in self.lines:
            line.close()
        distributed.destroy_process_group()


class LeadingTrainer(Trainer):
    """A trainer whose group does what it does, where that needs them all."""

    group: Group

    def _tell(self, *message: Any) -> None:
        for line in self.group.lines:
            line.send(message)

    def run(self, steps: int) -> None:
        self._tell("run", steps)
        super().run(steps)

    def reports_on(self, data: Tensor, batches: int = 3) -> dict[str, Tensor]:
        self._tell("reports_on", data, batches)
        return super().reports_on(data, batches)

    def restore(self, saved: dict[str, Any], source: object) -> None:
        self._tell("restore", saved, source)
        super().restore(saved, source)


def follow(group: Group, device: str, threads: int, make: Callable[[], Trainer], printed: Path) -> None:
    """What a process does that does not lead, until the one that does has gone; ``printed`` gets what it prints."""
    output.redirect(printed)
    for number in (signal.SIGINT, signal.SIGTERM):  # who leads writes a checkpoint before it ends, and needs the others
        signal.signal(number, signal.SIG_IGN)
    if device == "cpu":
        torch.set_num_threads(threads)
    group.join(device)
    try:
        with computing(torch.device(device)):
            trainer = make()
            while True:
                name, *arguments = group.lines[0].recv()
                getattr(trainer, name)(*arguments)
    except (EOFError, OSError, RuntimeError):  # it has ended: well, or in the middle of a step
        os._exit(0)
    except BaseException:  # of a method: who leads raises it too, and says so
        traceback.print_exc()
        os._exit(1)
