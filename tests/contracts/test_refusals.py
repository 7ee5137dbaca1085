"""What is refused, and how it is said: models, values, checkpoints of something else, damaged ones."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines import CD, SM
from bism import GRBM, RBM, Bernoulli, BiDSM, Estimator, InputError
from bism.checkpoint import load_checkpoint
from bism.engine import Trainer
from bism.hyperparameters import specs
from bism.variables import has_binary_v
from tests.contracts.cases import data, fit, kinds, small, zoo

KINDS = kinds()
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.id)


class Visible(nn.Module):
    """A model without latent variables, known by its energy alone."""

    visible_shape, latent = (2,), None

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(2))

    def energy(self, v: Tensor) -> Tensor:
        return (self.a * v.square()).sum(-1)


@every_kind
def test_an_unsupported_model_is_refused_with_the_reason(kind: type[Estimator]) -> None:
    reason = kind().unsupported(Visible())
    assert reason
    with pytest.raises(InputError) as error:
        kind().fit(Visible(), data(), steps=1)
    assert str(error.value) == f"{kind.id} cannot train Visible: {reason}"


@every_kind
def test_what_v_is_decides_what_can_be_trained(kind: type[Estimator]) -> None:
    """Of binary v by the methods that say so alone, and of real v by none that does not."""
    binary = {"noise_distribution": "bernoulli"} if "noise_distribution" in specs(kind) else {}
    of_binary = [m for m in zoo(kind) if has_binary_v(m)]
    own = [m for m in of_binary if kind(**binary).unsupported(m) is None]  # which need not be the RBM
    refused = of_binary[0]
    reason = kind(**binary).unsupported(own[0] if own else refused)
    assert (reason is None) == (Bernoulli in kind.visible_units)
    if reason:
        name = type(refused).__name__
        assert reason == f"it needs real v, to differentiate in or to add noise to, and v of {name} is binary"
        with pytest.raises(InputError, match=f"{kind.id} cannot train {name}: it needs real v"):
            kind().fit(refused, (data() > 0).double(), steps=1)
    if binary:
        assert "must be 'bernoulli'" in str(kind().unsupported(RBM(2, 3)))
        assert "must be 'standard_normal' or 'gaussian'" in str(kind(**binary).unsupported(GRBM(2, 3)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinaryAlone(CD):
    """CD of binary v alone."""

    visible_units = (Bernoulli,)


def test_a_method_of_binary_v_alone() -> None:
    assert BinaryAlone().unsupported(RBM(2, 3)) is None
    assert BinaryAlone().unsupported(GRBM(2, 3)) == "it needs binary v, and v of GRBM is real"


def test_v_that_is_declared_binary_is_zeros_and_ones() -> None:
    v = torch.zeros(5, 2)
    v[3, 1], v[4, 0] = 0.25, 7
    with pytest.raises(InputError, match=r"v of RBM is binary: row 3, unit 1 is 0.25 \(2 rows in all\)"):
        CD().fit(RBM(2, 3), v, steps=1)
    with pytest.raises(InputError, match=r"data_noise must be 0 where v is binary, as it is in RBM, got 0\.1"):
        CD().fit(RBM(2, 3), v.round().clamp(0, 1), steps=1, data_noise=0.1)
    for units in (Bernoulli(3), "binary", Bernoulli):
        odd = RBM(2, 3)
        odd.visible_units = units  # type: ignore[assignment]
        with pytest.raises(InputError, match=r"RBM.visible_units must be Gaussian\(2\) or Bernoulli\(2\), what its v"):
            CD().fit(odd, v.round(), steps=1)


def test_the_reasons() -> None:
    for estimator, words in (
        (SM(), "free_energy()"),
        (CD(), "no latent variables"),
        (BiDSM(), "no latent variables"),
    ):
        assert words in str(estimator.unsupported(Visible()))
    assert "lower='kl'" in str(BiDSM(lower="fisher").unsupported(GRBM(2, 3)))
    assert BiDSM().unsupported(GRBM(2, 3)) is None


DATA = data(5)
WITH_NAN, WITH_INFINITY = DATA.clone(), DATA.clone()
WITH_NAN[2, 1], WITH_INFINITY[3, 0] = float("nan"), float("inf")
WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "array": ({"data": DATA.numpy()}, ["data", "ndarray", "torch.Tensor"]),
    "list": ({"data": [[0.0, 1.0]]}, ["data", "list", "torch.Tensor"]),
    "none": ({"data": None}, ["data", "NoneType", "torch.Tensor"]),
    "shape": ({"data": torch.zeros(5, 3)}, ["data", "[5, 3]", "[n, 2]"]),
    "one vector": ({"data": torch.zeros(2)}, ["data", "[2]", "[n, 2]"]),
    "one number": ({"data": torch.tensor(1.0)}, ["data", "[]", "[n, 2]"]),
    "images": ({"data": torch.zeros(5, 1, 2)}, ["data", "[5, 1, 2]", "[n, 2]"]),
    "no rows": ({"data": torch.zeros(0, 2)}, ["data", "[0, 2]", "[n, 2]"]),
    "integers": ({"data": torch.zeros(5, 2, dtype=torch.int64)}, ["data", "int64", "floating point"]),
    "booleans": ({"data": torch.zeros(5, 2, dtype=torch.bool)}, ["data", "bool", "floating point"]),
    "complex": ({"data": torch.zeros(5, 2, dtype=torch.complex64)}, ["data", "complex64", "floating point"]),
    "nan": ({"data": WITH_NAN}, ["data", "finite", "row 2"]),
    "infinity": ({"data": WITH_INFINITY}, ["data", "finite", "row 3"]),
    "no seeds": ({"seeds": []}, ["seeds", "[]", "integers"]),
    "equal seeds": ({"seeds": [1, 1]}, ["seeds", "[1, 1]", "distinct"]),
    "negative seed": ({"seeds": [0, -1]}, ["seeds", "-1", "integers >= 0"]),
    "fractional seed": ({"seeds": [0.5]}, ["seeds", "0.5", "integers"]),
    "true as a seed": ({"seeds": [True]}, ["seeds", "True", "integers"]),
    "text as seeds": ({"seeds": "01"}, ["seeds", "'0'", "integers"]),
    "one number as seeds": ({"seeds": 3}, ["seeds", "3", "integers"]),
    "no batch": ({"batch_size": 0}, ["batch_size", "0", "at least 1"]),
    "fractional batch": ({"batch_size": 2.5}, ["batch_size", "2.5", "integer"]),
    "negative steps": ({"steps": -1}, ["steps", "-1", "at least"]),
    "fractional steps": ({"steps": 2.5}, ["steps", "2.5", "integer"]),
    "integer dtype": ({"dtype": torch.int64}, ["dtype", "int64", "floating point"]),
    "unknown device": ({"device": "nowhere"}, ["device", "nowhere"]),
    "no module": ({"model": "GRBM"}, ["model", "str", "torch.nn.Module"]),
    "no energy": ({"model": nn.Linear(2, 2)}, ["model", "Linear", "energy"]),
    "posterior": ({"posterior": nn.Linear(2, 3)}, ["posterior", "Linear", "log_prob"]),
}


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG.keys())
def test_wrong_arguments_are_named(change: dict[str, Any], words: list[str]) -> None:
    arguments: dict[str, Any] = {"model": GRBM(2, 3), "data": DATA, "steps": 1, "batch_size": 4, **change}
    with pytest.raises(InputError) as error:
        small(BiDSM).estimator.fit(**arguments)
    for word in words:
        assert word in str(error.value), str(error.value)


def other_configuration(change: dict[str, Any]) -> Trainer:
    """A trainer that differs in one thing from the one whose checkpoint is read below."""
    options: dict[str, Any] = {"seeds": (0, 1), "batch_size": 20, "dtype": torch.float64, **change}
    estimator, model = options.pop("estimator", SM()), options.pop("model", GRBM(2, 3))
    return Trainer(estimator, model, data(), **options)


OTHERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "estimator": ({"estimator": small(CD).estimator}, ["estimator", "sm", "cd"]),
    "hyper-parameter": ({"estimator": SM(lr=0.5)}, ["hyper", "0.5"]),
    "seeds": ({"seeds": (0, 2)}, ["seeds", "[0, 1]", "[0, 2]"]),
    "batch size": ({"batch_size": 10}, ["batch_size", "20", "10"]),
    "size of the model": ({"model": GRBM(2, 4)}, ["W", "3", "4"]),
    "precision": ({"dtype": torch.float32}, ["float64", "float32"]),
}


@pytest.mark.parametrize(("change", "words"), OTHERS.values(), ids=OTHERS.keys())
def test_a_checkpoint_of_another_configuration_is_refused(
    change: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    other_configuration({}).save(tmp_path / "saved")
    other_configuration({}).load(tmp_path / "saved")
    with pytest.raises(InputError) as error:
        other_configuration(change).load(tmp_path / "saved")
    for word in [*words, str(tmp_path / "saved")]:
        assert word in str(error.value), str(error.value)


def damaged(kind: str, path: Path) -> None:
    """Writes a checkpoint and spoils it."""
    other_configuration({}).save(path)
    whole = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "another file of torch":
        torch.save({"weights": torch.zeros(3)}, path)
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "part of it lost":
        content = torch.load(path, weights_only=True)
        torch.save({"tensors": content["tensors"]}, path)
    else:
        path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"not a checkpoint"}[kind])


DAMAGES = ["missing", "folder", "another file of torch", "tensor", "part of it lost", "empty", "truncated", "text"]


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "saved"
    damaged(kind, path)
    with pytest.raises(InputError, match=r"saved: .*checkpoint"):
        SM().fit(GRBM(2, 3), data(), seeds=(0, 1), batch_size=20, dtype=torch.float64, steps=5, resume=path)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Spy:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"tensors": {"state": Spy()}}, tmp_path / "saved")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "saved")
    assert not (tmp_path / "ran").exists()


def test_fewer_steps_than_the_checkpoint_has_are_refused(tmp_path: Path) -> None:
    case = small(SM)
    fit(case, 5).save(tmp_path / "saved")
    with pytest.raises(InputError, match=r"steps .* 5, got 4"):
        fit(case, 4, resume=tmp_path / "saved")
    assert fit(case, 5, resume=tmp_path / "saved").step == 5
