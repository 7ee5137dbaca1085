"""One thread and known random numbers for every test."""

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages of this source tree, and tests.maths.exact
os.environ.pop("COLUMNS", None)  # commands write as into a pipe, whatever the terminal that the tests were started in


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _known_random_numbers() -> None:
    torch.manual_seed(0)
