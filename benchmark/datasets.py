"""Data sets: made, bundled with a library, or read from a file."""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from torch import Tensor

from bism.errors import InputError, nearest

DATA_VARIABLE = "BISM_DATA"
_FREYFACE_PIXELS = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"  # sha256 of uint8 [1965, 560]


class MissingData(InputError):
    """A data set is not where it should be."""


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Float32 vectors [n, *shape] in three splits; ``image`` is the picture that a vector unrolls, if it does."""

    name: str
    train: Tensor
    val: Tensor
    test: Tensor
    image: tuple[int, int] | None = None

    @property
    def hash(self) -> str:
        """sha256 over the three splits."""
        digest = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            digest.update(split.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def description(self) -> dict[str, Any]:
        """Name, content hash and sizes, for the record."""
        sizes = {split: len(getattr(self, split)) for split in ("train", "val", "test")}
        return {"name": self.name, "hash": self.hash, **sizes, "shape": list(self.train.shape[1:])}


def data_folder(given: Path | str | None = None) -> Path:
    """Where data sets lie: ``--data-dir``, else $BISM_DATA, else a folder in the user's cache."""
    return Path(given or os.environ.get(DATA_VARIABLE) or platformdirs.user_cache_path("bism") / "data")


def _in_splits(
    name: str, rows: np.ndarray, sizes: tuple[int, int, int], image: tuple[int, int] | None = None
) -> DataSet:
    """Cuts rows, in their order, into training, validation and test data."""
    train, val, test = torch.split(torch.tensor(rows, dtype=torch.float32), list(sizes))
    return DataSet(name, train, val, test, image)


def checkerboard(folder: Path, train: int = 60_000, val: int = 10_000, test: int = 10_000) -> DataSet:
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
    return _in_splits("digits", values[random.permutation(len(values))], (1297, 250, 250), (8, 8))


def freyface(folder: Path) -> DataSet:
    """The Frey faces, 28 x 20 pixels divided by 255, split in file order: 1,400/300/265 (Section 5.1)."""
    from scipy.io import loadmat

    places = [folder / "freyface" / "frey_rawface.mat", folder / "frey_rawface.mat"]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise MissingData(
            f"Frey face needs {places[0]}, which is not there: download frey_rawface.mat from "
            f"https://cs.nyu.edu/~roweis/data/frey_rawface.mat and name its folder with --data-dir or "
            f"${DATA_VARIABLE}"
        )
    try:
        pixels = np.ascontiguousarray(loadmat(file)["ff"].T)
    except Exception as error:  # scipy raises many kinds for damaged files
        raise MissingData(
            f"{file} is not a readable MATLAB file with the array 'ff' ({error}): download it again"
        ) from error
    if hashlib.sha256(pixels.tobytes()).hexdigest() != _FREYFACE_PIXELS:
        raise MissingData(f"{file} does not hold the Frey faces (its pixels' hash is wrong): download it again")
    return _in_splits("freyface", pixels / 255, (1400, 300, 265), (28, 20))


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


DATASETS: dict[str, Callable[..., DataSet]] = {"checkerboard": checkerboard, "digits": digits, "freyface": freyface}


def load(config: dict[str, Any], folder: Path) -> DataSet:
    """A data set from its entry in a suite: ``{"name": "digits"}`` or ``{"file": "points.npy"}`` with options.

    Raises:
        MissingData: not there, or not what it should be.
    """
    options = {key: value for key, value in config.items() if value is not None}
    if "file" in options:
        return from_file(folder, **options)
    name = options.pop("name")
    if name not in DATASETS:
        raise InputError(f"no data set '{name}': {nearest(name, DATASETS)}")
    return DATASETS[name](folder, **options)
