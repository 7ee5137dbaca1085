"""Results as a file that can be shipped and sent: what one preset of a suite gave, each seed by itself.

    line 1      what it is: suite, preset, commands, how many lines and cells follow, and their SHA-256  (``Header``)
    line 2 ...  a variant of a task: labels, hyper-parameters, where it was trained, and its seeds  (``Variant``)

JSON, a value a line, in one gzip file: docs/reference.md describes every key. It says nothing of whose machine it was,
and the same content makes the same bytes. Whatever is not as described is refused in one message when it is read.
"""

import dataclasses
import hashlib
import json
import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from benchmark.records.results import ENDED, Header, Part, Variant, written
from benchmark.system import limits
from benchmark.system.validated import first_problem
from bism.errors import InputError, nearest, shown

_Kind = TypeVar("_Kind", bound=Part)
SHIPPED = Path(__file__).parents[2] / "reports" / "reference"  # data of the package, like its suites
ENDING = ".jsonl.gz"
FORMAT, VERSION = "bism-results", 1
BYTES, UNPACKED = 1 << 23, 1 << 26  # of a file, and of what is in it
_DIGITS = 25  # of a number as it is written: none of ours has more


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a file of results holds."""

    header: Header
    variants: Sequence[Variant]

    def of(self, task: str) -> list[Variant]:
        """The variants of a task."""
        return [one for one in self.variants if one.task == task]

    def seeds(self, tasks: Sequence[str]) -> list[int]:
        """All seeds that ended in these tasks."""
        ended = (one.seed for task in tasks for variant in self.of(task) for one in variant.seeds if one.state in ENDED)
        return sorted(set(ended))


# --- reading ----------------------------------------------------------------------------------------------------------


def read(path: Path) -> Reference:
    """A file of results, all of it checked.

    Raises:
        InputError: it is none, was cut, altered or damaged; with the line and the key.
    """
    first, rest = _lines(path)
    header = _header(path, first)
    if hashlib.sha256(rest).hexdigest() != header.sha256:
        raise InputError(
            f"{path}: its content is not what was exported, for its checksum is another: it was altered or damaged "
            f"since; ask for it again, or export it again"
        )
    lines = rest.removesuffix(b"\n").split(b"\n")
    if len(lines) != header.variants:
        raise InputError(f"{path}: has {len(lines)} variants, and its first line says {header.variants}")
    variants = [_part(path, number, line, Variant) for number, line in enumerate(lines, start=2)]
    cells = sum(len(one.seeds) for one in variants)
    if cells != header.cells:
        raise InputError(f"{path}: has {cells} cells, and its first line says {header.cells}")
    seen = set[tuple[str, str, int]]()
    for number, one in enumerate(variants, start=2):
        if one.task not in header.tasks:
            raise InputError(f"{path}: line {number}: no task '{one.task}': {nearest(one.task, header.tasks)}")
        for cell in ((one.task, one.variant, seed.seed) for seed in one.seeds):
            if cell in seen:
                raise InputError(f"{path}: line {number}: seed {cell[2]} of {cell[1]}, {cell[0]}, is given twice")
            seen.add(cell)
    _check_lines(path, variants)
    return Reference(header, variants)


def _check_lines(path: Path, variants: Sequence[Variant]) -> None:
    """A variant has more than one line where its seeds were trained elsewhere or by other versions; never where they
    were trained otherwise, which other names would tell."""
    first = dict[tuple[str, str], tuple[int, Variant]]()
    for number, one in enumerate(variants, start=2):
        if any(seed.state in ENDED for seed in one.seeds):
            line, before = first.setdefault((one.task, one.variant), (number, one))
            other = [name for name in ("method", "steps") if getattr(one, name) != getattr(before, name)]
            other += [name for name in one.param if before.param.get(name, one.param[name]) != one.param[name]]
            if other:
                raise InputError(
                    f"{path}: line {number}: {one.variant}, {one.task}, differs from line {line} in "
                    f"{', '.join(other[:5])}: what was trained otherwise needs a name of its own"
                )


def header_of(path: Path) -> Header:
    """The first line alone, in no time.

    Raises:
        InputError: it is no file of results.
    """
    return _header(path, _lines(path)[0])


def shipped(folder: Path | None = None) -> dict[tuple[str, str], Path]:
    """The files that come with the package, by suite and preset."""
    found = (folder or SHIPPED).glob(f"*{ENDING}")
    return {(header.suite, header.preset): path for path in sorted(found) for header in [header_of(path)]}


def _lines(path: Path) -> tuple[bytes, bytes]:
    """The first line, and all others."""
    packed = limits.read_file(path, BYTES, "file of results")
    what = f"{path}: no file of results"
    unpacker = zlib.decompressobj(31)  # gzip, whose checksum is checked
    try:
        content = unpacker.decompress(packed, UNPACKED + 1)
    except zlib.error as error:
        raise InputError(f"{what}: it is not compressed by gzip, or was damaged ({error})") from None
    if len(content) > UNPACKED:
        raise InputError(f"{what}: more than {UNPACKED:,} bytes are packed into its {len(packed):,}")
    if not unpacker.eof:
        raise InputError(f"{path}: its end is missing: it was cut")
    if unpacker.unused_data:
        raise InputError(f"{path}: {len(unpacker.unused_data):,} bytes follow after its end")
    first, newline, rest = content.partition(b"\n")
    if not newline or not rest.endswith(b"\n"):
        raise InputError(f"{what}: it has no lines, or its last line was cut")
    return first, rest


def _header(path: Path, line: bytes) -> Header:
    content = _json(path, 1, line)
    if content.get("format") != FORMAT:
        raise InputError(f"{path}: no file of results: its first line must say format: {FORMAT}")
    version = content.get("version")
    if type(version) is int and version > VERSION:
        raise InputError(f"{path}: is of format {version}, and this version of the package reads up to {VERSION}")
    return _validated(path, 1, content, Header)


def _part(path: Path, number: int, line: bytes, kind: type[_Kind]) -> _Kind:
    return _validated(path, number, _json(path, number, line), kind)


def _json(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """The mapping in a line: no key twice, and no number that a float cannot hold."""
    try:
        content = json.loads(
            line.decode(), parse_constant=_refused, parse_int=_whole, parse_float=_real, object_pairs_hook=_mapping
        )
    except (ValueError, RecursionError) as error:
        said = "it lies too deep" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{path}: line {number} is no JSON as we write it: {said}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: line {number} must be a mapping")
    return content


def _refused(text: str) -> float:
    raise ValueError(f'numbers must be finite, and others be written "nan", "inf" or "-inf", got {text}')


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number has {len(text):,} digits")
    return int(text)


def _real(text: str) -> float:
    value = float(text) if len(text) <= _DIGITS else math.inf
    if not math.isfinite(value):
        raise ValueError(f"a number is too large, or has more than {_DIGITS} digits: {shown(text)}")
    return value


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(name)} is given twice")
    return found


def _validated(path: Path, number: int, content: Mapping[str, Any], kind: type[_Kind]) -> _Kind:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: line {number}: {first_problem(error)}") from None


# --- writing ----------------------------------------------------------------------------------------------------------


def packed(header: Mapping[str, Any], variants: Sequence[Variant]) -> bytes:
    """A file of results: the same bytes for the same content.

    Args:
        header: the keys of ``Header`` but for those that follow from the variants.
    """
    lines = [_line(one.model_dump(exclude_defaults=True)) for one in variants]
    rest = b"".join(lines)
    counts = {"variants": len(lines), "cells": sum(len(one.seeds) for one in variants)}
    whole = Header.model_validate(
        {"format": FORMAT, "version": VERSION, **header, **counts, "sha256": hashlib.sha256(rest).hexdigest()}
    )
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)  # no file's name and no time in it
    return packer.compress(_line(whole.model_dump()) + rest) + packer.flush()


def _line(content: Any) -> bytes:
    text = json.dumps(written(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode() + b"\n"
