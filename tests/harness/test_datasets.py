"""Data sets are what they are said to be, do not change, and say what is wrong with a file."""

import contextlib
import hashlib
import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.io import savemat
from sklearn.datasets import load_digits
from torch import Tensor

from benchmark.data import datasets
from benchmark.data.datasets import DataSet, MissingData, checkerboard, digits, load
from benchmark.system.invocation import call
from bism import InputError
from bism.ising import lattice
from tests.harness import synthetic
from tests.harness.tiny import cell, command, replaced, write

HASHES = {
    "eight_gaussians": "10f7c1d7efa4e649811ea43b1651eb9fab3e2c6c37130c8cf6a581238ac9be6f",
    "rings": "82c124600f8a6e7f2a65f9354e2cd40690f8616ad1e56d3feb8f16ead3fe4cc6",
    "pinwheel": "662fcfb92edc8442dbce3335685594bc86199393ae7744ba0ad10ef30f07bed0",
    "checkerboard_4x4": "56815b9b046864ecc77810f9d6e8a018576443e47d5363cbdc9540f90a35efd3",
    "checkerboard": "ae33416d69dd7d1aec9f5d6191898e231a69df00d04f4e3d56ee68c83d4f1a8d",
    "bars_and_stripes": "cd875281e30360dffb6ea0f5dd306fb54f5bff6e55279c2079990398b4d47c64",
    "ferromagnet": "362d7e1dbe4703bc62548bab8222b5961132ad81dac1647e5e07e56b2fe82e2a",
    "digits": "58d7e865c6ecc5af1ae9b22c4bcaeb870a9226fcbb5e5c9b06b9c8ad94d5216f",
}
NO_FOLDER = Path("nowhere")
POINTS = np.random.RandomState(1).normal(size=(50, 3))


def all_rows(data: DataSet) -> Tensor:
    return torch.cat([data.train, data.val, data.test])


def refusal(folder: Path, entry: dict[str, Any]) -> str:
    """The message with which a data set is refused."""
    with pytest.raises(InputError) as error:
        load(entry, folder)
    return str(error.value)


@pytest.mark.parametrize("name", HASHES)
def test_data_do_not_change(name: str) -> None:
    data = load({"name": name}, NO_FOLDER)
    assert data.hash == HASHES[name]
    assert data.description["hash"] == HASHES[name]
    assert data.train.dtype == torch.float32


def test_the_hash_notices_every_change() -> None:
    data = checkerboard(NO_FOLDER, 100, 20, 20)
    moved = data.val.clone()
    moved[3, 1] += 1e-6
    assert DataSet("", data.train, moved, data.test).hash != data.hash
    assert DataSet("", data.train, data.test, data.val).hash != data.hash


def test_an_unknown_data_set() -> None:
    assert refusal(NO_FOLDER, {"name": "digit"}) == (
        "no data set 'digit': did you mean 'digits'? "
        "valid: bars_and_stripes, checkerboard, checkerboard_4x4, cifar10, digits, eight_gaussians, fashion, "
        "ferromagnet, freyface, mnist, pinwheel, rings"
    )


# --- checkerboard -----------------------------------------------------------------------------------------------------


def cells_hit(points: Tensor) -> np.ndarray:
    """How many points are in each cell of a 10 x 10 grid on the unit square."""
    counts, _, _ = np.histogram2d(*points.double().numpy().T, bins=10, range=[[0, 1], [0, 1]])
    return counts


def test_the_checkerboard_is_uniform_on_two_squares() -> None:
    data = checkerboard(NO_FOLDER)
    assert [len(split) for split in (data.train, data.val, data.test)] == [60_000, 10_000, 10_000]
    on_squares = np.kron(np.eye(2), np.ones((5, 5))).astype(bool)  # lower left and upper right
    for split in (data.train, data.val, data.test):
        counts = cells_hit(split)
        assert counts.sum() == len(split)
        assert (counts[~on_squares] == 0).all()
        assert stats.chisquare(counts[on_squares]).pvalue > 0.001


def test_sizes_of_the_checkerboard() -> None:
    small, large = checkerboard(NO_FOLDER, 30, 20, 10), load({"name": "checkerboard", "train": 40}, NO_FOLDER)
    assert [len(split) for split in (small.train, small.val, small.test)] == [30, 20, 10]
    assert len(large.train) == 40
    assert len(large.val) == 10_000
    assert len(torch.unique(all_rows(small), dim=0)) == 60


# --- digits -----------------------------------------------------------------------------------------------------------


