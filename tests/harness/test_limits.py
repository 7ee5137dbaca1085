"""What costs more than anybody can have, or cannot be, is refused in one message before anything is tried."""

import os
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.commands.completion import _content
from benchmark.commands.tune import seconds_of
from benchmark.data.datasets import MissingData, load
from benchmark.system import limits, memory, yaml_text
from benchmark.tasks import models, registry, spaces
from benchmark.tasks.suite import Variant, parse_seeds
from benchmark.tasks.suite_file import load_suite
from bism import BiDSM, InputError
from tests.harness.tiny import ROOT, TINY, Said, command, replaced, write

MANY = list(range(1, 201))
BOARD = "{name: checkerboard, train: 500, val: 200, test: 200}"
METHODS = registry.methods()


def dry(folder: Path, *arguments: str) -> Said:
    """A plan that is not carried out."""
    return command(folder, "run", "--suite", "tiny.yaml", "--dry-run", *arguments)


def refused(said: Said, *words: str) -> None:
    """One message, short enough to be read, with these words."""
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    assert len(said.err) < 4000
    for one in words:
        assert one in said.err


# --- suite files ------------------------------------------------------------------------------------------------------

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "more than 20,000 keys and values, those counted that aliases stand for"),
        ("suite: &r\n  loop: *r\n", "bad.yaml:2: not YAML: '*r' stands within what it stands for"),
        ("&x [*x]\n", "bad.yaml:1: not YAML: '*x' stands within what it stands for"),
        ("suite: " + "[" * 2000 + "]" * 2000, "bad.yaml:1: not YAML: more than 20 levels in each other"),
        ("suite: " + "{a: " * 2000, "more than 20 levels in each other"),
        ("".join(f"k{i}: 1\n" for i in range(21_000)), "more than 20,000 keys and values"),
        ("".join(f"key{i}: {i}\n" for i in range(700_000)), "a suite file has at most 262,144 bytes"),
        ("suite: 0x" + "f" * 5000, "whole numbers go up to 9,223,372,036,854,775,807, this one has 20,000 bits"),
        ("suite: " + "9" * 5000, "not a value of this kind, int"),
        ("suite: 2020-01-99\n", "bad.yaml:1: not YAML: is not a value of this kind, timestamp"),
        ("suite: !!int ''\n", "bad.yaml:1: not YAML: is not a value of this kind, int"),
        ("suite: !!bool 3\n", "bad.yaml:1: not YAML: is not a value of this kind, bool"),
        ('suite: "\\uD800"\n', "bad.yaml:1: not YAML: half a character"),
        ("a: 1\n---\nb: 2\n", "bad.yaml:2: not YAML: but found another document"),
        ("suite: a\0b\n", "bad.yaml: not YAML: special characters are not allowed"),
    ],
    ids=range(15),
)
def test_yaml_that_costs_more_than_it_shows(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, text, "bad.yaml")
    refused(command(tmp_path, "run", "--suite", "bad.yaml", "--dry-run"), words)


