"""What a method declares about itself, and the networks that it gives, are checked where they are first seen."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from benchmark.tasks import registry
from bism import GRBM, Bernoulli, Estimator, InputError
from bism.hyperparameters import number
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
        ({"needs": "free_energy"}, "``needs`` must be a tuple of names of methods of the model, got 'free_energy'"),
        ({"needs": 5}, "``needs`` must be a tuple"),
        ({"uses_examples": "no"}, "``uses_examples`` must be True or False, got 'no'"),
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
        ({"modules": lambda self, model: {}}, r"modules must take (self, model, given)"),
    ],
)
def test_a_class_that_declares_what_cannot_be_is_refused(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        declared(**attributes)()
    assert said in str(error.value)
    assert str(error.value).startswith("Odd: ")


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
