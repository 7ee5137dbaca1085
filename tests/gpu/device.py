"""Where these tests run, and what they share.

They run on a GPU; ``BISM_TEST_DEVICE=cpu`` rehearses them without one, with a replay that calls what it recorded.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import psutil
import pytest
import torch
from torch.utils._pytree import tree_leaves

from bism import engine
from bism.engine import Trainer
from tests.contracts.cases import Case, trainer

DEVICE = os.environ.get("BISM_TEST_DEVICE", "cuda")
ON_A_GPU = DEVICE.startswith("cuda")
_MISSING = ON_A_GPU and not torch.cuda.is_available()

# Other people's code may warn of what it likes, in versions that nobody has tried; ours says here what it must not say.
on_the_device = [
    pytest.mark.gpu,
    pytest.mark.timeout(1200),  # programs are compiled, the deep ones for a minute each
    pytest.mark.skipif(_MISSING, reason="there is no GPU here (BISM_TEST_DEVICE=cpu rehearses it without)"),
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("error:training runs"),
]
gpu_alone = pytest.mark.skipif(not ON_A_GPU, reason="it is of GPUs alone")


@contextmanager
def capturing(wanted: bool = True) -> Iterator[None]:
    """Trainers that are made and used inside record their steps, or do not."""
    with ExitStack() as stack:
        if not (wanted and ON_A_GPU):
            stack.enter_context(mock.patch.object(engine, "captures", return_value=wanted))
        if not ON_A_GPU:
            stack.enter_context(mock.patch.object(engine, "capture_on_cuda", return_value=lambda function: function))
        yield


def here(case: Case, compiled: bool = False, **options: Any) -> Trainer:
    """A trainer of a case on the device, in float64."""
    mine = trainer(case, device=DEVICE, compile=compiled, **options)
    assert mine.compiled == compiled
    return mine


def distance(x: Any, y: Any) -> float:
    """The largest difference between two trees, relative where the numbers are larger than one."""
    pairs = [(a.cpu().double(), b.cpu().double()) for a, b in zip(tree_leaves(x), tree_leaves(y), strict=True)]
    return max((float(((a - b).abs() / b.abs().clamp(min=1)).max()) for a, b in pairs if a.numel()), default=0.0)


def jobs(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train: spawned on a GPU, elsewhere the children of the fork server."""
    children = psutil.Process(process.pid).children()
    if ON_A_GPU:
        return [child for child in children if any("spawn_main" in word for word in child.cmdline())]
    return [grandchild for child in children for grandchild in child.children()]
