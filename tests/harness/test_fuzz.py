"""Whatever stands in a suite file, behind an option or in the header of an array: an exit code, one message, no
traceback, and nothing outside the folder."""

import contextlib
import copy
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.commands.tune import seconds_of
from benchmark.data.datasets import load
from benchmark.tasks import spaces
from bism import BiDSM, InputError
from tests.harness.tiny import TINY, Said, command, write

EXAMPLES = [8, pytest.param(500, marks=pytest.mark.long)]


def tried(count: int, **strategies: Any) -> Callable[[Callable[..., None]], None]:
    """Calls a function with so many examples, the same ones every time."""

    def call(function: Callable[..., None]) -> None:
        bounded = settings(
            derandomize=True, deadline=None, database=None, max_examples=count, suppress_health_check=list(HealthCheck)
        )
        bounded(given(**strategies)(function))()

    return call


def said(folder: Path, *arguments: str) -> Said:
    """How a command line ended; asserts that it ended well."""
    try:
        found = command(folder, *arguments)
    except SystemExit as ended:  # as --help does
        found = Said(int(ended.code or 0), "", "")
    assert found.code in (0, 1, 2), arguments
    assert "Traceback" not in found.out + found.err
    if found.code == 2:
        assert found.err.startswith("error: "), found
        assert found.err.count("error: ") <= 1 or len(found.err) < 5000
    assert len(found.err) < 100_000
    return found


@pytest.fixture
def inner(tmp_path: Path) -> Path:
    """A folder in a folder, in which nothing may appear."""
    (tmp_path / "inner").mkdir()
    return tmp_path / "inner"


def nothing_outside(inner: Path, *ours: str) -> None:
    assert [file.name for file in inner.parent.iterdir()] == ["inner"]
    assert {file.name for file in inner.iterdir()} <= {*ours, "runs"}


# --- suite files ------------------------------------------------------------------------------------------------------

NASTY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**62, -(2**63), 10**400, 0.5, -1.0, 1e308, float("inf"), float("nan")]),
    st.sampled_from(["", ".", "..", "../x", "a/b", "~", "0-99999999", "5-3", "²", "1..2 log", "data", "tf32", "last"]),
    st.sampled_from([[], {}, [[]], [1, [2]], {"a": {"b": []}}, ["x"] * 50, {1: 2}, {"low": 1}]),
    st.text(max_size=10),
    st.text(min_size=300, max_size=400),
)


