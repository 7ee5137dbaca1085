"""A rehearsal goes the way that a GPU does."""

from collections.abc import Iterator

import pytest

from tests.gpu.device import capturing


@pytest.fixture(autouse=True)
def _recording() -> Iterator[None]:
    with capturing():
        yield
