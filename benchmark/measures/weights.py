"""Files with the weights of published networks: where they come from, and whether they are what they should be."""

import contextlib
import dataclasses
import hashlib
import io
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmark.data.formats import Damaged, not_a_web_page
from bism.errors import InputError


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a file holds, and the sha256 of its bytes in hexadecimal."""

    path: Path
    content: Any
    sha256: str


@dataclasses.dataclass(frozen=True)
class Published:
    """The weights of a network as its authors give them away, in ``file`` at ``address``; ``option`` takes a path, and
    so does the environment's ``variable``."""

    network: str
    file: str
    address: str
    option: str
    variable: str

    @property
    def hint(self) -> str:
        """How to get them and where to name them."""
        return f"give {self.option} PATH ({self.file}, {self.address})"

    def given(self, path: Path | None) -> Path | None:
        """The file that the user names: ``path``, by the option, or else the variable's.

        Raises:
            InputError: there is none of that name.
        """
        named = path or (Path(os.environ[self.variable]) if os.environ.get(self.variable) else None)
        if named is not None and not named.is_file():
            raise InputError(f"{self.option if path else f'${self.variable}'} {named}: no such file")
        return named.resolve() if named else None

    def downloaded(self) -> Path | None:
        """Where torch.hub keeps such files, if this one is there."""
        path = Path(torch.hub.get_dir()) / "checkpoints" / self.file
        return path if path.is_file() else None

    def read(self, path: Path) -> Weights:
        """What the file holds. A name like ``resnet56-4bfd9763.th`` carries the first digits of its sha256.

        Raises:
            InputError: there is no such file, it is damaged, or it holds more than weights.
        """
        try:
            raw = path.read_bytes()
            not_a_web_page(raw[:100])
        except OSError as error:
            raise self.refusal(path, f"cannot be read ({error.strerror})") from None
        except Damaged as error:
            raise self.refusal(path, str(error)) from None
        sha256 = hashlib.sha256(raw).hexdigest()
        named = re.search(r"-([0-9a-f]{8,64})\.", path.name)
        if named and not sha256.startswith(named[1]):
            raise self.refusal(
                path, f"truncated or altered: its name says that its sha256 begins with {named[1]}, not {sha256[:8]}"
            )
        try:
            content = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for damaged files
            raise self.refusal(path, f"damaged, or holds more than weights ({type(error).__name__})") from None
        return Weights(path, content, sha256)

    @contextlib.contextmanager
    def fitting(self, path: Path) -> Iterator[None]:
        """Puts weights from ``path`` into a network.

        Raises:
            InputError: they are another network's.
        """
        try:
            yield
        except (RuntimeError, TypeError, AttributeError) as error:  # all that load_state_dict raises
            raise self.refusal(path, f"the weights of another network ({textwrap.shorten(str(error), 200)})") from None

    def refusal(self, path: Path, detail: str) -> InputError:
        """The error for a file that cannot be used."""
        return InputError(f"{path}: {detail}; {self.option} needs {self.file} ({self.network}) from {self.address}")


INCEPTION = Published(
    "Inception v3 of 2015-12-05",
    "weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "--inception-weights",
    "BISM_INCEPTION",
)
