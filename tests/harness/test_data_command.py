"""``data verify``, ``list`` and ``where``: what is said of files, good and bad."""

import gzip
from pathlib import Path

import pytest

from benchmark.data import formats
from tests.harness import synthetic
from tests.harness.server import Server
from tests.harness.synthetic import CIFAR_FILES, IDX, MNIST_FILES, NOTE, TEST_VARIANT, data
from tests.harness.tiny import called, command

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = MNIST_FILES
CIFAR_TRAIN, CIFAR_TEST = CIFAR_FILES
WEB_PAGE = "it is a web page, perhaps a server's error message, and not data"


def flipped(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1
    return bytes(changed)


IMAGES = MNIST_FILES[TRAIN_IMAGES]
RAW_IMAGES = IDX["train-images-idx3-ubyte"]
VERDICTS = {
    "packed anew": (
        gzip.compress(RAW_IMAGES, 1, mtime=7),
        "ok: unpacked, or packed anew; the content is the published one",
    ),
    "unpacked": (RAW_IMAGES, "ok: unpacked, or packed anew; the content is the published one"),
    "empty": (b"", "truncated: it is empty"),
    "gz cut": (IMAGES[:30], "truncated: the gzip data end early, after 30 bytes"),
    "gz with a flipped bit": (flipped(IMAGES, -6), "corrupted: the gzip data cannot be unpacked (CRC check failed"),
    "gz of another thing": (gzip.compress(b"text"), "wrong: it starts with 74 65 78 74, and an idx file"),
    "gz of another data set": (gzip.compress(flipped(RAW_IMAGES, -1)), "wrong: a sound file with other content"),
    "labels": (MNIST_FILES[TRAIN_LABELS], "wrong: it holds what belongs in train-labels-idx1-ubyte"),
    "web page": (b"\n<!DOCTYPE html>", f"wrong: {WEB_PAGE}"),
    "raw cut": (RAW_IMAGES[:-2], "truncated: 34 of the 36 values that its header announces"),
    "raw cut in the header": (RAW_IMAGES[:9], "truncated: it ends within its header, after 9 bytes"),
    "raw and longer": (RAW_IMAGES + b"x", "corrupted: 37 values, and its header announces 36"),
    "raw with a flipped bit": (flipped(RAW_IMAGES, -1), "corrupted: its content has another hash than the published"),
    "raw with another magic number": (flipped(RAW_IMAGES, 2), "wrong: it starts with 00 00 09 03, and an idx file"),
}


@pytest.mark.parametrize("kind", VERDICTS)
def test_verdicts_on_an_idx_file(mnist: Server, tmp_path: Path, kind: str) -> None:
    content, verdict = VERDICTS[kind]
    synthetic.place(tmp_path / "data", {**MNIST_FILES, TRAIN_IMAGES: content})
    said = data(tmp_path, "verify", "mnist")
    first, *rest = said.out.splitlines()
    assert first.startswith(f"{tmp_path}/data/{TRAIN_IMAGES}: {verdict}")
    good = verdict.startswith("ok")
    mending = f"to mend mnist: {called(tmp_path, 'data download mnist')} --data-dir {tmp_path}/data"
    assert rest == [f"{tmp_path}/data/{name}: ok" for name in list(MNIST_FILES)[1:]] + ([] if good else [mending])
    assert (said.code, said.err, mnist.asked) == (0 if good else 1, "", [])


def test_a_bomb_does_not_fill_the_memory(mnist: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_LARGEST", 1000)
    synthetic.place(tmp_path / "data", {**MNIST_FILES, TRAIN_IMAGES: gzip.compress(bytes(5000))})
    assert f"{TRAIN_IMAGES}: wrong: it unpacks to more than 1,000 bytes\n" in data(tmp_path, "verify", "mnist").out


TRAIN_BATCH, TEST_BATCH = CIFAR_FILES.values()
CIFAR_VERDICTS = {
    "official": (TEST_BATCH, "ok"),
    "variant": (TEST_VARIANT.tobytes(), f"variant: {NOTE}"),
    "empty": (b"", "truncated: 0 bytes of 6,146"),
    "cut": (TEST_BATCH[:-1], "truncated: 6,145 bytes of 6,146"),
    "longer": (TEST_BATCH + b"x", "wrong: 6,147 bytes, and must have 6,146"),
    "flipped bit": (flipped(TEST_BATCH, 5000), f"corrupted: its sha1 is not {synthetic.sha1(TEST_BATCH)}"),
    "training batch": (TRAIN_BATCH, "wrong: it holds what belongs in data_batch_1.bin"),
    "other bytes": (b"\xff" * 6146, "wrong: it has labels above 9"),
    "web page": (b"<html>" * 2000, f"wrong: {WEB_PAGE}"),
}


@pytest.mark.parametrize("kind", CIFAR_VERDICTS)
def test_verdicts_on_a_batch(cifar: Server, tmp_path: Path, kind: str) -> None:
    content, verdict = CIFAR_VERDICTS[kind]
    synthetic.place(tmp_path / "data", {**CIFAR_FILES, CIFAR_TEST: content})
    said = data(tmp_path, "verify", "cifar10")
    assert said.out.splitlines()[1].startswith(f"{tmp_path}/data/{CIFAR_TEST}: {verdict}")
    assert said.code == (0 if verdict.startswith(("ok", "variant")) else 1)


def test_records_are_whole(tmp_path: Path) -> None:
    synthetic.place(tmp_path, {"batch.bin": TEST_BATCH[:-1]})
    with pytest.raises(formats.Damaged, match="truncated: 6,145 bytes are no whole number of records of 3,073"):
        formats.read_cifar(tmp_path / "batch.bin")


def test_exchanged_files(mnist: Server, cifar: Server, tmp_path: Path) -> None:
    exchanged = {
        TRAIN_IMAGES: MNIST_FILES[TEST_IMAGES],
        TEST_IMAGES: MNIST_FILES[TRAIN_IMAGES],
        CIFAR_TRAIN: TEST_VARIANT.tobytes(),
    }
    synthetic.place(tmp_path / "data", {**MNIST_FILES, **CIFAR_FILES, **exchanged})
    said = data(tmp_path, "verify", "mnist", "cifar10")
    assert said.code == 1
    for name, owner in ((TRAIN_IMAGES, "t10k-images-idx3-ubyte"), (TEST_IMAGES, "train-images-idx3-ubyte")):
        assert f"{tmp_path}/data/{name}: wrong: it holds what belongs in {owner}\n" in said.out
    assert f"{CIFAR_TRAIN}: wrong: it holds a variant of what belongs in test_batch.bin\n" in said.out


def test_a_folder_in_place_of_a_file(mnist: Server, tmp_path: Path) -> None:
    synthetic.place(tmp_path / "data", {f"{TRAIN_IMAGES}/file": b""})
    assert (
        f"{TRAIN_IMAGES}: wrong: it is a folder, a pipe or a device, and must be a file\n"
        in data(tmp_path, "verify", "mnist").out
    )
    said = data(tmp_path, "download", "mnist")
    assert (said.code, said.err) == (2, f"error: {tmp_path}/data/{TRAIN_IMAGES}: cannot be written: Is a directory\n")


def test_verify_without_names_is_about_every_data_set_with_files(tmp_path: Path) -> None:
    said = data(tmp_path, "verify")
    assert said.code == 1
    assert said.out.count(": missing\n") == 1 + 4 + 4 + 6
    assert [line.split(":")[0] for line in said.out.splitlines() if line.startswith("to mend")] == [
        f"to mend {name}" for name in ("freyface", "mnist", "fashion", "cifar10")
    ]
    made = data(tmp_path, "verify", "digits")
    assert (made.code, made.out) == (0, "digits: bundled with scikit-learn, no files\n")
    assert data(tmp_path, "verify", "digit").code == 2


def states(folder: Path) -> dict[str, str]:
    """What ``data list`` says of the state of each data set."""
    said = data(folder, "list")
    assert (said.code, said.err) == (0, "")
    names = [line.split(":")[0] for line in said.out.splitlines() if not line.startswith(" ")]
    found = [line.removeprefix("  state").strip() for line in said.out.splitlines() if line.startswith("  state")]
    return dict(zip(names, found, strict=True))


def test_the_list_says_what_is_there(mnist: Server, cifar: Server, tmp_path: Path) -> None:
    fetch_it = f"missing; to fetch it: {called(tmp_path, 'data download')} {{}} --data-dir {tmp_path}/data"
    assert states(tmp_path) == {
        "checkerboard": "made by this package",
        "eight_gaussians": "made by this package",
        "rings": "made by this package",
        "pinwheel": "made by this package",
        "checkerboard_4x4": "made by this package",
        "digits": "bundled with scikit-learn",
        "bars_and_stripes": "made by this package",
        "ferromagnet": "made by this package",
        "freyface": fetch_it.format("freyface"),
        "mnist": fetch_it.format("mnist"),
        "fashion": fetch_it.format("fashion"),
        "cifar10": fetch_it.format("cifar10"),
    }
    variant = {CIFAR_TEST: TEST_VARIANT.tobytes()}
    synthetic.place(tmp_path / "data", {TRAIN_IMAGES: IMAGES[:20], **CIFAR_FILES, **variant})
    found = states(tmp_path)
    assert found["mnist"].startswith(
        "damaged: train-images-idx3-ubyte.gz truncated, train-labels-idx1-ubyte.gz missing, "
    )
    assert found["mnist"].endswith(
        f"; to mend it: {called(tmp_path, 'data download mnist')} --data-dir {tmp_path}/data"
    )
    assert found["cifar10"] == f"present and verified; test_batch.bin is {NOTE}"
    synthetic.place(tmp_path / "data", MNIST_FILES)
    assert states(tmp_path)["mnist"] == "present and verified"


def test_the_list_has_the_facts(tmp_path: Path) -> None:
    lines = [line.strip() for line in data(tmp_path, "list").out.splitlines()]
    for wanted in (
        "shape    28 x 28, float32 in [0, 1]",
        "splits   45,000 training, 5,000 validation, 10,000 test",
        "source   https://www.cs.toronto.edu/~kriz/cifar.html (binary version)",
        f"file     {tmp_path}/data/freyface/frey_rawface.mat",
    ):
        assert wanted in lines
    assert sum(line.startswith("licence") for line in lines) == sum(line.startswith("cite") for line in lines) == 12


def test_where_is_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long" * 40)
    said = command(tmp_path, "data", "where", "--data-dir", str(folder))
    assert (said.code, said.out, said.err) == (0, f"{folder}\n", "")
    said = command(tmp_path, "data", "where", "freyface", "--data-dir", str(folder))
    assert said.out == f"{folder}/freyface/frey_rawface.mat\n"
    synthetic.place(folder, {"frey_rawface.mat": b"", "mnist/t10k-labels-idx1-ubyte": b""})
    assert (
        command(tmp_path, "data", "where", "freyface", "--data-dir", str(folder)).out == f"{folder}/frey_rawface.mat\n"
    )
    files = command(tmp_path, "data", "where", "mnist", "--data-dir", str(folder)).out.splitlines()
    assert files[2:] == [f"{folder}/{TEST_IMAGES}", f"{folder}/mnist/t10k-labels-idx1-ubyte"]
    said = command(tmp_path, "data", "where", "digits", "--data-dir", str(folder))
    assert (said.code, said.out, said.err) == (0, "", "digits has no files: it is bundled with scikit-learn\n")


def test_a_good_file_beside_a_bad_one_is_used(mnist: Server, tmp_path: Path) -> None:
    files = {f"mnist/{name}": content for name, content in IDX.items()}
    synthetic.place(tmp_path / "data", {**files, TRAIN_IMAGES: b"damaged"})
    said = data(tmp_path, "verify", "mnist")
    assert said.code == 0
    assert said.out.startswith(f"{tmp_path}/data/mnist/train-images-idx3-ubyte: ok")