def test_the_digits_are_scikit_learn_s_with_uniform_noise() -> None:
    data = digits(NO_FOLDER)
    assert [list(split.shape) for split in (data.train, data.val, data.test)] == [[1297, 64], [250, 64], [250, 64]]
    assert data.image == (8, 8)
    rows = all_rows(data).double()
    assert rows.min() >= 0
    assert rows.max() <= 1
    levels = (rows * 17).floor().clamp(max=16)
    originals = torch.tensor(load_digits().data)
    assert sorted(map(tuple, levels.tolist())) == sorted(map(tuple, originals.tolist()))  # each image once
    assert stats.kstest((rows * 17 - levels).flatten().numpy(), "uniform").pvalue > 0.001


def test_the_digits_splits_are_disjoint() -> None:
    assert len(torch.unique(all_rows(digits(NO_FOLDER)), dim=0)) == 1797


# --- bars and stripes -------------------------------------------------------------------------------------------------


def test_bars_and_stripes_are_all_there_are_with_their_probabilities() -> None:
    data = load({"name": "bars_and_stripes"}, NO_FOLDER)
    assert torch.equal(data.train, data.val)
    assert torch.equal(data.train, data.test)
    images, found = data.train.reshape(-1, 4, 4).unique(dim=0, return_counts=True)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 16).reshape(-1, 4, 4)
    equal_rows, equal_columns = ((every == every[:, :1]).all((1, 2)), (every == every[:, :, :1]).all((1, 2)))
    assert torch.equal(images, every[equal_rows | equal_columns])
    assert torch.equal(found, 1 + (equal_rows & equal_columns)[equal_rows | equal_columns].long())
    entropy = -float((found / 32 * (found / 32).log()).sum())
    assert -32 * entropy == pytest.approx(-108.13, abs=5e-3)
    assert len(images) == 30


# --- ferromagnet ------------------------------------------------------------------------------------------------------


def test_the_ferromagnet_is_in_equilibrium() -> None:
    """By an identity of the Ising model: the mean of s_i given its neighbours is tanh(J times their sum)."""
    spins = 2 * all_rows(load({"name": "ferromagnet"}, NO_FOLDER)).double() - 1
    assert set(spins.flatten().tolist()) == {-1, 1}
    field = spins @ lattice(4).double()
    for total in (-4, -2, 0, 2, 4):
        chosen = spins[field == total]
        assert abs(float(chosen.mean()) - math.tanh(0.2 * total)) < 5 * len(chosen) ** -0.5
    assert abs(float(spins.mean())) < 0.03


# --- MNIST and CIFAR-10, small ----------------------------------------------------------------------------------------


def test_mnist_is_read_in_file_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.use(monkeypatch, synthetic.small_mnist())
    synthetic.place(tmp_path, synthetic.MNIST_FILES)
    data = load({"name": "mnist"}, tmp_path)
    pixels = np.concatenate([synthetic.PIXELS["train"], synthetic.PIXELS["t10k"]]).reshape(9, 6)
    assert torch.equal(all_rows(data), torch.tensor(pixels / 255, dtype=torch.float32))
    assert [len(split) for split in (data.train, data.val, data.test)] == [4, 2, 3]
    assert data.image == (3, 2)
    assert data.labels is not None
    assert [labels.tolist() for labels in data.labels] == [[0, 1, 2, 3], [4, 5], [9, 8, 7]]


def test_mnist_may_be_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.use(monkeypatch, synthetic.small_mnist())
    synthetic.place(tmp_path / "packed", synthetic.MNIST_FILES)
    synthetic.place(tmp_path / "unpacked", {f"mnist/{name}": content for name, content in synthetic.IDX.items()})
    browser = {f"mnist/{name}.gz": content for name, content in synthetic.IDX.items()}  # unpacks, and keeps the name
    synthetic.place(tmp_path / "browser", browser)
    hashes = {load({"name": "mnist"}, tmp_path / place).hash for place in ("packed", "unpacked", "browser")}
    assert len(hashes) == 1


def test_cifar_is_read_in_file_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.use(monkeypatch, synthetic.small_cifar())
    synthetic.place(tmp_path, synthetic.CIFAR_FILES)
    data = load({"name": "cifar10"}, tmp_path)
    pixels = np.concatenate([batch[:, 1:] for batch in synthetic.BATCHES.values()])
    assert torch.equal(all_rows(data), torch.tensor(pixels / 255, dtype=torch.float32))
    assert [len(split) for split in (data.train, data.val, data.test)] == [1, 1, 2]
    assert data.image == (3, 32, 32)
    assert data.labels is not None
    assert [labels.tolist() for labels in data.labels] == [[3], [7], [3, 7]]