def test_aliases_are_as_good_as_what_they_stand_for(tmp_path: Path) -> None:
    text = replaced(("{lr: 0.01}", "&rates {lr: 0.01}"), ("{method: cd}", "{method: cd, set: *rates}"))
    write(tmp_path, "\ufeff" + text)  # and a mark before the text is none of it
    assert dry(tmp_path).code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("steps: 20", "steps: 2147483648"), "steps: must be at most 2,147,483,647, got 2147483648"),
        (("evaluations: 4", "evaluations: 999999999"), "evaluations: must be at most 100,000"),
        (("seeds: 0-1", "seeds: 0-99999999999"), "seeds: must be at most 10,000 seeds"),
        (("seeds: 0-1", "seeds: 0-999999999"), "seeds: must name at most 10,000 seeds, got '0-999999999'"),
        (("seeds: 0-1", "seeds: [0, 3000000000]"), "seeds: must be at most 10,000 seeds up to 2,147,483,647"),
        (("hidden: 3", "hidden: 99999999999"), "hidden: must be at most 1,000,000,000, got 99999999999"),
        (("train: 500", "train: 100000000000"), "train: must be at most 10,000,000,000, got 100000000000"),
        (("suite: tiny", "suite: .."), "suite: is a folder's own name or its parent's"),
        (("suite: tiny", "suite: ."), "suite: is a folder's own name or its parent's"),
        (("suite: tiny", f"suite: {'a' * 101}"), "suite: must have at most 100 characters, and has 101"),
        (("  test:\n", "  ..:\n"), "presets.."),
        (("  test:\n", "  a/b:\n"), "must have no '/', no '\\'"),
        (("  board:\n    desc", '  "a\\nb":\n    desc'), "must have no '/', no '\\' and no control characters"),
        (("{method: cd}", '{method: cd, name: "a\\nb"}'), "name: must be one line without control characters"),
        (("{method: cd}", "{method: cd, data_noise: .inf}"), "data_noise: must be finite, got inf"),
        (("{method: cd}", f"{{method: cd, set: {{k: {MANY}, lr: {MANY}}}}}"),
         "with this entry the file has 40,000 variants, and may have 20,000"),
        (("{method: cd}", "{method: cdd}"), "one of your own is named by --plugin FILE.py"),
        (("        all:", "        without: {cdd: x}\n        all:"), "one of your own is named by --plugin FILE.py"),
        (("        all:", "        probes: [{name: annealing, at: [1], options: {chains: 2000000000}}]\n        all:"),
         "numbers must be at most 1,000,000,000"),
        (("        all:", "        probes: [{name: annealing, at: [last], options: {tolerance: .nan}}]\n        all:"),
         "option tolerance of the probe annealing: must be finite"),
    ],
    ids=range(20),
)  # fmt: skip
def test_what_no_plan_may_ask_for(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    write(tmp_path, replaced(change))
    refused(dry(tmp_path), words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("hidden: 3}", "hidden: 1000000000}\n    metrics: []\n    select: val/objective"),
         "task board: CD-1, 3,000,000,004 parameters for each of 2 seeds"),
        (("train: 500", "train: 9000000000"), "the checkerboard with 9,000,000,400 points would take at least"),
        (("    model:", "    batch_size: 900000000\n    model:"), "minibatches of 900,000,000, would take at least"),
        ((BOARD, "{name: digits, pad: 10000}"), "data set digits padded to 10000 x 10000 would take at least"),
    ],
)  # fmt: skip
def test_what_does_not_fit_into_memory_is_refused_with_the_number(
    tmp_path: Path, change: tuple[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "machine_bytes", lambda: 8 << 30)
    write(tmp_path, replaced(change))
    refused(dry(tmp_path), words, "GiB of memory, and this machine has 8.0 GiB")


def test_parameters_are_counted_without_their_numbers() -> None:
    """A learnt sigma is one more; what cannot be made without numbers would be let through uncounted."""
    config = {"name": "latent_mlp", "visible": 2, "codes": 3, "width": 4}
    fixed = models.parameter_count(config)
    assert fixed == sum(parameter.numel() for parameter in models.build_model(config).parameters())
    assert models.parameter_count(config | {"learn_sigma": True}) == fixed + 1


GREEDY = """\
import dataclasses
from baselines import DSM


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy(DSM):
    id = "greedy"
    label = "Greedy"
    minibatches = {minibatches}

    def noise(self, model, batch_shape, rng):
        return {noise}
"""


@pytest.mark.parametrize(
    ("minibatches", "noise", "words"),
    [
        ("10**12", "{}", "greedy: ``minibatches`` must be a whole number from 1 to 21,474,836, got 1000000000000"),
        ("-1", "{}", "greedy: ``minibatches`` must be a whole number from 1 to 21,474,836, got -1"),
        ("10_000_000", "{}", "2 seeds, 10,000,000 minibatches of 100, would take at least 14.9 GiB of memory"),
        ("1", "rng.normal((10**12,))", "greedy: noise() asks for 1,000,000,000,000 random numbers for one step"),
        ("1", "rng.normal((200_000,))", "Greedy, 200,000 random numbers in a step of each of 2 seeds, would take at"),
    ],
)
def test_what_no_method_may_ask_for(
    tmp_path: Path, minibatches: str, noise: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "machine_bytes", lambda: 1 << 20)
    write(tmp_path, replaced(("{method: cd}", "{method: greedy}")))
    write(tmp_path, GREEDY.format(minibatches=minibatches, noise=noise), "greedy.py")
    refused(dry(tmp_path, "--plugin", "greedy.py"), words)


def test_problems_beyond_the_first_are_counted_and_not_listed(tmp_path: Path) -> None:
    write(tmp_path, replaced(("suite: tiny", "".join(f"x{i}: 1\n" for i in range(500)) + "suite: tiny")))
    said = dry(tmp_path)
    assert said.code == 2
    assert len(said.err.splitlines()) == 21
    assert said.err.splitlines()[-1] == "... and more than these 20"


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    for name, what in (("pipe", "a named pipe"), ("zero", "a device"), ("folder", "a folder")):
        refused(command(tmp_path, "run", "--suite", f"{name}.yaml"), f"{name}.yaml: no suite file: it is {what}")
    refused(command(tmp_path, "run", "--suite", "a" * 5000 + ".yaml"), "File name too long")
    refused(
        command(tmp_path, "run", "--suite", "tiny.yaml", "--plugin", "folder.yaml"), "no plug-in file: it is a folder"
    )
    assert _content(type("Line", (), {"suite": str(tmp_path / "pipe.yaml")})()) == {}  # the shell does not hang


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "0-1000000000"], "--seeds must name at most 10,000 seeds"),
        (["--seeds", "99999999999999999999"], "--seeds must be at most 10,000 seeds up to 2,147,483,647"),
        (["--seeds", "9" * 400], "--seeds must be at most 10,000 seeds up to 2,147,483,647"),
        (["--seeds", "4000000000"], "--seeds must be at most 10,000 seeds up to 2,147,483,647"),
        (["--seeds", "5-3,1"], "--seeds must have ranges from a lower seed to a higher one, got '5-3,1'"),
        (["--seeds", "²"], "--seeds must look like 0-9"),
        (["--seeds", "٣"], "--seeds must look like 0-9"),
        (["--seeds", "0,,1"], "--seeds must look like 0-9"),
        (["--steps", "10000000000000000000000"], "--steps must be at most 2,147,483,647, got 10000000000000000000000"),
        (["--steps", "1e22"], "--steps must be a whole number, written with the digits 0 to 9, got '1e22'"),
        (["--steps", "٣"], "--steps must be a whole number, written with the digits 0 to 9, got '٣'"),
        (["--steps", "1_0"], "--steps must be a whole number"),
        (["--steps", "9" * 5000], "--steps must be a whole number"),
        (["--threads", "٣"], "--threads must be a whole number"),
        (["--checkpoint-every", "٣"], "--checkpoint-every must be a number such as 5 or 0.5, got '٣'"),
        (["--stall-limit", "1_0"], "--stall-limit must be a number"),
        (["--steps", "2147483648"], "--steps must be at most 2,147,483,647"),
        (["--steps", "9" * 400], "--steps must be at most 2,147,483,647"),
        (["--devices", "cuda:²"], "--devices must be cpu, cuda or like cuda:0,1, got 'cuda:²'"),
        (["--shard", "²/4"], "--shard must look like 1/4"),
        (["--shard", "1/999999999"], "--shard must look like 1/4"),
        (["--threads", "10000000000"], "--threads must be at most 4,096"),
        (["--jobs-per-device", "10000000000"], "--jobs-per-device must be at most 1,024"),
        (["--data-parallel", "10000000000"], "--data-parallel must be at most 1,024"),
        (["--checkpoint-every", "nan"], "--checkpoint-every must be a positive number, got nan"),
        (["--stall-limit", "1e300"], "--stall-limit must be at most"),
        (["--set", "cd.k=" + "[" * 3000], "more than 20 levels in each other"),
        (["--set", "cd.k=&x [*x]"], "'*x' stands within what it stands for"),
        (["--set", "cd.lr=" + "9" * 400], "whole numbers go up to"),
        (["--set", "bidsm.K=1000000000000"], "bidsm: inner_steps must be from 0 to 1,000, got 1000000000000"),
        (["--set", "bidsm.N=101"], "bidsm: unroll_steps must be from 0 to 100, got 101"),
        (["--set", "cd.k=1001"], "cd: k must be from 1 to 1,000, got 1001"),
        (["--set", "cd.lr=٣e5"], "cd: lr must be a number, got '٣e5'"),
        (["--set", "cd.lr=.inf"], "cd: lr must be finite, got inf"),
        (["--run-dir", "a\0b"], "--run-dir 'a\\x00b': must be UTF-8 and have no NUL"),
        (["--tasks", "bo\udcffard"], "--tasks 'bo\\udcffard': must be UTF-8 and have no NUL"),
        (["--preset", "\x1b[2J"], "no preset '\\x1b[2J'"),
        (["--run-dir", "r" * 5000], "file name too long"),
        (["--data-dir", "d" * 5000, "--preset", "t" * 5000], "suite tiny has no preset 'tttt"),
    ],
    ids=range(39),
)
def test_values_that_cannot_be(tmp_path: Path, arguments: list[str], words: str) -> None:
    write(tmp_path)
    refused(dry(tmp_path, *arguments), words)
    assert not (tmp_path / "runs").exists()


