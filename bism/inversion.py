"""Codes of given vectors under a map that has no inverse in closed form."""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from bism.objectives import several

Map = Callable[[Tensor], Tensor]
_REMEMBERED = 10  # errors that a step is compared with
_DECREASE = 1e-4  # of the error, in that of a linear function
_FIRST = 0.1  # largest change of a code in the first step
_LONGEST, _SHORTEST = 1e10, 1e-10  # steps, in units of the first


def squared_error(made: Tensor, v: Tensor) -> Tensor:
    """|v - made|^2 / D, [n], of vectors [n, *visible_shape] with D units."""
    return (v - made).flatten(1).square().mean(1)


def inverted(
    decode: Map, v: Tensor, start: Tensor, steps: int, alive: Callable[[int], None] = lambda step: None
) -> tuple[Tensor, Tensor]:
    """Codes z of v: each row descends |v - decode(z)|^2 / D by itself, by the spectral gradient method.

        z' = z - a g;   a = |s|^2 / s.y  with s = z' - z and y = g' - g  (Barzilai and Borwein 1988)

    A step counts if the error is then below the largest of the last ten by a share of a |g|^2 (Raydan 1997); else it is
    tried again with a quarter of a. So no rate has to be chosen, the units of v and z do not matter, and where
    the map is linear the error falls to that of the nearest v that it reaches.

    Args:
        decode: z [n, ...] to v [n, *visible_shape], row by row, differentiable.
        start: z [n, ...].
        steps: evaluations of the map and its gradient after the first.
        alive: called with the number of each.

    Returns:
        The best codes that were met, and their errors [n]; where the map is not finite at the start, NaN.
    """

    def look(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            at = z.detach().requires_grad_()
            error = squared_error(decode(at), v)
            (slope,) = torch.autograd.grad(error.sum(), at)
        return error.detach(), slope

    z = start.detach()
    error, slope = look(z)
    best, least = z, error
    unit = _FIRST / slope.flatten(1).abs().amax(1).clamp(min=torch.finfo(z.dtype).tiny)
    size, remembered = unit, deque([error], _REMEMBERED)
    for step in range(1, steps + 1):
        there = z - several(size, z) * slope
        error_there, slope_there = look(there)
        bound = torch.stack(list(remembered)).amax(0) - _DECREASE * size * slope.flatten(1).square().sum(1)
        taken = (error_there <= bound) & slope_there.flatten(1).isfinite().all(1)
        s, y = (there - z).flatten(1), (slope_there - slope).flatten(1)
        length, bend = s.square().sum(1), (s * y).sum(1)
        spectral = torch.where(bend > 0, length / bend.clamp(min=torch.finfo(z.dtype).tiny), 2 * size)
        size = torch.where(taken, spectral, size / 4)
        size = torch.minimum(torch.maximum(size, _SHORTEST * unit), _LONGEST * unit)
        z, slope = (torch.where(several(taken, z), new, old) for new, old in ((there, z), (slope_there, slope)))
        error = torch.where(taken, error_there, error)
        remembered.append(error)
        better = error < least
        best, least = torch.where(several(better, z), z, best), torch.where(better, error, least)
        alive(step)
    return best, least
