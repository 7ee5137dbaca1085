"""What a method sees of its modules has the parameters that it is given, however it asks for them."""

import copy
import dataclasses
import functools
import types
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad
from torch.nn.functional import softplus

from baselines import SM
from bism import Estimator, InputError
from bism.engine import Trainer
from bism.estimator import Hyper
from bism.functional import Bound, Methods, frozen
from bism.hyperparameters import number
from bism.optimisers import Tree
from bism.state import Info, State

Penalty = Callable[[Any], Tensor]


class Nested(nn.Module):
    """An energy from a small network, with parameters at every depth and one that has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.visible_shape, self.latent = (2,), None
        self.W = nn.Parameter(torch.tensor([0.5, -1.5]))
        self.features = nn.ModuleDict({"head": nn.Linear(2, 3), "body": nn.Sequential(nn.Linear(3, 3), nn.Tanh())})
        self.features["twice"] = self.features["head"]
        self.scales = nn.ParameterList([torch.tensor([1.0, 2.0]), torch.tensor(3.0)])
        self.register_buffer("offset", torch.tensor([0.1, 0.2]))
        self.held = [self.features["head"], {"body": self.features["body"]}]

    def reset_parameters(self) -> None:
        """Starts where it was made, with or without a seed."""

    def free_energy(self, v: Tensor) -> Tensor:
        hidden = self.features["body"](self.features["twice"](v - self.offset))
        return 0.5 * v.square().sum(-1) * softplus(self.scales[1]) + hidden.sum(-1) + v @ self.W * self.scales[0].sum()

    def energy(self, v: Tensor) -> Tensor:
        return self.free_energy(v)

    def each(self) -> Iterator[Tensor]:
        yield self.W
        for module in (self.features["head"], self.features["body"][0]):
            yield module.weight
            yield module.bias
        yield from self.scales

    def squares(self) -> Callable[[], Tensor]:
        return lambda: sum(parameter.square().sum() for parameter in self.parameters())

    @property
    def size(self) -> Tensor:
        return self.squares()()


def _sum(tensors: Any) -> Tensor:
    total: Tensor = sum(tensor.square().sum() for tensor in tensors)
    return total


def by_names(model: Any) -> Tensor:
    layers = (model.features["head"], model.features.body[0])
    own = [model.W, model.scales[0], model.scales[1]]
    return _sum([*own, *(tensor for layer in layers for tensor in (layer.weight, layer.bias))])


WAYS: dict[str, Penalty] = {
    "parameters": lambda model: _sum(model.parameters()),
    "a list of parameters": lambda model: _sum(list(model.parameters())),
    "named_parameters": lambda model: _sum(tensor for _, tensor in model.named_parameters()),
    "a dictionary of them": lambda model: _sum(dict(model.named_parameters()).values()),
    "parameters_to_vector": lambda model: nn.utils.parameters_to_vector(model.parameters()).square().sum(),
    "state_dict": lambda model: _sum(x for name, x in _once(model.state_dict().items()) if "offset" not in name),
    "modules": lambda model: _sum(x for module in model.modules() for x in module.parameters(recurse=False)),
    "named_modules": lambda model: _sum(x for _, one in model.named_modules() for x in one.parameters(recurse=False)),
    "children": lambda model: _sum([model.W, *(x for child in _first(model, "children") for x in child.parameters())]),
    "named_children": lambda model: _sum(
        [model.W, *(x for name, child in model.named_children() for x in child.parameters())]
    ),
    "names of submodules": by_names,
    "get_parameter": lambda model: _sum(model.get_parameter(name) for name, _ in model.named_parameters()),
    "get_submodule": lambda model: (
        _sum(x for one in (model.get_submodule("features"), model.get_submodule("scales")) for x in one.parameters())
        + model.W.square().sum()
    ),
    "values of a ModuleDict": lambda model: (
        _sum(x for one in list(model.features.values())[:2] for x in one.parameters()) + _sum([model.W, *model.scales])
    ),
    "submodules in a plain list": lambda model: (
        _sum(x for one in (model.held[0], model.held[1]["body"]) for x in one.parameters())
        + _sum([model.W, *model.scales])
    ),
    "a method that is a generator": lambda model: _sum(model.each()),
    "a function that a method returns": lambda model: model.squares()(),
    "a property": lambda model: model.size,
    "its own vars by getattr": lambda model: _sum(_walk(model)),
    "a copy": lambda model: _sum(copy.copy(model).parameters()),
    "__dict__ of parameters": lambda model: _sum(_parameters_of(model)),
}


def _once(pairs: Any) -> list[tuple[str, Tensor]]:
    return [(name, tensor) for name, tensor in pairs if "twice" not in name]


def _first(model: Any, how: str) -> Iterator[Any]:
    """Children, lazily: the first is asked for long after the generator was made."""
    found = getattr(model, how)()
    yield from found


def _walk(model: Any) -> Iterator[Tensor]:
    for name in ("W", "features.head.weight", "features.head.bias", "features.body.0.weight", "features.body.0.bias"):
        at = model
        for part in name.split("."):
            at = getattr(at, part)
        yield at
    yield from (getattr(model.scales, name) for name in ("0", "1"))


def _parameters_of(model: Any) -> Iterator[Tensor]:
    yield from model._parameters.values()
    for module in (model.features.head, model.features.body[0], model.scales):
        yield from module._parameters.values()


def given() -> tuple[State, Tree]:
    """A state of the model, and other parameters than the module has itself."""
    torch.manual_seed(0)
    model = Nested().double()
    params = {"model": {name: x.detach() + torch.randn_like(x) for name, x in model.named_parameters()}}
    return State({"model": Methods(model)}, params, {}, {}), params


@pytest.mark.parametrize("way", WAYS)
def test_a_penalty_has_the_gradient_of_the_given_parameters(way: str) -> None:
    state, params = given()
    gradient = grad(lambda at: 0.5 * WAYS[way](state.bind(at).model))(params)["model"]
    assert gradient.keys() == params["model"].keys()
    for name, tensor in params["model"].items():
        assert torch.equal(gradient[name], tensor), name
    assert float(WAYS[way](state.bind(params).model)) == pytest.approx(float(_sum(params["model"].values())))
    own = _sum(state.modules["model"].module.parameters())
    assert float(own.detach()) != pytest.approx(float(_sum(params["model"].values())))  # the module is as it was


def test_functions_of_submodules_run_with_the_given_parameters() -> None:
    state, params = given()
    model, theta, v = state.bind().model, params["model"], torch.ones(4, 2, dtype=torch.float64)
    expected = v @ theta["features.head.weight"].T + theta["features.head.bias"]
    for head in (model.features.head, model.features.twice, model.held[0], next(iter(model.features.children()))):
        assert torch.equal(head(v), expected)
        assert torch.equal(head.forward(v), expected)
        assert isinstance(head, Bound)
    assert len(model.features.body) == 2
    assert "head" in model.features
    assert bool(model)
    assert torch.equal(model.offset, state.modules["model"].module.offset)
    assert (model.visible_shape, model.latent) == ((2,), None)


def test_no_gradient_reaches_frozen_parameters() -> None:
    state, params = given()
    gradient = grad(lambda at: WAYS["modules"](frozen(state.bind(at).model)))(params)["model"]
    assert all(torch.equal(x, torch.zeros_like(x)) for x in gradient.values())


class Shared(nn.Module):
    """A module with two names, and a parameter that two modules share."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.again, self.other.weight = self.one, self.one.weight

    def forward(self, v: Tensor) -> Tensor:
        return self.one(v) + self.again(v) + self.other(v)