def test_a_plan_of_too_many_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.tasks.plan.CELLS", 30)
    write(tmp_path)
    assert dry(tmp_path, "--seeds", "0-14").code == 0
    refused(dry(tmp_path, "--seeds", "0-15"), "this plan has more than 30 cells")


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    long = "n" * 5000
    for arguments in (
        ["status", "--run-dir", long],
        ["data", "where", "mnist", "--data-dir", long],
        ["list", f"{long}.yaml"],
        ["list", "--plugin", long],
        ["ui", "--port", "70000"],
    ):
        refused(command(tmp_path, *arguments))


@pytest.mark.parametrize("text", ["٣m", "9" * 400, "1e5", "-1", "0", "nan", "1" * 20 + "h"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="--budget must"):
        seconds_of("--budget", text)


@pytest.mark.parametrize(
    "said",
    [
        {"low": 1, "high": 2, 3: 4, "x": 5},
        "٣..5",
        "0..1001",
        "0..99999999999999999999",
        "." * 100_000,
        "9" * 400 + ".." + "9" * 401,
        [[]],
        [],
        {},
        float("nan"),
    ],
    ids=range(10),
)
def test_spaces_that_are_none(said: Any) -> None:
    with pytest.raises(InputError):
        spaces.changed(BiDSM, spaces.declared(BiDSM), {"K": said})


def test_seeds_in_all_their_forms() -> None:
    assert parse_seeds("0-2, 7,5-6 ,1") == [0, 1, 2, 5, 6, 7]
    assert parse_seeds(f"{limits.SEED}") == [limits.SEED]
    assert len(parse_seeds("0-9999")) == limits.SEEDS


def test_whole_numbers_of_ten_digits_at_most() -> None:
    assert [limits.whole(text) for text in ("0", "007", "9999999999")] == [0, 7, 9_999_999_999]
    assert [limits.whole(text) for text in ("", "-1", "+1", "1.0", " 1", "²", "٣", "1_0", "1\n", "9" * 11)] == [
        None
    ] * 10


def test_digits_are_asked_for_in_a_way_that_int_agrees_with() -> None:
    """``"²".isdigit()`` is true, and ``int("²")`` raises."""
    for folder in ("benchmark", "reports", "bism", "baselines"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            found = [line for line in file.read_text().splitlines() if re.search(r"\.is(digit|numeric)\(", line)]
            assert not found, file


@pytest.mark.parametrize("name", ["", " a", ".", "..", "...", "a/b", "a\\b", "a\nb", "\ud800", "n" * 101, r"$\frac{$"])
def test_names_that_are_none(name: str) -> None:
    assert limits.name_problem(name)


def test_names_of_variants_stand_in_figures() -> None:
    Variant(method="cd", name="5$ a step")
    with pytest.raises(ValueError, match=r"must have no two '.', between which figures would read a formula"):
        Variant(method="cd", name=r"$\frac{$")


@pytest.mark.parametrize("name", ["a", "it's", "Größe 3", ".hidden", "a..b", "grbm", "n" * 100])
def test_names(name: str) -> None:
    assert limits.name_problem(name) is None


# --- arrays -----------------------------------------------------------------------------------------------------------

POINTS = np.random.RandomState(0).normal(size=(50, 3))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"1.0,2.0\n3.0,4.0\n", "it is a text, such as CSV: np.save"),
        (b"\x1f\x8b\x08\x00", "it is packed by gzip"),
        (b"\x89HDF\r\n\x1a\n", "it is an HDF5 file"),
        (b"PAR1", "it is a Parquet file"),
        (b"\x80\x04\x95", "it is a pickle"),
        (b"PK\x03\x04", "it is an .npz archive"),
    ],
)
def test_data_in_other_formats_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "points.npy"
    file.write_bytes(content)
    with pytest.raises(MissingData, match=words):
        load({"file": str(file)}, tmp_path)


