"""Small models, their parameters, and expectations that are exact.

Those over v are Gaussian quadratures over the components of a mixture, those over h are sums over all configurations,
so that nearly all of it is exact to rounding in float64.
"""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.utils._pytree import tree_leaves, tree_map

from bism import GRBM, RBM, Bernoulli, Estimator, Gaussian
from bism.functional import Methods
from bism.methods import BiSM
from bism.posteriors import RelaxedBernoulli
from bism.rng import Rng
from bism.score_matching import Exact
from bism.state import State

Tree = Any

# --- models ---------------------------------------------------------------------------------------------------------


class GRBMByAutograd(GRBM):
    """A GRBM that does not tell its score and Laplacian in closed form."""

    score_and_laplacian = None  # type: ignore[assignment]


def make_grbm(visible: int = 2, hidden: int = 3, seed: int = 0, kind: type[GRBM] = GRBM) -> GRBM:
    """A GRBM in float64 with W != 0 and a scale of its own for every visible unit."""
    source, model = torch.Generator().manual_seed(seed), kind(visible, hidden).double()
    with torch.no_grad():
        for parameter in (model.W, model.b, model.c):
            parameter.copy_(0.8 * torch.randn(parameter.shape, generator=source, dtype=torch.float64))
        model.log_s.copy_(torch.linspace(-0.4, 0.1, visible, dtype=torch.float64))
    return model


def small_rbm(kind: Any, visible: int = 2, hidden: int = 3) -> GRBM | RBM:
    """A model that an estimator (or its class) can train, with real v where it can."""
    return make_grbm(visible, hidden) if Gaussian in kind.visible_units else make_rbm(visible, hidden)


def set_grbm(W: Tensor, b: Tensor, c: Tensor, s: Tensor) -> GRBM:
    """A GRBM with given parameters, in float64."""
    model = GRBM(*W.shape).double()
    with torch.no_grad():
        for parameter, value in ((model.W, W), (model.b, b), (model.c, c), (model.log_s, s.log())):
            parameter.copy_(value)
    return model


def make_rbm(visible: int = 4, hidden: int = 3, seed: int = 0) -> RBM:
    """A binary RBM in float64 with W != 0."""
    source, model = torch.Generator().manual_seed(seed), RBM(visible, hidden).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.8 * torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    return model


