"""Checkpoint files: plain containers of tensors and numbers, written whole or not at all, read without pickled code."""

import os
from pathlib import Path
from typing import Any

import torch

from bism.errors import InputError

_KEYS = {"estimator", "hyper", "seeds", "batch_size", "data_noise", "step", "train_seconds", "reported", "tensors"}


def save_checkpoint(content: dict[str, Any], path: Path | str) -> None:
    """Writes a checkpoint; a reader sees the old file or the new one, never a part."""
    partial = Path(f"{path}.partial")
    torch.save(content, partial)
    os.replace(partial, path)


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """The content of a checkpoint file; tensors and plain containers only, no pickled code.

    Raises:
        InputError: missing, truncated or not a checkpoint.
    """
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        missing = _KEYS - set(content)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch.load raises a dozen kinds for damaged files
        raise InputError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    if missing:
        raise InputError(f"{path}: not a whole checkpoint, it lacks {', '.join(sorted(missing))}")
    return content
