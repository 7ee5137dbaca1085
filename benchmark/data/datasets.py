"""Data sets: made, bundled with a library, or read from a file."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.data.catalogue import CATALOGUE, verified
from benchmark.data.dataset import MOST, in_splits, split_rows
from benchmark.data.dataset import SAMPLE as SAMPLE  # those who load data find these here too
from benchmark.data.dataset import SCALES as SCALES
from benchmark.data.dataset import DataSet as DataSet
from benchmark.data.files import MissingData as MissingData
from benchmark.data.files import data_folder as data_folder
from benchmark.data.formats import Damaged, read_cifar, read_freyface, read_idx, read_npy
from benchmark.data.points import POINTS
from benchmark.system.limits import check_file
from benchmark.system.memory import check_fits
from bism.errors import InputError, nearest
from bism.ising import lattice

FERROMAGNET = 0.2  # J between neighbours
_BOARD = CATALOGUE["checkerboard"].sizes


def checkerboard(folder: Path, train: int = _BOARD[0], val: int = _BOARD[1], test: int = _BOARD[2]) -> DataSet:
    """The paper's density: uniform on the two diagonal squares of a 2 x 2 board on the unit square (density 2 there).

    The best log-likelihood that any model can reach is log 2 = 0.693 nats.
    """
    check_fits(48.0 * (train + val + test), f"the checkerboard with {train + val + test:,} points", "fewer of them")
    random = np.random.RandomState(0)  # the legacy generator's stream never changes
    points = random.uniform(size=(train + val + test, 2))
    square = random.randint(2, size=(len(points), 1))
    return in_splits("checkerboard", (points + square) / 2, (train, val, test))


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
    labels = split_rows(torch.tensor(load_digits().target[order]), known.sizes)
    return dataclasses.replace(in_splits("digits", values[order], known.sizes, known.shape), labels=labels)


def bars_and_stripes(folder: Path) -> DataSet:
    """Bars and stripes, 4 x 4: 32 binary images, each column alike or each row, in each of 2^4 ways.

    The distribution is known, and all three splits are its 32 rows: an image that is both, all 0 or all 1, is there
    twice. The best log-likelihood that any model can reach is 28/32 log(1/32) + 4/32 log(2/32) = -3.379 nats, or
    -108.13 for the 32 rows.
    """
    side, _ = CATALOGUE["bars_and_stripes"].shape
    lines = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * side)
    stripes = lines[:, :, None].expand(-1, -1, side)
    rows = torch.cat([stripes, stripes.transpose(1, 2)]).flatten(1)
    return DataSet("bars_and_stripes", rows, rows, rows, (side, side))


def ferromagnet(folder: Path) -> DataSet:
    """An Ising model without fields on a periodic 4 x 4 x 4 lattice with J = 0.2 between neighbours, of Ingraham and
    Marks (2017), and spins up as 1: independent samples, the ends of as many Gibbs chains of 300 sweeps from coins.

    J is below the critical 0.2217 of the infinite lattice. A sweep is of one half of the lattice, whose sites are no
    neighbours, given the other, and then of the other.
    """
    sizes, random = CATALOGUE["ferromagnet"].sizes, np.random.RandomState(0)
    count, neighbours = sum(sizes), lattice(4).double().numpy()
    even = np.indices((4, 4, 4)).sum(0).ravel() % 2 == 0
    spins = np.where(random.uniform(size=(count, len(even))) < 0.5, 1.0, -1.0)
    for _ in range(300):
        for half in (even, ~even):
            up = 1 / (1 + np.exp(-2 * FERROMAGNET * (spins @ neighbours[:, half])))
            spins[:, half] = np.where(random.uniform(size=up.shape) < up, 1.0, -1.0)
    return in_splits("ferromagnet", (spins + 1) / 2, sizes)


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
    labels_of = split_rows(torch.cat(classes), known.sizes) if classes else None
    return DataSet(name, *split_rows(rows.div_(255), known.sizes), known.shape, labels_of)


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


def from_file(
    folder: Path, file: str, split: tuple[float, float, float] = (0.8, 0.1, 0.1), exact: bool = False
) -> DataSet:
    """An array [n, D] from an ``.npy`` file, or images [n, height, width] or [n, channels, height, width], shuffled
    once and split by the given fractions.

    Args:
        exact: in float64, for what is scaled before it is trained on; values may then be as large as 1e150.

    Raises:
        MissingData: naming the file, and the row where one is to blame.
    """
    path = Path(file)
    try:
        check_file(path, "file")
    except InputError as error:
        raise MissingData(f"{error}; data.file must name an .npy file with an array [n, D] or of images") from None
    try:
        array = read_npy(path)
    except (Damaged, OSError, ValueError) as error:
        raise MissingData(f"{path}: not a readable .npy file ({error})") from error
    image = _image(path, array)
    try:
        rows = _checked(path, array, exact)
    except (MemoryError, RuntimeError) as error:  # numpy's and torch's want of memory
        raise MissingData(f"{path}: {array.nbytes / 2**30:,.1f} GiB do not fit into memory") from error
    val, test = (max(1, round(fraction * len(rows))) for fraction in split[1:])
    sizes = (len(rows) - val - test, val, test)
    if sizes[0] < 2:
        raise MissingData(f"{path}: of its {len(rows)} rows the split {list(split)} leaves {sizes[0]} for training")
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(rows)))
    return DataSet(path.stem, *split_rows(rows[order], sizes), image)


def _image(path: Path, array: np.ndarray) -> tuple[int, ...] | None:
    """The shape of an image where each row is one."""
    if array.ndim not in (3, 4) or not array.size:
        return None
    shape = array.shape[1:]
    if len(shape) == 3 and shape[-1] <= _CHANNELS < shape[0]:
        raise MissingData(
            f"{path}: images have their channels first, [n, channels, height, width], got {list(array.shape)}; "
            f"np.moveaxis(images, -1, 1) brings them there"
        )
    return shape


_CHUNK = 1 << 22  # numbers
_CHANNELS = 4  # of an image, where the last axis may be theirs
_MOST_EXACT = 1e150  # as MOST, in float64


def _checked(path: Path, array: np.ndarray, exact: bool) -> Tensor:
    """The rows in the type that they are trained in, or in float64, if all of them can be."""
    if array.ndim not in (2, 3, 4) or array.dtype.kind not in "fiu" or len(array) < 10:
        raise MissingData(
            f"{path}: needs a numeric array [n, D], or of images [n, height, width] or [n, channels, height, width], "
            f"with at least 10 rows, got {array.dtype} {list(array.shape)}"
        )
    if not array.size:
        raise MissingData(f"{path}: needs at least one column, got {array.dtype} {list(array.shape)}")
    array = array.reshape(len(array), -1)
    check_fits(2.0 * array.size * (8 if exact else 4), f"{path}, {array.dtype} {list(array.shape)},", "fewer rows")
    rows = torch.empty(array.shape, dtype=torch.float64 if exact else torch.float32)
    step = max(1, _CHUNK // array.shape[1])
    for start in range(0, len(array), step):
        part = np.asarray(array[start : start + step])
        with np.errstate(over="ignore"):  # of long doubles, which are then infinite
            doubles = part.astype(np.float64)
        _check_values(path, part, doubles, start, exact)
        rows[start : start + step] = torch.from_numpy(doubles)
    if not exact:
        _check_precision(path, array, rows, step)
    return rows


def _check_values(path: Path, part: np.ndarray, doubles: np.ndarray, start: int, exact: bool) -> None:
    if not np.isfinite(part).all():
        row = start + int((~np.isfinite(part)).any(1).nonzero()[0][0])
        raise MissingData(f"{path}: row {row} has NaN or infinity")
    most = _MOST_EXACT if exact else MOST
    large = np.abs(doubles) > most
    if large.any():
        row, column = (int(x) for x in np.argwhere(large)[0])
        advice = "give them in other units" if exact else "give them in other units, or data: {scale: standard}"
        raise MissingData(
            f"{path}: row {start + row}, column {column} is {part[row, column]}; energies square the values, which "
            f"works up to {most:g}: {advice}"
        )


def _check_precision(path: Path, array: np.ndarray, rows: Tensor, step: int) -> None:
    """Refuses columns whose values float32 cannot tell apart, such as times in seconds since 1970."""
    mean = rows.double().mean(0).numpy()
    exact, rounded = np.zeros(len(mean)), np.zeros(len(mean))
    for start in range(0, len(array), step):
        part = np.asarray(array[start : start + step]).astype(np.float64)
        exact += np.square(part - mean).sum(0)
        rounded += np.square(rows[start : start + step].double().numpy() - mean).sum(0)
    lost = np.abs(np.sqrt(rounded) - np.sqrt(exact)) > 0.01 * np.sqrt(exact)
    lost &= np.array([(array[:, i] != array[0, i]).any() if one else False for i, one in enumerate(lost)])
    if lost.any():
        column = int(lost.nonzero()[0][0])
        raise MissingData(
            f"{path}: column {column}: its values lie around {mean[column]:.6g} and differ by about "
            f"{np.sqrt(exact[column] / len(array)):.2g}, which float32 does not tell apart: take an offset away, or "
            f"data: {{scale: standard}}"
        )


DATASETS: dict[str, Callable[..., DataSet]] = {
    "checkerboard": checkerboard,
    "digits": digits,
    "bars_and_stripes": bars_and_stripes,
    "ferromagnet": ferromagnet,
    "freyface": freyface,
    "mnist": mnist,
    "fashion": fashion,
    "cifar10": cifar10,
    **POINTS,
}


def drawn() -> list[str]:
    """The data sets of as many rows as are asked for: their functions take ``train``, ``val`` and ``test``."""
    return [
        name
        for name, made in DATASETS.items()
        if any(
            one.name == "train" or one.kind is one.VAR_KEYWORD for one in inspect.signature(made).parameters.values()
        )
    ]


def load(config: dict[str, Any], folder: Path) -> DataSet:
    """A data set from its entry in a suite: ``{"name": "digits"}`` or ``{"file": "points.npy"}`` with options.

    Raises:
        MissingData: not there, or not what it should be.
    """
    options = {key: value for key, value in config.items() if value is not None}
    side, scale, binary = options.pop("pad", None), options.pop("scale", "none"), options.pop("binarize", None)
    kept, held_out = options.pop("crop", None), options.pop("held_out", None)
    if "file" in options:
        found = from_file(folder, **options, exact=scale != "none")
    else:
        name = options.pop("name")
        if name not in DATASETS:
            raise InputError(f"no data set '{name}': {nearest(name, DATASETS)}")
        found = _sound(DATASETS[name](folder, **options), name)
    found = found if held_out is None else found.without(held_out)
    found = found.cropped(kept) if kept else found
    found = found if binary is None else found.binarised(binary)
    if len(found.train) > 1 and bool((found.train == found.train[0]).all()):
        raise MissingData(
            f"{options.get('file', found.name)}: the {len(found.train)} training rows are all the same"
            f"{'' if binary is None else f' with binarize: {said(binary)}'}, which leaves nothing to be learnt"
        )
    found = found.padded(side) if side else found
    return found if scale == "none" else found.scaled(scale)


def said(binarized: float | str) -> str:
    """How data were made binary, as a suite file has it."""
    return binarized if isinstance(binarized, str) else f"{binarized:g}"


def _sound(data: DataSet, name: str) -> DataSet:
    """Checks what a function of ``DATASETS`` has made: a plug-in's may be anything."""
    for split in ("train", "val", "test"):
        rows = getattr(data, split)
        if rows.dtype != torch.float32 or rows.ndim < 2 or not rows.numel() or rows.shape[1:] != data.train.shape[1:]:
            raise MissingData(
                f"data set {name}: {split} must be float32 [n, ...] with rows, of the same shape in all splits, "
                f"got {rows.dtype} {list(rows.shape)}"
            )
        if not rows.isfinite().all():
            row = int((~rows.isfinite()).flatten(1).any(1).nonzero()[0])
            raise MissingData(f"data set {name}: row {row} of {split} has NaN or infinity")
    return data
