"""Methods that train several networks: each part has its module, its optimiser, its learning rate and its buffers."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from baselines import VNCE, AdVIL, CoopNets, FlowContrast, VaGESDSM
from baselines.decoder import Decoder
from baselines.flow import Flow
from bism import GRBM, BiDSM, Estimator, InputError
from bism.checkpoint import load_checkpoint, save_checkpoint
from bism.cohort import Cohort
from bism.engine import Trainer
from bism.estimator import Hyper
from bism.generator import Generator as Decoding
from bism.hyperparameters import Range, number
from bism.optimisers import Tree
from bism.posteriors import DiagonalGaussian, RelaxedBernoulli
from bism.rng import Rng, StoredRng
from bism.state import Info, State
from tests.contracts.cases import data, kinds, same, small
from tests.maths.exact import relative

STEPS, SIZE = 5, 8
KIND: dict[str, Any] = {"batch_size": SIZE, "dtype": torch.float64}


class Generator(nn.Module):
    """v = A z + b, and a buffer that each seed draws for itself."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("drawn", torch.tensor(0))

    def reset_parameters(self) -> None:
        self.scale = torch.rand(2) + 0.5
        self.drawn += 1

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z) * self.scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast(Estimator):
    """mean F(v) - mean F(g(z)) for the model, mean F(g(z)) for the generator g, by plain gradient descent."""

    id: ClassVar[str] = "contrast"
    label: ClassVar[str] = "Contrast"
    reference: ClassVar[str] = "a test"
    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    trains: ClassVar[tuple[str, ...]] = ("model", "generator", "offset")

    lr_generator: float = number(0.05, "learning rate of the generator", tune=Range(0.01, 1.0), rate_of="generator")

    def modules(self, model: nn.Module, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        return {"model": model, "generator": given["generator"] if "generator" in given else Generator()}

    def extra_parameters(self, model: Any, rng: Rng) -> Tree:
        return {"offset": {"mean": model.b.clone()}}

    def optimiser_of(self, part: str) -> str:
        return "adam" if part == "model" else "sgd"

    def noise(self, model: Any, batch_shape: tuple[int, ...], rng: Rng) -> Tensor:
        return rng.normal((batch_shape[0], 3))

    def loss(
        self, params: Any, batch: Tensor, noise: Tensor, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        fantasies = params.generator(noise) + params.offset["mean"]
        return params.model.free_energy(batch).mean() - params.model.free_energy(fantasies).mean(), carry, {}

    def step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        def rising(params: Tree, of: Tensor, drawn: Any) -> Tensor:
            bound = state.bind(params)
            return bound.model.free_energy(bound.generator(drawn) + bound.offset["mean"]).mean()

        def contrast(params: Tree, of: Tensor, drawn: Any) -> Tensor:
            return self.loss(state.bind(params), of[0], drawn, state.carry, hyper)[0]

        state, _, _ = self.move(state, ("generator", "offset"), rising, batches, noise, hyper)
        state, value, _ = self.move(state, ("model",), contrast, batches, noise, hyper)
        return state, {"objective": value}


def contrasting(seeds: tuple[int, ...] = (0, 1), **options: Any) -> Trainer:
    torch.manual_seed(3)
    settings = {name: options.pop(name) for name in ("lr_generator", "decay_steps", "lr_final") if name in options}
    return Trainer(Contrast(**settings), GRBM(2, 3), data(), seeds=seeds, **{**KIND, **options})


def numbers(trainer: Trainer, index: int = 0) -> Any:
    return trainer.fitted().state(trainer.seeds[index])


def test_each_part_moves_by_its_own_optimiser_and_rate() -> None:
    trainer = contrasting()
    before = numbers(trainer)
    batch, uniforms, normals = (x[0] for x in trainer.stream.draw(trainer.data, 0, "training", 1).at(0))
    noise = trainer.stream.noise(trainer.stage.noise, StoredRng(uniforms, normals)).clone()
    trainer.run(1)
    after = numbers(trainer)
    leaves = {name: x.clone().requires_grad_() for name, x in before["params"]["generator"].items()}
    mean = before["params"]["offset"]["mean"].clone().requires_grad_()
    made = functional_call(Generator().double(), {**leaves, **before["buffers"]["generator"]}, (noise,))
    trainer.model.double().load_state_dict(before["params"]["model"])
    trainer.model.free_energy(made + mean).mean().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert relative(after["params"]["generator"][name], leaf.detach() - 0.05 * leaf.grad) < 1e-12
    assert mean.grad is not None  # a part without a rate of its own has the model's
    assert relative(after["params"]["offset"]["mean"], mean.detach() - 1e-3 * mean.grad) < 1e-12
    moved = after["params"]["model"]["W"] - before["params"]["model"]["W"]
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 1e-3), rtol=1e-4, atol=0)  # Adam's first step
    assert after["optimiser"]["generator"] == {}
    assert set(after["optimiser"]["model"]) == {"first", "second", "count"}
    assert batch.shape == (1, SIZE, 2)


