"""Data sets as small as can be in the official formats, in place of the catalogue's."""

import dataclasses
import gzip
import hashlib
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from benchmark.data import catalogue
from benchmark.data.catalogue import CATALOGUE, Entry, cifar_archive, cifar_parts, mnist_parts
from benchmark.data.formats import CIFAR_RECORD
from tests.harness.tiny import Said, command

NOTE = "a known variant with one image of ours"
RANDOM = np.random.RandomState(0)


def idx(array: np.ndarray) -> bytes:
    """An idx file of an array of uint8."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def packed(content: bytes) -> bytes:
    """The same bytes each time."""
    return gzip.compress(content, mtime=0)


PIXELS = {"train": RANDOM.randint(256, size=(6, 3, 2)), "t10k": RANDOM.randint(256, size=(3, 3, 2))}
CLASSES = {"train": np.array([0, 1, 2, 3, 4, 5]), "t10k": np.array([9, 8, 7])}
IDX = {
    "train-images-idx3-ubyte": idx(PIXELS["train"]),
    "train-labels-idx1-ubyte": idx(CLASSES["train"]),
    "t10k-images-idx3-ubyte": idx(PIXELS["t10k"]),
    "t10k-labels-idx1-ubyte": idx(CLASSES["t10k"]),
}
MNIST_FILES = {f"mnist/{name}.gz": packed(content) for name, content in IDX.items()}

BATCHES = {
    name: RANDOM.randint(256, size=(2, CIFAR_RECORD)).astype(np.uint8)
    for name in ("data_batch_1.bin", "test_batch.bin")
}
for _batch in BATCHES.values():
    _batch[:, 0] = [3, 7]
CIFAR_INSIDE = {f"cifar-10-batches-bin/{name}": batch.tobytes() for name, batch in BATCHES.items()}
CIFAR_FILES = {f"cifar10/{name}": content for name, content in CIFAR_INSIDE.items()}
TEST_VARIANT = BATCHES["test_batch.bin"] ^ np.r_[0, np.ones(CIFAR_RECORD - 1, np.uint8)]


def archive(members: dict[str, bytes]) -> bytes:
    """A .tar.gz."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


CIFAR_ARCHIVE = archive({"cifar-10-batches-bin/readme.html": b"<html>", **CIFAR_INSIDE, "../outside.bin": b"no"})


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def small_mnist(*bases: str) -> Entry:
    """Like MNIST: 6 images 3 x 2 for training and validation, 3 for test."""
    known = {name: (md5(packed(content)), hashlib.sha256(content).hexdigest()) for name, content in IDX.items()}
    parts = mnist_parts(known, bases or ("http://127.0.0.1:9/",))
    return _like("mnist", shape=(3, 2), sizes=(4, 2, 3), parts=parts)


def small_cifar(*addresses: str, tarball: bytes = CIFAR_ARCHIVE) -> Entry:
    """Like CIFAR-10: a batch of two images for training and validation, one for test."""
    known = {name: sha1(batch.tobytes()) for name, batch in BATCHES.items()}
    parts = cifar_parts(known, {sha1(TEST_VARIANT.tobytes()): ("test_batch.bin", NOTE)}, size=2 * CIFAR_RECORD)
    found = cifar_archive(md5(tarball), *(addresses or ("http://127.0.0.1:9/cifar-10-binary.tar.gz",)))
    return _like("cifar10", sizes=(1, 1, 2), parts=parts, archive=found)


def _like(name: str, **changes: object) -> Entry:
    return dataclasses.replace(CATALOGUE[name], **changes)  # type: ignore[arg-type]


def use(monkeypatch: pytest.MonkeyPatch, *entries: Entry) -> None:
    """These in place of the catalogue's of the same names."""
    for entry in entries:
        monkeypatch.setitem(catalogue.CATALOGUE, entry.name, entry)


def place(folder: Path, files: dict[str, bytes]) -> None:
    """Writes files beneath a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def data(folder: Path, *arguments: str) -> Said:
    """``python -m benchmark data`` with its files in ``folder``/data."""
    action, *rest = arguments
    return command(folder, "data", action, *rest, "--data-dir", str(folder / "data"))


def there(folder: Path) -> dict[str, bytes]:
    """All files beneath ``folder``/data."""
    root = folder / "data"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