def test_shared_modules_and_parameters() -> None:
    module, v = Shared(), torch.ones(3, 2)
    own = module.one.weight.detach().clone()
    bound = Bound(Methods(module), {"one.weight": torch.full((2, 2), 2.0)})
    assert torch.equal(bound(v), torch.full((3, 2), 12.0))
    assert len(list(bound.parameters())) == 1
    assert torch.equal(bound.other.weight, torch.full((2, 2), 2.0))
    for part in (module.one, module.again, module.other):  # as they were, which torch's own functional_call forgets
        assert isinstance(part.weight, nn.Parameter)
        assert torch.equal(part.weight, own)


def test_what_changes_a_module_and_what_is_not_there_is_refused() -> None:
    model = given()[0].bind().model
    with pytest.raises(AttributeError, match="is only seen with the parameters of one seed"):
        model.float()
    with pytest.raises(AttributeError, match="free_enrgy"):
        model.free_enrgy(torch.zeros(1, 2))
    with pytest.raises(AttributeError, match="no part 'modle'; this method's parts are model"):
        given()[0].bind().modle.free_energy(torch.zeros(1, 2))
    with pytest.raises(TypeError):
        len(model)


def test_parameters_in_a_plain_list_are_refused() -> None:
    model = Nested()
    model.aside = [model.W]
    with pytest.raises(InputError, match=r"Nested.aside is a plain list of parameters.*ParameterList"):
        SM().fit(model, torch.randn(20, 2), steps=0)


