"""What is computed in which numbers: choices with a name, never whatever was left switched on."""

import contextlib
import sys
from collections.abc import Iterator

import torch

PRECISIONS = ("float32", "tf32", "bf16")


@contextlib.contextmanager
def computing(device: torch.device, precision: str = "float32") -> Iterator[None]:
    """Inside, ``device`` is the current one, and its float32 products are TF32's where ``precision`` says so, else
    exact; outside, both are as they were. torch's own default is TF32 in convolutions.

    On a CPU numbers below the smallest normal one (1e-38) are zero inside. Processors are many times slower with them,
    and as training goes on there are more: the derivative of a relaxed bit falls like exp(-|x| / τ), τ = 0.1, and
    unrolled steps multiply and square such derivatives. Threads that exist already keep what they have.
    """
    if device.type == "cpu":
        flushed = _flushes()
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(flushed)
        return
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    with torch.cuda.device(device):
        matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before


def _flushes() -> bool:
    """Whether this thread takes numbers below the smallest normal one for zero."""
    return sys.float_info.min * 0.5 == 0.0
