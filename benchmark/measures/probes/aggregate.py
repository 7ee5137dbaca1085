"""Whether codes of the data lie where the prior puts them."""

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from benchmark.data.datasets import DataSet
from benchmark.measures.pictures import save_arrays
from benchmark.measures.probes.base import Metrics, Probe, Subject
from benchmark.measures.probes.latents import in_parts, seeded
from benchmark.measures.two_samples import BANDWIDTHS, median_distance, squared_mmd
from bism import Estimator
from bism.latent_likelihood import annealed_importance
from bism.priors import no_prior
from bism.variables import Gaussian

_LIMIT = 0.002  # of the points, on either side, that may lie outside a picture


class Aggregate(Probe):
    """The prior, N(0, I) and the aggregate posterior in the plane of two codes: ``aggregate`` shows samples of each.

    The aggregate posterior is the law of h ~ q(h|v) with v of the test data; without a posterior h are where annealing
    from N(0, I) to p(h|v) ends. ``latent/mmd_prior`` is its squared maximum mean discrepancy from the prior, and
    ``latent/mmd_normal`` that from N(0, I), with Gaussian kernels of several bandwidths in units of the median distance
    of the aggregate posterior. Of codes of codes, h = (z, u), these are z.

    Options:
        examples: test examples, the first ones, and samples of the others.
        steps: temperatures of annealing.
    """

    examples: int = Field(2000, gt=2, le=5000)
    steps: int = Field(100, gt=0, le=100_000)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        if not isinstance(model.latent, Gaussian) or model.latent.size != 2:
            return "it draws models of two real codes"
        return no_prior(model) if hasattr(model, "prior") else "the model has no prior to sample h from"

    @staticmethod
    def lacking(data: DataSet) -> str | None:
        return Probe.of_two(data)

    def measure(self, subject: Subject) -> Metrics:
        model, posterior = subject.fitted.joint(subject.seed)  # in the units of the training
        data, scaling = subject.data, subject.data.scaling
        v = data.test[: self.examples]

        def code(rows: Tensor) -> Tensor:
            rows = rows.to(next(model.parameters()))
            if posterior is None:
                seed = subject.seed + next(part) * 1_000_003  # other noise for each part
                return annealed_importance(model, rows, chains=1, steps=self.steps, seed=seed).h[0]
            noise = model.latent.noise(rng, (len(rows),))
            h: Tensor = posterior.sample(rows, noise, 1.0)
            return h

        part, rng = count(), seeded(subject, "aggregate posterior", next(model.parameters()))
        codes = in_parts(code, scaling.scaled(v) if scaling else v, subject)[:, :2]  # z of a hierarchy's (z, u)
        with torch.no_grad():
            prior = model.prior.draw(len(v), rng)[:, :2].float().cpu()
        normal = torch.randn(len(v), 2, generator=seeded(subject, "N(0, I)", v.cpu()).source)
        arrays = {"prior": prior, "normal": normal, "aggregate": codes}
        labels = None if data.labels is None else data.labels[2][: len(v)]
        subject.folder.mkdir(parents=True, exist_ok=True)
        step = subject.fitted.step
        kept = arrays if labels is None else {**arrays, "labels": labels}
        file = save_arrays(subject.folder, "aggregate", step, **kept)
        draw_codes(
            {name: x.numpy() for name, x in arrays.items()},
            None if labels is None else labels.numpy(), file, f"step {step:,}",
        )  # fmt: skip
        return self.distances(arrays)

    def distances(self, arrays: dict[str, Tensor]) -> Metrics:
        """How far the aggregate posterior is from the others."""
        codes = arrays["aggregate"]
        sizes = [size * median_distance(codes) for size in BANDWIDTHS]
        return {f"latent/mmd_{name}": squared_mmd(codes, arrays[name], sizes) for name in ("prior", "normal")}


_TITLES = {"prior": "prior", "normal": "N(0, I)", "aggregate": "q(h|v) of test data"}


def draw_codes(codes: dict[str, np.ndarray], classes: np.ndarray | None, file: Path, title: str) -> None:
    """Points [n, 2] side by side on the same range, those of the aggregate posterior coloured by class."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.2), dpi=150)
    panels = figure.subplots(1, len(codes), sharex=True, sharey=True)
    together = np.concatenate(list(codes.values()))
    low, high = np.quantile(together, (_LIMIT, 1 - _LIMIT), axis=0)
    middle, half = (low + high) / 2, 0.55 * float(np.max(high - low))
    for axes, (name, points) in zip(panels, codes.items(), strict=True):
        if classes is None or name != "aggregate":
            axes.scatter(*points.T, s=3, color="0.3", linewidths=0)
        else:
            kinds = np.unique(classes).tolist()
            colours = matplotlib.colormaps["tab10" if len(kinds) <= 10 else "turbo"].resampled(max(len(kinds), 10))
            for rank, kind in enumerate(kinds):
                axes.scatter(*points[classes == kind].T, s=3, color=colours(rank), label=str(kind), linewidths=0)
            figure.legend(loc="center right", fontsize=7, markerscale=3, frameon=False)
        axes.set_title(_TITLES[name], fontsize=10)
        axes.set(xlabel="$h_1$", aspect="equal")
        axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    panels[0].set_ylabel("$h_2$")
    panels[0].set_title(f"prior, {title}", fontsize=10)
    figure.subplots_adjust(left=0.06, right=0.93, bottom=0.15, top=0.91, wspace=0.08)
    figure.savefig(file)
