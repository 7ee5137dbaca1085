"""Whether a training by chains is stable: the energy gap, slopes, singular values, the loss's gradient."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call, grad

from baselines.chains import contrast, slope
from benchmark.measures.probes.base import Metrics, Probe, Subject
from bism import Estimator
from bism.enumeration import free_energy, has_free_energy
from bism.sampling import no_sampler, sampler
from bism.spectral import SpectralConv2d, SpectralLinear, normalised
from bism.variables import has_binary_v


class Stability(Probe):
    """How far the energy of test data v is from that of the method's samples v', and how steep the model is.

    ``stability/energy_gap``: mean F(v) - mean F(v') in nats, near 0 where chains have converged (Nijkamp et al. 2020,
    d_s); samples are drawn as the method's are (``Fitted.sampler``). ``slope_of_data``, ``slope_of_samples``: mean
    |dF/dv|. ``loss_gradient``: norm of the gradient of the gap in all parameters of the model.
    ``singular_value_<name>``: the largest singular value of each weight as it is used, exact, of kernels seen as
    matrices [outputs, rest]; ``largest_singular_value``: of all. In the data's own units.

    Options:
        count: of samples, and of test data at most.
    """

    count: int = Field(256, gt=0)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        if has_binary_v(model):
            return "v of the model is binary and has no slope"
        if not has_free_energy(model):
            return "the model has no free energy, and its h are too many to sum over"
        own = type(estimator).sampler is not Estimator.sampler
        return None if own or sampler(model) is not None else no_sampler(model)

    def measure(self, subject: Subject) -> Metrics:
        model = subject.fitted.model(subject.seed)
        v = subject.data.test[: self.count].to(next(model.parameters()))
        subject.alive()
        samples = subject.fitted.draw(self.count, subject.seed)
        subject.alive()
        values, marginal = singular_values(model), _Marginal(model)
        return {
            "stability/energy_gap": float(contrast(marginal, v, samples).detach()),
            "stability/slope_of_data": _mean_length(slope(marginal, v)),
            "stability/slope_of_samples": _mean_length(slope(marginal, samples)),
            "stability/loss_gradient": loss_gradient(model, v, samples),
            **{f"stability/singular_value_{name}": value for name, value in values.items()},
            **({"stability/largest_singular_value": max(values.values())} if values else {}),
        }


def _mean_length(x: Tensor) -> float:
    return float(x.detach().flatten(1).norm(dim=1).mean())


def singular_values(model: nn.Module) -> dict[str, float]:
    """The largest singular value of every parameter with two axes or more, by its name without ``weight``."""
    normal = {
        f"{path}.weight" for path, part in model.named_modules() if isinstance(part, (SpectralLinear, SpectralConv2d))
    }
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            used = (normalised(parameter) if name in normal else parameter).detach().flatten(1)
            value = torch.linalg.svdvals(used)[0] if bool(used.isfinite().all()) else torch.tensor(torch.nan)
            found[name.removesuffix(".weight")] = float(value)
    return found


def loss_gradient(model: nn.Module, v: Tensor, samples: Tensor) -> float:
    """Norm of the gradient of mean F(v) - mean F(samples) in the model's parameters."""

    def gap(parameters: dict[str, Tensor]) -> Tensor:
        tensors = {f"model.{name}": x for name, x in parameters.items()}
        found: Tensor = functional_call(_Gap(model), tensors, (v, samples))
        return found

    gradient = grad(gap)({name: x.detach() for name, x in model.named_parameters()})
    return float(sum(x.square().sum() for x in gradient.values()) ** 0.5)


class _Marginal:
    """A model with its free energy, where that is a sum over h, too."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def free_energy(self, v: Tensor) -> Tensor:
        return free_energy(self.model, v)


class _Gap(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, v: Tensor, samples: Tensor) -> Tensor:
        return contrast(_Marginal(self.model), v, samples)
