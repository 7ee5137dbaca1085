"""Data sets: made, bundled with a library, or read from a file."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from benchmark.catalogue import CATALOGUE, entry, verified
from benchmark.files import MissingData as MissingData  # those who load data find these here too
from benchmark.files import data_folder as data_folder
from benchmark.formats import read_cifar, read_freyface, read_idx
from bism.errors import InputError

_BOARD = CATALOGUE["checkerboard"].sizes


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Float32 vectors [n, *shape] in three splits.

    ``image`` is the picture that a vector unrolls, if it does: (height, width) or (channels, height, width).
    ``labels`` are int64 [n], split alike, where the files have them and the reader keeps them.
    """

    name: str
    train: Tensor
    val: Tensor
    test: Tensor
    image: tuple[int, ...] | None = None
    labels: tuple[Tensor, Tensor, Tensor] | None = None

    def as_images(self) -> "DataSet":
        """The same with every vector as an image [channels, height, width].

        Raises:
            InputError: the vectors are no images.
        """
        if self.image is None:
            raise InputError(f"the data set {self.name} has no images, and the model takes them")
        shape = self.image if len(self.image) == 3 else (1, *self.image)
        train, val, test = (split.reshape(-1, *shape) for split in (self.train, self.val, self.test))
        return dataclasses.replace(self, train=train, val=val, test=test, image=shape)

    def padded(self, side: int) -> "DataSet":
        """The same images with zeros around them, ``side`` pixels high and wide; flat as they were.

        Raises:
            InputError: they are no images, or do not fit.
        """
        if self.image is None or max(self.image[-2:]) > side:
            raise InputError(f"data set {self.name} cannot be padded to {side} x {side}: {self.image or 'no images'}")
        height, width = self.image[-2:]
        top, left = (side - height) // 2, (side - width) // 2
        margins = (left, side - width - left, top, side - height - top)
        image = self.image
        train, val, test = (
            pad(split.reshape(-1, *image), margins).flatten(1) for split in (self.train, self.val, self.test)
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
        return {"name": self.name, "hash": self.hash, **sizes, "shape": list(self.train.shape[1:])}


def _in_splits(
    name: str, rows: np.ndarray, sizes: tuple[int, int, int], image: tuple[int, ...] | None = None
) -> DataSet:
    """Cuts rows, in their order, into training, validation and test data."""
    return DataSet(name, *_split(torch.tensor(rows, dtype=torch.float32), sizes), image)


def _split(rows: Tensor, sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    train, val, test = torch.split(rows, list(sizes))
    return train, val, test


def checkerboard(folder: Path, train: int = _BOARD[0], val: int = _BOARD[1], test: int = _BOARD[2]) -> DataSet:
    """The paper's density: uniform on the two diagonal squares of a 2 x 2 board on the unit square (density 2 there).

    The best log-likelihood that any model can reach is log 2 = 0.693 nats.
    """
    random = np.random.RandomState(0)  # the legacy generator's stream never changes
    points = random.uniform(size=(train + val + test, 2))
    square = random.randint(2, size=(len(points), 1))
    return _in_splits("checkerboard", (points + square) / 2, (train, val, test))


def digits(folder: Path) -> DataSet:
    """scikit-learn's bundled 8 x 8 digits in a fixed split of 1,297/250/250.

    Pixels are integers 0 to 16; uniform noise of one grey level makes them continuous: (x + u) / 17 in [0, 1].
    """
    from sklearn.datasets import load_digits

    random = np.random.RandomState(0)
    images = load_digits().data
    values = (images + random.uniform(size=images.shape)) / 17
    known = CATALOGUE["digits"]
    order = random.permutation(len(values))
    labels = _split(torch.tensor(load_digits().target[order]), known.sizes)
    return dataclasses.replace(_in_splits("digits", values[order], known.sizes, known.shape), labels=labels)


def _pictures(name: str, batches: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> DataSet:
    """Images uint8 [n, ...] with labels [n] or None, in batches: flattened, divided by 255, split in their order.

    Filled batch by batch, so that no more than one of them is in memory beside the result.
    """
    known = CATALOGUE[name]
    rows, classes, end = torch.empty(sum(known.sizes), known.dimensions), list[Tensor](), 0
    for images, labels in batches:
        end += len(images)
        rows[end - len(images) : end] = torch.tensor(images).reshape(len(images), -1)
        if labels is not None:
            classes.append(torch.tensor(labels, dtype=torch.int64))
    labels_of = _split(torch.cat(classes), known.sizes) if classes else None
    return DataSet(name, *_split(rows.div_(255), known.sizes), known.shape, labels_of)


def freyface(folder: Path) -> DataSet:
    """The Frey faces, 28 x 20 pixels divided by 255, split in file order: 1,400/300/265 (Section 5.1)."""
    (file,) = verified("freyface", folder)
    return _pictures("freyface", [(read_freyface(file), None)])


def mnist(folder: Path) -> DataSet:
    """MNIST, 28 x 28 pixels divided by 255, in file order: 55,000 and 5,000 of the training, 10,000 test images."""
    return _idx_pictures("mnist", folder)


def fashion(folder: Path) -> DataSet:
    """Fashion-MNIST, 28 x 28 pixels divided by 255, in file order and split as MNIST."""
    return _idx_pictures("fashion", folder)


def _idx_pictures(name: str, folder: Path) -> DataSet:
    images, labels, test_images, test_labels = (read_idx(file) for file in verified(name, folder))
    return _pictures(name, [(images, labels), (test_images, test_labels)])


def cifar10(folder: Path) -> DataSet:
    """CIFAR-10, pixels divided by 255, in file order: 45,000 and 5,000 of the training, 10,000 test images.

    A vector of 3,072 is an image [3, 32, 32], flattened.
    """
    batches = (read_cifar(file) for file in verified("cifar10", folder))
    return _pictures("cifar10", ((records[:, 1:], records[:, 0]) for records in batches))


def from_file(folder: Path, file: str, split: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> DataSet:
    """An array [n, D] from an ``.npy`` file, shuffled once and split by the given fractions."""
    path = Path(file)
    if not path.is_file():
        raise MissingData(f"{path}: no such file; data.file must name an .npy file with an array [n, D]")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise MissingData(f"{path}: not a readable .npy file ({error})") from error
    if array.ndim != 2 or array.dtype.kind not in "fiu" or len(array) < 10:
        raise MissingData(
            f"{path}: needs a numeric array [n, D] with at least 10 rows, got {array.dtype} {list(array.shape)}"
        )
    if not np.isfinite(array).all():
        row = int((~np.isfinite(array)).any(1).nonzero()[0][0])
        raise MissingData(f"{path}: row {row} has NaN or infinity")
    order = np.random.RandomState(0).permutation(len(array))
    val, test = (max(1, round(fraction * len(array))) for fraction in split[1:])
    return _in_splits(path.stem, array[order], (len(array) - val - test, val, test))


DATASETS: dict[str, Callable[..., DataSet]] = {
    "checkerboard": checkerboard,
    "digits": digits,
    "freyface": freyface,
    "mnist": mnist,
    "fashion": fashion,
    "cifar10": cifar10,
}


def load(config: dict[str, Any], folder: Path) -> DataSet:
    """A data set from its entry in a suite: ``{"name": "digits"}`` or ``{"file": "points.npy"}`` with options.

    Raises:
        MissingData: not there, or not what it should be.
    """
    options = {key: value for key, value in config.items() if value is not None}
    side = options.pop("pad", None)
    if "file" in options:
        found = from_file(folder, **options)
    else:
        name = options.pop("name")
        found = DATASETS[entry(name).name](folder, **options)
    return found.padded(side) if side else found
