"""Everything that training needs to go on: the state is the checkpoint."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from bism.functional import Bound, Methods
from bism.optimisers import Tree
from bism.rng import Rng

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
    """

    modules: Mapping[str, Methods]
    params: Tree
    optimiser: Tree
    carry: dict[str, Tensor]

    def bind(self, params: Tree | None = None) -> Parts:
        """The parts with ``params`` in place: ``bind(p).model.energy(v, h)``, ``bind(p).posterior.log_prob(h, v)``."""
        parts = self.params if params is None else params
        return Parts(
            {
                name: Bound(self.modules[name], tensors) if name in self.modules else tensors
                for name, tensors in parts.items()
            }
        )

    def replace(self, **changes: Any) -> "State":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def initial_parameters(module: nn.Module, rng: Rng, data: Tensor | None = None) -> dict[str, Tensor]:
    """A seed's own initial parameters of ``module``: every ``reset_parameters()`` in it runs under the seed's numbers,
    and then every ``start_from(data)`` with the training data.

    The module itself is left as it was.
    """
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    with rng.seeding_torch():
        for part in module.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
        for part in module.modules():
            start = getattr(part, "start_from", None)
            if callable(start) and data is not None:
                start(data.to(next(module.parameters())))
    drawn = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    for name, parameter in module.named_parameters():
        parameter.data.copy_(before[name])
    return tree_map(lambda p: p.to(dtype=rng.dtype, device=rng.device), drawn)
