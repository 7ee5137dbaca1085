"""What E[h|v] is worth where few examples have a label."""

import warnings
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from benchmark.data.datasets import DataSet
from benchmark.measures.probes.base import Metrics, Probe, Subject
from benchmark.measures.probes.latents import Features, hidden_means, linear_accuracy, standardised
from bism import Estimator
from bism.rng import generator


class FewLabels(Probe):
    """Accuracy on the test data of a classifier that knows few labels of the training data.

    ``latent/labels_<n>_accuracy`` is that of a multinomial logistic regression on E[h|v] (as of the probe
    ``features``), fitted to n examples of each class; the mean over draws of these, and ``..._stderr`` its standard
    error. ``latent/labels_<n>_pixels_accuracy`` is the same of the images themselves. Both are standardised by all
    training examples that are seen, for which no label is needed.

    Options:
        labels: of each class.
        draws: of the labelled examples.
        train_examples: of which labelled ones are drawn, at most, at random.
    """

    labels: list[Annotated[int, Field(gt=0, le=100_000)]] = Field([1, 5, 10, 50], min_length=1)
    draws: int = Field(10, gt=1, le=1000)
    train_examples: int = Field(10_000, gt=0)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        return Features.unsuitable(estimator, model)

    @staticmethod
    def lacking(data: DataSet) -> str | None:
        return f"the data set {data.name} has no classes here" if data.labels is None else None

    def measure(self, subject: Subject) -> Metrics:
        data, metrics = subject.data, Metrics()
        assert data.labels is not None  # see lacking()
        source = generator(subject.seed, 0, "examples to learn from")
        chosen = torch.randperm(len(data.train), generator=source)[: self.train_examples]
        train, classes = data.train[chosen], data.labels[0][chosen]
        both = {
            "": standardised(hidden_means(subject, train), hidden_means(subject, data.test)),
            "_pixels": standardised(train.flatten(1), data.test.flatten(1)),
        }
        fewest = int(torch.unique(classes, return_counts=True)[1].min())
        for count in self.labels:
            if count > fewest:
                warnings.warn(
                    f"latent/labels_{count}_accuracy was not measured: one class has {fewest} of the "
                    f"{len(classes):,} training examples that are seen",
                    stacklevel=2,
                )
                continue
            rows = [_drawn(classes, count, generator(subject.seed, draw, "labels")) for draw in range(self.draws)]
            for name, (train, test) in both.items():
                found = list[float]()
                for row in rows:
                    found.append(linear_accuracy(train[row], test, classes[row], data.labels[2]))
                    subject.alive()
                values = torch.tensor(found, dtype=torch.float64)
                metrics[f"latent/labels_{count}{name}_accuracy"] = float(values.mean())
                metrics[f"latent/labels_{count}{name}_accuracy_stderr"] = float(values.std() / len(values) ** 0.5)
        return metrics


def _drawn(classes: Tensor, count: int, source: torch.Generator) -> Tensor:
    """Indices of ``count`` examples of each class, at random."""
    order = torch.randperm(len(classes), generator=source)
    return torch.cat([order[classes[order] == kind][:count] for kind in torch.unique(classes)])