@pytest.mark.parametrize("method", [VNCE(inner_steps=0), VaGESDSM(inner_steps=0, particles=2)], ids=lambda one: one.id)
def test_the_step_moves_the_parts_that_a_method_names(method: Any) -> None:
    trainer = Trainer(method, GRBM(2, 3), data(), seeds=[0], **KIND)
    before = numbers(trainer)["params"]
    trainer.run(2)
    after = numbers(trainer)["params"]
    moved = {part for part in before if not all(torch.equal(after[part][name], x) for name, x in before[part].items())}
    assert moved == set(method.moves) == set(method.trains) - {"posterior"}


def test_every_declared_rate_is_scheduled() -> None:
    estimator = Contrast(lr=0.1, lr_generator=0.3, decay_steps=10, lr_final=0.02)
    hyper = {name: torch.tensor(value) for name, value in estimator.hyper.items()}
    found = estimator.scheduled(hyper, torch.tensor(10))
    assert float(found["lr"]) == pytest.approx(0.02)
    assert float(found["lr_generator"]) == pytest.approx(0.02)
    assert float(found["beta1"]) == pytest.approx(0.9)


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.long)])
def test_buffers_belong_to_a_seed_and_are_kept(tmp_path: Path, compile: bool) -> None:
    trainer = contrasting(compile=compile)
    trainer.run(STEPS)
    whole = [numbers(trainer, i) for i in (0, 1)]
    assert not torch.equal(whole[0]["buffers"]["generator"]["scale"], whole[1]["buffers"]["generator"]["scale"])
    assert whole[0]["buffers"]["generator"]["drawn"].dtype is torch.int64
    assert whole[0]["buffers"]["generator"]["scale"].dtype is torch.float64
    fitted = trainer.fitted().part("generator", 1)
    assert torch.equal(fitted.scale, whole[1]["buffers"]["generator"]["scale"])
    assert int(fitted.drawn) == 1
    alone = contrasting((1,), compile=compile)
    alone.run(STEPS)
    assert relative(numbers(alone)["params"], whole[1]["params"]) < (1e-12 if compile else 1e-15)
    trainer.save(tmp_path / "kept.pt")
    other = contrasting(compile=compile)
    other.load(tmp_path / "kept.pt")
    assert same(numbers(other)["buffers"], whole[0]["buffers"])
    for one in (trainer, other):
        one.run(2)
    assert same(numbers(other), numbers(trainer))


