"""Files of data: what is read, and what is refused before a job would find it out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.data.datasets import from_file, load
from tests.harness.test_datasets import NO_FOLDER, POINTS, all_rows, refusal
from tests.harness.tiny import command, replaced, write

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
        f"{file}: needs a numeric array [n, D], or of images [n, height, width] or [n, channels, height, width], "
        f"with at least 10 rows, got {got}"
    )


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (3, 4, 2)])
def test_images_of_the_user_s_own(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(20 * 24).reshape(20, *shape)
    data = load({"file": saved(tmp_path, array), "pad": 8}, NO_FOLDER)
    assert data.image == (*shape[:-2], 8, 8)
    assert data.as_images().train.shape[1:] == (shape[0] if len(shape) == 3 else 1, 8, 8)
    plain = load({"file": saved(tmp_path, array)}, NO_FOLDER)
    rows = torch.cat([plain.train, plain.val, plain.test]).sort(0).values
    assert torch.equal(rows, torch.from_numpy(array.reshape(20, 24)).float())
    assert torch.equal(plain.as_images().train.flatten(1), plain.train)


def test_images_whose_channels_are_last_are_told_so(tmp_path: Path) -> None:
    file = saved(tmp_path, np.zeros((20, 8, 8, 3)))
    assert refusal(NO_FOLDER, {"file": file}) == (
        f"{file}: images have their channels first, [n, channels, height, width], got [20, 8, 8, 3]; "
        f"np.moveaxis(images, -1, 1) brings them there"
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
    assert message.startswith(
        f"{file}: not a readable .npy file (wrong: it holds Python objects, which would have to be unpickled"
    )
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_is_missing_or_no_array(tmp_path: Path) -> None:
    missing = tmp_path / "none.npy"
    assert refusal(NO_FOLDER, {"file": str(missing)}) == (
        f"{missing}: no such file; data.file must name an .npy file with an array [n, D] or of images"
    )
    for content in (b"", b"1,2,3\n4,5,6\n", Path(saved(tmp_path, POINTS)).read_bytes()[:200]):
        missing.write_bytes(content)
        assert refusal(NO_FOLDER, {"file": str(missing)}).startswith(f"{missing}: not a readable .npy file (")


# --- what a job would only find out -----------------------------------------------------------------------------------


def points(row: int, column: int, value: float, dtype: str = "float64") -> np.ndarray:
    array = POINTS.astype(dtype)
    array[row, column] = value
    return array


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (points(7, 1, 1e39), "row 7, column 1 is 1e+39; energies square the values, which works up to 1e+15"),
        (points(8, 0, -1e30), "row 8, column 0 is -1e+30; energies square"),
        (points(9, 2, 1e300, "longdouble"), "row 9, column 2 is 1e+300; energies square"),
        (POINTS[:, :0], "needs at least one column, got float64 [50, 0]"),
        (POINTS[:0], "needs a numeric array [n, D], or of images [n, height, width] or"),
        (np.full((50, 3), 0.1), "the 40 training rows are all the same"),
        (
            1.7e9 + POINTS,
            "column 0: its values lie around 1.7e+09 and differ by about 0.9, which float32 does not tell",
        ),
    ],
)
def test_what_only_training_would_notice_is_refused_when_read(tmp_path: Path, array: np.ndarray, what: str) -> None:
    file = saved(tmp_path, array)
    assert refusal(NO_FOLDER, {"file": file}).startswith(f"{file}: {what}")


def test_a_split_that_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    file = saved(tmp_path, POINTS[:10])
    assert refusal(NO_FOLDER, {"file": file, "split": [0.02, 0.49, 0.49]}) == (
        f"{file}: of its 10 rows the split [0.02, 0.49, 0.49] leaves 0 for training"
    )


@pytest.mark.parametrize("dtype", [">f8", ">f4", ">i2", "longdouble", "float16", "<u8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_of_every_kind_are_read(tmp_path: Path, dtype: str, order: Any) -> None:
    array = np.abs(10 * POINTS).astype(dtype, order=order)
    data = load({"file": saved(tmp_path, array)}, NO_FOLDER)
    expected = array[np.random.RandomState(0).permutation(50)].astype("float32")
    assert torch.equal(all_rows(data), torch.from_numpy(expected))


def test_files_that_are_not_what_their_names_say(tmp_path: Path) -> None:
    np.savez(tmp_path / "archive.npz", POINTS)
    file = tmp_path / "points.npy"
    (tmp_path / "archive.npz").rename(file)
    assert refusal(NO_FOLDER, {"file": str(file)}) == (
        f"{file}: not a readable .npy file (wrong: it is an .npz archive, and must be one array: np.save writes one)"
    )
    saved(tmp_path, POINTS)
    whole = file.read_bytes()
    file.write_bytes(whole[:-8])
    assert "(truncated: 1,192 of the 1,200 bytes that its header announces)" in refusal(NO_FOLDER, {"file": str(file)})
    file.write_bytes(whole.replace(b"(50, 3), }", b"(50000000, 30000000), }".ljust(10)))
    assert "not a readable .npy file (" in refusal(NO_FOLDER, {"file": str(file)})
    saved(tmp_path, np.lib.stride_tricks.as_strided(POINTS[:1], (1, 3)))
    promising = file.read_bytes().replace(b"(1, 3), }" + b" " * 12, b"(900000000000, 3), }" + b" ")
    file.write_bytes(promising)
    assert "(truncated: 24 of the 21,600,000,000,000 bytes" in refusal(NO_FOLDER, {"file": str(file)})
    for content in (b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"<html>", b"\x93NUMPY\x09\x00\x10\x00"):
        file.write_bytes(content)
        assert "not a readable .npy file (wrong: " in refusal(NO_FOLDER, {"file": str(file)})


def test_a_run_on_bad_data_ends_before_anything_trains(tmp_path: Path) -> None:
    file = saved(tmp_path, points(7, 1, 1e39))
    write(tmp_path, replaced(("{name: checkerboard, train: 500, val: 200, test: 200}", "{file: points.npy}")))
    said = command(tmp_path, "run", "--suite", "tiny.yaml")
    assert said.code == 2
    assert Path(file).name in said.err
    assert "row 7, column 1 is 1e+39" in said.err
    assert not (tmp_path / "runs" / "cells").exists()
