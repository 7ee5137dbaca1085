"""Everything that training needs to go on: the state is the checkpoint."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bism.functional import Bound, Methods
from bism.optimisers import Tree
from bism.rng import Rng

Hyper = dict[str, Tensor]
Info = dict[str, Tensor]


class Parts:
    """A model's parts as attributes: ``parts.model``, ``parts.posterior``."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._parts = parts

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._parts:
            raise AttributeError(f"there is no part '{name}'; this method's parts are {', '.join(self._parts)}")
        return self._parts[name]


@dataclasses.dataclass(frozen=True)
class State:
    """The state of one seed (the engine stacks its tensors over seeds).

    modules: the structure behind the parameters, by part ("model", "posterior"); no numbers of theirs are used.
    params: tensors by part and name; a part without a module is a plain group of tensors (NCE's normaliser).
    optimiser: running state of the optimisers.
    carry: what else a method carries from step to step (PCD's chains, NCE's noise distribution).
    buffers: the modules' buffers by part and name; a step may replace them, no optimiser moves them.
    iteration: how many steps have been made, a whole number; known within a step.
    examples: which rows of the training data the minibatches are, [minibatches, batch], -1 for one that is none of
        them; known within a step of a method that says ``uses_examples``.
    """

    modules: Mapping[str, Methods]
    params: Tree
    optimiser: Tree
    carry: dict[str, Tensor]
    buffers: Tree = dataclasses.field(default_factory=dict)
    iteration: Tensor | None = None
    examples: Tensor | None = None

    def bind(self, params: Tree | None = None) -> Parts:
        """The parts with ``params`` in place: ``bind(p).model.energy(v, h)``, ``bind(p).posterior.log_prob(h, v)``."""
        parts = self.params if params is None else params
        return Parts(
            {
                name: Bound(self.modules[name], {**self.buffers.get(name, {}), **tensors})
                if name in self.modules
                else tensors
                for name, tensors in parts.items()
            }
        )

    @property
    def numbers(self) -> Tree:
        """What is stacked over seeds, moved to the device and kept in checkpoints."""
        return {"params": self.params, "optimiser": self.optimiser, "carry": self.carry, "buffers": self.buffers}

    def replace(self, **changes: Any) -> "State":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def initial_values(
    module: nn.Module, rng: Rng, data: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A seed's own parameters and buffers of ``module`` at the start: every ``reset_parameters()`` in it runs under the
    seed's numbers, and then every ``start_from(data)`` with the training data.

    Floating-point ones are of the type that training has. The module itself is left as it was.
    """
    before = {name: tensor.detach().clone() for name, tensor in _named_tensors(module)}
    with rng.seeding_torch():
        for part in module.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
        for part in module.modules():
            start = getattr(part, "start_from", None)
            if callable(start) and data is not None:
                start(data.to(next(module.parameters())))
    drawn = {
        name: tensor.detach().clone().to(dtype=rng.dtype if tensor.is_floating_point() else None, device=rng.device)
        for name, tensor in _named_tensors(module)
    }
    for name, tensor in _named_tensors(module):
        tensor.data.copy_(before[name])
    parameters = {name: drawn.pop(name) for name, _ in module.named_parameters()}
    return parameters, drawn


def _named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
