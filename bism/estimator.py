"""What an estimator is: hyper-parameters and pure functions, written for one seed."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.func import grad_and_value

from bism import engine
from bism.checks import check_count, check_model, check_seeds
from bism.contract import check_method, check_networks
from bism.errors import InputError
from bism.fitted import Fitted
from bism.functional import Methods
from bism.gradients import Shards, average, shards
from bism.hyperparameters import Range, count, number, rates, specs, validate
from bism.optimisers import OPTIMISERS, Tree, Update, adam_update, sgd_update
from bism.progress import Progress, Shown, in_pieces
from bism.protocols import Sampler
from bism.rng import Rng
from bism.state import Info, State, initial_values
from bism.threads import suitable_threads, using_threads
from bism.variables import Bernoulli, Gaussian, Units, has_binary_v

Hyper = dict[str, Tensor]
Objective = Callable[[Tree, Tensor, Any], Any]  # (params, batches, noise) -> scalar, or scalar and tensors beside it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimator(ABC):
    """A way to train an energy-based model. The fields are its hyper-parameters and nothing else.

    Subclasses are frozen dataclasses with ``id`` (in files and on the command line), ``label`` (in figures; may name
    hyper-parameters, as in "CD-{k}") and ``reference``. Most write ``loss`` and ``noise`` alone; the default ``step``
    is one Adam step on the gradient of ``loss``. All functions are pure and written for one seed: the engine maps
    them over seeds and compiles them, so they branch on hyper-parameters but never on tensors.

    ``hyper`` carries the continuous hyper-parameters as tensors, by name; in the functions below use ``hyper["lr"]``,
    not ``self.lr``.
    """

    id: ClassVar[str]
    label: ClassVar[str]
    reference: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()  # optional methods of the model without which this estimator cannot work
    trains: ClassVar[tuple[str, ...]] = ("model",)  # the parts: the model, other networks, tensors that belong to none
    visible_units: ClassVar[tuple[type[Units], ...]] = (Gaussian,)  # what v it can train; Bernoulli for binary v
    uses_examples: ClassVar[bool] = False  # whether ``step`` asks which training examples it has: ``state.examples``

    lr: float = number(
        1e-3,
        "learning rate of the model, Adam",
        symbol="β",
        tune=Range(1e-4, 1e-1, log=True),
        rate_of="model",
    )
    beta1: float = number(0.9, "decay of Adam's first moment", minimum=0.0, below=1.0)
    beta2: float = number(0.95, "decay of Adam's second moment", minimum=0.0, below=1.0)
    decay_steps: int = count(
        0, "iterations over which the learning rates fall to lr_final along half a cosine; 0: they stay", minimum=0
    )
    lr_final: float = number(1e-6, "learning rates at the end of decay_steps", minimum=0.0)
    ema: float = number(
        0.0,
        "decay of a running mean of all parameters, which is then what is evaluated; 0: none",
        minimum=0.0,
        below=1.0,
    )

    def __post_init__(self) -> None:
        if "__dataclass_params__" not in vars(type(self)):  # its own hyper-parameters would silently be none
            raise InputError(
                f"{type(self).__name__} needs the decorator @dataclasses.dataclass(frozen=True, kw_only=True)"
            )
        check_method(type(self), Estimator)
        validate(self)

    @property
    def name(self) -> str:
        """The label with this instance's hyper-parameters: "BiDSM-5"."""
        return self.label.format(**dataclasses.asdict(self))

    @property
    def hyper(self) -> dict[str, float]:
        """The continuous hyper-parameters, which ``step`` gets as tensors."""
        return {name: getattr(self, name) for name, spec in specs(self).items() if spec.continuous}

    @classmethod
    def search_space(cls) -> dict[str, Range | Sequence[Any]]:
        """Where tuning looks, by hyper-parameter."""
        return {name: spec.tune for name, spec in specs(cls).items() if spec.tune is not None}

    def scheduled(self, hyper: Hyper, step: Tensor) -> Hyper:
        """The hyper-parameters at an iteration: each learning rate l is lr_final + (l - lr_final) (1 + cos(pi t)) / 2
        at t = min(step / decay_steps, 1)."""
        if not self.decay_steps:
            return hyper
        left = (1 + (math.pi * (step / self.decay_steps).clamp(max=1.0)).cos()) / 2
        final = hyper["lr_final"]
        return {**hyper, **{name: final + (hyper[name] - final) * left.to(final) for name in rates(self).values()}}

    def unshardable(self) -> str | None:
        """Why a minibatch cannot be taken in shards, or None; methods with a ``step`` of their own must see to it."""
        own_step, own_carry = type(self).step is not Estimator.step, type(self).init_carry is not Estimator.init_carry
        return "its steps need the whole minibatch at once" if own_step or own_carry else None

    def lower_objective(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> Tensor | None:
        """What the lower level minimises, on a minibatch, for methods of two levels."""
        return None

    def unsupported(self, model: Any) -> str | None:
        """Why this estimator cannot train ``model``, or None. By default: what ``needs`` names and the model lacks, and
        visible units of a kind that is not among ``visible_units``."""
        kind, lacking = type(model).__name__, [name for name in self.needs if not hasattr(model, name)]
        if lacking:
            return f"it needs {' and '.join(f'{name}()' for name in lacking)}, which {kind} lacks"
        if has_binary_v(model) and Bernoulli not in self.visible_units:
            return f"it needs real v, to differentiate in or to add noise to, and v of {kind} is binary"
        if not has_binary_v(model) and Gaussian not in self.visible_units:
            return f"it needs binary v, and v of {kind} is real"
        return None

    @property
    def minibatches(self) -> int:
        """How many minibatches one step uses."""
        return 1

    def modules(self, model: nn.Module, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        """The networks among the parts that ``trains`` names, by name; ``given`` are those that the user brought along.

        A part of ``trains`` that is not among them comes from ``extra_parameters``.
        """
        return {"model": model}

    def sampler(self, parts: Any) -> Sampler | None:
        """What draws v from what was trained, of methods whose samples come from a part beside the model (a generator);
        None for those that are sampled as the model is (``bism.sampling``).

        Args:
            parts: the trained networks of one seed as modules, ``parts.model``.
        """
        return None

    def init(
        self,
        model: nn.Module,
        data: Tensor,
        rng: Rng,
        *,
        batch_size: int = 100,
        parts: Mapping[str, nn.Module] | None = None,
    ) -> State:
        """The initial state of one seed.

        Args:
            data: the training data [n, *visible_shape], for what starts from it (chains, a noise distribution).
            parts: networks beside the model, by part, in place of the method's own choice.
        """
        modules = check_networks(self.id, self.modules(model, parts or {}))
        drawn = {name: initial_values(module, rng, data) for name, module in modules.items()}
        state = State(
            {name: Methods(module) for name, module in modules.items()},
            params={name: parameters for name, (parameters, _) in drawn.items()},
            optimiser={},
            carry={},
            buffers={name: buffers for name, (_, buffers) in drawn.items() if buffers},
        )
        bound = state.bind().model
        params = {**state.params, **self.extra_parameters(bound, rng)}
        if set(params) != set(self.trains):
            raise InputError(f"{self.id} trains {', '.join(params)}, and its ``trains`` says {', '.join(self.trains)}")
        return state.replace(
            params=params,
            optimiser=self.init_optimiser(params),
            carry=self.init_carry(bound, data, batch_size, rng),
        )

    def extra_parameters(self, model: Any, rng: Rng) -> Tree:
        """Trained tensors that belong to no network, as {part: {name: tensor}}; ``model`` is the model at its start."""
        return {}

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        """What the method carries from step to step, at the start; ``model`` is the model at its start."""
        return {}

    def optimiser_of(self, part: str) -> str:
        """What moves a part: "adam", or "sgd" for plain gradient descent."""
        return "adam"

    def init_optimiser(self, params: Tree) -> Tree:
        """The optimisers' state at the start, by part."""
        for part in params:
            if self.optimiser_of(part) not in OPTIMISERS:
                raise InputError(f"{self.id}: optimiser_of('{part}') must be one of {', '.join(OPTIMISERS)}")
        return {part: OPTIMISERS[self.optimiser_of(part)](tensors) for part, tensors in params.items()}

    def update(self, part: str, hyper: Hyper) -> Update:
        """One step of a part's optimiser, at the learning rate that is declared for the part, or else the model's."""
        declared = rates(self)
        lr = hyper[declared.get(part, declared["model"])]
        if self.optimiser_of(part) == "sgd":
            return partial(sgd_update, lr=lr)
        return partial(adam_update, lr=lr, betas=(hyper["beta1"], hyper["beta2"]))

    def move(
        self, state: State, parts: Sequence[str], objective: Objective, batches: Tensor, noise: Any, hyper: Hyper
    ) -> tuple[State, Tensor, Any]:
        """One step of each part's optimiser along the gradient of an objective; the other parts stay where they are.

        The gradient is that of the mean over the shards of a minibatch, where it is in shards, and over all processes
        that train together.

        Args:
            parts: those that move.
            objective: of all parts' tensors (``state.bind`` makes modules of them), batches [minibatches, batch,
                *visible_shape] and their noise; it gives a scalar, or a scalar and a tree of tensors beside it.

        Returns:
            The state, the objective's value before the step, and what the last shard gave beside it.
        """

        def at(moving: Tree, of: Tensor, drawn: Any) -> tuple[Tensor, Any]:
            given = objective({**state.params, **moving}, of, drawn)
            return given if isinstance(given, tuple) else (given, {})

        if isinstance(parts, str) or not set(parts) <= set(state.params):
            raise InputError(f"{self.id} moves {parts!r}: parts are a tuple of {', '.join(state.params)}")
        moving = {part: state.params[part] for part in parts}
        found = [grad_and_value(at, has_aux=True)(moving, *shard) for shard in shards(batches, noise)]
        means = [(gradient, value) for gradient, (value, _) in found]
        gradient, value = average(means) if isinstance(noise, Shards) else means[0]
        params, optimiser = dict(state.params), dict(state.optimiser)
        for part in parts:
            params[part], optimiser[part] = self.update(part, hyper)(gradient[part], params[part], optimiser[part])
        return state.replace(params=params, optimiser=optimiser), value, found[-1][1][1]

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        """Everything random in one step; ``batch_shape`` is (batch, *visible_shape)."""
        return {}

    @property
    def repeats(self) -> int:
        """How many like inner steps a step begins with, for methods of which that is all that their hyper-parameter
        ``inner_steps`` decides: configurations that differ in it can then be trained side by side (``bism.cohort``).

        ``step`` is as many times ``inner_step``, and then the step of the same configuration with no inner steps;
        ``noise`` draws what that one's draws, and then as many times ``inner_noise``.
        """
        return 0

    def inner_noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        """Everything random in one inner step."""
        raise NotImplementedError

    def inner_step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> State:
        """One inner step; changes the posterior and the state of its optimiser alone."""
        raise NotImplementedError

    @abstractmethod
    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        """The objective on a minibatch, the next carry, and figures worth logging.

        Args:
            params: the parts with their parameters: ``params.model.free_energy(v)``.
            batch: [batch, *visible_shape].
        """

    def step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        """One training step on ``batches`` [minibatches, batch, *visible_shape]; ``Info["objective"]`` is reported.

        Of a minibatch in shards the noise is a ``gradients.Shards``; ``move`` takes either.
        """

        def objective(params: Tree, of: Tensor, drawn: Any) -> tuple[Tensor, Any]:
            value, carry, info = self.loss(state.bind(params), of[0], drawn, state.carry, hyper)
            return value, (carry, info)

        state, value, (carry, info) = self.move(state, self.trains, objective, batches, noise, hyper)
        return state.replace(carry=carry), {"objective": value, **info}

    @final
    def fit(
        self,
        model: nn.Module,
        data: Tensor,
        *,
        seeds: Sequence[int] = (0,),
        steps: int = 10_000,
        batch_size: int = 100,
        posterior: nn.Module | None = None,
        parts: Mapping[str, nn.Module] | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        compile: bool | None = None,
        data_noise: float = 0.0,
        precision: str = "float32",
        accumulate: int = 1,
        resume: Path | str | None = None,
        threads: int | None = None,
        progress: bool | Progress = False,
    ) -> Fitted:
        """Trains ``model`` on ``data`` once for every seed, all seeds side by side.

        Args:
            model: an energy model (see ``EnergyModel``); it is read, not changed.
            data: [n, *visible_shape], floating point, finite.
            steps: iterations in all; with ``resume``, those of the checkpoint included.
            posterior: q(h|v) for the methods that have one; by default the one that fits the latent's kind.
            parts: networks beside the model by the names of ``trains``, {"posterior": q} for one; what is not given
                is the method's own choice.
            compile: True, False, or None for when the run is long enough to pay for it.
            data_noise: standard deviation of Gaussian noise added anew to every minibatch: what is learnt is the
                density of the smoothed data, as by denoising score matching.
            precision: "float32", "tf32" for products in TF32 on a GPU, or "bf16" for matrix products and convolutions
                in bfloat16 (autocast); parameters, energies and objectives stay in float32.
            accumulate: shards of equal size that a minibatch is taken in, one after another, to save memory.
            resume: a checkpoint written by ``Fitted.save``.
            threads: of the CPU; None for one where the model is so small that more would only wait for each other, and
                else as many as torch has. Those of before are restored.
            progress: True to be told on standard error, or a function that is called now and then with the iterations
                done and all of them; an exception that it raises ends the training.

        Raises:
            InputError: unsupported model, or data of the wrong shape, type or value.
        """
        check_count("steps", steps, 0)
        compiled = engine.pays(steps) if compile is None else compile
        shown = Shown(self.name) if progress is True else progress or None
        check_model(self, model)
        shorthand = {"posterior": posterior} if posterior is not None and "posterior" in self.trains else {}
        work = len(check_seeds(seeds)), check_count("batch_size", batch_size, 1)
        count = suitable_threads(model, *work) if threads is None else check_count("threads", threads, 1)
        with using_threads(count if device == "cpu" else None):
            if isinstance(shown, Shown) and compiled:
                shown.note("compiling, which takes some seconds and pays later")
            trainer = engine.Trainer(
                self,
                model,
                data,
                seeds=seeds,
                batch_size=batch_size,
                parts={**shorthand, **parts} if isinstance(parts, Mapping) else parts or shorthand,
                device=device,
                dtype=dtype,
                compile=compiled,
                data_noise=data_noise,
                precision=precision,
                accumulate=accumulate,
            )
            if resume is not None:
                trainer.load(resume)
            if steps < trainer.step:
                raise InputError(f"steps must be at least the checkpoint's {trainer.step}, got {steps}")
            if shown is None:
                trainer.run(steps - trainer.step)
            else:
                in_pieces(trainer.run, trainer.step, steps, shown)
            return trainer.fitted()
