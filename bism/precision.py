"""What matrix products and convolutions are computed in: a choice with a name, never whatever was left switched on."""

import contextlib
from collections.abc import Iterator

import torch

PRECISIONS = ("float32", "tf32", "bf16")


@contextlib.contextmanager
def computing(device: torch.device, precision: str = "float32") -> Iterator[None]:
    """Inside, ``device`` is the current one, and its float32 products are TF32's where ``precision`` says so, else
    exact; outside, both are as they were. torch's own default is TF32 in convolutions."""
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
