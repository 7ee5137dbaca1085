"""What a method declares about itself, the networks that it gives and what its functions give are checked where they
are first seen."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from baselines import DSM, NCE
from benchmark.tasks import registry
from bism import GRBM, Bernoulli, BiDSM, Estimator, InputError
from bism.cohort import Cohort
from bism.contract import check_cost
from bism.hyperparameters import number
from bism.phases import Phase
from bism.posteriors import RelaxedBernoulli
from bism.state import State
from tests.contracts.cases import data, discovered
from tests.contracts.test_parts import Contrast

KIND: dict[str, Any] = {"batch_size": 8, "dtype": torch.float64, "steps": 1, "compile": False}


def declared(**attributes: Any) -> type[Contrast]:
    """``Contrast`` with other class attributes."""
    made = type("Odd", (Contrast,), {"__doc__": "Odd.", "__annotations__": {}, **attributes})
    return dataclasses.dataclass(frozen=True, kw_only=True)(made)


@pytest.mark.parametrize("kind", discovered(), ids=lambda kind: kind.id)
def test_our_own_methods_keep_it(kind: type[Estimator]) -> None:
    assert kind().trains[0] == "model"


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"trains": "model"}, "``trains`` must be a tuple of the names of its parts, got 'model'"),
        ({"trains": 3}, "``trains`` must be a tuple"),
        ({"trains": ("generator", "offset")}, "``trains`` must name 'model' and each part once"),
        ({"trains": ("model", "generator", "model")}, "``trains`` must name 'model' and each part once"),
        ({"trains": ("model", "a\nb")}, "``trains`` must be a tuple"),
        ({"trains": ("model", 1)}, "``trains`` must be a tuple"),
        ({"moves": ("model", "ghost")}, "``moves`` must be a tuple of parts that ``trains`` names, each once, got"),
        ({"moves": ("model", "model")}, "``moves`` must be a tuple of parts that ``trains`` names, each once, got"),
        ({"moves": "model"}, "``moves`` must be a tuple of parts"),
        ({"moves": ([1],)}, "``moves`` must be a tuple of parts"),
        (
            {"part_needs": {"model": "sample_hard"}},
            "``part_needs`` must have a tuple of names of methods for each part",
        ),
        ({"part_needs": ("sample_hard",)}, "``part_needs`` must have a tuple of names of methods for each part"),
        ({"needs": "free_energy"}, "``needs`` must be a tuple of names of methods of the model, got 'free_energy'"),
        ({"needs": 5}, "``needs`` must be a tuple"),
        ({"uses_examples": "no"}, "``uses_examples`` must be True or False, got 'no'"),
        ({"maps_codes": 1}, "``maps_codes`` must be True or False, got 1"),
        (
            {"visible_units": Bernoulli},
            "``visible_units`` must be a tuple of Gaussian (real v) and Bernoulli (binary v)",
        ),
        ({"visible_units": ()}, "``visible_units`` must be a tuple of Gaussian"),
        ({"visible_units": (Bernoulli(3),)}, "``visible_units`` must be a tuple of Gaussian"),
        ({"label": "Odd-{nope}"}, "``label`` 'Odd-{nope}' names {nope}, which is no hyper-parameter of it"),
        ({"label": "Odd-{"}, "``label`` 'Odd-{' cannot be read"),
        ({"label": "Odd-{lr.__class__}"}, "names {lr.__class__}, which is no hyper-parameter"),
        ({"trains": ("model", "offset")}, "lr_generator is declared the learning rate of 'generator': its parts are"),
        ({"extra_parameters": lambda self, rng: {}}, r"extra_parameters must take (self, model, rng)"),
        ({"init_carry": lambda self, data, batch_size, rng: {}}, "init_carry must take (self, model, data, batch_size"),
        ({"fit_to": lambda self, data: {}}, "fit_to must take (self, data, data_noise)"),
        ({"modules": lambda self, model: {}}, r"modules must take (self, model, given)"),
        ({"label": "Odd-{lr:zz}"}, "``label`` 'Odd-{lr:zz}' cannot be filled in"),
        ({"label": "\udc80M"}, "``label`` must be a text of 0 to 200 printable characters"),
        ({"label": "<b>&$x_{{$}} %"}, "``label`` must be without '$', which figures take for"),
        ({"family": "a\nb"}, "``family`` must be a text of 1 to 200"),
        ({"family": 20_000 * "x"}, "``family`` must be a text of 1 to 200"),
        ({"colour": 5}, "``colour`` must be a text of 0 to 200"),
        ({"sampler": 5}, "sampler must be a function, got 5"),
        ({"noise": 5}, "noise must be a function, got 5"),
        ({"passes": lambda self: 2.0}, "``passes`` must be a property: it lacks @property"),
    ],
)
def test_a_class_that_declares_what_cannot_be_is_refused(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        declared(**attributes)()
    assert said in str(error.value)
    assert str(error.value).startswith("Odd: ")


@pytest.mark.parametrize("passes", ["x", None, math.nan, -1.0, 0, math.inf, True, torch.ones(2)])
def test_a_cost_that_is_no_number_is_refused(passes: Any) -> None:
    with pytest.raises(InputError, match=r"^odd: ``passes`` must be a number above 0, 1,000,000 at most, got "):
        check_cost("odd", passes, 0)


@pytest.mark.parametrize("unrolled", ["x", math.nan, -1, 10**18, 1.5])
def test_unrolled_steps_that_are_none_are_refused(unrolled: Any) -> None:
    with pytest.raises(InputError, match=r"^odd: ``unrolled`` must be a whole number from 0 to "):
        check_cost("odd", 1.0, unrolled)


def test_a_part_has_one_rate() -> None:
    def rate(part: Any) -> Any:
        return number(0.1, "a rate", rate_of=part)

    for name, part, said in (
        ("lr_other", "generator", "one hyper-parameter must be declared with rate_of='generator', and 2 are"),
        ("lr_other", "model", "one hyper-parameter must be declared with rate_of='model', and 2 are"),
        ("lr_other", "ghost", "lr_other is declared the learning rate of 'ghost'"),
        ("lr", None, "one hyper-parameter must be declared with rate_of='model', and 0 are"),
    ):
        with pytest.raises(InputError, match=said):
            declared(**{name: rate(part), "__annotations__": {name: float}})()


def test_a_plug_in_is_refused_where_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "odd.py"
    file.write_text(
        "import dataclasses\nfrom baselines import DSM\n\n\n@dataclasses.dataclass(frozen=True, kw_only=True)\n"
        "class Odd(DSM):\n    id = 'odd'\n    label = 'Odd-{nope}'\n"
    )
    with pytest.raises(InputError, match=r"odd\.py: Odd: ``label`` 'Odd-\{nope\}' names \{nope\}"):
        registry.methods([file])


class Hidden(nn.Module):
    """Parameters that it does not say it has."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Linear(3, 2)
        self.weights = [nn.Parameter(torch.ones(2))]