def test_a_known_variant_of_the_test_set_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.use(monkeypatch, synthetic.small_cifar())
    file = tmp_path / "cifar10" / "cifar-10-batches-bin" / "test_batch.bin"
    synthetic.place(tmp_path, {**synthetic.CIFAR_FILES, str(file): synthetic.TEST_VARIANT.tobytes()})
    with pytest.warns(UserWarning, match="known variant") as warned:
        data = load({"name": "cifar10"}, tmp_path)
    assert [str(warning.message) for warning in warned] == [f"{file} is {synthetic.NOTE}"]
    assert torch.equal((data.test * 255).to(torch.uint8), torch.tensor(synthetic.TEST_VARIANT[:, 1:]))


def test_all_bad_files_of_a_data_set_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.use(monkeypatch, synthetic.small_mnist())
    names = list(synthetic.MNIST_FILES)
    synthetic.place(tmp_path, {names[0]: synthetic.MNIST_FILES[names[0]], names[1]: b"", names[2]: b"<html>"})
    assert refusal(tmp_path, {"name": "mnist"}) == (
        "MNIST cannot be read:\n"
        f"  {tmp_path}/{names[1]}: truncated: it is empty\n"
        f"  {tmp_path}/{names[2]}: wrong: it is a web page, perhaps a server's error message, and not data\n"
        f"  {tmp_path}/{names[3]}: missing{to_mend('mnist', tmp_path)}"
    )


