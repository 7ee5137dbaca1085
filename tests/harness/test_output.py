"""What commands print arrives wherever it goes: in any encoding, and where nobody reads it."""

import errno
import io
import json
import os
import sys
from pathlib import Path

import pytest

from benchmark.commands.cli import main as benchmark
from benchmark.system import tables
from bism.errors import message
from reports.__main__ import main as reports

LISTS = {
    **{form: (reports, ["claims", "--list", "--format", form]) for form in ("text", "markdown", "json", "csv")},
    "suite": (benchmark, ["list", "toy2d"]),
}


@pytest.mark.parametrize("form", LISTS)
def test_what_an_encoding_lacks_is_written_in_plain_letters(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command, line = LISTS[form]
    plain, rich = io.TextIOWrapper(io.BytesIO(), "ascii"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    for stream in (plain, rich):
        monkeypatch.setattr(sys, "stdout", stream)
        assert command(line) == 0
        stream.flush()
    said = plain.buffer.getvalue().decode("ascii")
    meant = rich.buffer.getvalue().decode()
    assert said.count("?") == meant.count("?")
    assert said.count("-") >= meant.count("-") + meant.count("−")
    if form == "json":
        as_meant = json.dumps(json.loads(meant), ensure_ascii=False)
        for rich_one, plain_one in {"−": "-", "×": "x", "±": "+-", "≥": ">=", "≤": "<=", "²": "^2"}.items():
            as_meant = as_meant.replace(rich_one, plain_one)
        assert json.loads(said) == json.loads(as_meant)


def test_each_character_has_its_counterpart_or_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    benchmark(["list"])
    print("−1 ± 2 ≥ 3 × 4… “φ” \U0001d465 \udcff", end="")
    stream.flush()
    said = stream.buffer.getvalue().decode("ascii")
    assert said.endswith("-1 +- 2 >= 3 x 4... '\\u03c6' \\U0001d465 \\udcff")


@pytest.mark.parametrize("form", LISTS)
def test_closed_streams_stop_nothing(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command, line = LISTS[form]
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert command(line) == 0
    for name in ("stdout", "stderr"):
        getattr(sys, name).close()  # what stands in for it


class Full(io.StringIO):
    """A stream that takes nothing, or takes all and cannot bring it away."""

    def __init__(self, number: int, fails: str) -> None:
        super().__init__()
        self.error, self.fails = OSError(number, os.strerror(number)), fails

    def write(self, text: str) -> int:
        if self.fails == "write":
            raise self.error
        return super().write(text)

    def flush(self) -> None:
        if self.fails == "flush":
            raise self.error


@pytest.mark.parametrize("fails", ["write", "flush"])
@pytest.mark.parametrize("form", LISTS)
def test_output_that_cannot_be_written_is_named_and_a_reader_may_go(
    form: str, fails: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, line = LISTS[form]
    for number, code, said in (
        (errno.ENOSPC, 2, "error: standard output: no space left on device\n"),
        (errno.EPIPE, 0, ""),
    ):
        monkeypatch.setattr(sys, "stdout", Full(number, fails))
        assert command(line) == code
        assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/x/1.lock"), "/x/1.lock: read-only file system"),
        (OSError(errno.EXDEV, "Invalid cross-device link", b"a", None, Path("b")), "a -> b: invalid cross-device link"),
        (OSError(errno.EIO, "I/O error"), "I/O error"),
        (OSError(errno.EBADF, "Bad file descriptor", 7), "bad file descriptor"),
        (OSError("of a library"), "of a library"),
    ],
)
def test_an_error_of_the_system_says_where_and_what(error: OSError, said: str) -> None:
    assert message(error) == said


def test_through_a_pipe_both_command_lines_print_as_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("COLUMNS", "60")
    assert tables.console().width == 60
    monkeypatch.delenv("COLUMNS")
    assert tables.console().width == 120
    for command, line in (LISTS["suite"], LISTS["text"]):
        monkeypatch.setattr(sys, "stdout", out := io.StringIO())
        command(line)
        assert max(map(len, out.getvalue().splitlines())) in range(81, 121)
