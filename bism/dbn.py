"""Deep belief networks."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from bism.errors import InputError
from bism.layers import Layer, is_on, layer_sizes
from bism.models import INITS, RBM
from bism.rng import Rng, normal_
from bism.sampling import sampler
from bism.variables import Bernoulli, log_odds


def log_bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """log of the probability of binary x [..., n] by logits, summed over units, [...]."""
    return (x * logits - softplus(logits)).sum(-1)


class Directed(nn.Module):
    """p(x|y) = Bernoulli(sigmoid(b + W y)) of a layer x given the layer y above it.

    Parameters: ``W`` [below, above], initially N(0, 0.01^2), and ``b`` [below], initially 0.
    """

    def __init__(self, below: int, above: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(below, above))
        self.b = nn.Parameter(torch.empty(below))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the initial weights from torch's global generator."""
        normal_(self.W, std=0.01)
        nn.init.zeros_(self.b)

    def logits(self, y: Tensor) -> Tensor:
        """Of x given y, [batch, below]."""
        return self.b + y @ self.W.T


class DBN(nn.Module):
    """Deep belief network with two or three layers of binary h, binary v (Hinton, Osindero and Teh 2006).

    p(v, h1, ..., hL) = p(v|h1) p(h1|h2) ... p(h(L-1), hL): directed layers below an RBM of the two uppermost. The last
    layer is summed out of the RBM in closed form, so that to methods and measurements h = (h1, ..., h(L-1)):

        E(v, h)   = -log p(v|h1) - log p(h1|h2) + F_top(h(L-1))
        F(h)      = -log p(h1|h2) + F_top(h(L-1))

    where F_top is the RBM's free energy, and log Z the RBM's. p(h|v) is not tractable: likelihoods are exact by
    enumeration of h, or bounded by ``default_posterior()``, which goes up layer by layer.

    Args:
        visible: number D of visible units.
        hidden: numbers of units of the layers, [m_1, m_2] or [m_1, m_2, m_3].
        init: "data" starts the biases of v at the log-odds of the training data's means, as of ``RBM``.

    Parts: ``directed``, a ``Directed`` for each layer below the RBM, and ``top``, the RBM.

    Example:
        >>> DBN(visible=4, hidden=[3, 2]).energy(torch.zeros(5, 4), torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    directed: Any  # of torch's modules mypy does not know what is in them

    def __init__(self, visible: int, hidden: Sequence[int], init: str = "paper") -> None:
        super().__init__()
        if init not in INITS:
            raise InputError(f"DBN: init must be one of {', '.join(INITS)}, got {init!r}")
        self.sizes, self.init = layer_sizes("DBN", visible, hidden), init
        *lower, last = self.sizes
        self.directed = nn.ModuleList(Directed(*pair) for pair in itertools.pairwise(lower))
        self.top = RBM(lower[-1], last)
        self.visible_shape, self.visible_units = (visible,), Bernoulli(visible)
        self.latent = Bernoulli(sum(lower[1:]))
        self.activations = sum(self.sizes)

    def start_from(self, data: Tensor) -> None:
        """Sets the biases of v to the log-odds of the training data [n, D], with init="data"."""
        if self.init == "data":
            with torch.no_grad():
                self.directed[0].b.copy_(log_odds(data))

    def default_posterior(self) -> nn.Module:
        """``Recognition`` of layers of these sizes."""
        return Recognition(self.sizes[:-1])

    def split(self, h: Tensor) -> list[Tensor]:
        """h1, ..., h(L-1), [batch, m_l] each, of h [batch, m_1 + ... + m_(L-1)]."""
        return list(torch.split(h, list(self.sizes[1:-1]), -1))

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), [batch], the last layer summed out; h may lie between 0 and 1."""
        return self.hidden_free_energy(h) - log_bernoulli(v, self.directed[0].logits(self.split(h)[0]))

    def energies(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h) of every v with every h, [batch, configurations]."""
        logits = self.directed[0].logits(self.split(h)[0])
        return self.hidden_free_energy(h) + softplus(logits).sum(-1) - v @ logits.T

    def hidden_free_energy(self, h: Tensor) -> Tensor:
        """-log sum_v exp(-E(v, h)), [batch]: v is normalised given h1."""
        hidden = self.split(h)
        free_energy = self.top.free_energy(hidden[-1])
        for layer, below, above in zip(self.directed[1:], hidden, hidden[1:], strict=False):
            free_energy = free_energy - log_bernoulli(below, layer.logits(above))
        return free_energy

    def sample_visible(self, h: Tensor, noise: Tensor) -> Tensor:
        """v ~ p(v|h1), [batch, D], from logistic noise."""
        return is_on(self.directed[0].logits(self.split(h)[0]), noise)

    def downward_noise(self, rng: Rng, batch: tuple[int, ...]) -> list[Tensor]:
        """The logistic noise of ``downward``, from v up."""
        return [rng.logistic((*batch, size)) for size in self.sizes[:-2]]

    def downward(self, last: Tensor, noise: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """v [batch, D] and h [batch, m_1 + ...] by ancestral sampling from h(L-1) [batch, m_(L-1)]."""
        found = [last]
        for layer, drawn in zip(reversed(self.directed), reversed(noise), strict=True):
            found.insert(0, is_on(layer.logits(found[0]), drawn))
        return found[0], torch.cat(found[1:], -1)

    how = "sampled from the top down"

    def draw(self, count: int, rng: Rng) -> Tensor:
        """v [count, D]: h(L-1) from the RBM, exactly where it can be enumerated, else by Gibbs chains, and down."""
        chosen = sampler(self.top)
        assert chosen is not None  # an RBM has conditionals
        return self.downward(chosen.draw(count, rng), self.downward_noise(rng, (count,)))[0]

    @property
    def W(self) -> Tensor:
        """Weights between v and h1, [D, m_1], whose columns are the receptive fields."""
        return self.directed[0].W

    def reconstruct(self, v: Tensor, posterior: Any) -> Tensor:
        """E[v|h1] [batch, D] at the means of h1 given v by a posterior."""
        return self.directed[0].logits(self.split(posterior.mean(v))[0]).sigmoid()

    def as_rbm(self) -> RBM:
        """The RBM on top, which has the same Z."""
        return self.top

    def as_rbm_examples(self, v: Tensor, posterior: Any = None) -> Tensor:
        """The means of h(L-1) given v by a posterior [batch, m_(L-1)], as examples of what is visible to the RBM on
        top; without a posterior 1/2."""
        if posterior is None:
            return v.new_full((len(v), self.sizes[-2]), 0.5)
        return self.split(posterior.mean(v))[-1]


class Recognition(nn.Module):
    """q(h1, ..., h(L-1)|v) = q(h1|v) q(h2|h1) ...: each layer Bernoulli given the one below (``protocols.Posterior``).

    Args:
        sizes: numbers of units of the layers, v first.
    """

    layers: Any

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.layers = nn.ModuleList(Layer(*pair) for pair in itertools.pairwise(self.sizes))

    def _upward(self, v: Tensor, noise: Tensor | None, temperature: Tensor | float | None) -> Tensor:
        """h layer by layer: means without noise, binary without a temperature, and else relaxed."""
        drawn = [None] * len(self.layers) if noise is None else torch.split(noise, list(self.sizes[1:]), -1)
        found, x = list[Tensor](), v
        for layer, own in zip(self.layers, drawn, strict=True):
            logits = layer.logits(x)
            if own is None:
                x = logits.sigmoid()
            else:
                x = is_on(logits, own) if temperature is None else ((logits + own) / temperature).sigmoid()
            found.append(x)
        return torch.cat(found, -1)

    def mean(self, v: Tensor) -> Tensor:
        """The means given the means below, [batch, m_1 + ...]; E[h|v] of the first layer."""
        return self._upward(v, None, None)

    def sample(self, v: Tensor, noise: Tensor, temperature: Tensor | float) -> Tensor:
        """Relaxed h in (0, 1), from logistic noise [batch, m_1 + ...]."""
        return self._upward(v, noise, temperature)

    def sample_hard(self, v: Tensor, noise: Tensor) -> Tensor:
        """h in {0, 1}; no gradient flows through it."""
        return self._upward(v, noise, None)

    def log_prob(self, h: Tensor, v: Tensor) -> Tensor:
        """log q(h|v), [batch]."""
        found, x = torch.zeros_like(v[:, 0]), v
        for layer, y in zip(self.layers, torch.split(h, list(self.sizes[1:]), -1), strict=True):
            found, x = found + log_bernoulli(y, layer.logits(x)), y
        return found