class Reg:
    """A plain object that holds the model."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.inner = model, types.SimpleNamespace(model=model)

    def penalty(self) -> Tensor:
        return _sum(self.model.parameters())

    def __call__(self) -> Tensor:
        return self.penalty()

    def __iter__(self) -> Iterator[Tensor]:
        return iter(list(self.model.parameters()))


class Slotted:
    __slots__ = ("model",)

    def __init__(self, model: nn.Module) -> None:
        self.model = model


@dataclasses.dataclass
class Record:
    model: nn.Module


class Holding(Nested):
    """Modules wherever an object can hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.reg, self.queue, self.space = Reg(self), deque([self]), types.SimpleNamespace(model=self)
        self.record, self.slotted, self.frozen = Record(self), Slotted(self), {"deep": [Reg(self)]}
        self.by_default = lambda model=self: _sum(model.parameters())
        self.part = functools.partial(_penalty, self)

    @functools.cached_property
    def all(self) -> list[Tensor]:
        return list(self.parameters())

    def by_cache(self) -> Tensor:
        return _sum(self.all)

    def made(self) -> Reg:
        return Reg(self)

    def _call(self) -> Tensor:
        return _sum(self.parameters())


def _penalty(model: Any) -> Tensor:
    return _sum(model.parameters())


HELD: dict[str, Penalty] = {
    "an object's function": lambda model: model.reg.penalty(),
    "an object's attribute": lambda model: _sum(model.reg.model.parameters()),
    "an object in an object": lambda model: _sum(model.reg.inner.model.parameters()),
    "an object that is called": lambda model: model.reg(),
    "an object that is iterated over": lambda model: _sum(model.reg),
    "a deque": lambda model: _sum(model.queue[0].parameters()),
    "a namespace": lambda model: _sum(model.space.model.parameters()),
    "a data class": lambda model: _sum(model.record.model.parameters()),
    "slots": lambda model: _sum(model.slotted.model.parameters()),
    "an attribute that is called frozen": lambda model: model.frozen["deep"][0].penalty(),
    "a default of a function": lambda model: model.by_default(),
    "a partial function": lambda model: model.part(),
    "a cached property": lambda model: _sum(model.all),
    "a cached property in a function": lambda model: model.by_cache(),
    "an object that a function makes": lambda model: model.made().penalty(),
    "a name of the package's own": lambda model: model._call(),
}


