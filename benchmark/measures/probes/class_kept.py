"""What of an image its h holds: whether samples given h are of its class."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from benchmark.data.datasets import DataSet
from benchmark.measures.pictures import save_arrays
from benchmark.measures.probes.base import Metrics, Subject
from benchmark.measures.probes.latents import Features, GivenH, hidden_means, seeded, share_of_h
from benchmark.measures.probes.samples import Langevin
from bism import Estimator
from bism.rng import generator
from bism.variables import Gaussian, visible_noise


class ClassKept(GivenH):
    """Samples v ~ p(v|h) with h = E[h|v] of test images (as of the probe ``features``): by the decoder of models that
    have one, else by Langevin dynamics on E(v, h).

    ``class_kept/share`` of the samples are taken for the class of the image that h is of, by the nearest neighbours
    among training images; ``class_kept/by_chance`` would be, were each given any of these h, whatever it holds;
    ``class_kept/of_images`` is the same classifier's share of the test images themselves. ``class_kept/share_of_h`` is
    how much of the samples' variance h makes (``latents.share_of_h``). Samples are arrays, ``class_kept_step_*.npz``.

    Options, beside those of Langevin dynamics:
        images: test images, the first ones.
        draws: samples given the h of each, the same noise for all.
        train_examples: training images that the classifier knows, at most, drawn at random.
        neighbours: of which the most frequent class is taken.
    """

    images: int = Field(100, ge=10, le=10_000)
    draws: int = Field(2, ge=2, le=100)
    train_examples: int = Field(10_000, gt=0)
    neighbours: int = Field(5, gt=0)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        reason = Features.unsuitable(estimator, model)
        if reason is None and not isinstance(model.latent, Gaussian):
            return "h is binary, and E[h|v] is no value of it"
        return reason or (None if hasattr(model, "sample_visible") else Langevin.unsuitable(estimator, model))

    @staticmethod
    def lacking(data: DataSet) -> str | None:
        return f"the data set {data.name} has no classes here" if data.labels is None else None

    def measure(self, subject: Subject) -> Metrics:
        from sklearn.neighbors import KNeighborsClassifier

        data = subject.data
        assert data.labels is not None  # see lacking()
        source = generator(subject.seed, 0, "examples to learn from")  # those of the probe ``features``
        chosen = torch.randperm(len(data.train), generator=source)[: self.train_examples]
        nearest = KNeighborsClassifier(min(self.neighbours, len(chosen)))
        nearest.fit(data.train[chosen].flatten(1).numpy(), data.labels[0][chosen].numpy())
        v, classes = data.test[: self.images], data.labels[2][: self.images]
        samples = self.samples(subject, v).float().cpu()
        found = torch.from_numpy(nearest.predict(samples.flatten(0, 1).flatten(1).numpy())).reshape(samples.shape[:2])
        subject.folder.mkdir(parents=True, exist_ok=True)
        save_arrays(subject.folder, "class_kept", subject.fitted.step, images=v, samples=samples, classes=found)
        kinds = torch.arange(int(max(classes.max(), found.max())) + 1)
        frequencies = [(values.flatten()[:, None] == kinds).double().mean(0) for values in (classes, found)]
        return {
            "class_kept/share": float((found == classes[:, None]).double().mean()),
            "class_kept/by_chance": float(frequencies[0] @ frequencies[1]),
            "class_kept/of_images": float(nearest.score(data.test.flatten(1).numpy(), data.labels[2].numpy())),
            "class_kept/share_of_h": share_of_h(samples),
        }

    def samples(self, subject: Subject, v: Tensor) -> Tensor:
        """v ~ p(v|h) at E[h|v] of each of these, [images, draws, *visible_shape]."""
        model = subject.fitted.model(subject.seed)
        h = hidden_means(subject, v).to(next(model.parameters()))
        if not hasattr(model, "sample_visible"):
            return self.given(subject, model, h, count=self.draws)
        noise = visible_noise(model, (self.draws,), seeded(subject, "samples given h", h))
        with torch.no_grad():
            return torch.stack([model.sample_visible(code.expand(self.draws, -1), noise) for code in h])
