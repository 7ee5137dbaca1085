"""Spectral normalisation against singular value decompositions, and the networks that have it."""

import pytest
import torch
from torch.func import grad

from bism import InputError
from bism.convnet import ConvEBM
from bism.mlp import MLPEBM
from bism.spectral import SpectralConv2d, SpectralLinear, normalised, spectral_norm
from tests.maths.exact import draws


def with_gap(shape: tuple[int, ...], gap: float) -> torch.Tensor:
    """A random weight whose largest singular value is 3, ``1 + gap`` times the next one."""
    u, s, v = torch.linalg.svd(draws(sum(shape)).normal(shape).flatten(1), full_matrices=False)
    s = s * 3 / (1 + gap) / s[1] if len(s) > 1 else s
    s[0] = 3.0
    return ((u * s) @ v).reshape(shape)


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (1, 20), (20, 1), (8, 3, 4, 4)])
def test_the_norm_and_its_gradient_are_those_of_the_decomposition(shape: tuple[int, ...]) -> None:
    weight = with_gap(shape, 0.2)
    u, s, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    assert float(spectral_norm(weight)) == pytest.approx(float(s[0]), rel=1e-9)
    torch.testing.assert_close(grad(spectral_norm)(weight).flatten(1), torch.outer(u[:, 0], v[0]), rtol=1e-5, atol=1e-5)
    assert float(spectral_norm(1e-3 * weight)) == pytest.approx(1e-3 * float(s[0]), rel=1e-9)


def test_it_is_never_too_large_and_close_without_a_gap() -> None:
    for seed in range(5):
        weight = draws(seed).normal((64, 64))
        ratio = float(spectral_norm(weight) / torch.linalg.svdvals(weight)[0])
        assert 0.99 < ratio < 1 + 1e-12


def test_weights_of_zero_stay() -> None:
    assert torch.equal(normalised(torch.zeros(4, 3).double()), torch.zeros(4, 3).double())


def test_layers_use_the_normalised_weight() -> None:
    x, image = draws(1).normal((5, 7)), draws(2).normal((5, 3, 6, 6))
    dense, convolution = SpectralLinear(7, 4).double(), SpectralConv2d(3, 4, 4, stride=2, padding=1).double()
    for layer, at in ((dense, x), (convolution, image)):
        with torch.no_grad():
            layer.weight.copy_(with_gap(tuple(layer.weight.shape), 0.5))
        plain = torch.nn.functional.linear if layer is dense else torch.nn.functional.conv2d
        more = {} if layer is dense else {"stride": 2, "padding": 1}
        torch.testing.assert_close(layer(at), plain(at, layer.weight / 3, layer.bias, **more))


@pytest.mark.parametrize(
    "model", [MLPEBM(5, 16, 3, 1e6, spectral_norm=True), ConvEBM((1, 8, 8), 4, spectral_norm=True)]
)
def test_an_energy_with_it_cannot_be_steep(model: torch.nn.Module) -> None:
    """|dE/dv| is at most the product of the layers' norms: 1 of dense ones, sqrt(9) and sqrt(16 / 4) of the kernels as
    operators, and 1.1, the largest derivative of SiLU, for each."""
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(30)
    v = draws(3).normal((50, *model.visible_shape))  # type: ignore[misc, arg-type]
    slope = grad(lambda x: model.energy(x).sum())(v).detach().flatten(1).norm(dim=1)  # type: ignore[operator]
    steepest = 1.1**3 if isinstance(model, MLPEBM) else 3 * 2 * 1.1**2
    assert 0 < float(slope.max()) < steepest


@pytest.mark.parametrize(("shape", "kernels"), [((1, 8, 8), 2), ((1, 28, 28), 4), ((3, 32, 32), 4), ((2, 3, 5), 1)])
def test_images_are_halved_until_they_are_small(shape: tuple[int, ...], kernels: int) -> None:
    model = ConvEBM(shape, width=2)
    assert sum(isinstance(one, torch.nn.Conv2d) for one in model.network) == kernels
    assert model.energy(torch.rand(3, *shape)).shape == (3,)
    assert ConvEBM(shape, width=2, reference=0.5).visible_shape == shape


def test_the_reference_of_images_is_a_gaussian() -> None:
    model, v = ConvEBM((1, 8, 8), 2, reference=0.5).double(), draws(4).normal((5, 1, 8, 8))
    without = model.network(v).squeeze(1)
    torch.testing.assert_close(model.free_energy(v) - without, v.flatten(1).square().sum(1) / (2 * 0.25))


@pytest.mark.parametrize("scale", [1e-24, 1e8])
def test_sizes_at_the_ends_of_float32_have_a_norm(scale: float) -> None:
    weight = draws(5).normal((12, 7)).float()
    exact = float(torch.linalg.matrix_norm(weight.double(), 2)) * scale
    assert float(spectral_norm(scale * weight)) == pytest.approx(exact, rel=0.02)


def test_bad_sizes_are_named() -> None:
    with pytest.raises(InputError, match="MLPEBM: spectral_norm must be true or false, got 'maybe'"):
        MLPEBM(2, spectral_norm="maybe")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="MLPEBM: reference, a standard deviation, must be a finite number above 0"):
        MLPEBM(2, reference="wide")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"ConvEBM: takes images \(channels, height, width\).*got \(8,\)"):
        ConvEBM((8,))
    with pytest.raises(InputError, match="ConvEBM: width must be at least 1, got 0"):
        ConvEBM((1, 8, 8), width=0)
    with pytest.raises(
        InputError,
        match=r"ConvEBM: reference, a standard deviation.*must be a finite number of at least 0, got -1",
    ):
        ConvEBM((1, 8, 8), reference=-1.0)
