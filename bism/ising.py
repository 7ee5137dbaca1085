"""Boltzmann machines without hidden units."""

import torch
from torch import Tensor, nn

from bism.rng import Rng, normal_
from bism.variables import Bernoulli


class Ising(nn.Module):
    """A fully visible Boltzmann machine, or Ising model.

    E(v) = -b.s - sum_{i < j} J_ij s_i s_j,  s = 2 v - 1 in {-1, 1}^D, v in {0, 1}^D.

    Hence p(v_i = 1 | the others) = sigmoid(2 (b_i + sum_j J_ij s_j)), with J symmetric. log Z is a sum over v.

    Args:
        visible: number D of units.

    Parameters: ``J`` [D, D], of which what lies above the diagonal counts, and ``b`` [D]. Initially J is N(0, 0.01^2)
    and b is 0.

    Example:
        >>> Ising(visible=3).energy(torch.ones(2, 3)).shape
        torch.Size([2])
    """

    def __init__(self, visible: int) -> None:
        super().__init__()
        self.visible_shape, self.visible_units, self.latent = (visible,), Bernoulli(visible), None
        self.J = nn.Parameter(torch.empty(visible, visible))
        self.b = nn.Parameter(torch.empty(visible))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the initial couplings from torch's global generator."""
        normal_(self.J, std=0.01)
        nn.init.zeros_(self.b)

    def couplings(self) -> Tensor:
        """J as it counts: symmetric, with zeros on the diagonal."""
        above = self.J.triu(1)
        return above + above.T

    def energy(self, v: Tensor) -> Tensor:
        """E(v), [batch]."""
        s = 2 * v - 1
        return -s @ self.b - 0.5 * ((s @ self.couplings()) * s).sum(-1)

    def free_energy(self, v: Tensor) -> Tensor:
        """E(v), there being no h, [batch]."""
        return self.energy(v)

    def flip_log_ratios(self, v: Tensor) -> Tensor:
        """log p(v with unit i flipped) - log p(v) = -2 s_i (b_i + sum_j J_ij s_j), [batch, D]."""
        s = 2 * v - 1
        return -2 * s * (self.b + s @ self.couplings())

    def transition_noise(self, rng: Rng, batch: tuple[int, ...]) -> Tensor:
        """Logistic noise [*batch, D]."""
        return rng.logistic((*batch, *self.visible_shape))

    def transition(self, chains: dict[str, Tensor], noise: Tensor) -> dict[str, Tensor]:
        """A sweep of Gibbs sampling, unit by unit in their order."""
        s, couplings = 2 * chains["v"] - 1, self.couplings()
        for i in range(s.shape[-1]):
            up = 2 * (self.b[i] + s @ couplings[i]) + noise[..., i] > 0
            s = torch.cat([s[..., :i], 2 * up.to(s)[..., None] - 1, s[..., i + 1 :]], -1)
        return {"v": (s + 1) / 2}


def lattice(side: int, dimensions: int = 3) -> Tensor:
    """Which sites of a periodic lattice are neighbours, [side^dimensions, side^dimensions] of zeros and ones."""
    sites = torch.cartesian_prod(*[torch.arange(side)] * dimensions).reshape(-1, dimensions)
    apart = (sites[:, None] - sites[None]).abs()
    return (torch.minimum(apart, side - apart).sum(-1) == 1).float()
