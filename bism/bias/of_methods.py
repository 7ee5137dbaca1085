"""The bias of the gradient that a method trains with, whatever the method: against DSM's true gradient.

A method is any of two levels with DSM's objective (BiDSM with unrolled or implicit gradients, VaGES-DSM, one of your
own). What is compared is what its step hands to the model's optimiser, after its own K steps on the posterior, with the
gradient of DSM on the free energy for the same minibatch and noise of v: the difference has no share in what the choice
of the minibatch does.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.utils._pytree import tree_map

from bism.amortised import Amortised
from bism.bias.vectors import NormOfMean, flat
from bism.checks import check_count, check_data, check_model
from bism.engine import Trainer, pays
from bism.errors import InputError
from bism.estimator import Hyper
from bism.functional import Methods
from bism.optimisers import Tree, adam_init
from bism.rng import Rng, generator
from bism.score_matching import Criterion, Denoising
from bism.state import Info, State

_AT_ONCE = 1 << 20  # numbers of v and h in the passes of the draws that are computed side by side


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrueDSM(Denoising, Amortised):
    """Two levels of which the upper one follows the true gradient: a training that favours no estimate of it."""

    id: ClassVar[str] = "true_dsm"
    label: ClassVar[str] = "DSM beside a posterior"
    reference: ClassVar[str] = "eq. 4 on the free energy, eq. 9"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        return {"visible": self.draw(batch_shape, rng)}

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        return _marginal(self, params.model, batch, noise["visible"], hyper), carry, {}


def _marginal(estimator: Criterion, model: Any, batch: Tensor, eps: Any, hyper: Hyper) -> Tensor:
    return estimator.objective(lambda v: -model.free_energy(v), batch, eps, hyper).mean()


def unsuitable(estimator: Any, model: Any) -> str | None:
    """Why the bias of an estimator's gradient is not known on a model, or None."""
    if not isinstance(estimator, Denoising) or not isinstance(estimator, Amortised):
        return "the bias is known of methods with a posterior and the objective of DSM (bidsm, vages_dsm)"
    if not hasattr(model, "free_energy"):
        return f"the true gradient needs free_energy(v), which {type(model).__name__} lacks"
    return None


def reference_states(
    estimator: Amortised, model: Any, data: Tensor, *, after: Sequence[int], seed: int = 0, batch_size: int = 100
) -> Iterator[tuple[int, Tree]]:
    """A model and a posterior along a training that follows the true gradient (``TrueDSM``), to compare methods at.

    It has the estimator's hyper-parameters as far as both have them (learning rates, sigma, K, temperature), so that
    methods which agree in these are compared at the same numbers.

    Args:
        after: numbers of iterations.

    Yields:
        Each of them, ascending, with the numbers of a ``State``: "params" and "optimiser".
    """
    for steps in after:
        check_count("after", steps, 0)
    shared = {field.name: getattr(estimator, field.name) for field in dataclasses.fields(TrueDSM)}
    trainer = Trainer(
        TrueDSM(**shared),
        model,
        data,
        seeds=[seed],
        batch_size=batch_size,
        device=str(data.device),
        dtype=data.dtype,
        compile=pays(max(after, default=0)),
    )
    for steps in sorted(set(after)):
        trainer.run(steps - trainer.step)
        yield steps, trainer.fitted().state(seed)


@dataclasses.dataclass(frozen=True)
class ExpectedBias:
    """How far the expected gradient of a method is from the true one.

    Attributes:
        squared_bias: ||E[gradient - true gradient]||^2, estimated without the share that the draws' noise has in it;
            negative where it cannot be told from 0.
        error: its standard error.
        spread: sqrt(E ||gradient - true gradient - bias||^2) of one minibatch: the noise that the method itself adds.
        gradient: norm of the expected true gradient, to read the bias against.
    """

    squared_bias: float
    error: float
    spread: float
    gradient: float


def expected_bias(
    estimator: Amortised, model: Any, at: Tree, data: Tensor, *, seed: int = 0, draws: int = 400, batch_size: int = 100
) -> ExpectedBias:
    """The bias of the gradient that ``estimator`` trains with, over minibatches and all that is random in its step.

    Args:
        at: the numbers of a ``State`` with a model and a posterior (``reference_states``).
        data: [n, *visible_shape] in the parameters' dtype.
        draws: of a minibatch and a step's noise; at least 3.
        seed: of the draws.
    """
    check_model(estimator, model)
    check_data(data, model)
    check_count("draws", draws, 3)
    bias, truth = NormOfMean(), NormOfMean()
    for difference, gradient in _draws(estimator, model, at, data, seed, draws, batch_size):
        bias.add(difference)
        truth.add(gradient)
    return ExpectedBias(bias.squared, bias.error, bias.spread, max(0.0, truth.squared) ** 0.5)


def _draws(
    estimator: Amortised, model: Any, at: Tree, data: Tensor, seed: int, count: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each draw the difference from the true gradient and that gradient, [p]; pure functions of (seed, index)."""
    (stage,) = estimator.stages
    one = _one_draw(estimator, model, at)
    numbers = batch_size * (data[0].numel() + model.latent.size) * (1 + estimator.passes)
    at_once = max(1, int(_AT_ONCE / numbers))
    for first in range(0, count, at_once):
        drawn = []
        for index in range(first, min(first + at_once, count)):
            rng = Rng(generator(seed, index, "gradient bias", data.device), data.dtype)
            chosen = rng.integers(len(data), (stage.all_minibatches, batch_size))
            drawn.append((data[chosen], stage.draw(model, (batch_size, *data.shape[1:]), rng)))
        yield from zip(*vmap(one)(*tree_map(lambda *x: torch.stack(x), *drawn)), strict=True)


def _one_draw(estimator: Amortised, model: Any, at: Tree) -> Any:
    """(batches, noise) -> the step's gradient less the true one, and the true one, [p]."""
    if estimator.optimiser_of("model") != "adam":
        raise InputError(f"{estimator.id}: its gradient is read from Adam's first moment, and it has another optimiser")
    (stage,) = estimator.stages
    theta = at["params"]["model"]
    like = next(iter(theta.values()))
    hyper = {name: torch.tensor(x, dtype=like.dtype, device=like.device) for name, x in estimator.hyper.items()}
    with torch.device("meta"):  # the posterior's own numbers are never used: none are drawn
        modules = estimator.modules(model, {})
    optimiser = {**at["optimiser"], "model": adam_init(theta)}
    state = State({name: Methods(one) for name, one in modules.items()}, at["params"], optimiser, {})

    def one(batches: Tensor, noise: Any) -> tuple[Tensor, Tensor]:
        after, _ = stage.whole(state, batches, noise, hyper)
        gradient = flat(after.optimiser["model"]["first"]) / (1 - hyper["beta1"])  # whose first moment was 0
        eps = estimator.criterion_noise(noise[0])

        def objective(moved: Tree) -> Tensor:
            bound = state.bind({**state.params, "model": moved}).model
            return _marginal(estimator, bound, batches[0], eps, hyper)

        truth = flat(grad(objective)(theta))
        return gradient - truth, truth

    return one
