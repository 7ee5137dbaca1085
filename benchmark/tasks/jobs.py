"""From cells to jobs, and of a plan the part that one of several machines trains."""

import dataclasses
import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmark.tasks.models import build_model
from benchmark.tasks.plan import Cell

_PROCESS_BYTES, _BLOCK_BYTES = 4.2e8, 1.5e6  # measured: torch with little to do, and what a seed draws at once


@dataclasses.dataclass(frozen=True)
class Job:
    """Cells of one configuration that differ in their seed alone, trained side by side."""

    cells: tuple[Cell, ...]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration; its seed is that of the first cell."""
        return self.cells[0].config

    @property
    def title(self) -> str:
        """For people: "checkerboard BiDSM-5"."""
        return f"{self.config['task']} {self.config['variant']}"

    @property
    def work(self) -> float:
        """A rough measure of its cost, for the order and for estimates: iterations times their relative cost."""
        return float(self.config["steps"] * self.config["cost"]["passes"] * len(self.cells))

    @functools.cached_property
    def memory(self) -> float:
        """What its process takes, in bytes, roughly: itself, and for each seed blocks of noise, states and activations.

        So that jobs which cannot be beside each other are not started beside each other; what it misses, the
        supervisor's answer to a lack of memory mends.
        """
        model: Any = build_model(self.config["model"])
        parameters = sum(parameter.numel() for parameter in model.parameters())
        activations = getattr(model, "activations", math.prod(model.visible_shape))
        unrolled = self.config["cost"]["unrolled"]
        examples = self.config["batch_size"] // self.config["accumulate"]
        numbers = (12 + 3 * unrolled) * parameters + 20 * (1 + unrolled) * examples * activations
        return _PROCESS_BYTES + len(self.cells) * (_BLOCK_BYTES + 4 * numbers)


def jobs(cells: Iterable[Cell], beside: Mapping[str, str | None] | None = None) -> list[Job]:
    """Cells that differ in their seed alone, together; the longest jobs first, so that no core waits at the end.

    Args:
        beside: for cells that are under way, by id, what they have in common with those they were trained beside: they
            go on in the same company, and so with the same numbers to the last bit.
    """
    company = beside or {}

    def configuration(cell: Cell) -> str:
        shared = {key: value for key, value in cell.config.items() if key not in ("seed", "pictures")}
        return json.dumps([shared, company.get(cell.id) or ""], sort_keys=True)

    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(configuration(cell), []).append(cell)
    return sorted(
        (Job(tuple(sorted(groups[name], key=lambda cell: int(cell.config["seed"])))) for name in sorted(groups)),
        key=lambda job: -job.work,
    )


def shard(cells: Sequence[Cell], number: int, count: int) -> list[Cell]:
    """The part of a plan that one of ``count`` machines trains: whole jobs, the longest first to who has least so far.

    The same for every machine, whatever has been trained already: together the parts are the plan.

    Args:
        number: from 1 to ``count``.
    """
    load, ours = [0.0] * count, set[str]()
    for job in jobs(cells):
        idlest = load.index(min(load))
        load[idlest] += job.work
        if idlest == number - 1:
            ours |= {cell.id for cell in job.cells}
    return [cell for cell in cells if cell.id in ours]
