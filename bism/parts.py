"""Networks that a user gives for parts of a method: whether they are what the part is, and fit the model."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bism.errors import InputError, first_line, shortened
from bism.hooks import Hooks
from bism.rng import Rng
from bism.variables import Bernoulli

_ASKED = {
    "posterior": ("sample", "log_prob"),
    "proposal": ("sample", "log_prob"),
    "decoder": ("sample", "sample_hard", "entropy_bound"),
    "flow": ("push", "log_prob", "draw"),
}  # of the parts that the package knows
_EXAMPLES = 2  # that a part is tried on


def parts_given(parts: Any, posterior: Any) -> Any:
    """The networks for parts, ``posterior`` among them where it is given."""
    if posterior is None:
        return parts
    if parts is not None and not isinstance(parts, Mapping):
        return parts  # which ``check_parts`` refuses
    if "posterior" in (parts or {}):
        raise InputError("posterior is given twice, as an argument and among parts")
    return {**(parts or {}), "posterior": posterior}


def check_parts(estimator: Hooks, parts: Mapping[str, Any], model: Any) -> None:
    """Networks for parts that ``estimator`` trains beside ``model``, whose v and h they must be of."""
    own = [name for name in estimator.trains if name != "model"]
    if not isinstance(parts, Mapping):
        raise InputError(f"parts must be a dictionary of networks by the names of parts, got {type(parts).__name__}")
    for part, module in parts.items():
        if part not in own:
            known = f"its parts beside the model are {', '.join(own)}" if own else "it trains the model alone"
            raise InputError(f"{estimator.id} has no part '{part}' to be given: {known}")
        asked = (*_ASKED.get(part, ()), *estimator.part_needs.get(part, ()))
        lacking = [name for name in asked if not hasattr(module, name)]
        if not isinstance(module, nn.Module) or lacking:
            wanted = f" with {' and '.join(f'{name}()' for name in asked)}" if asked else ""
            raise InputError(
                f"{part} must be a torch.nn.Module{wanted}; "
                f"{type(module).__name__} lacks {', '.join(lacking) or 'torch.nn.Module as its base'}"
            )
        _check_fits(part, module, model)


def _check_fits(part: str, module: Any, model: Any) -> None:
    """What a part says of its v and h, and what it gives of examples, against the model's."""
    visible, name = tuple(model.visible_shape), type(model).__name__
    says = getattr(module, "visible_shape", visible)
    if tuple(says) != visible:
        raise InputError(f"{part} must be of v of shape {list(visible)}, as {name} is, got one of {list(says)}")
    if (units := getattr(module, "latent", None)) is not None and units != model.latent:
        raise InputError(f"{part} must have the latent units of {name}, {model.latent}, got {units}")
    like = next(module.parameters(), torch.zeros(()))
    rng = Rng(torch.Generator(like.device).manual_seed(0), like.dtype)
    batches = f"[batch, {', '.join(map(str, visible))}]"
    v = torch.zeros((_EXAMPLES, *visible), dtype=like.dtype, device=like.device)
    if part == "posterior" and model.latent is not None:
        noise, m = model.latent.noise(rng, (_EXAMPLES,)), model.latent.size
        h = torch.zeros_like(noise)
        wanted = f"posterior.sample(v, noise, temperature) must give h [batch, {m}] of v {batches}"
        check_gives(wanted, lambda: module.sample(v, noise, 1.0), (m,))
        check_gives(f"posterior.log_prob(h, v) must give [batch] of h [batch, {m}]", lambda: module.log_prob(h, v), ())
        if hasattr(module, "sample_hard"):
            wanted = f"posterior.sample_hard(v, noise) must give h [batch, {m}] of v {batches}"
            h = check_gives(wanted, lambda: module.sample_hard(v, noise), (m,))
            if isinstance(model.latent, Bernoulli) and not ((h == 0) | (h == 1)).all():
                raise InputError(f"{wanted} of zeros and ones, for h of {name} is binary, got {float(h[0, 0]):.4g}")
    elif part == "flow":
        wanted = f"flow.push(z) must give v {batches}, and log q(v) [batch], of as many standard normal numbers"
        check_gives(wanted, lambda: module.push(rng.normal(v.shape))[0], visible)
        check_gives(f"flow.log_prob(v) must give [batch] of v {batches}", lambda: module.log_prob(v), ())


def check_generator(method: str, generator: Any, codes: int, visible: tuple[int, ...]) -> None:
    """Refuses a generator for ``method`` that does not give v [batch, *visible] of codes [batch, codes].

    Raises:
        InputError: with what it gives.
    """
    if getattr(generator, "codes", codes) != codes:
        raise InputError(f"{method}: generator must have codes of the size {codes}, got {generator.codes}")
    like = next(generator.parameters())
    wanted = f"generator must give v [batch, {', '.join(map(str, visible))}] of codes [batch, {codes}]"
    check_gives(wanted, lambda: generator(like.new_zeros(_EXAMPLES, codes)), visible)


def check_gives(what: str, call: Callable[[], Tensor], shape: tuple[int, ...]) -> Tensor:
    """The tensor [batch, *shape] that a part gives for its examples, whose number is 2; refuses what gives another.

    Raises:
        InputError: with ``what`` is expected, and what came.
    """
    try:
        with torch.no_grad():
            found = call()
    except Exception as error:  # of a user's module, or torch's of sizes that do not go together
        raise InputError(f"{what}, and raises {type(error).__name__}: {shortened(first_line(error))}") from error
    if not isinstance(found, Tensor) or tuple(found.shape) != (_EXAMPLES, *shape):
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"{what}, got {got} for a batch of {_EXAMPLES}")
    return found