class LinearGaussian(nn.Module):
    """h ~ N(0, I), v ~ N(W h + b, s^2 I) as an energy: |v - W h - b|^2 / (2 s^2) + |h|^2 / 2."""

    def __init__(self, visible: int, hidden: int) -> None:
        super().__init__()
        self.visible_shape, self.latent = (visible,), Gaussian(hidden)
        self.W = nn.Parameter(torch.empty(visible, hidden))
        self.b = nn.Parameter(torch.empty(visible))
        self.log_s = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.W)
        nn.init.normal_(self.b, std=0.3)
        nn.init.constant_(self.log_s, -0.3)

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        residual = (v - h @ self.W.T - self.b) * (-self.log_s).exp()
        return 0.5 * residual.square().sum(-1) + 0.5 * h.square().sum(-1)

    def covariance(self) -> Tensor:
        """Of v: W W^T + s^2 I."""
        return self.W @ self.W.T + (2 * self.log_s).exp() * torch.eye(len(self.b), dtype=self.W.dtype)

    def posterior(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [batch, m] and precision [m, m] of p(h|v)."""
        weight = (-2 * self.log_s).exp()
        precision = torch.eye(self.W.shape[1], dtype=self.W.dtype) + weight * self.W.T @ self.W
        return weight * torch.linalg.solve(precision, ((v - self.b) @ self.W).T).T, precision

    def free_energy(self, v: Tensor) -> Tensor:
        centred = v - self.b
        return 0.5 * (centred * torch.linalg.solve(self.covariance(), centred.T).T).sum(-1)


class BernoulliGaussian(nn.Module):
    """Binary v and real h: E(v, h) = |h|^2 / 2 - v.(W h + b), so that p(h|v) = N(W^T v, I)."""

    def __init__(self, visible: int, hidden: int) -> None:
        super().__init__()
        self.visible_shape, self.visible_units, self.latent = (visible,), Bernoulli(visible), Gaussian(hidden)
        self.W = nn.Parameter(torch.empty(visible, hidden))
        self.b = nn.Parameter(torch.empty(visible))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.W, std=0.6)
        nn.init.normal_(self.b, std=0.3)

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        return 0.5 * h.square().sum(-1) - (v * (h @ self.W.T + self.b)).sum(-1)

    def free_energy(self, v: Tensor) -> Tensor:
        return -v @ self.b - 0.5 * (v @ self.W).square().sum(-1)


class GaussianOfUnitScale(nn.Module):
    """q(h|v) = N(A v + a, I / 4): a user's own posterior, of which eq. (11) is a quadratic function."""

    def __init__(self, visible: int, hidden: int) -> None:
        super().__init__()
        self.mean = nn.Linear(visible, hidden)

    def sample(self, v: Tensor, noise: Tensor, temperature: Tensor | float) -> Tensor:
        return self.mean(v) + 0.5 * noise

    def sample_hard(self, v: Tensor, noise: Tensor) -> Tensor:
        return self.sample(v, noise, 0.0).detach()

    def log_prob(self, h: Tensor, v: Tensor) -> Tensor:
        return (-2 * (h - self.mean(v)).square() + math.log(2) - 0.5 * math.log(2 * math.pi)).sum(-1)


class GivenSamples(RelaxedBernoulli):
    """Its samples are the noise itself, so that expectations over h can be sums over configurations."""

    def sample(self, v: Tensor, noise: Tensor, temperature: Tensor | float) -> Tensor:
        return noise


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiExact(Exact, BiSM):
    """Bi-level score matching with the exact trace: eq. (2) under eq. (8)."""

    id: ClassVar[str] = "biexact"
    label: ClassVar[str] = "BiSM"
    reference: ClassVar[str] = "eq. 2 and 8"


# --- parameters -----------------------------------------------------------------------------------------------------


def parameters(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def true_posterior(theta: dict[str, Tensor]) -> dict[str, Tensor]:
    """phi*(theta) = (W, c): a GRBM's posterior as the parameters of one linear layer and a sigmoid."""
    return {"network.1.weight": theta["W"].T, "network.1.bias": theta["c"]}


def state_of(params: Tree, **modules: nn.Module) -> State:
    """A state to bind parameters with."""
    return State({name: Methods(module) for name, module in modules.items()}, params, {}, {})


def hyper(estimator: Estimator, **changes: float) -> dict[str, Tensor]:
    """The continuous hyper-parameters as ``step`` gets them, in float64."""
    return {k: torch.tensor(x, dtype=torch.float64) for k, x in {**estimator.hyper, **changes}.items()}


def flat(tree: Tree) -> Tensor:
    """All numbers of a tree in one vector."""
    return torch.cat([leaf.flatten() for leaf in tree_leaves(tree)])


def moved(tree: Tree, by: float, seed: int = 5) -> Tree:
    """A tree of parameters away from the given one."""
    source = torch.Generator().manual_seed(seed)
    return tree_map(lambda x: x + by * torch.randn(x.shape, generator=source, dtype=x.dtype), tree)


def draws(seed: int) -> Rng:
    """Random numbers in float64."""
    return Rng(torch.Generator().manual_seed(seed), torch.float64)


def relative(x: Tree, y: Tree) -> float:
    """Distance of two trees in units of the second."""
    return float((flat(x) - flat(y)).norm() / flat(y).norm())


def with_one_flipped(row: Tensor, unit: int) -> Tensor:
    """A binary vector [D] with one unit flipped; as it is if there is no such unit."""
    return torch.stack([1 - x if i == unit else x for i, x in enumerate(row)])


# --- exact expectations ---------------------------------------------------------------------------------------------


def configurations(size: int) -> Tensor:
    """All h in {0, 1}^size, [2^size, size], in float64."""
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * size).reshape(-1, size)


def log_z(model: Any) -> Tensor:
    """log Z by enumeration, differentiable."""
    return (-model.hidden_free_energy(configurations(model.latent.size))).logsumexp(0)


def hermite(points: int, dimensions: int) -> tuple[Tensor, Tensor]:
    """Quadrature for a standard normal vector: nodes [n, dimensions] and weights [n] that sum to one."""
    x, w = (torch.as_tensor(part) for part in np.polynomial.hermite_e.hermegauss(points))
    nodes = torch.cartesian_prod(*[x] * dimensions).reshape(-1, dimensions)
    return nodes, torch.cartesian_prod(*[w / w.sum()] * dimensions).reshape(-1, dimensions).prod(1)


def signs(dimensions: int) -> tuple[Tensor, Tensor]:
    """All Rademacher vectors, equally likely."""
    nodes = 2 * configurations(dimensions) - 1
    return nodes, torch.full((len(nodes),), 1 / len(nodes), dtype=torch.float64)


def data_of(model: GRBM, points: int = 24) -> tuple[Tensor, Tensor]:
    """Quadrature for p(v) of a GRBM, a mixture of Gaussians: nodes [n, D] and weights [n]."""
    with torch.no_grad():
        h = configurations(model.latent.size)
        share = (-model.hidden_free_energy(h) - log_z(model)).exp()
        z, weights = hermite(points, model.b.numel())
        nodes = torch.stack([model.sample_visible(each.expand(len(z), -1), z) for each in h])
        return nodes.flatten(0, 1), (share.unsqueeze(1) * weights).flatten()


def product(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Every pair of nodes of two independent quadratures: nodes of a, nodes of b, weights."""
    rows, columns = torch.cartesian_prod(torch.arange(len(a[1])), torch.arange(len(b[1]))).T
    return a[0][rows], b[0][columns], a[1][rows] * b[1][columns]


def samples(model: GRBM | RBM, count: int, seed: int) -> Tensor:
    """Exact samples v, [count, D]: h from its enumerated distribution, then v given h."""
    with torch.no_grad():
        h = configurations(model.latent.size)
        share = (-model.hidden_free_energy(h) - log_z(model)).exp()
        source = torch.Generator().manual_seed(seed)
        chosen = h[torch.multinomial(share, count, replacement=True, generator=source)]
        if isinstance(model, RBM):
            return torch.bernoulli(model.visible_mean(chosen), generator=source)
        return model.sample_visible(chosen, torch.randn(count, model.b.numel(), generator=source, dtype=torch.float64))


def expected_gradient(
    estimator: Estimator,
    params: Tree,
    examples: Tensor,
    noise: Tree,
    weights: Tensor,
    carry: dict[str, Tensor] | None = None,
    **modules: nn.Module,
) -> Tree:
    """Gradient of the weighted sum of an estimator's loss over single examples, each with its own noise."""
    state, values = state_of(params, **modules), hyper(estimator)

    def one(at: Tree, v: Tensor, eps: Tree) -> Tensor:
        return estimator.loss(state.bind(at), v.unsqueeze(0), eps, carry or {}, values)[0]

    if not tree_leaves(noise):
        return grad(lambda at: weights @ vmap(lambda v: one(at, v, noise))(examples))(params)
    return grad(lambda at: weights @ vmap(lambda v, eps: one(at, v, eps))(examples, noise))(params)
