"""Files of results made by hand."""

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.records import reference
from benchmark.records.results import Variant

LL = "test/log_likelihood"
HASH = "0123456789abcdef" * 4


def seed(number: int, value: float, **more: Any) -> dict[str, Any]:
    """A seed that is done, with a curve."""
    return {
        "seed": number,
        "state": "done",
        "last": {LL: value, "time/ms_per_step": 2.0, "time/train_seconds": 1.0},
        "curves": {LL: {"steps": [0, 10, 20], "values": [-1.0, 0.5, float(f"{value:.4e}")]}},
        **more,
    }


def variant(name: str, values: Sequence[float] | Mapping[int, float], **more: Any) -> dict[str, Any]:
    """A variant of the task board, a value for each seed."""
    of = values if isinstance(values, Mapping) else dict(enumerate(values))
    return {
        "task": "board",
        "variant": name,
        "method": "cd",
        "steps": 20,
        "select": "last val/log_likelihood",
        "device": "cpu",
        "machine": "AMD EPYC, 2 cores",
        "git_commit": "0123456789abcdef",
        "data_hash": HASH[:36],
        "drawn_as": {"label": "CD", "family": "Contrastive divergence", "colour": "#2878c8", "marker": "o"},
        "param": {"lr": "0.01", "batch_size": "100", "model": "grbm", "model_hidden": "3", "model_visible": "2"},
        "seeds": [seed(number, value) for number, value in of.items()],
        **more,
    }


TWO = (variant("CD-1", [0.123456789, 0.2]), variant("CD-5", [0.3, 0.4]))


def packed(*variants: dict[str, Any], **header: Any) -> bytes:
    """A file of results."""
    about = {"suite": "tiny", "preset": "test", "tasks": ["board"], "commands": ["python -m benchmark run"], **header}
    return reference.packed(about, [Variant.model_validate(one) for one in variants])


def written(path: Path, *variants: dict[str, Any], **header: Any) -> Path:
    """The same, in a file."""
    path.write_bytes(packed(*variants, **header))
    return path


def lines(content: bytes) -> list[Any]:
    """What the lines of a file hold."""
    return [json.loads(line) for line in gzip.decompress(content).splitlines()]


def again(parts: Sequence[Any], summed: bool = True) -> bytes:
    """A file of these lines (texts as they are); ``summed``: by somebody who mends the checksum as well."""
    first, *others = parts
    texts = [one if isinstance(one, str) else json.dumps(one) for one in others]
    rest = "".join(f"{text}\n" for text in texts).encode()
    if summed and isinstance(first, dict):
        first = {**first, "sha256": hashlib.sha256(rest).hexdigest()}
    head = first if isinstance(first, str) else json.dumps(first)
    return gzip.compress(head.encode() + b"\n" + rest, mtime=0)
