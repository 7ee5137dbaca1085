"""What latent variables are for: images given h, paths between images in h, and features.

Every sheet, embedding and histogram is an image with its arrays beside it.
"""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, vmap

from benchmark.measures.pictures import draw_sheet, save_arrays
from benchmark.measures.probes.base import Metrics, Probe, Subject
from benchmark.measures.probes.samples import Langevin, StretchOptions
from bism import Estimator
from bism.langevin import Stretch, langevin, temperatures
from bism.latent_likelihood import posterior_mean
from bism.rng import Rng, generator
from bism.variables import Gaussian

_ROW = 8  # images in a row of a sheet
_SIGNS = 50  # steps between two signs of life
_AT_ONCE = 250  # images whose features or energies are computed at once


def no_posterior(estimator: Estimator, model: Any) -> str | None:
    """Why there is no q(h|v), or None."""
    if model.latent is None:
        return "the model has no latent variables"
    return None if "posterior" in estimator.trains else "this method trains no posterior"


def seeded(subject: Subject, purpose: str, like: Tensor) -> Rng:
    return Rng(generator(subject.seed, 0, purpose, like.device), like.dtype)


def _test_images(subject: Subject, model: Any, count: int) -> Tensor:
    """The first test examples, where and of the type that the model is."""
    return subject.data.test[:count].to(next(model.parameters()))


# --- images from h --------------------------------------------------------------------------------------------------


