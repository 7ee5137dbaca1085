"""Deep energies for short vectors such as points in the plane: fully visible, and with binary latent units.

Both have a Gaussian reference, as the generative ConvNet has (Xie et al. 2016): E(v) = f(v) + |v|^2 / (2 s^2). A
network alone falls or grows linearly far away, where no data are; with the reference exp(-E) can be integrated
whatever the network is, so that log Z exists for every method.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear

from bism.checks import check_count, check_flag, check_positive
from bism.posteriors import RelaxedBernoulli
from bism.spectral import SpectralLinear
from bism.variables import Bernoulli, Gaussian


def mlp(inputs: int, width: int, layers: int, outputs: int, linear: type[nn.Linear] = nn.Linear) -> nn.Sequential:
    """``layers`` hidden layers of ``width`` units with SiLU, which has all derivatives, as scores and their Jacobians
    need; then a linear one."""
    stack = list[nn.Module]()
    for size in [inputs, *[width] * (layers - 1)]:
        stack += [linear(size, width), nn.SiLU()]
    return nn.Sequential(*stack, linear(width, outputs))


def _check(model: str, sizes: dict[str, Any], reference: Any, gain: Any) -> None:
    for name, size in sizes.items():
        check_count(f"{model}: {name}", size, 1)
    check_positive(f"{model}: reference, a standard deviation,", reference)
    check_positive(f"{model}: gain", gain)


class MLPEBM(nn.Module):
    """E(v) = f(v) + |v|^2 / (2 s^2), fully visible, with f a network of ``layers`` hidden layers of ``width`` units.

    Args:
        visible: number D of visible units.
        width, layers: of f.
        reference: s, fixed; some times as wide as the data.
        gain: what v is multiplied by before the network. On data of standard deviation 1 the first layer starts nearly
            linear, and what is much finer than they are is learnt slowly: some 1 / (width of the features) then helps.
        spectral_norm: whether weights are divided by their largest singular value (``bism.spectral``), so that f
            cannot be steep.

    Example:
        >>> MLPEBM(visible=2).energy(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    latent = None

    def __init__(
        self,
        visible: int,
        width: int = 128,
        layers: int = 2,
        reference: float = 4.0,
        gain: float = 1.0,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        _check("MLPEBM", {"visible": visible, "width": width, "layers": layers}, reference, gain)
        check_flag("MLPEBM: spectral_norm", spectral_norm)
        self.visible_shape, self.visible_units = (visible,), Gaussian(visible)
        self.reference, self.gain, self.activations = reference, gain, visible + layers * width
        self.network = mlp(visible, width, layers, 1, SpectralLinear if spectral_norm else nn.Linear)

    def energy(self, v: Tensor) -> Tensor:
        """E(v), [batch]."""
        return self.network(self.gain * v).squeeze(-1) + 0.5 * v.square().sum(-1) / self.reference**2

    def free_energy(self, v: Tensor) -> Tensor:
        """E(v): there is nothing to sum over."""
        return self.energy(v)


class MLPEBLVM(nn.Module):
    """E(v, h) = g(x(v), h) + |v|^2 / (2 s^2) with binary h: x is a network of ``layers`` hidden layers and one of
    features, and g a further hidden layer on features and h. Posteriors do not factorise; F(v) is a sum over all h
    (``bism.enumeration.free_energy``).

    Args: as ``MLPEBM``, and
        hidden: number m of latent units, of which 2^m configurations are summed where F(v) is asked for.

    Example:
        >>> MLPEBLVM(visible=2, hidden=4).energy(torch.zeros(5, 2), torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    def __init__(
        self, visible: int, hidden: int, width: int = 128, layers: int = 1, reference: float = 4.0, gain: float = 1.0
    ) -> None:
        super().__init__()
        sizes = {"visible": visible, "hidden": hidden, "width": width, "layers": layers}
        _check("MLPEBLVM", sizes, reference, gain)
        self.visible_shape, self.visible_units, self.latent = (visible,), Gaussian(visible), Bernoulli(hidden)
        self.reference, self.gain, self.activations = reference, gain, visible + (layers + 1) * width
        self.features = nn.Sequential(mlp(visible, width, layers, width), nn.SiLU())
        self.head = mlp(width + hidden, width, 1, 1)
        self._posterior_sizes = width, layers

    def default_posterior(self) -> nn.Module:
        """q(h|v) of independent units, with a network of as many layers as f has."""
        width, layers = self._posterior_sizes
        network = mlp(self.visible_shape[0], width, layers + 1, self.latent.size)
        return RelaxedBernoulli(self.visible_shape, self.latent.size, network)

    def _energy(self, features: Tensor, v: Tensor, h: Tensor) -> Tensor:
        first: Any
        first, *rest = self.head
        of_features, of_h = first.weight.split([features.shape[-1], h.shape[-1]], dim=1)  # features meet many h
        x = linear(features, of_features, first.bias) + linear(h, of_h)
        for layer in rest:
            x = layer(x)
        return x.squeeze(-1) + 0.5 * v.square().sum(-1) / self.reference**2

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), [batch]; h may lie between 0 and 1 (relaxed samples)."""
        return self._energy(self.features(self.gain * v), v, h)

    def energies(self, v: Tensor, h: Tensor) -> Tensor:
        """E of every v [batch, D] with every h [n, m], [batch, n]."""
        features = self.features(self.gain * v).unsqueeze(1)
        return self._energy(features, v.unsqueeze(1), h.expand(len(v), *h.shape))
