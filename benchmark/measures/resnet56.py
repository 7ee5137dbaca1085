"""ResNet-56 for CIFAR-10 (He et al. 2016, Section 4.2), as akamaster/pytorch_resnet_cifar10 trained it."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.measures.weights import Published

WEIGHTS = Published(
    "ResNet-56 for CIFAR-10",
    "resnet56-4bfd9763.th",
    "https://github.com/akamaster/pytorch_resnet_cifar10/tree/master/pretrained_models",
    "--resnet56-weights",
    "BISM_RESNET56",
)
SIZE = 32  # pixels on each side, as in training
FEATURES = 64
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pixels in [0, 1], as in training


class _Block(nn.Module):
    """x + two 3x3 convolutions. Where the width grows, x loses every second row and column and gains zeros (option A).

    Attributes have the names that the published file gives them.
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.grown = width - width_in
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=2 if self.grown else 1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.grown:
            half = self.grown // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        return F.relu(x + y)


class ResNet56(nn.Module):
    """Three stages of nine blocks with 16, 32 and 64 channels; images are uint8 [n, 3, 32, 32]."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16)
        self.layer2 = _stage(16, 32)
        self.layer3 = _stage(32, FEATURES)
        self.linear = nn.Linear(FEATURES, 10)
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """What the last layer classifies, float32 [n, 64]."""
        x = (images / 255 - self.mean) / self.std
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return x.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the ten classes, [n, 10]."""
        return self.linear(self.features(images))


def _stage(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(_Block(width_in, width), *(_Block(width, width) for _ in range(8)))


def load(path: Path) -> ResNet56:
    """The trained network, ready to be used.

    Raises:
        InputError: the file is not there, or not what it should be.
    """
    network = ResNet56()
    content = WEIGHTS.read(path).content
    with WEIGHTS.fitting(path):
        state = content.get("state_dict", {})
        network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    return network.eval()