class Stacked(nn.Module):
    """Modules that it does not say it has."""

    def __init__(self, trained: bool) -> None:
        super().__init__()
        self.seen = nn.Linear(3, 2)
        self.layers = [nn.Linear(2, 2).double().requires_grad_(trained)]

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers[0](self.seen(z))
        return found


def test_a_module_in_a_plain_list_is_trained_or_meant_to_stay() -> None:
    with pytest.raises(
        InputError, match=r"Stacked.layers is a plain list, and layers\[0\] is a Linear that is not one"
    ):
        Contrast().fit(GRBM(2, 3), data(), parts={"generator": Stacked(trained=True)}, **KIND)
    fixed = Stacked(trained=False)
    fitted = Contrast().fit(GRBM(2, 3), data(), parts={"generator": fixed}, **KIND)
    assert torch.equal(fitted.part("generator", 0).layers[0].weight, fixed.layers[0].weight)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda model: None, "modules() must give a dictionary of modules by part, got None"),
        (lambda model: {"model": model, "generator": len}, "the part 'generator' must be a torch.nn.Module"),
        (lambda model: {"model": model, "generator": nn.Identity()}, "(Identity) has no parameters to train"),
        (lambda model: {"model": model, "generator": nn.LazyLinear(2)}, "parameters whose shape is not known yet"),
        (lambda model: {"model": model, "generator": model}, "the parts 'model' and 'generator' share a parameter"),
        (lambda model: {"model": model, "generator": Hidden()}, "Hidden.weights is a plain list of parameters"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_trained_are_refused(made: Any, said: str) -> None:
    def modules(self: Any, model: nn.Module, given: Mapping[str, nn.Module]) -> Any:
        return made(model)

    with pytest.raises(InputError) as error:
        declared(modules=modules)().fit(GRBM(2, 3), data(), **KIND)
    assert said in str(error.value)


def test_optimisers_and_moves_are_of_what_there_is() -> None:
    with pytest.raises(InputError, match=r"optimiser_of\('model'\) must be one of adam, sgd"):
        declared(optimiser_of=lambda self, part: "rmsprop")().fit(GRBM(2, 3), data(), **KIND)

    class Ghostly(Contrast):
        def step(self, state: Any, batches: Any, noise: Any, hyper: Any) -> Any:
            return self.move(state, self.moved, lambda *_: torch.zeros(()), batches, noise, hyper)

        moved: ClassVar[Any] = ("ghost",)

    for moved in (("ghost",), "model"):
        ghostly = dataclasses.dataclass(frozen=True, kw_only=True)(
            type("G", (Ghostly,), {"moved": moved, "__doc__": "."})
        )
        with pytest.raises(InputError, match="parts are a tuple of model, generator, offset"):
            ghostly().fit(GRBM(2, 3), data(), **KIND)


def test_who_asks_for_examples_takes_minibatches_whole() -> None:
    odd = declared(uses_examples=True, unshardable=lambda self: None)
    with pytest.raises(InputError, match="cannot take a minibatch in 2 shards: its steps ask which examples"):
        odd().fit(GRBM(2, 3), data(), accumulate=2, **KIND)


# --- what its functions give, found at the first step ----------------------------------------------------------------


def begins(given: Any) -> Any:
    return lambda self, model, data, batch_size, rng: given


def losing(given: Callable[[Tensor, Any], Any]) -> Any:
    """A loss that gives something else than (objective, carry, info)."""
    return lambda self, params, batch, noise, carry, hyper: given(params.model.free_energy(batch).mean(), carry)


def stepping(given: Callable[[State, Tensor], Any]) -> Any:
    """A step that gives something else than (state, info)."""

    def step(self: Any, state: State, batches: Tensor, noise: Any, hyper: Any) -> Any:
        return given(state, batches.mean())

    return step


def carrying(change: Callable[[Tensor], Any]) -> dict[str, Any]:
    """Chains that are something else after a step."""
    return {
        "init_carry": lambda self, model, data, batch_size, rng: {"chains": data[:3]},
        "step": stepping(lambda state, x: (state.replace(carry=change(state.carry["chains"])), {"objective": x})),
    }


NO_TENSORS = "all that it gives must be tensors"
SAME = "must give a state of the same tensors as before, of the same shapes and types: "


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"init_carry": begins(None)}, "init_carry() must give a dictionary of tensors, got None"),
        ({"init_carry": begins([1])}, "init_carry() must give a dictionary of tensors, got [1]"),
        ({"init_carry": begins({"n": 3})}, f"init_carry() gives carry['n'] as 3: {NO_TENSORS}"),
        ({"init_carry": begins({"n": [torch.ones(1), "x"]})}, f"init_carry() gives carry['n'][1] as 'x': {NO_TENSORS}"),
        ({"fit_to": lambda self, data, data_noise: None}, "fit_to() must give a dictionary of tensors, got None"),
        ({"fit_to": lambda self, data, data_noise: {"n": 3}}, f"fit_to() gives carry['n'] as 3: {NO_TENSORS}"),
        ({"init_carry": begins({"n": torch.ones(1)}), "fit_to": lambda self, data, data_noise: {"n": torch.ones(1)}},
         "init_carry() and fit_to() both give n"),
        ({"extra_parameters": lambda self, model, rng: None}, "must give {part: {name: tensor}}, got None"),
        ({"extra_parameters": lambda self, model, rng: {"offset": model.b}}, "must give {part: {name: tensor}}, got"),
        ({"extra_parameters": lambda self, model, rng: {"offset": {"mean": 0.0}}},
         f"extra_parameters() gives parameters['offset']['mean'] as 0.0: {NO_TENSORS}"),
        ({"init_optimiser": lambda self, params: {"model": None}}, "init_optimiser() gives optimiser['model'] as None"),
        ({"loss": losing(lambda x, carry: x), "step": Estimator.step},
         "loss() must give (objective, carry, info), got a tensor [] of torch.float64"),
        ({"loss": losing(lambda x, carry: (x, carry)), "step": Estimator.step},
         "loss() must give (objective, carry, info), got a tuple of 2"),
        ({"loss": losing(lambda x, carry: (x, carry, x)), "step": Estimator.step},
         "loss() must give (objective, carry, info), got a tuple of 3"),
        ({"loss": losing(lambda x, carry: (x.expand(3), carry, {})), "step": Estimator.step},
         "loss() must give its objective as a scalar, a floating-point tensor of shape [], got a tensor [3] of"),
        ({"loss": losing(lambda x, carry: (1.0, carry, {})), "step": Estimator.step},
         "loss() must give its objective as a scalar, a floating-point tensor of shape [], got 1.0"),
        ({"loss": losing(lambda x, carry: (x, carry, {"rate": 0.5})), "step": Estimator.step},
         f"loss() gives info['rate'] as 0.5: {NO_TENSORS}"),
        ({"loss": losing(lambda x, carry: (x, None, {})), "step": Estimator.step}, "loss() gives carry as None: "),
        ({"step": lambda self, state, batches, noise, hyper: self.move(
            state, ("model",), lambda params, of, drawn: of[0], batches, noise, hyper)},
         "what move() is given must give its objective as a scalar, a floating-point tensor of shape [], got a tensor"),
        ({"step": stepping(lambda state, x: state)}, "step() must give (state, info), got a State"),
        ({"step": stepping(lambda state, x: (state, x))}, "step() must give (state, info), got a tuple of 2"),
        ({"step": stepping(lambda state, x: (state, {}))},
         "step() must report its objective as info['objective'], and info is empty"),
        ({"step": stepping(lambda state, x: (state, {"loss": x, "rate": x}))},
         "step() must report its objective as info['objective'], and info has loss, rate"),
        ({"step": stepping(lambda state, x: (state, {"objective": x.sum(), "rates": x.sum().expand(2)}))},
         "step() must give info['rates'] as a scalar, a floating-point tensor of shape [], got a tensor [2]"),
        ({"step": stepping(lambda state, x: (state, {"objective": 0.0}))},
         "step() must give info['objective'] as a scalar, a floating-point tensor of shape [], got 0.0"),
        ({"step": stepping(lambda state, x: (state, {"objective": x[None]}))}, "got a tensor [1] of torch.float64"),
        ({"step": stepping(lambda state, x: (state.params, {"objective": x}))},
         "step() must give the next state, a bism.state.State, got a dict"),
        (carrying(lambda chains: {}), f"step() {SAME}state.carry['chains'] is gone"),
        (carrying(lambda chains: {"chains": chains, "more": chains}), f"{SAME}state.carry['more'] is new"),
        (carrying(lambda chains: None), f"{SAME}state.carry is None, and was a dictionary"),
        (carrying(lambda chains: {"chains": [chains]}), "['chains'] is a list of 1, and was a tensor [3, 2]"),
        (carrying(lambda chains: {"chains": chains[:2]}),
         "state.carry['chains'] is a tensor [2, 2] of torch.float64, and was a tensor [3, 2] of torch.float64"),
        (carrying(lambda chains: {"chains": chains.float()}), "is a tensor [3, 2] of torch.float32, and was a tensor"),
        ({"step": stepping(lambda state, x: (state.replace(params={}), {"objective": x}))},
         f"{SAME}state.params['model'] is gone"),
        ({"step": stepping(
            lambda state, x: (state.replace(optimiser={**state.optimiser, "model": {}}), {"objective": x}))},
         f"{SAME}state.optimiser['model']['first'] is gone"),
        ({"minibatches": 0}, "``minibatches`` must be a whole number from 1 to 268,435,455, got 0"),
        ({"minibatches": 10**12}, "``minibatches`` must be a whole number from 1 to 268,435,455, got 1000000000000"),
        ({"minibatches": True}, "``minibatches`` must be a whole number from 1"),
        ({"minibatches": "3"}, "``minibatches`` must be a whole number from 1"),
        ({"noise": lambda self, model, shape, rng: rng.normal((10**12,))},
         "noise() asks for 1,000,000,000,000 random numbers for one step of a seed, and there can be 2,147,483,647"),
        ({"noise": lambda self, model, shape, rng: rng.uniform((2**31,))},
         "noise() asks for 2,147,483,648 random numbers"),
    ],
)  # fmt: skip
def test_what_its_functions_give_is_checked_at_the_first_step(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        declared(**attributes)().fit(GRBM(2, 3), data(), **KIND)
    assert said in str(error.value)
    assert str(error.value).startswith("contrast: ")


def test_a_step_that_is_none_is_not_tried_again_uncompiled() -> None:
    with pytest.raises(
        InputError, match=r"contrast: step\(\) must give \(state, info\), got a State"
    ):  # and no warning
        declared(step=stepping(lambda state, x: state))().fit(GRBM(2, 3), data(), **{**KIND, "compile": True})


def test_seeds_begin_alike() -> None:
    def init_carry(self: Any, model: Any, data: Tensor, batch_size: int, rng: Any) -> Any:
        return {"chains": data[: 1 + int(rng.integers(1000, ()))]}

    with pytest.raises(
        InputError, match=r"begin with tensors of the same shapes and types: of seed 1, state\.carry\['"
    ):
        declared(init_carry=init_carry)().fit(GRBM(2, 3), data(2000), seeds=(0, 1), **KIND)


def test_a_cohort_checks_it_too() -> None:
    def cohort(kind: type[Estimator]) -> None:
        made = Cohort(kind(), GRBM(2, 3), data(), places=1, seeds=(0,), batch_size=8, dtype=torch.float64)
        made.advance([made.begin(kind())], 1)

    with pytest.raises(InputError, match=r"contrast: step\(\) must report its objective as info"):
        cohort(declared(step=stepping(lambda state, x: (state, {}))))
    with pytest.raises(
        InputError, match="phase 'long': ``count`` must be a whole number from 0 to 1,000, got 1000000000000"
    ):
        cohort(declared(phases=(Phase("long", 10**12, lambda state, *_: state, lambda *_: {}),)))

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Inner(BiDSM):
        """Forgets to give the state back."""

        id: ClassVar[str] = "inner"

        def inner_step(self, state: State, batches: Tensor, noise: Any, hyper: Any) -> Any:
            return None

    said = r"inner: phase 'posterior': step\(\) must give the next state, a bism.state.State, got None"
    with pytest.raises(InputError, match=said):
        Cohort(Inner(), GRBM(2, 3), data(), places=1, seeds=(0,), batch_size=8, dtype=torch.float64)


def test_a_posterior_is_for_methods_that_train_one() -> None:
    q = RelaxedBernoulli((2,), 3)
    for estimator, said in (
        (NCE(), "nce has no part 'posterior' to be given: its parts beside the model are normaliser"),
        (DSM(), "dsm has no part 'posterior' to be given: it trains the model alone"),
        (Contrast(), "contrast has no part 'posterior' to be given: its parts beside the model are generator, offset"),
    ):
        with pytest.raises(InputError, match=said):
            estimator.fit(GRBM(2, 3), data(), posterior=q, **KIND)
    with pytest.raises(InputError, match="posterior is given twice, as an argument and among parts"):
        BiDSM().fit(GRBM(2, 3), data(), posterior=q, parts={"posterior": q}, **KIND)
    with pytest.raises(InputError, match="parts must be a dictionary of networks by the names of parts, got list"):
        BiDSM().fit(GRBM(2, 3), data(), posterior=q, parts=[q], **KIND)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ({"seeds": None}, "seeds must be a list of integers, got None"),
        ({"dtype": "float32"}, "dtype must be floating point, such as torch.float32, got 'float32'"),
        ({"device": "meta"}, "device must be 'cpu' or a GPU such as 'cuda:0', got 'meta'"),
        ({"parts": [nn.Linear(3, 2)]}, "parts must be a dictionary of networks by the names of parts, got list"),
        ({"parts": "generator"}, "parts must be a dictionary of networks by the names of parts, got str"),
    ],
)
def test_arguments_of_fit_that_are_none(argument: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Contrast().fit(GRBM(2, 3), data(), **{**KIND, **argument})