@pytest.mark.parametrize("way", HELD)
def test_a_penalty_over_what_objects_hold_has_the_gradient_of_the_given_parameters(way: str) -> None:
    torch.manual_seed(0)
    model = Holding().double()
    assert len(model.all) == len(list(model.parameters()))  # cached before the training, too
    params = {"model": {name: x.detach() + torch.randn_like(x) for name, x in model.named_parameters()}}
    state = State({"model": Methods(model)}, params, {}, {})
    for _ in range(2):  # the second time, what the first has left must not be found
        gradient = grad(lambda at: 0.5 * HELD[way](state.bind(at).model))(params)["model"]
        for name, tensor in params["model"].items():
            assert torch.equal(gradient[name], tensor), name
    zero = grad(lambda at: HELD[way](frozen(state.bind(at).model)))(params)["model"]
    assert not any(x.any() for x in zero.values())
    assert all(one is other for one, other in zip(model.all, model.parameters(), strict=True))  # the module's own again


def test_objects_that_hold_no_modules_are_what_they_were() -> None:
    model = Nested()
    model.settings = types.SimpleNamespace(rate=3, sizes=[1, 2])  # type: ignore[assignment]
    bound = Bound(Methods(model), {name: x.detach() for name, x in model.named_parameters()})
    assert bound.settings is model.settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decayed(Estimator):
    """Half the squares of all parameters, by way of an object that holds the model."""

    id: ClassVar[str] = ""
    label: ClassVar[str] = ""
    reference: ClassVar[str] = ""

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        return 0.5 * params.model.reg.inner.model.frozen["deep"][0].penalty(), carry, {}


@pytest.mark.long
def test_a_penalty_by_way_of_an_object_is_compiled_with_the_given_parameters() -> None:
    data = torch.zeros(10, 2, dtype=torch.float64)
    trained = Trainer(Decayed(lr=0.01), model=Holding(), data=data, seeds=(0, 1), batch_size=5, dtype=torch.float64,
                      compile=True)  # fmt: skip
    before = _sum(trained.fitted().model(1).parameters())
    trained.run(100)
    assert float(_sum(trained.fitted().model(1).parameters())) < 0.5 * float(before)


@pytest.mark.parametrize(
    ("hold", "said"),
    [
        (lambda model: {model.W}, "Nested.aside is a plain set of parameters"),
        (lambda model: deque([model.W]), "Nested.aside is a plain deque of parameters"),
        (lambda model: [{"deep": (model.W,)}], "Nested.aside is a plain list of parameters"),
        (lambda model: types.SimpleNamespace(w=[model.W]), r"SimpleNamespace, and aside.w\[0\] is a parameter"),
        (lambda model: lambda w=model.W: w.square(), "Nested.aside is a plain function"),
        (lambda model: torch.distributions.Normal(model.W, 1.0), "aside.loc is a parameter"),
    ],
)
def test_parameters_behind_plain_objects_are_refused(hold: Any, said: str) -> None:
    model = Nested()
    model.aside = hold(model)
    with pytest.raises(InputError, match=said):
        SM().fit(model, torch.randn(20, 2), steps=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalised(Estimator):
    """Half the penalty alone: a step of plain gradient descent would multiply every parameter by 1 - lr strength."""

    id: ClassVar[str] = ""
    label: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    strength: float = number(1.0, "of the penalty")

    def loss(
        self, params: Any, batch: Tensor, noise: Any, carry: dict[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor], Info]:
        return 0.5 * hyper["strength"] * _sum(params.model.parameters()), carry, {}


def test_a_penalty_trains_all_seeds_to_nothing() -> None:
    data = torch.zeros(10, 2, dtype=torch.float64)
    make = partial(Trainer, model=Nested(), data=data, seeds=(0, 1), batch_size=5, dtype=torch.float64)
    trained = make(Penalised(lr=0.01))
    before = _sum(trained.fitted().model(1).parameters())
    trained.run(100)
    after = _sum(trained.fitted().model(1).parameters())
    assert float(after) < 0.5 * float(before)
    assert float(trained.mean_objective()[1]) < 0.5 * float(before)
