"""What a data set is: three splits of vectors, and what can be made of them."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from benchmark.data.files import MissingData
from benchmark.system.memory import check_fits
from bism.errors import InputError
from bism.scaling import Scaling

SCALES: dict[str, Callable[[Tensor], Scaling]] = {"standard": Scaling.standard, "unit": Scaling.unit}
SAMPLE = "sample"  # how data are made binary: each value is the probability of a 1
MOST = 1e15  # values of which energies can sum squares in float32
_DRAWN = 4096  # rows at once


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Float32 vectors [n, *shape] in three splits.

    ``image`` is the picture that a vector unrolls, if it does: (height, width) or (channels, height, width).
    ``labels`` are int64 [n], split alike, where the files have them and the reader keeps them.
    ``scaling`` is what the values went through, fitted on ``train``; the image has the data's own.
    ``entropy`` is that of the law that made them, in nats and the data's own units, where it is known.
    ``held_out`` is the class that was left out of ``train`` and ``val``.
    ``binarized`` says how data were made binary: the threshold that values were above where they are 1 now, or SAMPLE.
    """

    name: str
    train: Tensor
    val: Tensor
    test: Tensor
    image: tuple[int, ...] | None = None
    labels: tuple[Tensor, Tensor, Tensor] | None = None
    scaling: Scaling | None = None
    binarized: float | str | None = None
    entropy: float | None = None
    held_out: int | None = None

    def without(self, held_out: int) -> "DataSet":
        """The same without one class in training and validation; the test data are as they were.

        Raises:
            MissingData: there are no classes, or not this one, or no others.
        """
        if self.labels is None:
            raise MissingData(f"data set {self.name} has no classes here, of which held_out could be one")
        kinds = torch.unique(torch.cat(self.labels)).tolist()
        if held_out not in kinds or not (self.labels[2] == held_out).any():
            raise MissingData(f"data set {self.name} has no class {held_out} to be held out; it has {kinds}")
        keep = [labels != held_out for labels in self.labels[:2]]
        if not all(bool(kept.any()) for kept in keep):
            raise MissingData(f"data set {self.name}: without the class {held_out} nothing is left to train with")
        train, val = (split[kept] for split, kept in zip((self.train, self.val), keep, strict=True))
        labels = (self.labels[0][keep[0]], self.labels[1][keep[1]], self.labels[2])
        return dataclasses.replace(self, train=train, val=val, labels=labels, held_out=held_out, entropy=None)

    def binarised(self, how: float | str) -> "DataSet":
        """The same with 1 where a value is above the threshold ``how``, and 0 elsewhere; with SAMPLE 1 with the value
        as its probability, drawn once: the same at every call.

        Raises:
            MissingData: values to be drawn with are no probabilities.
        """
        splits, random = (self.train, self.val, self.test), np.random.RandomState(0)
        if isinstance(how, str):
            train, val, test = (self._drawn(split, random) for split in splits)
        else:
            train, val, test = ((split > how).float() for split in splits)
        return dataclasses.replace(self, train=train, val=val, test=test, binarized=how, entropy=None)

    def _drawn(self, probabilities: Tensor, random: np.random.RandomState) -> Tensor:
        """Zeros and ones, part by part, so that the uniform numbers take little memory."""
        low, high = (float(end) for end in probabilities.aminmax())
        if low < 0 or high > 1:
            raise MissingData(
                f"data set {self.name}: binarize: {SAMPLE} takes values from 0 to 1, as probabilities, and these go "
                f"from {low:.6g} to {high:.6g}: give a threshold, binarize: 0.5"
            )
        parts = [
            torch.from_numpy(random.uniform(size=part.shape)) < part for part in torch.split(probabilities, _DRAWN)
        ]
        return torch.cat(parts).float()

    def scaled(self, kind: str) -> "DataSet":
        """The same in units in which training is easy: see ``SCALES``.

        Raises:
            MissingData: float32 has no room for them.
        """
        for name, split in zip(("training", "validation", "test"), (self.train, self.val, self.test), strict=True):
            infinite = (~split.float().isfinite()).flatten(1).any(1)
            if infinite.any():
                raise MissingData(
                    f"data set {self.name}: {int(infinite.sum())} rows of the {name} data have values that float32 "
                    f"cannot hold; in what pictures and samples show they would be infinite: divide the data first"
                )
        scaling = SCALES[kind](self.train)
        splits = [scaling.scaled(split).float() for split in (self.train, self.val, self.test)]
        for name, split in zip(("training", "validation", "test"), splits, strict=True):
            beyond = (~(split.abs() < MOST)).flatten(1).any(1)
            if beyond.any():
                raise MissingData(
                    f"data set {self.name}: scaled as the training data are, {int(beyond.sum())} rows of the {name} "
                    f"data lie beyond {MOST:g}: the training data vary too little for scale: {kind}"
                )
        train, val, test = splits
        return dataclasses.replace(self, train=train, val=val, test=test, scaling=scaling)

    @functools.cached_property
    def in_own_units(self) -> "DataSet":
        """The same before it was scaled, in float64 (itself where it was not)."""
        if self.scaling is None:
            return self
        train, val, test = (self.scaling.own(split) for split in (self.train, self.val, self.test))
        return dataclasses.replace(self, train=train, val=val, test=test)

    def as_images(self) -> "DataSet":
        """The same with every vector as an image [channels, height, width].

        Raises:
            InputError: the vectors are no images.
        """
        if self.image is None:
            raise InputError(f"the data set {self.name} has no images, and the model takes them")
        shape = self.image if len(self.image) == 3 else (1, *self.image)
        train, val, test = (split.reshape(-1, *shape) for split in (self.train, self.val, self.test))
        scaling = self.scaling and self.scaling.reshaped(shape)
        return dataclasses.replace(self, train=train, val=val, test=test, image=shape, scaling=scaling)

    def padded(self, side: int) -> "DataSet":
        """The same images with zeros around them, ``side`` pixels high and wide; flat as they were.

        Raises:
            InputError: they are no images, or do not fit.
        """
        if self.image is None or max(self.image[-2:]) > side:
            raise InputError(f"data set {self.name} cannot be padded to {side} x {side}: {self.image or 'no images'}")
        height, width = self.image[-2:]
        images = len(self.train) + len(self.val) + len(self.test)
        needed = 4.0 * images * math.prod(self.image[:-2]) * side**2
        check_fits(needed, f"data set {self.name} padded to {side} x {side}", "a smaller pad")
        top, left = (side - height) // 2, (side - width) // 2
        margins = (left, side - width - left, top, side - height - top)
        image = self.image
        train, val, test = (
            pad(split.reshape(-1, *image), margins).flatten(1) for split in (self.train, self.val, self.test)
        )
        return dataclasses.replace(self, train=train, val=val, test=test, image=(*image[:-2], side, side))

    def cropped(self, side: int) -> "DataSet":
        """The central square of the same images, ``side`` pixels high and wide; flat as they were.

        Raises:
            InputError: they are no images, or smaller.
        """
        if self.image is None or min(self.image[-2:]) < side:
            raise InputError(f"data set {self.name} cannot be cropped to {side} x {side}: {self.image or 'no images'}")
        image, (top, left) = self.image, ((length - side) // 2 for length in self.image[-2:])
        train, val, test = (
            split.reshape(-1, *image)[..., top : top + side, left : left + side].flatten(1)
            for split in (self.train, self.val, self.test)
        )
        return dataclasses.replace(self, train=train, val=val, test=test, image=(*image[:-2], side, side))

    @property
    def hash(self) -> str:
        """sha256 over the three splits."""
        digest = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            digest.update(split.contiguous().view(-1).numpy().data)  # not copied: CIFAR-10 is large
        return digest.hexdigest()

    @property
    def description(self) -> dict[str, Any]:
        """Name, content hash and sizes, for the record."""
        sizes = {split: len(getattr(self, split)) for split in ("train", "val", "test")}
        scaling = {"scaling": self.scaling.record} if self.scaling else {}
        binary = {} if self.binarized is None else {"binarize": self.binarized}
        held_out = {} if self.held_out is None else {"held_out": self.held_out}
        shape = list(self.train.shape[1:])
        return {"name": self.name, "hash": self.hash, **sizes, "shape": shape, **scaling, **binary, **held_out}


def in_splits(
    name: str, rows: np.ndarray, sizes: tuple[int, int, int], image: tuple[int, ...] | None = None
) -> DataSet:
    """Cuts rows, in their order, into training, validation and test data."""
    return DataSet(name, *split_rows(torch.tensor(rows, dtype=torch.float32), sizes), image)


def split_rows(rows: Tensor, sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Training, validation and test data, of these sizes in this order."""
    train, val, test = torch.split(rows, list(sizes))
    return train, val, test