def places(content: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys that lead to everything in a suite."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [where, *(place for key, value in inside for place in places(value, (*where, key)))]


@st.composite
def damaged_suites(draw: st.DrawFn) -> bytes:
    """The tiny suite with some entries replaced, renamed, removed or added, as YAML."""
    content = yaml.safe_load(TINY)
    for _ in range(draw(st.integers(1, 3))):
        *where, key = draw(st.sampled_from(places(content)[1:]))
        holder = content
        for one in where:
            holder = holder[one]
        what = draw(st.sampled_from(["replace", "replace", "rename", "remove", "add"]))
        if what == "replace" or isinstance(holder, list):
            holder[key] = copy.deepcopy(draw(NASTY))  # or the suite would come to hold itself
        elif what == "add":
            optional = [
                "probes",
                "without",
                "name",
                "set",
                "spaces",
                "precision",
                "scale",
                "pad",
                "crop",
                "file",
                "init",
            ]
            holder[draw(st.sampled_from(optional) | st.text(max_size=5))] = copy.deepcopy(draw(NASTY))
        else:
            value = holder.pop(key)
            if what == "rename":
                holder[draw(st.text(max_size=8) | st.sampled_from(["..", "a/b", "it's"]))] = value
    return yaml.safe_dump(content, allow_unicode=draw(st.booleans())).encode(errors="surrogatepass")


@st.composite
def spliced_suites(draw: st.DrawFn) -> bytes:
    """The tiny suite's text with others in its middle."""
    text = TINY.encode()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        inserted = draw(st.text("[]{}:-&*!|>'\"#,?%<= \n\tab01", max_size=8).map(str.encode) | st.binary(max_size=4))
        text = text[:at] + inserted + text[at + draw(st.integers(0, 5)) :]
    return text


@pytest.mark.parametrize("examples", EXAMPLES)
def test_suite_files(inner: Path, examples: int) -> None:
    @tried(examples, content=damaged_suites() | spliced_suites() | st.binary(max_size=100))
    def _(content: bytes) -> None:
        (inner / "bad.yaml").write_bytes(content)
        found = said(inner, "run", "--suite", "bad.yaml", "--dry-run")
        assert found.code == 0 or "bad.yaml" in found.err or "task" in found.err or "data set" in found.err, found.err
        nothing_outside(inner, "bad.yaml")


# --- the command line -------------------------------------------------------------------------------------------------

OPTIONS = [
    *("--seeds", "--steps", "--tasks", "--methods", "--preset", "--set", "--shard", "--threads", "--devices"),
    *("--data-parallel", "--jobs-per-device", "--checkpoint-every", "--stall-limit", "--plugin", "--data-dir"),
]
ODD = st.sampled_from([2**31, 2**63, "1e22", "²", "٣"])
NUMBERS = st.integers() | st.floats() | st.integers(-(10**400), 10**400) | ODD
VALUES = st.one_of(
    NUMBERS.map(str),
    st.tuples(NUMBERS, st.sampled_from("-/,.:"), NUMBERS).map(lambda parts: "".join(map(str, parts))),
    st.text(max_size=20),
    st.sampled_from(["", ".", "..", "\0", "\udc80", "n" * 5000, "[" * 3000]),
    st.sampled_from(["cuda:0", "cuda:", "cpu", "board", "cd", "test"]),
    st.tuples(st.sampled_from(["cd.k=", "bidsm.K=", "cd.lr=", "cd.", "="]), NUMBERS.map(str) | st.text()).map("".join),
)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_command_lines(inner: Path, examples: int) -> None:
    write(inner)

    @tried(examples, given=st.dictionaries(st.sampled_from(OPTIONS), VALUES, min_size=1, max_size=3))
    def _(given: dict[str, str]) -> None:
        said(inner, "run", "--suite", "tiny.yaml", "--dry-run", *(f"{name}={value}" for name, value in given.items()))
        nothing_outside(inner, "tiny.yaml")


@pytest.mark.parametrize("examples", EXAMPLES)
def test_other_commands(inner: Path, examples: int) -> None:
    lines = st.one_of(
        st.tuples(st.just("list"), VALUES),
        st.tuples(st.just("delete"), st.sampled_from(["--seeds", "--cells", "--methods", "--states"]), VALUES),
        st.tuples(st.just("status"), st.just("--run-dir"), VALUES),
        st.tuples(st.sampled_from(["data where", "data verify"]), VALUES),
        st.tuples(st.just("ui"), st.just("--port"), VALUES),
        st.tuples(st.just("sync"), st.just("--run-dir"), VALUES),
        st.tuples(VALUES),
    )

    @tried(examples, line=lines)
    def _(line: tuple[str, ...]) -> None:
        first, *others = line
        words = first.split(" ") if first.startswith("data ") else [first]
        option, value = (others[0], others[1]) if len(others) == 2 else ("", others[0] if others else "")
        given = [f"{option}={value}"] if option else [value] * bool(others)
        if words != ["run"]:
            said(inner, *words, *given)
        nothing_outside(inner)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_values_of_tuning(examples: int) -> None:
    @tried(examples, text=VALUES, value=NASTY, key=st.sampled_from(["K", "lr", "lower", "x"]))
    def _(text: str, value: Any, key: str) -> None:
        with contextlib.suppress(InputError):
            assert 0 < seconds_of("--budget", text) <= 1e9
        for one in (text, value):
            with contextlib.suppress(InputError):
                spaces.changed(BiDSM, spaces.declared(BiDSM), {key: one})


# --- arrays -----------------------------------------------------------------------------------------------------------

LENGTHS = st.integers(-5, 60) | st.sampled_from([0, 2**31, 2**63, 10**30, 10**3000])
DESCRIPTIONS = st.sampled_from(
    ["<f8", ">f4", "<i2", "|u1", "|b1", "<c16", "<M8[s]", "|S0", "|V0", "<U3", "O", "<f16", "|V8", "", "x", "3f4"]
) | st.text(max_size=4)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """An .npy file whose header says what it likes."""
    fields: dict[str, Any] = {
        "descr": draw(DESCRIPTIONS | st.just([("a", "<f8")]) | st.integers()),
        "fortran_order": draw(st.booleans() | st.none()),
        "shape": tuple(draw(st.lists(LENGTHS, max_size=4))),
    }
    if draw(st.integers(0, 4)) == 0:
        fields[draw(st.text(max_size=3))] = draw(st.integers())
    text = repr(fields).encode(errors="replace") + b" " * draw(st.integers(0, 20)) + b"\n"
    version = draw(st.sampled_from([(1, 0), (2, 0), (3, 0), (4, 0), (0, 0)]))
    length = struct.pack("<H" if version[0] == 1 else "<I", min(len(text), 2**16 - 1) + draw(st.integers(-1, 1)))
    return b"\x93NUMPY" + bytes(version) + length + text + draw(st.binary(max_size=200)) * draw(st.integers(0, 9))


@st.composite
def damaged_arrays(draw: st.DrawFn) -> bytes:
    """A sound file with some bytes changed, or cut."""
    file = io.BytesIO()
    np.save(file, np.random.RandomState(0).normal(size=(30, 3)))
    content = bytearray(file.getvalue())
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, 140))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@pytest.mark.parametrize("examples", [100, pytest.param(2000, marks=pytest.mark.long)])
def test_headers_of_arrays(inner: Path, examples: int) -> None:
    files = headers() | damaged_arrays() | st.binary(max_size=60)

    @tried(examples, content=files, scale=st.sampled_from(["none", "unit"]))
    def _(content: bytes, scale: str) -> None:
        (inner / "points.npy").write_bytes(content)
        found, refusal = None, ""
        try:
            found = load({"file": str(inner / "points.npy"), "scale": scale}, inner)
        except InputError as error:
            refusal = str(error)
        if found is None:
            assert "points" in refusal
            assert len(refusal) < 2000
        else:
            assert all(bool(split.isfinite().all()) for split in (found.train, found.val, found.test))
        nothing_outside(inner, "points.npy")
