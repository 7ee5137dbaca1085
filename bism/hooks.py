"""What an estimator is to the engine: hyper-parameters and pure functions, written for one seed."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.func import grad_and_value

from bism.contract import check_begun, check_carry, check_extra, check_loss, check_method, check_networks, check_scalar
from bism.errors import InputError
from bism.functional import Methods
from bism.gradients import Shards, average, shards
from bism.hyperparameters import Range, count, number, rates, specs, validate
from bism.optimisers import OPTIMISERS, Tree, Update, adam_update, sgd_update
from bism.phases import Phase
from bism.protocols import Sampler
from bism.rng import Rng
from bism.stages import Stage
from bism.state import Hyper, Info, State, initial_values
from bism.variables import Bernoulli, Gaussian, Units, has_binary_v

PartLoss = Callable[[Any, Tensor, Any], Tensor]  # (the bound parts, batch, noise) -> scalar
Objective = Callable[[Tree, Tensor, Any], Any]  # (params, batches, noise) -> scalar, or scalar and tensors beside it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hooks(ABC):
    """What the engine asks of an ``Estimator``, which adds ``fit`` to it and says what a method is.

    All functions are pure and written for one seed: the engine maps them over seeds and compiles them, so they branch
    on hyper-parameters but never on tensors. ``hyper`` carries the continuous hyper-parameters as tensors, by name; in
    the functions below use ``hyper["lr"]``, not ``self.lr``.
    """

    id: ClassVar[str]
    label: ClassVar[str]
    reference: ClassVar[str]
    family: ClassVar[str] = "Other"  # methods of one family have a panel, and stand together in legends
    colour: ClassVar[str] = ""  # in figures, as "#2878c8"; without one each variant gets a colour of its own
    marker: ClassVar[str] = ""  # in figures, as matplotlib names it; like ``colour``
    needs: ClassVar[tuple[str, ...]] = ()  # optional methods of the model without which this estimator cannot work
    part_needs: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # optional methods of other parts, likewise, by part
    trains: ClassVar[tuple[str, ...]] = ("model",)  # the parts: the model, other networks, tensors that belong to none
    moves: ClassVar[tuple[str, ...]] = ()  # the parts that move along the gradient of ``loss``; all where it is empty
    visible_units: ClassVar[tuple[type[Units], ...]] = (Gaussian,)  # what v it can train; Bernoulli for binary v
    uses_examples: ClassVar[bool] = False  # whether ``step`` asks which training examples it has: ``state.examples``
    maps_codes: ClassVar[bool] = False  # whether ``sampler`` gives one with ``codes`` and ``decode`` (bism.protocols)

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
        check_method(type(self), Hooks)
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
        """Why a minibatch cannot be taken in shards, or None; methods with a ``step`` of their own, or with parts that
        ``loss`` does not move, must see to it."""
        kind = type(self)
        own_step = kind.step is not Hooks.step or kind.stages is not Hooks.stages or bool(kind.moves)
        own_carry = kind.init_carry is not Hooks.init_carry or kind.fit_to is not Hooks.fit_to
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
        """How many minibatches one step uses, beside those that its phases have to themselves."""
        return 1

    @property
    def passes(self) -> float:
        """The work of a step in that of one gradient of a loss, roughly: jobs are ordered and estimated by it."""
        return 1.0

    @property
    def unrolled(self) -> int:
        """How many inner steps the gradient of a step goes through, and what they compute is kept in memory."""
        return 0

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is trained one after the other; by default the one stage of ``step``, ``noise``, ``minibatches`` and
        ``phases``.

        A method with several writes them here, in place of these four.
        """
        lower, phases = self.lower_objective, self.phases
        return (Stage("", 1.0, self.step, self.noise, self.minibatches, lower_objective=lower, phases=phases),)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What a step does over and over before its own work."""
        return ()

    def modules(self, model: nn.Module, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        """The networks among the parts that ``trains`` names, by name; ``given`` are those that the user brought along.

        A part of ``trains`` that is not among them comes from ``extra_parameters``.
        """
        return {"model": model}

    def sampler(self, parts: Any) -> Sampler | None:
        """What draws v from what was trained, of methods whose samples come from a part beside the model (a generator)
        or from chains of their own; None for those that are sampled as the model is (``bism.sampling``).

        Args:
            parts: the trained networks of one seed as modules, ``parts.model``, and what the method carried,
                ``parts.carry``.
        """
        return None

    def joint_model(self, parts: Any) -> tuple[Any, Any]:
        """p(v, h) and q(h|v) of what was trained, as measurements of latent variables take them: the model and the
        part ``posterior``, None where there is none.

        A method says otherwise whose prior is fitted after training, or is a model of its own. ``parts`` as of
        ``sampler``.
        """
        return parts.model, getattr(parts, "posterior", None)

    def init(
        self,
        model: nn.Module,
        data: Tensor,
        rng: Rng,
        *,
        batch_size: int = 100,
        parts: Mapping[str, nn.Module] | None = None,
        data_noise: float = 0.0,
    ) -> State:
        """The initial state of one seed.

        Args:
            data: the training data [n, *visible_shape], for what starts from it (chains, a noise distribution).
            data_noise: standard deviation of what training adds to them.
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
        params = {**state.params, **check_extra(self.id, self.extra_parameters(bound, rng))}
        if set(params) != set(self.trains):
            raise InputError(f"{self.id} trains {', '.join(params)}, and its ``trains`` says {', '.join(self.trains)}")
        return state.replace(
            params=params,
            optimiser=check_begun(self.id, "init_optimiser", "optimiser", self.init_optimiser(params)),
            carry=check_carry(self.id, self.init_carry(bound, data, batch_size, rng), self.fit_to(data, data_noise)),
        )

    def extra_parameters(self, model: Any, rng: Rng) -> Tree:
        """Trained tensors that belong to no network, as {part: {name: tensor}}; ``model`` is the model at its start."""
        return {}

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        """What the method carries from step to step, at the start; ``model`` is the model at its start."""
        return {}

    def fit_to(self, data: Tensor, data_noise: float) -> dict[str, Tensor]:
        """What is fitted to the training data once, before the first step, and carried beside ``init_carry``'s.

        Args:
            data: [n, *visible_shape], as they are.
            data_noise: standard deviation of the Gaussian noise that training adds to them, anew in every minibatch:
                a distribution of what the method sees has it as well.
        """
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
            value, beside = given if isinstance(given, tuple) and len(given) == 2 else (given, {})
            check_scalar(f"{self.id}: what move() is given", "its objective", value)
            return value, beside

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

    def move_part(
        self, state: State, part: str, loss: PartLoss, batches: Tensor, noise: Any, hyper: Hyper
    ) -> tuple[State, Tensor]:
        """``move`` of one part along a loss that is written as ``loss`` is: of the bound parts, one minibatch, which is
        the first of ``batches``, and its noise. The state, and the loss before the step."""

        def objective(params: Tree, of: Tensor, drawn: Any) -> Tensor:
            return loss(state.bind(params), of[0], drawn)

        state, value, _ = self.move(state, (part,), objective, batches, noise, hyper)
        return state, value

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Any:
        """Everything random in one step beside its phases; ``batch_shape`` is (batch, *visible_shape)."""
        return {}

    @abstractmethod
    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        """The objective on a minibatch, the next carry, and figures worth logging: scalars, which are logged of
        validation data as the objective is, ``val/<name>``.

        Args:
            params: the parts with their parameters: ``params.model.free_energy(v)``.
            batch: [batch, *visible_shape].
        """

    def step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        """One training step, after its phases, on ``batches`` [minibatches, batch, *visible_shape];
        ``Info["objective"]`` is reported, and what else is there as ``loss`` says.

        Of a minibatch in shards the noise is a ``gradients.Shards``; ``move`` takes either.
        """

        def objective(params: Tree, of: Tensor, drawn: Any) -> tuple[Tensor, Any]:
            given = self.loss(state.bind(params), of[0], drawn, state.carry, hyper)
            value, carry, info = check_loss(self.id, given)
            return value, (carry, info)

        state, value, (carry, info) = self.move(state, self.moves or self.trains, objective, batches, noise, hyper)
        return state.replace(carry=carry), {"objective": value, **info}
