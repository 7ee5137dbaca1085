"""Data sets are downloaded verified, from mirrors in turn, never half; what cannot be had is said."""

import dataclasses
import json
from pathlib import Path

import pytest

from benchmark.data import fetch
from benchmark.data.catalogue import CATALOGUE
from tests.harness import synthetic
from tests.harness.server import Server, serve
from tests.harness.synthetic import (
    CIFAR_ARCHIVE,
    CIFAR_FILES,
    CIFAR_INSIDE,
    MNIST_FILES,
    NOTE,
    TEST_VARIANT,
    data,
    there,
)
from tests.harness.tiny import called

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = MNIST_FILES
CIFAR_TRAIN, CIFAR_TEST = CIFAR_FILES


def test_a_data_set_is_downloaded_once(mnist: Server, tmp_path: Path) -> None:
    said = data(tmp_path, "download", "mnist")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [
        f"{tmp_path}/data/{name}: downloaded and verified, {len(content):,} bytes from "
        f"{mnist.address}/official/{Path(name).name}"
        for name, content in MNIST_FILES.items()
    ]
    assert there(tmp_path) == MNIST_FILES
    mnist.asked.clear()
    again = data(tmp_path, "download", "mnist")
    assert (again.code, again.err, mnist.asked) == (0, "", [])
    assert again.out.splitlines() == [f"{tmp_path}/data/{name}: already there and verified" for name in MNIST_FILES]


def test_only_what_is_missing_or_damaged_is_downloaded(mnist: Server, tmp_path: Path) -> None:
    files = {TRAIN_LABELS: b"damaged", TEST_IMAGES: MNIST_FILES[TEST_IMAGES], TEST_LABELS: MNIST_FILES[TEST_LABELS]}
    synthetic.place(tmp_path / "data", files)
    assert data(tmp_path, "download", "mnist").code == 0
    assert there(tmp_path) == MNIST_FILES
    assert [path for path, _, _ in mnist.asked] == [
        f"/official/{Path(name).name}" for name in (TRAIN_IMAGES, TRAIN_LABELS)
    ]


def test_force_downloads_what_is_there(mnist: Server, tmp_path: Path) -> None:
    synthetic.place(tmp_path / "data", MNIST_FILES)
    assert data(tmp_path, "download", "mnist", "--force").code == 0
    assert len(mnist.asked) == 4
    assert there(tmp_path) == MNIST_FILES


def test_mirrors_are_tried_in_turn(mnist: Server, tmp_path: Path) -> None:
    mnist.pages["/official/train-images-idx3-ubyte.gz"].status = 500
    mnist.pages["/official/train-labels-idx1-ubyte.gz"].content = b"other"
    mnist.pages["/official/t10k-images-idx3-ubyte.gz"].content = MNIST_FILES[TRAIN_IMAGES]
    mnist.pages["/official/t10k-labels-idx1-ubyte.gz"].content = b"<html>moved</html>"
    said = data(tmp_path, "download", "mnist")
    assert (said.code, there(tmp_path)) == (0, MNIST_FILES)
    assert said.out.count("from http") == said.out.count(f"{mnist.address}/mirror/") == 4


def test_what_cannot_be_had_is_said_with_every_address_and_the_way_by_hand(mnist: Server, tmp_path: Path) -> None:
    del mnist.pages["/official/train-labels-idx1-ubyte.gz"]
    mnist.pages["/mirror/train-labels-idx1-ubyte.gz"].content = MNIST_FILES[TEST_LABELS]
    said = data(tmp_path, "download", "mnist")
    home = f"{tmp_path}/data/{TRAIN_LABELS}"
    assert said.code == 2
    assert said.err == (
        "error: train-labels-idx1-ubyte.gz of MNIST could not be had:\n"
        f"  {mnist.address}/official/train-labels-idx1-ubyte.gz: HTTP 404 Not Found\n"
        f"  {mnist.address}/mirror/train-labels-idx1-ubyte.gz: what came is wrong: "
        "it holds what belongs in t10k-labels-idx1-ubyte\n"
        f"to put it there by hand, save it as {home} and run: "
        f"{called(tmp_path, 'data verify mnist')} --data-dir {tmp_path}/data\n"
    )
    assert there(tmp_path) == {name: content for name, content in MNIST_FILES.items() if name != TRAIN_LABELS}


