"""Checkpoint files: plain containers of tensors and numbers, written whole or not at all, read without pickled code."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import keystr, tree_leaves_with_path, tree_map

from bism.errors import InputError
from bism.optimisers import Tree

_KEYS = {"estimator", "hyper", "seeds", "batch_size", "data_noise", "precision", "shards", "step", "train_seconds",
         "reported", "tensors"}  # fmt: skip
_SINCE = {"data_noise": 0.0, "precision": "float32", "shards": 1}  # what the first checkpoints do not say


def save_checkpoint(content: dict[str, Any], path: Path | str) -> None:
    """Writes a checkpoint; a reader sees the old file or the new one, never a part, even if the power fails."""
    partial = Path(f"{path}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # a full disk: what was there before stays, and the part takes no room
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """The content of a checkpoint file; tensors and plain containers only, no pickled code.

    Raises:
        InputError: missing, truncated, altered or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes check sums and does not look at them
            damaged = archive.testzip()
        if damaged is not None:
            raise InputError(f"{path}: damaged in {damaged}")
        content: dict[str, Any] = {**_SINCE, **torch.load(path, weights_only=True, map_location="cpu")}
        missing = _KEYS - set(content)
        content = content if missing else _by_parts(content)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint") from None
    except InputError:
        raise
    except Exception as error:  # torch.load raises a dozen kinds for damaged files
        raise InputError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    if missing:
        raise InputError(f"{path}: not a whole checkpoint, it lacks {', '.join(sorted(missing))}")
    return content


def _by_parts(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with an optimiser's state for each part; those of before version 0.2 had one for all parts, or one
    for the upper level and one for the lower."""
    state = content["tensors"]["state"]
    optimiser = state["optimiser"]
    together = optimiser.get("upper", optimiser)
    if not {"first", "second", "count"} <= together.keys():
        return content
    of_parts = {
        part: {"first": first, "second": together["second"][part], "count": together["count"]}
        for part, first in together["first"].items()
    }
    if "lower" in optimiser:
        of_parts["posterior"] = optimiser["lower"]
    return {**content, "tensors": {**content["tensors"], "state": {**state, "optimiser": of_parts}}}


def merge_checkpoints(contents: list[dict[str, Any]]) -> dict[str, Any]:
    """Checkpoints of single seeds that were saved together, as one of all these seeds, in this order."""
    tensors = tree_map(lambda *x: torch.cat(x), *[content["tensors"] for content in contents])
    return {**contents[0], "seeds": [seed for content in contents for seed in content["seeds"]], "tensors": tensors}


def differences(ours: Tree, theirs: Tree) -> Iterator[tuple[str, str | None, str | None]]:
    """Where the shapes and types of tensors differ: the place, and what either has there."""
    here, there = _described(ours), _described(theirs)
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            yield name, here.get(name), there.get(name)


def _described(tensors: Tree) -> dict[str, str]:
    """Shape and type of every tensor, by its place."""
    return {keystr(place): f"{list(x.shape)} {x.dtype}" for place, x in tree_leaves_with_path(tensors)}