def test_a_run_with_a_damaged_file_ends_before_anything_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.use(monkeypatch, synthetic.small_cifar())
    synthetic.place(tmp_path, {name: content[:-1] for name, content in synthetic.CIFAR_FILES.items()})
    write(tmp_path, replaced(("{name: checkerboard, train: 500, val: 200, test: 200}", "{name: cifar10}")))
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--data-dir", str(tmp_path))
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: CIFAR-10 cannot be read:\n")
    assert "data_batch_1.bin: truncated: 6,145 bytes of 6,146" in said.err
    with contextlib.chdir(tmp_path):
        assert said.err.endswith(to_mend("cifar10", tmp_path) + "\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
def test_a_run_on_colour_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.use(monkeypatch, synthetic.small_cifar())
    synthetic.place(tmp_path, synthetic.CIFAR_FILES)
    text = replaced(
        ("{name: checkerboard, train: 500, val: 200, test: 200}", "{name: cifar10}"),
        ("hidden: 3}", "hidden: 2}\n    batch_size: 1"),
        ("seeds: 0-1", "seeds: 0"),
        ("steps: 20", "steps: 2"),
        ("          - {method: bidsm}\n", ""),
    )
    write(tmp_path, text)
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--data-dir", str(tmp_path))
    assert said.code == 0, said
    (sheet,) = cell(tmp_path, "CD-1", 0).path.rglob("samples_step_00000002.npz")
    assert np.load(sheet)["samples"].shape == (1, 3, 32, 32)


# --- Frey faces -------------------------------------------------------------------------------------------------------


def to_mend(name: str, folder: Path) -> str:
    """How every refusal of a data set's files ends."""
    return f"\nto mend it: {call('benchmark', 'data download')} {name} --data-dir {folder}"


def test_missing_frey_faces(tmp_path: Path) -> None:
    with pytest.raises(MissingData) as error:
        load({"name": "freyface"}, tmp_path)
    file = tmp_path / "freyface" / "frey_rawface.mat"
    assert str(error.value) == f"Frey face cannot be read: {file}: missing{to_mend('freyface', tmp_path)}"


def test_the_mending_command_names_the_folder_only_where_it_is_not_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BISM_DATA", str(tmp_path))
    assert refusal(tmp_path, {"name": "freyface"}).endswith(call("benchmark", "data download freyface"))
    elsewhere = tmp_path / "my data"
    assert refusal(elsewhere, {"name": "freyface"}).endswith(f"download freyface --data-dir '{elsewhere}'")


FACES = np.zeros((560, 1965), dtype=np.uint8)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("place", ["freyface/frey_rawface.mat", "frey_rawface.mat"])
def test_damaged_frey_faces(tmp_path: Path, place: str, compressed: bool) -> None:
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)

    def said() -> str:
        before, end = f"Frey face cannot be read: {file}: ", to_mend("freyface", tmp_path)
        message = refusal(tmp_path, {"name": "freyface"})
        assert message.startswith(before)
        assert message.endswith(end)
        return message.removeprefix(before).removesuffix(end)

    savemat(file, {"ff": FACES}, do_compression=compressed)
    assert said() == "corrupted: its pixels have another hash than the Frey faces'"
    whole = file.read_bytes()
    for size in (len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert said() == f"truncated: {size:,} bytes, and its header announces {len(whole):,}"
    file.write_bytes(whole[:100])
    assert said() == "truncated: it ends within its header, after 100 bytes"
    file.write_bytes(b"<html>404</html>")
    assert said() == "wrong: it is a web page, perhaps a server's error message, and not data"
    file.write_bytes(b"PK" + whole)
    assert said() == "wrong: it is not a MATLAB 5 file"
    savemat(file, {"faces": FACES}, do_compression=compressed)
    assert said() == "wrong: it has no array 'ff'"
    savemat(file, {"ff": FACES.T}, do_compression=compressed)
    assert said() == "wrong: its 'ff' is uint8 [1965, 560], and must be uint8 [560, 1965]"
    savemat(file, {"ff": FACES / 255}, do_compression=compressed)
    assert said() == "wrong: its 'ff' is float64 [560, 1965], and must be uint8 [560, 1965]"


def test_a_compressed_matlab_file_with_a_flipped_bit(tmp_path: Path) -> None:
    file = tmp_path / "frey_rawface.mat"
    savemat(file, {"ff": FACES}, do_compression=True)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    assert ": corrupted: " in refusal(tmp_path, {"name": "freyface"})


def test_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BISM_DATA", str(tmp_path / "theirs"))
    assert datasets.data_folder(tmp_path / "mine") == tmp_path / "mine"
    assert datasets.data_folder() == tmp_path / "theirs"
    monkeypatch.delenv("BISM_DATA")
    assert datasets.data_folder().parts[-2:] == ("bism", "data")


@pytest.mark.skipif("BISM_DATA" not in os.environ, reason="BISM_DATA does not name a folder with the Frey faces")
def test_the_frey_faces() -> None:
    from scipy.io import loadmat

    folder = datasets.data_folder()
    data = load({"name": "freyface"}, folder)
    assert [list(split.shape) for split in (data.train, data.val, data.test)] == [[1400, 560], [300, 560], [265, 560]]
    assert data.image == (28, 20)
    file = next(
        path for path in (folder / "freyface" / "frey_rawface.mat", folder / "frey_rawface.mat") if path.exists()
    )
    assert torch.equal(
        (all_rows(data) * 255).round().to(torch.uint8), torch.tensor(loadmat(file)["ff"].T)
    )  # file order
    assert 0 <= float(all_rows(data).min()) < 0.1
    assert 0.9 < float(all_rows(data).max()) <= 1
    faces = all_rows(data).reshape(-1, *data.image)
    across, along = (float(faces.diff(dim=axis).abs().mean()) for axis in (1, 2))
    assert max(across, along) < 0.08  # neighbouring pixels are alike, so rows are cut where they end


# --- MNIST and CIFAR-10, real -----------------------------------------------------------------------------------------


def real(name: str) -> DataSet:
    """A data set from $BISM_DATA; skipped where it is not there."""
    folder = datasets.data_folder()
    if "BISM_DATA" not in os.environ or not (folder / name).exists():
        pytest.skip(f"BISM_DATA does not name a folder with {name}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*test_batch.bin is not the official file")
        return load({"name": name}, folder)


def counts(data: DataSet) -> list[list[int]]:
    """How many examples of each class are in training and validation data, and in test data."""
    assert data.labels is not None
    train, val, test = data.labels
    return [torch.bincount(torch.cat([train, val])).tolist(), torch.bincount(test).tolist()]


def neighbours_differ(pictures: Tensor) -> float:
    """Mean difference between neighbouring pixels: small where rows are cut where they end."""
    return max(float(pictures.diff(dim=axis).abs().mean()) for axis in (-1, -2))


def test_mnist() -> None:
    data = real("mnist")
    splits = [list(split.shape) for split in (data.train, data.val, data.test)]
    assert splits == [[55_000, 784], [5_000, 784], [10_000, 784]]
    assert data.hash.startswith("d27fb91380ff")
    assert counts(data) == [
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],  # as its page says
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ]
    assert float(data.train.mean()) == pytest.approx(0.1307, abs=1e-3)
    assert neighbours_differ(data.test.reshape(-1, 28, 28)) < 0.07


def test_cifar10() -> None:
    data = real("cifar10")
    splits = [list(split.shape) for split in (data.train, data.val, data.test)]
    assert splits == [[45_000, 3072], [5_000, 3072], [10_000, 3072]]
    assert counts(data) == [[5000] * 10, [1000] * 10]
    digest = hashlib.sha256()  # over the pixels uint8 [50000, 32, 32, 3]
    for rows in torch.cat([data.train, data.val]).split(10_000):
        pixels = (rows * 255).round().to(torch.uint8).reshape(-1, 3, 32, 32)
        digest.update(pixels.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
    assert digest.hexdigest() == "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a"
    pictures = data.test[:1000].reshape(-1, 3, 32, 32)
    assert neighbours_differ(pictures) < 0.07
    assert pictures.mean((0, 2, 3)).tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.02)  # red, green, blue