def test_a_damaged_file_stays_until_a_good_one_is_there(mnist: Server, tmp_path: Path) -> None:
    synthetic.place(tmp_path / "data", {**MNIST_FILES, TRAIN_IMAGES: b"damaged"})
    mnist.pages.clear()
    assert data(tmp_path, "download", "mnist").code == 2
    assert there(tmp_path) == {**MNIST_FILES, TRAIN_IMAGES: b"damaged"}


def test_an_interrupted_download_leaves_no_final_file_and_goes_on(
    mnist: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        """The answer to a request, cut by Ctrl-C after ten bytes."""

        def __init__(self, *arguments: object, **options: object) -> None:
            self.answer = urlopen(*arguments, **options)
            self.headers, self.status, self.reads = self.answer.headers, self.answer.status, 0

        def __enter__(self) -> "Interrupted":
            return self

        def __exit__(self, *_: object) -> None:
            self.answer.close()

        def read(self, _: int) -> bytes:
            self.reads += 1
            if self.reads > 1:
                raise KeyboardInterrupt
            return self.answer.read(10)

    urlopen = fetch.urllib.request.urlopen
    with monkeypatch.context() as patched:
        patched.setattr(fetch.urllib.request, "urlopen", Interrupted)
        said = data(tmp_path, "download", "mnist")
    assert (said.code, said.err) == (130, "interrupted\n")
    assert set(there(tmp_path)) == {f"{TRAIN_IMAGES}.partial", f"{TRAIN_IMAGES}.partial.json"}
    assert data(tmp_path, "download", "mnist").code == 0
    assert mnist.asked[1] == ("/official/train-images-idx3-ubyte.gz", "bytes=10-", 206)
    assert there(tmp_path) == MNIST_FILES


def test_a_partial_file_that_was_damaged_is_fetched_anew(mnist: Server, tmp_path: Path) -> None:
    address = f"{mnist.address}/official/train-images-idx3-ubyte.gz"
    note = json.dumps({"address": address, "version": '"1"'}).encode()
    synthetic.place(tmp_path / "data", {f"{TRAIN_IMAGES}.partial": b"0123456789", f"{TRAIN_IMAGES}.partial.json": note})
    assert data(tmp_path, "download", "mnist").code == 0
    path = "/official/train-images-idx3-ubyte.gz"
    assert mnist.asked[:2] == [(path, "bytes=10-", 206), (path, "", 200)]
    assert there(tmp_path) == MNIST_FILES


@pytest.mark.parametrize("like", ["files alone", "data folder"])
def test_a_mirror_of_one_s_own_comes_first(mnist: Server, tmp_path: Path, like: str) -> None:
    files = {Path(name).name if like == "files alone" else name: content for name, content in MNIST_FILES.items()}
    synthetic.place(tmp_path / "my mirror", files)
    mirror = (tmp_path / "my mirror").as_uri()
    said = data(tmp_path, "download", "mnist", "--mirror", mirror)
    assert (said.code, mnist.asked, there(tmp_path)) == (0, [], MNIST_FILES)
    assert said.out.count(f"from {mirror}/") == 4


def test_a_mirror_that_does_not_have_it_is_followed_by_the_official_address(mnist: Server, tmp_path: Path) -> None:
    said = data(tmp_path, "download", "mnist", "--mirror", f"{mnist.address}/none")
    assert (said.code, there(tmp_path)) == (0, MNIST_FILES)
    assert said.out.count(f"from {mnist.address}/official/") == 4


@pytest.mark.parametrize("mirror", ["/a/folder", "ftp://example.org", "http://[::1", "mirror"])
def test_a_mirror_that_is_no_address(tmp_path: Path, mirror: str) -> None:
    said = data(tmp_path, "download", "mnist", "--mirror", mirror)
    message = f"error: --mirror {mirror}: must be an address that begins with http://, https:// or file:///\n"
    assert (said.code, said.err) == (2, message)


def test_an_archive_is_unpacked_and_deleted(cifar: Server, tmp_path: Path) -> None:
    said = data(tmp_path, "download", "cifar10")
    assert (said.code, said.err) == (0, "")
    assert there(tmp_path) == CIFAR_FILES  # and nothing of the rest that is in the archive
    assert not (tmp_path / "data" / "outside.bin").exists()
    for name in CIFAR_FILES:
        assert f"{tmp_path}/data/{name}: unpacked and verified" in said.out
    assert data(tmp_path, "download", "cifar10").out.count("already there and verified") == 2
    assert len(cifar.asked) == 1


def test_an_archive_put_there_by_hand_is_used_and_stays(cifar: Server, tmp_path: Path) -> None:
    by_hand = {"cifar10/cifar-10-binary.tar.gz": CIFAR_ARCHIVE}
    synthetic.place(tmp_path / "data", by_hand)
    assert data(tmp_path, "download", "cifar10").code == 0
    assert (there(tmp_path), cifar.asked) == ({**by_hand, **CIFAR_FILES}, [])


def test_an_archive_that_is_not_the_published_one_is_not_unpacked(cifar: Server, tmp_path: Path) -> None:
    cifar.pages["/cifar-10-binary.tar.gz"].content = synthetic.archive(CIFAR_INSIDE)
    said = data(tmp_path, "download", "cifar10")
    assert said.code == 2
    assert f"what came is corrupted: its md5 is not {synthetic.md5(CIFAR_ARCHIVE)}\n" in said.err
    assert (
        f"save it as {tmp_path}/data/cifar10/cifar-10-binary.tar.gz and run: {called(tmp_path, 'data download')}"
        in said.err
    )
    assert there(tmp_path) == {}


BAD_ARCHIVES = {
    "no archive": (b"no archive", "cannot be unpacked (file could not be opened successfully"),
    "cut off": (CIFAR_ARCHIVE[:5000], "cannot be unpacked (Compressed file ended"),
    "incomplete": (synthetic.archive({"x": b""}), f"it has no {', '.join(CIFAR_INSIDE)}"),
    "other content": (
        synthetic.archive({**CIFAR_INSIDE, "cifar-10-batches-bin/test_batch.bin": b"\0" * 6146}),
        "its cifar-10-batches-bin/test_batch.bin is corrupted: its sha1 is not",
    ),
}


@pytest.mark.parametrize("kind", BAD_ARCHIVES)
def test_the_members_of_an_archive_are_verified(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    tarball, message = BAD_ARCHIVES[kind]
    base = serve(server, {"cifar-10-binary.tar.gz": tarball})
    synthetic.use(monkeypatch, synthetic.small_cifar(f"{base}cifar-10-binary.tar.gz", tarball=tarball))
    said = data(tmp_path, "download", "cifar10")
    assert said.code == 2
    assert f"{tmp_path}/data/cifar10/cifar-10-binary.tar.gz: {message}" in said.err
    assert CIFAR_TEST not in there(tmp_path)


def test_a_variant_is_left_alone_unless_forced(cifar: Server, tmp_path: Path) -> None:
    synthetic.place(tmp_path / "data", {**CIFAR_FILES, CIFAR_TEST: TEST_VARIANT.tobytes()})
    said = data(tmp_path, "download", "cifar10")
    assert (said.code, cifar.asked) == (0, [])
    assert said.out.splitlines()[1] == (
        f"{tmp_path}/data/{CIFAR_TEST}: already there, {NOTE}; to fetch the official file: "
        f"{called(tmp_path, 'data download cifar10')} --force --data-dir {tmp_path}/data"
    )
    assert data(tmp_path, "download", "cifar10", "--force").code == 0
    assert there(tmp_path) == CIFAR_FILES


def test_all_stands_for_every_data_set_with_files(
    mnist: Server, cifar: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("freyface", "fashion"):
        synthetic.use(monkeypatch, dataclasses.replace(CATALOGUE[name], parts=()))
    assert data(tmp_path, "download", "all").code == 0
    assert there(tmp_path) == {**MNIST_FILES, **CIFAR_FILES}


def test_what_needs_no_download_is_said_and_a_misspelt_name_stops_everything(mnist: Server, tmp_path: Path) -> None:
    said = data(tmp_path, "download", "checkerboard")
    assert (said.code, said.out) == (0, "checkerboard: made by this package, there is nothing to download\n")
    said = data(tmp_path, "download", "mnist", "minst")
    assert (said.code, mnist.asked) == (2, [])
    assert said.err.startswith("error: no data set 'minst': did you mean 'mnist'? valid: ")
