"""Deep Boltzmann machines."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from bism.errors import InputError
from bism.layers import Layer, is_on, layer_sizes
from bism.models import GRBM, RBM
from bism.rng import Rng
from bism.variables import Bernoulli, has_binary_v, visible_noise

UNITS = {"binary": RBM, "gaussian": GRBM}
MEAN_FIELD_STEPS, TOLERANCE = 50, 1e-6  # where likelihoods are bounded


class MeanField(NamedTuple):
    """A product of Bernoullis for p(h|v): the means of each layer, [batch, m_l], and which came to rest, [batch]."""

    hidden: tuple[Tensor, ...]
    converged: Tensor


class DBM(nn.Module):
    """Deep Boltzmann machine with two or three layers of binary h (Salakhutdinov and Hinton 2009).

    E(v, h1, ..., hL) = E_1(v, h1) - sum_{l > 1} (c_l . hl + h(l-1) . W_l hl),  hl in {0, 1}^{m_l},

    with E_1 the energy of an RBM (binary v) or of a GRBM (real v). Units of a layer depend on the layers beside it
    alone: given the odd layers h1, h3, the even ones v, h2 are independent, and the other way round. So the model's
    latent variables are, to methods and measurements, the odd layers h = (h1, h3), the even ones being summed out:

        E(v, h)   = E_1(v, h1) - c_3 . h3 - sum_j softplus(c_2 + W_2^T h1 + W_3 h3)_j
        F(h)      = F_1(h1) - c_3 . h3 - sum_j softplus(c_2 + W_2^T h1 + W_3 h3)_j

    where F_1 is the RBM's ``hidden_free_energy``; log Z = logsumexp_h -F(h), by enumeration of the odd layers. With
    binary v the whole is an RBM of the even layers and the odd ones (``as_rbm``).

    Args:
        visible: number D of visible units.
        hidden: numbers of units of the layers, [m_1, m_2] or [m_1, m_2, m_3].
        units: what v is, "binary" or "gaussian".
        init: of the lowest layer, as of ``RBM`` and ``GRBM``.

    Parts: ``bottom``, the RBM or GRBM of v and h1, whose c is that of h1; ``upper``, a ``Layer`` for each other.

    Example:
        >>> DBM(visible=4, hidden=[3, 2]).energy(torch.zeros(5, 4), torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    bottom: Any  # of torch's modules mypy does not know what is in them
    upper: Any

    def __init__(self, visible: int, hidden: Sequence[int], units: str = "binary", init: str = "paper") -> None:
        super().__init__()
        if not isinstance(units, str) or units not in UNITS:
            raise InputError(f"DBM: units must be one of {', '.join(UNITS)}, got {units!r}")
        self.sizes = layer_sizes("DBM", visible, hidden)
        self.bottom = UNITS[units](visible, self.sizes[1], init)
        self.upper = nn.ModuleList(Layer(*pair) for pair in itertools.pairwise(self.sizes[1:]))
        self.visible_shape, self.visible_units = (visible,), self.bottom.visible_units
        self.latent = Bernoulli(sum(self.sizes[1::2]))
        self.activations = sum(self.sizes)

    # --- energies -----------------------------------------------------------------------------------------------------

    def joint_energy(self, v: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """E(v, h1, ..., hL), [batch]; linear in every hidden unit: at means it is the mean over a product of
        Bernoullis."""
        energy = self.bottom.energy(v, hidden[0])
        for layer, below, above in zip(self.upper, hidden, hidden[1:], strict=False):
            energy = energy - (layer.logits(below) * above).sum(-1)
        return energy

    def split(self, h: Tensor) -> list[Tensor]:
        """The odd layers, [batch, m_1] and with three layers [batch, m_3], of h [batch, m_1 + m_3]."""
        return list(torch.split(h, list(self.sizes[1::2]), -1))

    def _of_odd(self, odd: Sequence[Tensor]) -> Tensor:
        """What of E(v, h) is not E_1: the upper odd layer, and h2 summed out, [batch]."""
        logits = self.upper[0].logits(odd[0])
        if len(odd) == 1:
            return -softplus(logits).sum(-1)
        return -softplus(logits + self.upper[1].downward(odd[1])).sum(-1) - odd[1] @ self.upper[1].c

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h) of the odd layers h, h2 summed out, [batch]; h may lie between 0 and 1."""
        odd = self.split(h)
        return self.bottom.energy(v, odd[0]) + self._of_odd(odd)

    def energies(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h) of every v with every h, [batch, configurations]."""
        odd = self.split(h)
        alone = self.bottom.visible_energy(v)
        return alone[:, None] + self._of_odd(odd) - self.bottom.hidden_logits(v) @ odd[0].T

    def hidden_free_energy(self, h: Tensor) -> Tensor:
        """-log of the sum (integral) of exp(-E(v, h)) over v, [batch]."""
        odd = self.split(h)
        return self.bottom.hidden_free_energy(odd[0]) + self._of_odd(odd)

    # --- sampling -----------------------------------------------------------------------------------------------------

    def layer_logits(self, number: int, below: Tensor, above: Tensor | None) -> Tensor:
        """Of layer 1, 2 or 3 given the layers beside it, [batch, m]; v is below layer 1, and nothing above the last."""
        logits = self.bottom.hidden_logits(below) if number == 1 else self.upper[number - 2].logits(below)
        return logits if above is None else logits + self.upper[number - 1].downward(above)

    def upward(self, v: Tensor) -> tuple[Tensor, ...]:
        """Means of the layers by one pass from v, where inference starts.

        A layer that has another above it gets the input from below twice, in place of what is not there yet.
        """
        hidden, x = list[Tensor](), v
        for number in range(1, len(self.sizes)):
            logits = self.layer_logits(number, x, None)
            if number < len(self.sizes) - 1:
                logits = 2 * logits - (self.bottom.c if number == 1 else self.upper[number - 2].c)
            x = logits.sigmoid()
            hidden.append(x)
        return tuple(hidden)

    def _updated(
        self, v: Tensor, hidden: Sequence[Tensor], first: int, noise: dict[str, Tensor] | None
    ) -> list[Tensor]:
        """Every second layer from ``first`` on given the others: samples, or means without noise."""
        now = [v, *hidden]
        for number in range(first, len(self.sizes), 2):
            logits = self.layer_logits(number, now[number - 1], now[number + 1] if number + 1 < len(now) else None)
            now[number] = logits.sigmoid() if noise is None else is_on(logits, noise[f"h{number}"])
        return now[1:]

    def transition_noise(self, rng: Rng, batch: tuple[int, ...]) -> dict[str, Tensor]:
        """The noise of a sweep: of v as of ``sample_visible``, logistic of h1, h2 and h3."""
        sizes = enumerate(self.sizes[1:], start=1)
        return {"v": visible_noise(self, batch, rng)} | {f"h{i}": rng.logistic((*batch, size)) for i, size in sizes}

    def transition(self, chains: dict[str, Tensor], noise: dict[str, Tensor]) -> dict[str, Tensor]:
        """A sweep of block Gibbs sampling: the odd layers given v and h2, then v and h2 given the odd layers.

        Chains are at "v" and "h1", "h2", "h3"; those of v alone start at ``upward(v)``.
        """
        v, names = chains["v"], [f"h{number}" for number in range(1, len(self.sizes))]
        hidden = [chains[name] for name in names] if "h2" in chains else self.upward(v)
        hidden = self._updated(v, hidden, 1, noise)
        after = self._updated(v, hidden, 2, noise)
        return {"v": self.bottom.sample_visible(hidden[0], noise["v"]), **dict(zip(names, after, strict=True))}

    def sample_visible(self, h: Tensor, noise: Tensor) -> Tensor:
        """v ~ p(v|h) given the odd layers, [batch, D], from normal noise, or logistic noise for binary v."""
        return self.bottom.sample_visible(self.split(h)[0], noise)

    # --- inference ----------------------------------------------------------------------------------------------------

    def mean_field(self, v: Tensor, steps: int = MEAN_FIELD_STEPS, tolerance: float | Tensor = TOLERANCE) -> MeanField:
        """A product of Bernoullis near p(h1, ..., hL|v), a local optimum, by coordinate ascent from ``upward(v)``.

        A step sets the odd layers' means given the even ones', then the even ones'; neither lowers the bound. An
        example whose means moved by no more than ``tolerance`` in a step stays where it is; all do after ``steps``.
        """
        hidden = list(self.upward(v))
        moving = torch.ones_like(v[:, 0], dtype=torch.bool)
        for _ in range(steps):
            after = self._updated(v, self._updated(v, hidden, 1, None), 2, None)
            moves = [(new - old).abs().amax(-1) for new, old in zip(after, hidden, strict=True)]
            hidden = [torch.where(moving[:, None], *pair) for pair in zip(after, hidden, strict=True)]
            moving = moving & ~(torch.stack(moves).amax(0) <= tolerance)  # what is no number has not come to rest
        return MeanField(tuple(hidden), ~moving)

    def variational_free_energy(self, v: Tensor, hidden: Sequence[Tensor] | None = None) -> Tensor:
        """E_q[E(v, h1, ..., hL)] - entropy of q, [batch], for a product of Bernoullis with these means, else that of
        ``mean_field(v)``: above F(v) by KL(q || p(h|v)), so that -(this) - log Z <= log p(v)."""
        means = self.mean_field(v).hidden if hidden is None else hidden
        entropy = sum((torch.special.entr(mean) + torch.special.entr(1 - mean)).sum(-1) for mean in means)
        return self.joint_energy(v, means) - entropy

    @property
    def W(self) -> Tensor:
        """Weights between v and h1, [D, m_1], whose columns are the receptive fields."""
        return self.bottom.W

    def reconstruct(self, v: Tensor, posterior: Any = None) -> Tensor:
        """E[v|h1] [batch, D] at the means of h1 given v by mean field."""
        first = self.mean_field(v).hidden[0]
        return self.bottom.visible_mean(first)

    def as_rbm(self) -> RBM:
        """The RBM of the even layers (v, h2) and the odd ones (h1, h3), the same distribution and so the same Z.

        Raises:
            InputError: v is real.
        """
        if not has_binary_v(self):
            raise InputError("a DBM is an RBM of its even and odd layers where all its units are binary; its v is real")
        (below, first, second), above = self.sizes[:3], sum(self.sizes[3:])
        W = self.bottom.W.new_zeros(below + second, first + above)
        W[:below, :first], W[below:, :first] = self.bottom.W.detach(), self.upper[0].W.detach().T
        c = [self.bottom.c]
        if above:
            W[below:, first:] = self.upper[1].W.detach()
            c.append(self.upper[1].c)
        return RBM.of(W, torch.cat([self.bottom.b, self.upper[0].c]), torch.cat(c))

    def as_rbm_examples(self, v: Tensor, posterior: Any = None) -> Tensor:
        """(v, mean of h2 given v) [batch, D + m_2], as examples of what is visible to ``as_rbm``; by ``upward``, which
        is enough to start from and cheap for all of the training data, without a posterior."""
        return torch.cat([v, self.upward(v)[1]], -1)
