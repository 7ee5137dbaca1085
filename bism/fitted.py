"""What training returns: models of all seeds, ready to be asked."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from bism.checkpoint import save_checkpoint
from bism.checks import check_count, check_vectors
from bism.errors import InputError
from bism.hooks import Hooks
from bism.likelihood import NO_SCORE, fisher_divergence, log_likelihood, log_partition
from bism.objectives import score
from bism.protocols import Sampler
from bism.rng import Rng, generator
from bism.sampling import SWEEPS, GibbsChains, has_gibbs, no_sampler, sampler
from bism.state import Parts, State
from bism.variables import has_binary_v


class Fitted:
    """The models of all seeds after ``step`` iterations.

    Methods that take ``v`` [batch, *visible_shape] return one row per seed, in the order of ``seeds``.

    Attributes:
        estimator, seeds, step: what was trained, and how far.
        diverged_at: for each seed the step at which it became non-finite and was frozen, or None.
    """

    def __init__(
        self,
        estimator: Hooks,
        model: nn.Module,
        template: State,
        tensors: Any,
        seeds: Sequence[int],
        step: int,
        diverged_at: list[int | None],
        checkpoint: dict[str, Any],
    ) -> None:
        self.estimator, self.seeds, self.step, self.diverged_at = estimator, tuple(seeds), step, diverged_at
        self._model, self._template, self._tensors, self._checkpoint = model, template, tensors, checkpoint

    def _index(self, seed: int) -> int:
        if seed not in self.seeds:
            raise InputError(f"seed {seed} was not trained; these were: {', '.join(map(str, self.seeds))}")
        return self.seeds.index(seed)

    def _part(self, name: str, module: nn.Module, seed: int) -> Any:
        index = self._index(seed)
        part = copy.deepcopy(module)
        stacked = {**self._tensors["params"][name], **self._tensors["buffers"].get(name, {})}
        tensors = {key: value[index].detach().clone() for key, value in stacked.items()}
        example = next(iter(tensors.values()))
        part.to(dtype=example.dtype, device=example.device).load_state_dict(tensors, strict=False)
        return part.requires_grad_(False)

    def model(self, seed: int) -> Any:
        """A copy of the model with one seed's parameters."""
        return self._part("model", self._model, seed)

    def part(self, name: str, seed: int) -> Any:
        """A copy of one of the trained networks, by the name of its part, with one seed's parameters.

        Raises:
            InputError: the estimator trains no such network.
        """
        networks = self._template.modules
        if name not in networks:
            raise InputError(
                f"{self.estimator.id} trains no {name}; the networks that it trains: {', '.join(networks)}"
            )
        return self._part(name, networks[name].module, seed)

    def posterior(self, seed: int) -> Any:
        """A copy of the posterior q(h|v) with one seed's parameters; raises as ``part``."""
        return self.part("posterior", seed)

    def parameters(self, seed: int) -> dict[str, dict[str, Tensor]]:
        """One seed's parameters by part and name, those of no module (NCE's normaliser) included."""
        chosen: dict[str, dict[str, Tensor]] = self.state(seed)["params"]
        return chosen

    def state(self, seed: int) -> Any:
        """One seed's numbers as in ``State``: "params", "optimiser", "carry" and "buffers"."""
        index = self._index(seed)
        return tree_map(lambda x: x[index].detach().clone(), self._tensors)

    def _check(self, v: Tensor, name: str = "v") -> None:
        check_vectors(v, self._model, name)

    def _stacked(self, function: Any) -> Tensor:
        return torch.stack([function(self.model(seed)) for seed in self.seeds])

    def _of_joint(self, function: Any) -> Tensor:
        """The same of the models that likelihoods are of, whose prior may have been fitted after training."""
        return torch.stack([function(self.joint(seed)[0]) for seed in self.seeds])

    def _need_free_energy(self) -> None:
        if not hasattr(self._model, "free_energy"):
            raise InputError(
                f"{type(self._model).__name__} has no free_energy(v): p(v) is not tractable; "
                f"likelihood.log_density_bound bounds it by the posterior"
            )

    def energy(self, v: Tensor) -> Tensor:
        """Free energy F(v), -log of the unnormalised density, [seeds, batch].

        Raises:
            InputError: it is not tractable, or v is no such batch of finite numbers, which all that take v refuse.
        """
        self._need_free_energy()
        self._check(v)
        return self._stacked(lambda model: model.free_energy(v))

    def score(self, v: Tensor) -> Tensor:
        """Gradient of log p(v), [seeds, batch, *visible_shape]; raises as ``energy``."""
        self._need_free_energy()
        if has_binary_v(self._model):
            raise InputError(f"{type(self._model).__name__} has no score: {NO_SCORE}")
        self._check(v)
        return self._stacked(lambda model: score(lambda x: -model.free_energy(x), v))

    def log_partition(self, data: Tensor | None = None) -> Tensor:
        """log Z of each seed, [seeds]: by enumeration or quadrature where that can be, else by AIS from training data.

        See ``likelihood.log_partition``; ``bism.annealing`` also says how far to trust it.
        """
        if data is not None:
            self._check(data, "data")
        return self._of_joint(lambda model: torch.tensor(log_partition(model, data=data), dtype=torch.float64))

    def log_likelihood(self, v: Tensor, data: Tensor | None = None) -> Tensor:
        """Normalised log p(v) in nats, [seeds, batch], with the log Z of ``log_partition(data)``."""
        self._check(v)
        if data is not None:
            self._check(data, "data")
        return self._of_joint(lambda model: log_likelihood(model, v, log_partition(model, data=data)))

    def fisher_divergence(self, v: Tensor) -> Tensor:
        """Fisher divergence up to a constant of the data, eq. (2), per example: [seeds, batch]."""
        self._check(v)
        return self._stacked(lambda model: fisher_divergence(model, v))

    def _parts(self, seed: int) -> Parts:
        networks = {name: self.part(name, seed) for name in self._template.modules}
        return Parts({**networks, "carry": self.state(seed)["carry"]})

    def joint(self, seed: int) -> tuple[Any, Any]:
        """p(v, h) and q(h|v) of one seed (``Estimator.joint_model``), in the units of the training; q is None where no
        posterior was trained."""
        return self.estimator.joint_model(self._parts(seed))

    def _own_sampler(self, seed: int) -> Sampler | None:
        """The method's own sampler, in the units of the training."""
        return self.estimator.sampler(self._parts(seed))

    def sampler(self, seed: int, *, rows: Tensor | None = None, sweeps: int = SWEEPS) -> Sampler | None:
        """How one seed's model is sampled, or None where there is no way: by the method's own sampler, where it has
        one, and else as ``sampling.sampler`` chooses.

        Args:
            rows: where chains start, in turn, [n, *visible_shape].
            sweeps: of Gibbs chains.
        """
        return self._own_sampler(seed) or sampler(self.model(seed), rows=rows, sweeps=sweeps)

    def draw(
        self, count: int, seed: int, *, index: int = 0, rows: Tensor | None = None, sweeps: int = SWEEPS
    ) -> Tensor:
        """Samples of one seed's model, [count, *visible_shape], drawn as ``sampler`` says.

        Args:
            index: another one gives other samples.
            rows, sweeps: as ``sampler``.

        Raises:
            InputError: there is no way, or ``count`` is below 1.
        """
        check_count("count", count, 1)
        if rows is not None:
            self._check(rows, "rows")
        chosen, model = self.sampler(seed, rows=rows, sweeps=sweeps), self.model(seed)
        if chosen is None:
            raise InputError(no_sampler(model))
        like = next(model.parameters())
        return chosen.draw(count, Rng(generator(seed, index, "samples", like.device), like.dtype)).detach()

    def sample(self, start: Tensor, sweeps: int = 1000) -> Tensor:
        """Gibbs samples after ``sweeps`` sweeps from ``start`` [batch, *visible_shape]: [seeds, batch, *visible_shape].

        Raises:
            InputError: the model has no conditionals to sample from.
        """
        return torch.stack([self.sample_seed(seed, start, sweeps) for seed in self.seeds])

    def sample_seed(self, seed: int, start: Tensor, sweeps: int = 1000) -> Tensor:
        """Gibbs samples of one seed's model, [batch, *visible_shape]; see ``sample``."""
        model = self.model(seed)
        if not has_gibbs(model):
            raise InputError(f"{type(model).__name__} has no sample_hidden() and sample_visible() for Gibbs sampling")
        self._check(start, "start")
        check_count("sweeps", sweeps, 0)
        rng = Rng(generator(seed, 0, "samples", start.device), start.dtype)
        return GibbsChains(model, start, sweeps=sweeps).draw(len(start), rng)

    def save(self, path: Path | str) -> None:
        """Writes the checkpoint, from which ``Estimator.fit(..., resume=path)`` goes on; whole or not at all.

        With as many ``steps`` as the checkpoint has, ``fit`` trains nothing and gives this back.
        """
        save_checkpoint(self._checkpoint, path)