def npy(descr: str, shape: str, order: str = "False", more: str = "", version: int = 1) -> bytes:
    """An .npy file with this header and nothing behind it."""
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, {more}}}".encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2 if version == 1 else 4, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        npy("'<f8'", "(10, -3)"),
        npy("'<f8'", "(-10, -3)"),
        npy("'<f8'", f"({'9' * 4000}, {'9' * 4000})"),
        npy("'V0'", "(99999999999999999999, 3)"),
        npy("'<f8'", "(0, 99999999999999999999)"),
        npy("'<f8'", "(" + "1, " * 100 + ")"),
        npy("'<f8'", "(" * 150 + "1" + ")" * 150),
        npy("'<f8'", "-" * 9000 + "1"),
        npy("'O'", "(10, 3)"),
        npy("[('a', '<f8')]", "(10, 3)"),
        npy("'<f8'", "(10L, 3L)"),
        npy("'<f8'", "(10, 3)", "None"),
        npy("'<f8'", "(10, 3)", more="'x': 1"),
        npy("'<f8'", "(10, 3)", version=3),
    ],
    ids=range(14),
)
def test_headers_that_no_array_has(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "points.npy"
    file.write_bytes(content)
    with pytest.raises(MissingData) as error:
        load({"file": str(file)}, tmp_path)
    assert str(error.value).startswith(f"{file}: ")
    assert "Exceeds the limit" not in str(error.value)  # Python's, for numbers of thousands of digits


def test_a_file_of_holes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_bytes", lambda: 8 << 30)
    file = tmp_path / "points.npy"
    file.write_bytes(npy("'<f4'", "(3000000000, 100)"))
    os.truncate(file, 4 * 300_000_000_000 + 1000)
    with pytest.raises(InputError, match=r"points.npy, float32 \[3000000000, 100\], would take at least 2,235.2 GiB"):
        load({"file": str(file)}, tmp_path)


def test_a_pipe_in_the_place_of_data_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "points.npy")
    assert stat.S_ISFIFO((tmp_path / "points.npy").stat().st_mode)
    with pytest.raises(MissingData, match="no file: it is a named pipe"):
        load({"file": str(tmp_path / "points.npy")}, tmp_path)
    (tmp_path / "freyface").mkdir()
    os.mkfifo(tmp_path / "freyface" / "frey_rawface.mat")
    with pytest.raises(MissingData, match="it is a folder, a pipe or a device"):
        load({"name": "freyface"}, tmp_path)


def test_the_shipped_suites_are_far_from_the_bounds() -> None:
    for file in (ROOT / "benchmark" / "suites").glob("*.yaml"):
        assert file.stat().st_size < yaml_text.BYTES / 10
    assert load_suite("grbm", METHODS).suite == "grbm"
    assert TINY.startswith("suite: tiny")
