"""What training is given, checked before it starts: errors name the argument, what it got and what it needs."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bism.errors import InputError, shown
from bism.holding import check_containers
from bism.hooks import Hooks
from bism.precision import PRECISIONS
from bism.variables import Bernoulli, Gaussian, flat_size, has_binary_v


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Distinct non-negative integers, at least one."""
    if isinstance(seeds, int):
        raise InputError(f"seeds must be a list of integers, got {seeds}: [{seeds}] is a list of one")
    try:
        chosen = tuple(seeds)
    except TypeError:
        raise InputError(f"seeds must be a list of integers, got {seeds!r}") from None
    if not chosen or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in chosen):
        raise InputError(f"seeds must be one or more integers >= 0, got {list(chosen)}")
    if len(set(chosen)) < len(chosen):
        raise InputError(f"seeds must be distinct, got {list(chosen)}")
    return chosen


def check_count(name: str, value: Any, minimum: int, most: int | None = None) -> int:
    """An integer of at least ``minimum``, and at most ``most``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name} must be an integer, got {value!r}")
    if value < minimum:
        raise InputError(f"{name} must be at least {minimum}, got {value}")
    if most is not None and value > most:
        raise InputError(f"{name} must be at most {most:,}, got {value}")
    return value


def check_scale(name: str, value: Any) -> float:
    """A finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InputError(f"{name} must be a finite number of at least 0, got {value!r}")
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InputError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, got {value!r}")
    return value


def check_noise(data_noise: Any, model: Any) -> float:
    """The standard deviation of noise that is added to v."""
    noise = check_scale("data_noise", data_noise)
    if noise and has_binary_v(model):
        raise InputError(f"data_noise must be 0 where v is binary, as it is in {type(model).__name__}, got {noise}")
    return noise


def check_place(device: Any, dtype: torch.dtype) -> torch.device:
    """A device that torch knows and, if it is a GPU, that is here; and a floating-point type."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(f"dtype must be floating point, such as torch.float32, got {dtype!r}")
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device must be one that torch knows, such as 'cpu' or 'cuda:0', got {device!r}") from error
    if place.type not in ("cpu", "cuda"):
        raise InputError(f"device must be 'cpu' or a GPU such as 'cuda:0', got {device!r}")
    found = torch.cuda.device_count() if place.type == "cuda" else 1
    if (place.index or 0) >= found:
        which = "no GPU" if place.index is None else f"no GPU {place.index}"
        raise InputError(f"device {place}: there is {which} here ({found} found)")
    return place


def check_precision(precision: Any, dtype: torch.dtype, device: torch.device) -> str:
    """``float32`` for what the tensors' type says throughout, ``tf32`` for products whose factors are rounded to 11
    bits (on GPUs), or ``bf16`` for products in bfloat16 (autocast)."""
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "float32" and dtype is not torch.float32:
        raise InputError(f"precision {precision} needs parameters in float32, got {dtype}")
    if precision == "tf32" and device.type != "cuda":
        raise InputError(f"precision tf32 is one of GPUs, and this is {device}: float32 or bf16 work everywhere")
    return str(precision)


def check_shards(estimator: Hooks, batch_size: int, accumulate: Any, processes: int) -> int:
    """Into how many equal shards a minibatch is cut: ``accumulate``, or as many for each process where they could not
    share those."""
    wanted = check_count("accumulate", accumulate, 1)
    count = wanted if wanted % processes == 0 else wanted * processes
    if batch_size % count:
        raise InputError(f"batch_size must be a multiple of the {count} shards of a minibatch, got {batch_size}")
    reason = estimator.unshardable() or (
        "its steps ask which examples they are given, which is said of the whole" if estimator.uses_examples else None
    )
    if count > 1 and reason:
        raise InputError(f"{estimator.id} cannot take a minibatch in {count} shards: {reason}")
    return count


def check_model(estimator: Hooks, model: Any) -> None:
    """An energy model that ``estimator`` can train."""
    lacking = [name for name in ("visible_shape", "latent", "energy") if not hasattr(model, name)]
    if not isinstance(model, nn.Module) or lacking:
        raise InputError(
            f"model must be a torch.nn.Module with visible_shape, latent and energy(); "
            f"{type(model).__name__} lacks {', '.join(lacking) or 'torch.nn.Module as its base'}"
        )
    _check_visible_units(model)
    check_containers(model)
    reason = estimator.unsupported(model)
    if reason:
        raise InputError(f"{estimator.id} cannot train {type(model).__name__}: {reason}")


def _check_visible_units(model: Any) -> None:
    """That a model says of its v what can be, where it says something."""
    units, size = getattr(model, "visible_units", None), flat_size(model.visible_shape)
    if units is not None and (not isinstance(units, (Bernoulli, Gaussian)) or units.size != size):
        raise InputError(
            f"{type(model).__name__}.visible_units must be Gaussian({size}) or Bernoulli({size}), what its v of shape "
            f"{list(model.visible_shape)} is; got {shown(units)}"
        )


def check_data(data: Any, model: Any, name: str = "data") -> None:
    """Floating-point vectors [n, *visible_shape], all finite, and of zeros and ones where the model's v is binary."""
    check_vectors(data, model, name)
    if has_binary_v(model) and (where := not_binary(data)):
        raise InputError(
            f"{name} must be 0 or 1, for v of {type(model).__name__} is binary: {where}; ({name} > 0.5).to({name}) "
            f"makes it so"
        )


def check_vectors(data: Any, model: Any, name: str) -> None:
    """Floating-point vectors [n, *visible_shape], all finite."""
    shape = tuple(model.visible_shape)
    if not isinstance(data, Tensor):
        raise InputError(f"{name} must be a torch.Tensor, got {type(data).__name__}: torch.as_tensor converts arrays")
    if tuple(data.shape[1:]) != shape or not len(data):
        wanted = ", ".join(map(str, shape))
        raise InputError(f"{name} must have shape [n, {wanted}] for this model, got {list(data.shape)}")
    if not data.is_floating_point():
        raise InputError(f"{name} must be floating point, got {data.dtype}: {name}.float() converts it")
    finite = data.isfinite().flatten(1).all(1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise InputError(f"{name} must be finite, row {row} has NaN or infinity ({int((~finite).sum())} rows in all)")


def not_binary(data: Tensor) -> str | None:
    """The first value of data [n, *visible_shape] that is neither 0 nor 1, with its place; None where there is none."""
    others = (data != 0) & (data != 1)
    if not others.any():
        return None
    row, *unit = others.nonzero()[0].tolist()
    rows = int(others.flatten(1).any(1).sum())
    place = unit[0] if len(unit) == 1 else unit
    return f"row {row}, unit {place} is {float(data[(row, *unit)]):.6g} ({rows:,} rows in all)"
