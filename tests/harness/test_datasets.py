"""Data sets are what they are said to be, do not change, and say what is wrong with a file."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.io import savemat
from sklearn.datasets import load_digits
from torch import Tensor

from benchmark import datasets
from benchmark.datasets import DataSet, MissingData, checkerboard, digits, from_file, load
from bism import InputError

HASHES = {
    "checkerboard": "ae33416d69dd7d1aec9f5d6191898e231a69df00d04f4e3d56ee68c83d4f1a8d",
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
        "no data set 'digit': did you mean 'digits'? valid: checkerboard, digits, freyface"
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


# --- files ------------------------------------------------------------------------------------------------------------


def saved(folder: Path, array: Any, **options: Any) -> str:
    """An .npy file with an array."""
    np.save(folder / "points.npy", array, **options)
    return str(folder / "points.npy")


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "uint8"])
def test_a_file_s_rows_are_shuffled_and_split(tmp_path: Path, dtype: str) -> None:
    array = (10 * np.abs(POINTS)).astype(dtype)
    data = load({"file": saved(tmp_path, array)}, NO_FOLDER)
    assert data.name == "points"
    assert [len(split) for split in (data.train, data.val, data.test)] == [40, 5, 5]
    order = np.random.RandomState(0).permutation(50)
    assert torch.equal(all_rows(data), torch.tensor(array[order], dtype=torch.float32))
    assert data.image is None


def test_the_split_of_a_file(tmp_path: Path) -> None:
    data = load({"file": saved(tmp_path, POINTS), "split": [0.5, 0.3, 0.2]}, NO_FOLDER)
    assert [len(split) for split in (data.train, data.val, data.test)] == [25, 15, 10]
    least = from_file(NO_FOLDER, saved(tmp_path, POINTS[:10]), (0.98, 0.01, 0.01))
    assert [len(split) for split in (least.train, least.val, least.test)] == [8, 1, 1]


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (POINTS[0], "float64 [3]"),
        (POINTS[None], "float64 [1, 50, 3]"),
        (POINTS[:9], "float64 [9, 3]"),
        (POINTS > 0, "bool [50, 3]"),
        (POINTS.astype(complex), "complex128 [50, 3]"),
        (POINTS.astype("U3"), "<U3 [50, 3]"),
    ],
)
def test_a_file_of_the_wrong_shape_or_type(tmp_path: Path, array: np.ndarray, got: str) -> None:
    file = saved(tmp_path, array)
    assert refusal(NO_FOLDER, {"file": file}) == (
        f"{file}: needs a numeric array [n, D] with at least 10 rows, got {got}"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_file_with_a_value_that_is_not_finite(tmp_path: Path, value: float) -> None:
    array = POINTS.copy()
    array[7, 1] = array[9, 0] = value
    file = saved(tmp_path, array)
    assert refusal(NO_FOLDER, {"file": file}) == f"{file}: row 7 has NaN or infinity"


class Trap:
    """Unpickling it writes a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("sprung"),)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = saved(tmp_path, np.array([[Trap()]] * 20), allow_pickle=True)
    message = refusal(NO_FOLDER, {"file": file})
    assert message.startswith(f"{file}: not a readable .npy file (Object arrays cannot be loaded")
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_is_missing_or_no_array(tmp_path: Path) -> None:
    missing = tmp_path / "none.npy"
    assert refusal(NO_FOLDER, {"file": str(missing)}) == (
        f"{missing}: no such file; data.file must name an .npy file with an array [n, D]"
    )
    for content in (b"", b"1,2,3\n4,5,6\n", Path(saved(tmp_path, POINTS)).read_bytes()[:200]):
        missing.write_bytes(content)
        assert refusal(NO_FOLDER, {"file": str(missing)}).startswith(f"{missing}: not a readable .npy file (")


# --- Frey faces -------------------------------------------------------------------------------------------------------


def test_missing_frey_faces(tmp_path: Path) -> None:
    with pytest.raises(MissingData) as error:
        load({"name": "freyface"}, tmp_path)
    assert str(error.value) == (
        f"Frey face needs {tmp_path}/freyface/frey_rawface.mat, which is not there: download frey_rawface.mat from "
        "https://cs.nyu.edu/~roweis/data/frey_rawface.mat and name its folder with --data-dir or $BISM_DATA"
    )


@pytest.mark.parametrize("place", ["freyface/frey_rawface.mat", "frey_rawface.mat"])
def test_damaged_frey_faces(tmp_path: Path, place: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    savemat(file, {"ff": np.zeros((560, 1965), dtype=np.uint8)})
    assert refusal(tmp_path, {"name": "freyface"}) == (
        f"{file} does not hold the Frey faces (its pixels' hash is wrong): download it again"
    )
    file.write_bytes(file.read_bytes()[:5000])
    unreadable = f"{file} is not a readable MATLAB file with the array 'ff' ("
    assert refusal(tmp_path, {"name": "freyface"}).startswith(unreadable)
    savemat(file, {"faces": np.zeros((560, 1965), dtype=np.uint8)})
    assert refusal(tmp_path, {"name": "freyface"}) == unreadable + "'ff'): download it again"


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