class GivenH(Langevin):
    """What samples v given h, by Langevin dynamics on E(v, h)."""

    def given(self, subject: Subject, model: Any, h: Tensor, count: int = 1, batch: int = 0) -> Tensor:
        """Samples v ~ p(v|h) for each h [points, m]: [points, count, *visible_shape].

        Every h gets the same ``count`` starts and the same noise; another ``batch`` gets others.
        """
        start = {"v": self.starting(subject, model, count, batch)}

        def sample(point: Tensor) -> Tensor:
            code = point.expand(count, -1)
            x = self.run(lambda at: model.energy(at["v"], code), start, subject, batch=batch)
            return self.cleaned(lambda at: model.energy(at, code), x["v"], subject)

        return vmap(sample, randomness="same", chunk_size=max(1, self.batch // count))(h)


class Conditional(GivenH):
    """What h holds, on sheets: v sampled given h, and v and h sampled together, by Langevin dynamics.

    ``conditional``: in each row a test image and samples v ~ p(v|h) with h the posterior's mean of it; those of a
    column share the start and the noise. ``line``: between two test images, samples along the line from the one's h to
    the other's, ends included, all with the same start and noise, so that h alone changes. ``triangle``: the same
    between the first three, which stand above it: the first at its top, the second at its lower left. ``joint``: in
    each row v, after its last noise is taken away, on the way of (v, h) from a test image and h ~ q(h|v).

    ``latent/share_of_h`` is how much of the samples' variance h makes: see ``share_of_h``.

    Options, beside those of Langevin dynamics, whose schedule is for v given h:
        images: test images, the first ones.
        side: samples along a side of the triangle.
        joint: the temperatures of v and h together, stretch by stretch; there is none where it is empty.
        step_size_h: of h there.
    """

    images: int = Field(8, ge=3, le=64)
    side: int = Field(6, ge=2, le=_ROW)
    joint: list[StretchOptions] = Field([StretchOptions(steps=700, first=1.0, last=1.0)])
    step_size_h: float = Field(0.02, gt=0)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        reason = no_posterior(estimator, model)
        if reason is None and not isinstance(model.latent, Gaussian):
            return "h is binary, and neither lines nor Langevin dynamics lead through it"
        return reason or Langevin.unsuitable(estimator, model)

    def measure(self, subject: Subject) -> Metrics:
        model, posterior = subject.fitted.model(subject.seed), subject.fitted.posterior(subject.seed)
        v = _test_images(subject, model, self.images)
        with torch.no_grad():
            h = posterior.mean(v)
        line, triangle = _line(_ROW - 2).to(h), _triangle(self.side).to(h)
        pairs = [slice(first, first + 2) for first in range(0, len(v) - 1, 2)]
        lines = torch.stack([line @ h[pair] for pair in pairs])
        corners = triangle @ h[:3]
        one = self.given(subject, model, torch.cat([h, lines.flatten(0, 1), corners]))[:, 0]
        of_images, of_lines, of_triangle = torch.split(one, [len(h), len(line) * len(pairs), len(corners)])
        more = self.given(subject, model, h, count=_ROW - 2, batch=1)
        samples = torch.cat([of_images.unsqueeze(1), more], dim=1)
        ends, between = torch.stack([v[pair] for pair in pairs]), of_lines.reshape(len(pairs), len(line), *v.shape[1:])
        self._write(subject, "conditional", torch.cat([v.unsqueeze(1), samples], 1), images=v, samples=samples, h=h)
        rows = torch.cat([ends[:, :1], between, ends[:, 1:]], dim=1)
        self._write(subject, "line", rows, images=ends, samples=between, h=lines)
        rows = torch.stack([_full(row) for row in (v[:3], *torch.split(of_triangle, list(range(1, self.side + 1))))])
        arrays = {"images": v[:3], "samples": of_triangle, "h": corners, "weights": triangle}
        self._write(subject, "triangle", rows, **arrays)
        if self.joint:
            film = self.film(subject, model, posterior, v)
            self._write(subject, "joint", torch.stack([_full(row) for row in film["images"]]), **film)
        return {"latent/share_of_h": share_of_h(samples)}

    def film(self, subject: Subject, model: Any, posterior: Any, v: Tensor) -> dict[str, Tensor]:
        """The joint dynamics from v and h ~ q(h|v): at the start and evenly over the schedule ``v`` and ``h`` and
        ``images`` (v without its last noise), each [batch, frames, ...], and their steps ``at`` [frames]."""
        with torch.no_grad():
            noise = model.latent.noise(seeded(subject, "joint start", v), (len(v),))
            x = {"v": v, "h": posterior.sample(v, noise, 1.0)}
        heat, frames = temperatures([Stretch(**part.model_dump()) for part in self.joint]), [x]
        at = sorted({round(i * len(heat) / (_ROW - 1)) for i in range(_ROW)})
        steps = langevin(
            lambda at: model.energy(at["v"], at["h"]), x, heat, step_size={"v": self.step_size, "h": self.step_size_h},
            seed=subject.seed, precision=self.precision,
        )  # fmt: skip
        for number, now in enumerate(steps, start=1):
            frames += [now] if number in at else []
            if number % _SIGNS == 0:
                subject.alive()
        found = {name: torch.stack([frame[name] for frame in frames], dim=1) for name in ("v", "h")}
        flat, h = found["v"].flatten(0, 1), found["h"].flatten(0, 1)
        images = self.cleaned(lambda at: model.energy(at, h), flat, subject)
        return {**found, "images": images.reshape(found["v"].shape), "at": torch.tensor(at)}

    def _write(self, subject: Subject, what: str, rows: Tensor, **arrays: Tensor) -> None:
        """The arrays, and rows [rows, 8, c, H, W] as a sheet."""
        step, folder = subject.fitted.step, subject.folder
        folder.mkdir(parents=True, exist_ok=True)
        file = save_arrays(folder, what, step, **{name: x.cpu().float() for name, x in arrays.items()})
        sheet = rows.flatten(0, 1).cpu().float()
        draw_sheet(sheet.squeeze(1) if sheet.shape[1] == 1 else sheet, file, f"{what}, step {step:,}")


def share_of_h(samples: Tensor) -> float:
    """The variance across h at the same noise, by that across both, of samples [h, noise, *visible_shape].

    Summed over pixels; 0 where h does not matter and 1 where the noise does not (the total index of Sobol 1993).
    """
    return float(samples.var(0, correction=0).mean() / samples.flatten(0, 1).var(0, correction=0).mean())


def _line(points: int) -> Tensor:
    """Weights of two ends along a line, [points, 2]."""
    t = torch.linspace(0, 1, points)
    return torch.stack([1 - t, t], dim=1)


def _triangle(side: int) -> Tensor:
    """Weights of three corners over a triangle, row by row from the first corner, [side (side + 1) / 2, 3]."""
    places = [(side - 1 - row, row - column, column) for row in range(side) for column in range(row + 1)]
    return torch.tensor(places) / (side - 1)


def _full(row: Tensor) -> Tensor:
    """A row of images, white at its end where there are too few."""
    return torch.cat([row, row.new_ones(_ROW - len(row), *row.shape[1:])])


# --- h as features --------------------------------------------------------------------------------------------------


def hidden_mean(subject: Subject) -> Callable[[Tensor], Tensor]:
    """E[h|v], [batch, m], from the best that there is."""
    if "posterior" in subject.fitted.estimator.trains:
        return subject.fitted.posterior(subject.seed).mean
    model = subject.fitted.model(subject.seed)
    if isinstance(model.latent, Gaussian):
        joint, scaling = subject.fitted.joint(subject.seed)[0], subject.data.scaling  # it is of the training's units
        like = next(joint.parameters())  # in the precision of the training, as v in their own units are not
        return lambda v: posterior_mean(joint, (scaling.scaled(v) if scaling else v).to(like), seed=subject.seed)
    if hasattr(model, "mean_field"):
        return lambda v: torch.cat(model.mean_field(v).hidden, -1)
    return lambda v: model.hidden_logits(v).sigmoid()


def hidden_means(subject: Subject, v: Tensor) -> Tensor:
    """E[h|v] of data, [n, m], float32 on the CPU; found once for all the probes of a model."""
    name = f"E[h|v] {hashlib.sha256(v.numpy().tobytes()).hexdigest()}"
    if name not in subject.kept:
        subject.kept[name] = in_parts(hidden_mean(subject), v, subject)
    return subject.kept[name]


class Features(Probe):
    """What E[h|v] says of an image's class: the mean of the posterior that was trained; where none was, the model's own
    (RBM, GRBM), that by mean field of all layers (DBM), or of a model with a prior over real h that by annealing.

    ``latent/linear_probe_accuracy`` and ``latent/knn_accuracy`` are accuracies on the test data of a multinomial
    logistic regression on standardised features and of the nearest neighbours by Euclidean distance, both fitted to
    training data; ``..._pixels`` are the same of the images themselves. ``embedding`` is a t-SNE (van der Maaten and
    Hinton 2008) of the features of test images.

    Options:
        examples: test images that are embedded, the first ones.
        perplexity: of t-SNE.
        train_examples: training images that the classifiers see, at most, drawn at random.
        neighbours: of which the most frequent class is taken.
    """

    examples: int = Field(1000, ge=5)
    perplexity: float = Field(30.0, gt=0)
    train_examples: int = Field(10_000, gt=0)
    neighbours: int = Field(5, gt=0)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        own = model.latent is not None and any(hasattr(model, name) for name in ("mean_field", "hidden_logits"))
        real = isinstance(model.latent, Gaussian) and hasattr(model, "prior_energy")
        return None if own or real else no_posterior(estimator, model)

    def measure(self, subject: Subject) -> Metrics:
        data, test = subject.data, hidden_means(subject, subject.data.test)
        self._embed(subject, test[: self.examples])
        if data.labels is None:
            warnings.warn(
                f"the data set {data.name} has no classes here: its embedding is drawn without, and no accuracy is "
                f"measured",
                stacklevel=2,
            )
            return {}
        source = generator(subject.seed, 0, "examples to learn from")
        chosen = torch.randperm(len(data.train), generator=source)[: self.train_examples]
        train, classes = data.train[chosen], (data.labels[0][chosen], data.labels[2])
        of_features = self._accuracies(hidden_means(subject, train), test, *classes)
        subject.alive()
        of_pixels = self._accuracies(train.flatten(1), data.test.flatten(1), *classes)
        return {f"latent/{name}": value for name, value in of_features.items()} | {
            f"latent/{name}_pixels": value for name, value in of_pixels.items()
        }

    def _accuracies(self, train: Tensor, test: Tensor, train_classes: Tensor, test_classes: Tensor) -> Metrics:
        from sklearn.neighbors import KNeighborsClassifier

        nearest = KNeighborsClassifier(min(self.neighbours, len(train))).fit(train.numpy(), train_classes.numpy())
        return {
            "linear_probe_accuracy": linear_accuracy(*standardised(train, test), train_classes, test_classes),
            "knn_accuracy": float(nearest.score(test.numpy(), test_classes.numpy())),
        }

    def _embed(self, subject: Subject, features: Tensor) -> None:
        from sklearn.manifold import TSNE

        perplexity = min(self.perplexity, (len(features) - 1) / 3)
        start = "pca" if features.shape[1] > 1 else "random"
        embedding = TSNE(perplexity=perplexity, init=start, random_state=subject.seed).fit_transform(features.numpy())
        subject.folder.mkdir(parents=True, exist_ok=True)
        labels, step = subject.data.labels, subject.fitted.step
        arrays = {"embedding": torch.from_numpy(embedding), "features": features}
        arrays |= {} if labels is None else {"labels": labels[2][: len(features)]}
        file = save_arrays(subject.folder, "embedding", step, **arrays)
        classes = None if labels is None else arrays["labels"].numpy()
        draw_embedding(embedding, classes, file, f"t-SNE of E[h|v], step {step:,}")


def standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both in units in which the training features [n, m] have mean 0 and standard deviation 1 each."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train.numpy())
    found = (torch.from_numpy(scaler.transform(part.numpy())) for part in (train, test))
    return next(found), next(found)


def linear_accuracy(train: Tensor, test: Tensor, train_classes: Tensor, test_classes: Tensor) -> float:
    """The accuracy on test features of a multinomial logistic regression fitted to training features."""
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(max_iter=2000).fit(train.numpy(), train_classes.numpy())
    return float(fit.score(test.numpy(), test_classes.numpy()))


def in_parts(function: Callable[[Tensor], Tensor], v: Tensor, subject: Subject) -> Tensor:
    """A function of vectors [n, ...] without gradients, on the model's device, some at once; float32 on the CPU."""
    like, found = next(subject.fitted.model(subject.seed).parameters()), list[Tensor]()
    for part in torch.split(v, _AT_ONCE):
        with torch.no_grad():
            found.append(function(part.to(like)).float().cpu())
        subject.alive()
    return torch.cat(found)


# --- drawing --------------------------------------------------------------------------------------------------------


def draw_embedding(points: np.ndarray, classes: np.ndarray | None, file: Path, title: str) -> None:
    """Points [n, 2] in the plane, coloured by class [n] where there are classes."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.6), dpi=150, layout="constrained")
    axes, kinds = figure.add_subplot(), [] if classes is None else np.unique(classes).tolist()
    colours = matplotlib.colormaps["tab10" if len(kinds) <= 10 else "turbo"].resampled(max(len(kinds), 10))
    if classes is None:
        axes.scatter(points[:, 0], points[:, 1], s=4, color="0.3", linewidths=0)
    for rank, kind in enumerate(kinds):
        x, y = points[classes == kind].T
        axes.scatter(x, y, s=6, color=colours(rank), label=str(kind), linewidths=0)
    axes.set(title=title, xticks=[], yticks=[])
    if kinds:
        figure.legend(loc="outside right center", fontsize=7, markerscale=2, frameon=False)
    figure.savefig(file)
