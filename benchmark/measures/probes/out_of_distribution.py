"""What an energy tells apart: test images and others."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from benchmark.data.datasets import DATASETS, DataSet, data_folder, load
from benchmark.measures.pictures import save_arrays
from benchmark.measures.probes.base import Metrics, Probe, Subject
from benchmark.measures.probes.latents import in_parts, no_posterior, seeded
from bism import Estimator
from bism.errors import InputError, nearest
from bism.likelihood import log_density_bound
from bism.rng import Rng


class OutOfDistribution(Probe):
    """Whether images that are not of the data have a higher energy than test images.

    The energy is F(v) where the model has it, else the negative of a lower bound of log p~(v)
    (``likelihood.log_density_bound``). ``ood/auroc_<name>`` is the share of pairs of a test image and another one in
    which the other's is higher (the area under the ROC curve): of ``noise``, uniform on [0, 1]; ``shuffled``, test
    images with their pixels permuted, each in its own way; ``inverted``, 1 - v; and of other data sets.

    Options:
        examples: test images, and others of each kind, at most.
        particles: samples of h for the bound.
        others: data sets, padded with zeros and made grey or of three equal channels where needed.
    """

    examples: int = Field(1000, gt=0)
    particles: int = Field(10, gt=0)
    others: list[str] = Field([])

    @field_validator("others")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in DATASETS:
                raise ValueError(f"no data set '{name}': {nearest(name, DATASETS)}")
        return names

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        if not hasattr(model, "free_energy") and no_posterior(estimator, model):
            return "the model has no free energy, and without a posterior there is no bound of it"
        return None

    @staticmethod
    def lacking(data: DataSet) -> str | None:
        return f"the data set {data.name} has no images" if data.image is None else None

    def measure(self, subject: Subject) -> Metrics:
        from sklearn.metrics import roc_auc_score

        v = subject.data.test[: self.examples]
        kinds = {"test": v, **_altered(v, seeded(subject, "other images", v))}
        for name in self.others:
            found = _other_images(name, subject.data, self.examples, subject.data_dir)
            kinds |= {} if found is None else {name: found.reshape(-1, *v.shape[1:])}
        energy = self.energy(subject)
        energies = {name: in_parts(energy, images, subject) for name, images in kinds.items()}
        subject.folder.mkdir(parents=True, exist_ok=True)
        step, metrics = subject.fitted.step, Metrics()
        for name, others in list(energies.items())[1:]:
            both = torch.cat([energies["test"], others])
            if both.isfinite().all():
                is_other = torch.arange(len(both)) >= len(v)
                metrics[f"ood/auroc_{name}"] = float(roc_auc_score(is_other.numpy(), both.numpy()))
            else:
                warnings.warn(f"ood/auroc_{name} was not computed: energies that are not finite", stacklevel=2)
        file = save_arrays(subject.folder, "energies", step, **energies)
        if metrics:
            shown = {
                name: x.numpy() for name, x in energies.items() if name == "test" or f"ood/auroc_{name}" in metrics
            }
            draw_energies(shown, metrics, file, f"step {step:,}")
        return metrics

    def energy(self, subject: Subject) -> Callable[[Tensor], Tensor]:
        """What images are judged by, a function to [batch]."""
        model = subject.fitted.model(subject.seed)
        if hasattr(model, "free_energy"):
            free_energy: Callable[[Tensor], Tensor] = model.free_energy
            return free_energy
        posterior = subject.fitted.posterior(subject.seed)
        return lambda v: -log_density_bound(model, posterior, v, particles=self.particles, seed=subject.seed)


def _altered(v: Tensor, rng: Rng) -> dict[str, Tensor]:
    """Images that are none of the data, made from test images or of nothing."""
    pixels = v.flatten(2) if v.ndim == 4 else v.unsqueeze(1)  # a pixel moves with all its channels
    order = rng.uniform((len(v), 1, pixels.shape[-1])).argsort(-1).expand_as(pixels)
    return {"noise": rng.uniform(v.shape), "shuffled": pixels.gather(-1, order).reshape(v.shape), "inverted": 1 - v}


def _other_images(name: str, data: DataSet, count: int, folder: Path | None = None) -> Tensor | None:
    """Test images [n, c, H, W] of another data set in the shape of these, or None where they cannot be had."""
    try:
        channels, height, width = data.as_images().image or ()
        other = load({"name": name}, data_folder(folder)).as_images()
        if other.test.shape[-2:] != (height, width):
            other = other.padded(max(height, width)).as_images()
        if other.test.shape[-2:] != (height, width):
            raise InputError(f"its images do not fit {height} x {width} pixels")
    except InputError as error:
        warnings.warn(f"ood/auroc_{name} was not computed: {error}", stacklevel=3)
        return None
    images = other.test[:count]
    return images.mean(1, keepdim=True) if channels == 1 else images.expand(-1, channels, -1, -1)


def draw_energies(energies: Mapping[str, np.ndarray], metrics: Metrics, file: Path, title: str) -> None:
    """Histograms of energies, those of ``test`` filled; the AUROC of the others beside their names."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    edges = np.histogram_bin_edges(np.concatenate(list(energies.values())), 60)
    for name, values in energies.items():
        auroc = metrics.get(f"ood/auroc_{name}")
        label = name if auroc is None else f"{name} (AUROC {auroc:.3f})"
        counts, _ = np.histogram(values, edges)
        axes.stairs(counts / len(values), edges, fill=name == "test", label=label)
    axes.set(title=title, xlabel="energy (nats)", ylabel="share of images")
    axes.legend(fontsize=7)
    figure.savefig(file)