class Counting(nn.Module):
    """Counts its calls in a buffer: by setting it anew, or in place."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.layer, self.in_place = nn.Linear(3, 2), in_place
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, z: Tensor) -> Tensor:
        self.calls = self.calls.add_(1) if self.in_place else self.calls + 1
        return self.layer(z) + 0 * self.calls


@pytest.mark.parametrize(
    ("in_place", "said"),
    [(False, "Counting sets its buffer calls within a step"), (True, "Counting changes a buffer within a step")],
)
def test_a_buffer_that_a_step_would_change_unseen_is_refused(in_place: bool, said: str) -> None:
    with pytest.raises(AttributeError, match=said):
        Contrast().fit(GRBM(2, 3), data(), steps=1, parts={"generator": Counting(in_place)}, compile=False, **KIND)


def test_a_network_of_one_s_own_takes_the_place_of_a_part() -> None:
    given = nn.Linear(3, 2)
    before = given.weight.clone()
    fitted = Contrast().fit(GRBM(2, 3), data(), steps=2, parts={"generator": given}, **KIND)
    assert isinstance(fitted.part("generator", 0), nn.Linear)
    assert torch.equal(given.weight, before)
    q = RelaxedBernoulli((2,), 3)
    ours, theirs = (
        BiDSM().fit(GRBM(2, 3), data(), steps=1, compile=False, **KIND, **given)
        for given in ({"posterior": q}, {"parts": {"posterior": q}})
    )
    assert same(ours.state(0)["params"]["posterior"], theirs.state(0)["params"]["posterior"])


class Relaxed(nn.Module):
    """A posterior with what all of them have, and no more."""

    def sample(self, v: Tensor, noise: Tensor, temperature: float) -> Tensor:
        return (noise / temperature).sigmoid()

    def log_prob(self, h: Tensor, v: Tensor) -> Tensor:
        return h.sum(-1)


class Summed(RelaxedBernoulli):
    """log_prob of a whole batch."""

    def log_prob(self, h: Tensor, v: Tensor) -> Tensor:
        return super().log_prob(h, v).sum()


@pytest.mark.parametrize(
    ("estimator", "parts", "said"),
    [
        (Contrast(), {"decoder": nn.Linear(3, 2)}, "contrast has no part 'decoder' to be given: its parts beside the "
         "model are generator, offset"),
        (Contrast(), {"model": GRBM(2, 3)}, "contrast has no part 'model' to be given"),
        (Contrast(), {"generator": 3}, r"generator must be a torch.nn.Module; int lacks torch.nn.Module as its base"),
        (BiDSM(), {"posterior": nn.Linear(2, 3)}, r"posterior must be a torch.nn.Module with sample\(\) and log_p"),
        *[(method, {"posterior": Relaxed()}, r"and sample_hard\(\); Relaxed lacks sample_hard$")
          for method in (VaGESDSM(), VNCE(), AdVIL(codes=2))],
    ],
)  # fmt: skip
def test_parts_that_are_none_are_refused(estimator: Estimator, parts: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        estimator.fit(GRBM(2, 3), data(), steps=1, parts=parts, **KIND)


@pytest.mark.parametrize(
    ("estimator", "parts", "said"),
    [
        (BiDSM(), {"posterior": RelaxedBernoulli((2,), 4)},
         r"posterior.sample\(v, noise, temperature\) must give h \[batch, 3\] of v \[batch, 2\], and raises Runtime"),
        (BiDSM(), {"posterior": RelaxedBernoulli((5,), 3)}, r"must give h \[batch, 3\] of v .*, and raises RuntimeErr"),
        (VaGESDSM(), {"posterior": DiagonalGaussian((2,), 3)},
         r"posterior.sample_hard\(v, noise\) must give h .* of zeros and ones, for h of GRBM is binary, got "),
        (BiDSM(), {"posterior": Summed((2,), 3)}, r"posterior.log_prob\(h, v\) must give \[batch\] of .* got \[\]"),
        (AdVIL(codes=2), {"decoder": Decoder(GRBM(3, 3), 2, 4)},
         r"decoder must be of v of shape \[2\], as GRBM is, got one of \[3\]"),
        (AdVIL(codes=2), {"decoder": Decoder(GRBM(2, 4), 2, 4)},
         r"decoder must have the latent units of GRBM, Bernoulli\(size=3\), got Bernoulli\(size=4\)"),
        (FlowContrast(), {"flow": Flow((3,), 1, 4)}, r"flow must be of v of shape \[2\], as GRBM is, got one of \[3\]"),
        (CoopNets(codes=2), {"generator": Decoding((3,), 2, 4)}, r"generator must be of v of shape \[2\]"),
        (CoopNets(codes=2), {"generator": nn.Linear(2, 3)},
         r"generator must give v \[batch, 2\] of codes \[batch, 2\], got \[2, 3\] for a batch of 2"),
        (CoopNets(codes=2), {"generator": nn.Linear(7, 2)},
         r"generator must give v \[batch, 2\] of codes \[batch, 2\], and raises RuntimeError: mat1"),
    ],
)  # fmt: skip
def test_parts_of_another_size_are_refused(estimator: Estimator, parts: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        estimator.fit(GRBM(2, 3), data(), steps=1, parts=parts, **KIND)


OF_CODES = ("second", "second_posterior")  # which the method makes itself, as it says


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.id)
def test_parts_that_a_method_makes_itself_may_be_given(kind: type[Estimator]) -> None:
    case = small(kind)
    kept = {"model", *OF_CODES} if kind.id == "two_stage_vae" else {"model"}
    parts = {name: part for name, part in case.estimator.modules(case.model, {}).items() if name not in kept}
    if parts:
        case.estimator.fit(case.model, case.data(20), steps=0, batch_size=10, parts=parts, compile=False)


def test_what_trains_says_is_what_is_trained() -> None:
    class Silent(Contrast):
        trains: ClassVar[tuple[str, ...]] = ("model", "generator")

    silent = dataclasses.dataclass(frozen=True, kw_only=True)(Silent)
    with pytest.raises(InputError, match="trains model, generator, offset, and its ``trains`` says model, generator"):
        silent().fit(GRBM(2, 3), data(), steps=1, **KIND)


# --- the iteration, and which examples --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Visits(Estimator):
    """Counts how often each training example was used, and remembers when last; the model is taken to the batch's
    mean."""

    id: ClassVar[str] = "visits"
    label: ClassVar[str] = "Visits"
    reference: ClassVar[str] = "a test"
    uses_examples: ClassVar[bool] = True

    def init_carry(self, model: Any, data: Tensor, batch_size: int, rng: Rng) -> dict[str, Tensor]:
        return {"visits": torch.zeros(len(data), dtype=data.dtype), "last": torch.zeros(len(data), dtype=torch.int64)}

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        return (params.model.b - batch).square().mean(), carry, {}

    def step(self, state: State, batches: Tensor, noise: Any, hyper: Hyper) -> tuple[State, Info]:
        after, _ = super().step(state, batches, noise, hyper)
        assert state.examples is not None
        assert state.iteration is not None
        chosen = state.examples[0]
        visits = state.carry["visits"].index_add(0, chosen.clamp(min=0), (chosen >= 0).to(batches.dtype))
        last = state.carry["last"].index_copy(0, chosen.clamp(min=0), state.iteration.expand(len(chosen)))
        return after.replace(carry={"visits": visits, "last": last}), {"objective": state.examples.sum().to(batches)}


def visiting(**options: Any) -> Trainer:
    return Trainer(Visits(), GRBM(2, 3), data(), seeds=(0, 1), **{**KIND, **options})


def test_a_step_may_ask_which_examples_it_is_given_and_when() -> None:
    trainer, reference = visiting(), visiting()
    expected = torch.zeros(len(data()), dtype=torch.float64)
    seen = torch.zeros(len(data()), dtype=torch.int64)
    for step in range(STEPS):
        batches, *_, examples = reference.stream.draw(reference.data, step, "training", 1).at(0)
        assert torch.equal(data()[examples[1]], batches[1])
        expected += torch.bincount(examples[1, 0], minlength=len(expected))
        seen[examples[1, 0]] = step
    trainer.run(STEPS)
    carry = numbers(trainer, 1)["carry"]
    assert torch.equal(carry["visits"], expected)
    assert torch.equal(carry["last"], seen)
    assert float(expected.sum()) == STEPS * SIZE


def test_examples_that_are_not_of_the_training_data_have_no_number() -> None:
    trainer = visiting()
    assert torch.equal(trainer.objective_on(data(30)), torch.full((2,), -float(SIZE), dtype=torch.float64))


def test_a_cohort_says_it_too() -> None:
    cohort, trainer = Cohort(Visits(), GRBM(2, 3), data(), places=2, seeds=(0, 1), **KIND), visiting()
    member = cohort.begin(Visits(lr=0.1))
    cohort.advance([member], STEPS)
    trainer.run(STEPS)
    for i in (0, 1):
        assert same(cohort.fitted(member).state(i)["carry"], numbers(trainer, i)["carry"])


# --- checkpoints of before --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [BiDSM(inner_steps=2, unroll_steps=1), Contrast()])
def test_checkpoints_with_one_optimiser_for_several_parts_are_read(tmp_path: Path, estimator: Estimator) -> None:
    """As version 0.1 wrote them: {"upper", "lower"} for methods with a posterior, else one for all parts."""

    def make() -> Trainer:
        return Trainer(Adam() if isinstance(estimator, Contrast) else estimator, GRBM(2, 3), data(), seeds=(0,), **KIND)

    trainer = make()
    trainer.run(3)
    saved = trainer.checkpoint()
    state = saved["tensors"]["state"]
    optimiser = dict(state["optimiser"])
    lower = {"lower": optimiser.pop("posterior")} if "posterior" in optimiser else {}
    first, second = ({part: kept[name] for part, kept in optimiser.items()} for name in ("first", "second"))
    together = {"first": first, "second": second, "count": optimiser["model"]["count"]}
    state["optimiser"] = {"upper": together, **lower} if lower else together
    del state["buffers"]
    save_checkpoint(saved, tmp_path / "old.pt")
    assert set(load_checkpoint(tmp_path / "old.pt")["tensors"]["state"]["optimiser"]) == set(trainer.estimator.trains)
    resumed = make()
    resumed.load(tmp_path / "old.pt")
    for one in (trainer, resumed):
        one.run(2)
    assert same(trainer.checkpoint()["tensors"], resumed.checkpoint()["tensors"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam(Contrast):
    """The same with one optimiser for all."""

    def optimiser_of(self, part: str) -> str:
        return "adam"
