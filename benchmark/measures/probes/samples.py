"""Samples of models of images, and what networks that know images say of them."""

import dataclasses
import hashlib
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from benchmark.measures.pictures import draw_sheet, how_drawn, save_arrays
from benchmark.measures.probes.base import Metrics, Probe, Subject
from benchmark.measures.two_samples import BANDWIDTHS, median_distance, squared_mmd
from bism import Estimator
from bism.checkpoint import save_checkpoint
from bism.errors import InputError
from bism.langevin import PAPER, Stretch, denoise, langevin, temperatures
from bism.rng import Rng, generator
from bism.sampling import LangevinChains, no_sampler, sampler

_SHOWN = 64
_PAIRED = 2000  # images of whose distances the median is taken
_SIGNS = 50  # steps between two signs of life


class StretchOptions(BaseModel):
    """A stretch of the schedule, as ``langevin.Stretch``: ``steps`` at temperatures from ``first`` to ``last``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(gt=0)
    first: float = Field(ge=0)
    last: float = Field(ge=0)
    spacing: Literal["geometric", "linear"] = "geometric"

    @model_validator(mode="after")
    def _is_a_stretch(self) -> "StretchOptions":
        try:
            Stretch(**self.model_dump())
        except InputError as error:
            raise ValueError(str(error)) from None
        return self


class Langevin(Probe):
    """The options of what samples by annealed Langevin dynamics (Appendix B.2); the defaults are the paper's.

    Options:
        schedule: the temperatures, stretch by stretch.
        step_size: of v.
        start_mean, start_std: of the Gaussian that v starts from.
        denoise: whether a last step v - sigma0^2 dE/dv follows, of methods that have a sigma0.
        batch: chains at once.
        precision: bf16 for products in bfloat16, tf32 for TF32 on a GPU.
    """

    schedule: list[StretchOptions] = Field(
        [StretchOptions.model_validate(dataclasses.asdict(stretch)) for stretch in PAPER], min_length=1
    )
    step_size: float = Field(0.02, gt=0)
    start_mean: float = 0.5
    start_std: float = Field(1.0, ge=0)
    denoise: bool = True
    batch: int = Field(100, gt=0)
    precision: Literal["float32", "tf32", "bf16"] = "float32"

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        if len(model.visible_shape) != 3:
            return "it is of models of images"
        return None

    @property
    def heat(self) -> Tensor:
        """All temperatures in order, [steps]."""
        return temperatures([Stretch(**part.model_dump()) for part in self.schedule])

    def run(
        self,
        energy: Callable[[Mapping[str, Tensor]], Tensor],
        start: Mapping[str, Tensor],
        subject: Subject,
        *,
        batch: int = 0,
        batches: int = 1,
        file: Path | None = None,
        step_size: float | Mapping[str, float] | None = None,
    ) -> dict[str, Tensor]:
        """The free variables at the end of the schedule; ``file`` is where an interrupted run is kept and goes on.

        It is batch number ``batch`` of ``batches``.
        """
        x, first, heat = dict(start), 0, self.heat
        if file is not None and file.exists():
            kept = torch.load(file, weights_only=True)
            if kept["batch"] == batch:
                first, x = kept["step"], {name: value.to(x[name]) for name, value in kept["x"].items()}
        steps = langevin(
            energy, x, heat, step_size=step_size or self.step_size, seed=subject.seed, batch=batch, first=first,
            precision=self.precision,
        )  # fmt: skip
        for number, now in enumerate(steps, start=first + 1):
            x = now
            if number % _SIGNS == 0:
                if file is not None:
                    save_checkpoint({"batch": batch, "step": number, "x": {n: v.cpu() for n, v in x.items()}}, file)
                subject.alive("sampling", batch * len(heat) + number, batches * len(heat))
        return x

    def starting(self, subject: Subject, model: Any, count: int, batch: int) -> Tensor:
        """Where v starts, [count, *visible_shape]."""
        parameter = next(model.parameters())
        rng = Rng(generator(subject.seed, batch, "langevin start", parameter.device), parameter.dtype)
        return self.start_mean + self.start_std * rng.normal((count, *model.visible_shape))

    def cleaned(self, energy: Callable[[Tensor], Tensor], v: Tensor, subject: Subject) -> Tensor:
        """v after the last, denoising step, where there is one."""
        sigma0 = subject.fitted.estimator.hyper.get("sigma0")
        return denoise(energy, v, sigma0).detach() if self.denoise and sigma0 else v


class Samples(Langevin):
    """Samples, as a sheet of images and as ``samples_step_*.npy`` (uint8 [count, channels, height, width]) in the
    cell's folder ``samples``; and their distance from the official training set (of which a part is validation data
    here): FID, KID, Inception Score, a Fréchet distance over the features of a ResNet-56; ``<split>/fid`` and so on. Of
    images of any size, and no weights needed: ``<split>/mmd``, their squared MMD from that split's images, by pixels.

    They are drawn as the method or the model says (``bism.sampling``). Where that is by Langevin dynamics, the options
    below say how, and of a model with latent variables v is sampled given h, which is the posterior's mean at random
    training images (``h: posterior``, as in the paper), or v and h together (``h: joint``).

    Options, beside those of Langevin dynamics:
        count: of samples.
        metrics: what is measured.
        split: what the metrics are named by: val for early stopping, test for results.
        h: as above.
        step_size_h: of h where it is sampled too.
    """

    count: int = Field(1000, ge=10)  # as few as an Inception Score can be computed of
    metrics: list[Literal["fid", "kid", "inception_score", "frechet_resnet56", "mmd"]] = Field([])
    split: Literal["val", "test"] = "test"
    h: Literal["posterior", "joint"] = "posterior"
    step_size_h: float = Field(0.02, gt=0)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        own = type(estimator).sampler is not Estimator.sampler
        chosen = None if own else sampler(model)
        if not own and chosen is None:
            return no_sampler(model)
        if isinstance(chosen, LangevinChains) and model.latent is not None and "posterior" not in estimator.trains:
            return "v is sampled given the posterior's h, and this method trains no posterior"
        return Langevin.unsuitable(estimator, model)

    def measure(self, subject: Subject) -> Metrics:
        step = subject.fitted.step
        images = self.draw(subject)
        subject.folder.mkdir(parents=True, exist_ok=True)
        shown = images[:_SHOWN].float() / 255
        sheet = save_arrays(subject.folder, "samples", step, how=self._how(subject), samples=shown)
        draw_sheet(_shown(images[:_SHOWN]), sheet, f"samples, step {step:,}")
        by_pixels = (
            {f"{self.split}/mmd": _mmd(images, getattr(subject.data, self.split))} if "mmd" in self.metrics else {}
        )
        by_networks = [name for name in self.metrics if name != "mmd"]
        if not by_networks:
            return by_pixels
        from benchmark.measures.sample_quality import judge  # torch-fidelity takes seconds to import

        device = next(subject.fitted.model(subject.seed).parameters()).device
        judged = judge(
            images,
            _in_bytes(torch.cat([subject.data.train, subject.data.val])),
            inception_weights=subject.judges.inception,
            resnet56=subject.judges.resnet56,
            cache=subject.folder.parents[2] / "statistics",
            device=device,
            names=by_networks,
        )
        for name, reason in judged.missing.items():
            warnings.warn(f"{name} was not computed: {reason}", stacklevel=2)
        return by_pixels | {f"{self.split}/{name}": value for name, value in judged.metrics.items()}

    def _how(self, subject: Subject) -> str:
        """How they are drawn, for captions."""
        chosen = subject.fitted.sampler(subject.seed)
        if not isinstance(chosen, LangevinChains) or subject.fitted.model(subject.seed).latent is None:
            return how_drawn(chosen)
        given = "of v given E[h|v] of training images" if self.h == "posterior" else "of v and h together"
        return f"{chosen.how} {given}"

    def draw(self, subject: Subject) -> Tensor:
        """``count`` samples, uint8 [count, c, H, W], batch by batch; goes on where an earlier process has stopped."""
        folder = subject.folder.parent / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"samples_step_{subject.fitted.step:08d}_{self.count}_{self._key}.npy"
        if file.exists():
            return torch.from_numpy(np.load(file))
        model, done = subject.fitted.model(subject.seed), list[Tensor]()
        for number, start in enumerate(range(0, self.count, self.batch)):
            part = file.with_suffix(f".part{number}.pt")
            if not part.exists():
                images = self._batch(subject, model, min(self.batch, self.count - start), number, file)
                save_checkpoint({"images": images}, part)
            done.append(torch.load(part, weights_only=True)["images"])
            subject.alive()
        images = torch.cat(done)
        whole = file.with_suffix(".whole.npy")
        np.save(whole, images.numpy())
        whole.replace(file)
        for leftover in [*folder.glob(f"{file.stem}.part*.pt"), file.with_suffix(".state.pt")]:
            leftover.unlink(missing_ok=True)
        return images

    @property
    def _key(self) -> str:
        """Of all that the samples depend on: another probe of the same step has samples of its own."""
        options = self.model_dump_json(exclude={"metrics", "split"})
        return hashlib.sha256(options.encode()).hexdigest()[:8]

    def _batch(self, subject: Subject, model: Any, count: int, number: int, file: Path) -> Tensor:
        """Of ``count`` images, batch ``number``."""
        if not isinstance(subject.fitted.sampler(subject.seed), LangevinChains):
            return _in_bytes(subject.fitted.draw(count, subject.seed, index=number)).cpu()
        start = {"v": self.starting(subject, model, count, number)}
        sizes = {"v": self.step_size, "h": self.step_size_h}
        where: dict[str, Any] = {
            "batch": number,
            "batches": -(-self.count // self.batch),
            "file": file.with_suffix(".state.pt"),
        }
        if model.latent is None:
            x = self.run(lambda at: model.energy(at["v"]), start, subject, **where)
            v = self.cleaned(model.energy, x["v"], subject)
        else:
            rng = Rng(generator(subject.seed, number, "langevin h", start["v"].device), start["v"].dtype)
            train = subject.data.train
            chosen = train[rng.integers(len(train), (count,)).cpu()].to(start["v"])
            with torch.no_grad():
                h = subject.fitted.posterior(subject.seed).mean(chosen)
            if self.h == "joint":
                begin = {**start, "h": h}
                x = self.run(lambda at: model.energy(at["v"], at["h"]), begin, subject, step_size=sizes, **where)
                h = x["h"]
            else:
                x = self.run(lambda at: model.energy(at["v"], h), start, subject, **where)
            v = self.cleaned(lambda at: model.energy(at, h), x["v"], subject)
        return _in_bytes(v).cpu()


def _mmd(images: Tensor, data: Tensor) -> float:
    """Of uint8 images and of data from 0 to 1, both with 256 levels; bandwidths are those of points in the plane. NaN
    of one image, which says nothing of a law."""
    if len(data) < 2:
        return math.nan
    samples, seen = images.flatten(1) / 255, _in_bytes(data).flatten(1).cpu() / 255
    distance = median_distance(seen[:_PAIRED])
    return squared_mmd(samples, seen, [b * distance for b in BANDWIDTHS])


def _in_bytes(v: Tensor) -> Tensor:
    """Pixels from 0 to 1 as uint8; what lies beyond is cut off."""
    return (v.clamp(0, 1) * 255).round().to(torch.uint8)


def _shown(images: Tensor) -> Tensor:
    """uint8 images as ``draw_sheet`` takes them: from 0 to 1, grey ones without their axis of channels."""
    return (images.squeeze(1) if images.shape[1] == 1 else images).float() / 255
