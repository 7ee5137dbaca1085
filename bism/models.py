"""Energy-based models (``protocols.EnergyModel``): restricted Boltzmann machines of real and of binary v."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from bism.errors import InputError
from bism.posteriors import RelaxedBernoulli, location_and_scale, softplus_of_flips
from bism.rng import normal_
from bism.variables import Bernoulli, Gaussian, log_odds

INITS = ("paper", "data")


class GRBM(nn.Module):
    """Gaussian restricted Boltzmann machine with one standard deviation per visible unit (Section 5.1).

    E(v, h) = sum_i (v_i - b_i)^2 / (2 s_i^2) - c.h - v.W h,  v in R^D, h in {0, 1}^m.

    The paper prints v.W h / sigma with one sigma for all units. The authors' public code, which made the paper's
    numbers, has one s_i per visible unit and does not divide the interaction by it; so does this class.

    Hence, in closed form:
        F(v)      = sum_i (v_i - b_i)^2 / (2 s_i^2) - sum_j softplus(c_j + (W^T v)_j)
        p(h|v)    = Bernoulli(sigmoid(c + W^T v))
        p(v|h)    = N(b + s^2 * W h, diag(s^2))
        log Z     = logsumexp_h [c.h + b.W h + 1/2 sum_i s_i^2 (W h)_i^2] + sum_i log s_i + D/2 log(2 pi)

    Args:
        visible: number D of visible units.
        hidden: number m of hidden units.
        init: "paper" or "data".

    Parameters: ``W`` [D, m], ``b`` [D], ``c`` [m], ``log_s`` [D]. Initially W, b and c are uniform on
    [-1/sqrt(m), 1/sqrt(m)] and log s = 0, as in the authors' code. With init="data" that is where the model of the
    standardised training data starts, and this is the same model in the data's own units (``rescaled``): b near
    their mean, s their standard deviation, W small beside 1/s; the posterior that it brings along starts likewise.

    Example:
        >>> GRBM(visible=2, hidden=4).energy(torch.zeros(3, 2), torch.zeros(3, 4)).shape
        torch.Size([3])
    """

    def __init__(self, visible: int, hidden: int, init: str = "paper") -> None:
        super().__init__()
        if init not in INITS:
            raise InputError(f"GRBM: init must be one of {', '.join(INITS)}, got {init!r}")
        self.visible_shape, self.init = (visible,), init
        self.visible_units, self.latent = Gaussian(visible), Bernoulli(hidden)
        self.W = nn.Parameter(torch.empty(visible, hidden))
        self.b = nn.Parameter(torch.empty(visible))
        self.c = nn.Parameter(torch.empty(hidden))
        self.log_s = nn.Parameter(torch.empty(visible))
        self.activations = visible + hidden
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the initial parameters from torch's global generator."""
        bound = self.latent.size**-0.5
        for parameter in (self.W, self.b, self.c):
            nn.init.uniform_(parameter, -bound, bound)
        nn.init.zeros_(self.log_s)

    def start_from(self, data: Tensor) -> None:
        """Moves the parameters to the scale of the training data [n, D], with init="data"."""
        if self.init == "data":
            self._rescale(*location_and_scale(data))

    def default_posterior(self) -> nn.Module:
        """``RelaxedBernoulli`` with one linear layer, which starts where the model does."""
        return RelaxedBernoulli(self.visible_shape, self.latent.size, start_from_data=self.init == "data")

    def rescaled(self, shift: Tensor, factor: Tensor) -> "GRBM":
        """The model of x = shift + factor y, in float64, where this is the model of y: E_x(x, h) = E(y, h).

        W_x = W / f, b_x = a + f b, c_x = c - W_x^T a, s_x = f s, with a the shift and f > 0 the factor, [D] or one
        number.
        """
        other = copy.deepcopy(self).double()
        other._rescale(shift, factor)
        return other

    def _rescale(self, shift: Tensor, factor: Tensor) -> None:
        with torch.no_grad():
            shift, factor = shift.expand_as(self.b), factor.expand_as(self.b)
            W = self.W / factor[:, None]
            self.W.copy_(W)
            self.c.copy_(self.c - shift @ W)
            self.b.copy_(shift + factor * self.b)
            self.log_s.add_(factor.log())

    def visible_energy(self, v: Tensor) -> Tensor:
        """E(v, 0) = sum_i (v_i - b_i)^2 / (2 s_i^2), [batch]."""
        return 0.5 * ((v - self.b) * (-self.log_s).exp()).square().sum(-1)

    def hidden_logits(self, v: Tensor) -> Tensor:
        """c + W^T v, [batch, m]: the logits of p(h|v)."""
        return self.c + v @ self.W

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), [batch]; h may lie between 0 and 1 (relaxed samples)."""
        return self.visible_energy(v) - (self.hidden_logits(v) * h).sum(-1)

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = -log sum_h exp(-E(v, h)), [batch]."""
        return self.visible_energy(v) - softplus(self.hidden_logits(v)).sum(-1)

    def hidden_free_energy(self, h: Tensor) -> Tensor:
        """-log of the integral of exp(-E(v, h)) over v, [batch]."""
        field = h @ self.W.T
        log_weight = h @ self.c + field @ self.b + 0.5 * (field * self.log_s.exp()).square().sum(-1)
        return -log_weight - self.log_s.sum() - 0.5 * self.b.numel() * math.log(2 * math.pi)

    def sample_hidden(self, v: Tensor, noise: Tensor) -> Tensor:
        """h ~ p(h|v) from logistic noise [batch, m]."""
        return (self.hidden_logits(v) + noise > 0).to(v.dtype)

    def visible_mean(self, h: Tensor) -> Tensor:
        """E[v|h] = b + s^2 * W h, [batch, D]."""
        return self.b + (2 * self.log_s).exp() * (h @ self.W.T)

    def visible_scale(self) -> Tensor:
        """The standard deviations s of p(v|h), [D], which do not depend on h."""
        return self.log_s.exp()

    def sample_visible(self, h: Tensor, noise: Tensor) -> Tensor:
        """v ~ p(v|h) from standard normal noise [batch, D]."""
        s = self.log_s.exp()
        return self.b + s.square() * (h @ self.W.T) + s * noise

    def score_and_laplacian(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient [batch, D] and Laplacian [batch] of log p(v).

        With p = sigmoid(c + W^T v): score = (b - v) / s^2 + W p and
        Laplacian = -sum_i 1/s_i^2 + sum_j p_j (1 - p_j) ||W_j||^2 (Swersky et al. 2011).
        """
        precision = (-2 * self.log_s).exp()
        p = self.hidden_logits(v).sigmoid()
        score = (self.b - v) * precision + p @ self.W.T
        return score, (p * (1 - p)) @ self.W.square().sum(0) - precision.sum()


class RBM(nn.Module):
    """Restricted Boltzmann machine of binary units (Smolensky 1986; Hinton 2002).

    E(v, h) = -b.v - c.h - v.W h,  v in {0, 1}^D, h in {0, 1}^m.

    Hence, in closed form:
        F(v)      = -b.v - sum_j softplus(c_j + (W^T v)_j)
        p(h|v)    = Bernoulli(sigmoid(c + W^T v))
        p(v|h)    = Bernoulli(sigmoid(b + W h))
        log Z     = logsumexp over h of c.h + sum_i softplus(b_i + (W h)_i), or over v of -F(v)

    Args:
        visible: number D of visible units.
        hidden: number m of hidden units.
        init: "paper" or "data".

    Parameters: ``W`` [D, m], ``b`` [D], ``c`` [m]. Initially W is N(0, 0.01^2) and b and c are 0 (Hinton 2010,
    Section 8); with init="data" b are the log-odds of the training data's means, as advised there, so that no hidden
    unit is spent on what is the same in most examples.

    Example:
        >>> RBM(visible=2, hidden=4).energy(torch.zeros(3, 2), torch.zeros(3, 4)).shape
        torch.Size([3])
    """

    def __init__(self, visible: int, hidden: int, init: str = "paper") -> None:
        super().__init__()
        if init not in INITS:
            raise InputError(f"RBM: init must be one of {', '.join(INITS)}, got {init!r}")
        self.visible_shape, self.init = (visible,), init
        self.visible_units, self.latent = Bernoulli(visible), Bernoulli(hidden)
        self.W = nn.Parameter(torch.empty(visible, hidden))
        self.b = nn.Parameter(torch.empty(visible))
        self.c = nn.Parameter(torch.empty(hidden))
        self.activations = visible + hidden
        self.reset_parameters()

    @classmethod
    def of(cls, W: Tensor, b: Tensor, c: Tensor) -> "RBM":
        """An RBM with these parameters [D, m], [D] and [m], copied."""
        with torch.device("meta"):
            model = cls(*W.shape)
        model.W, model.b, model.c = (nn.Parameter(given.detach().clone()) for given in (W, b, c))
        return model

    def reset_parameters(self) -> None:
        """Draws the initial weights from torch's global generator."""
        normal_(self.W, std=0.01)
        nn.init.zeros_(self.b)
        nn.init.zeros_(self.c)

    def start_from(self, data: Tensor) -> None:
        """Sets b to the log-odds of the training data [n, D], with init="data"."""
        if self.init == "data":
            with torch.no_grad():
                self.b.copy_(log_odds(data))

    def hidden_logits(self, v: Tensor) -> Tensor:
        """c + W^T v, [batch, m]: the logits of p(h|v)."""
        return self.c + v @ self.W

    def visible_logits(self, h: Tensor) -> Tensor:
        """b + W h, [batch, D]: the logits of p(v|h)."""
        return self.b + h @ self.W.T

    def visible_mean(self, h: Tensor) -> Tensor:
        """E[v|h], [batch, D]."""
        return self.visible_logits(h).sigmoid()

    def visible_energy(self, v: Tensor) -> Tensor:
        """E(v, 0) = -b.v, [batch]."""
        return -v @ self.b

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), [batch]; h may lie between 0 and 1 (relaxed samples)."""
        return self.visible_energy(v) - (self.hidden_logits(v) * h).sum(-1)

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = -log sum_h exp(-E(v, h)), [batch]."""
        return self.visible_energy(v) - softplus(self.hidden_logits(v)).sum(-1)

    def flip_log_ratios(self, v: Tensor) -> Tensor:
        """F(v) - F(v with unit i flipped), [batch, D]."""
        return (1 - 2 * v) * self.b + softplus_of_flips(self.hidden_logits(v), self.W, v)

    def flip_energies(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v with unit i flipped, h) - E(v, h), [batch, D]."""
        return (2 * v - 1) * self.visible_logits(h)

    def hidden_free_energy(self, h: Tensor) -> Tensor:
        """-log sum_v exp(-E(v, h)), [batch]."""
        return -h @ self.c - softplus(self.visible_logits(h)).sum(-1)

    def sample_hidden(self, v: Tensor, noise: Tensor) -> Tensor:
        """h ~ p(h|v) from logistic noise [batch, m]."""
        return (self.hidden_logits(v) + noise > 0).to(v.dtype)

    def sample_visible(self, h: Tensor, noise: Tensor) -> Tensor:
        """v ~ p(v|h) from logistic noise [batch, D]."""
        return (self.visible_logits(h) + noise > 0).to(h.dtype)
