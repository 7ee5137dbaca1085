"""How good samples of images are: distances of their features to the training set's, by torch-fidelity."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmark.measures.resnet56 import SIZE, load
from benchmark.measures.resnet56 import WEIGHTS as RESNET56
from benchmark.measures.torchvision_guard import import_torchvision
from benchmark.measures.weights import INCEPTION, Weights

import_torchvision()  # before torch_fidelity, which imports it unguarded
import torch_fidelity  # noqa: E402

Metric = Literal["fid", "kid", "inception_score", "frechet_resnet56"]
METRICS: tuple[Metric, ...] = ("fid", "kid", "inception_score", "frechet_resnet56")
LEAST = 10  # images: the Inception Score is a mean over ten parts
_KID_SUBSET = 1000  # images, as Binkowski et al. have it
# Everything that torch-fidelity gives, by our names. The spreads are over KID's subsets and the score's ten parts.
_OURS: Mapping[str, tuple[Metric, str]] = {
    torch_fidelity.KEY_METRIC_FID: ("fid", "fid"),
    torch_fidelity.KEY_METRIC_KID_MEAN: ("kid", "kid"),
    torch_fidelity.KEY_METRIC_KID_STD: ("kid", "kid_std"),
    torch_fidelity.KEY_METRIC_ISC_MEAN: ("inception_score", "inception_score"),
    torch_fidelity.KEY_METRIC_ISC_STD: ("inception_score", "inception_score_std"),
}


@dataclasses.dataclass(frozen=True)
class Judged:
    """The metrics that were computed, and for each of the others why it was not."""

    metrics: dict[str, float]
    missing: dict[str, str]


def judge(
    samples: Tensor,
    reference: Tensor,
    *,
    inception_weights: Path | None,
    resnet56: Path | None,
    cache: Path,
    device: torch.device,
    names: Sequence[Metric] = METRICS,
) -> Judged:
    """Compares samples uint8 [n, c, H, W] with the training set, uint8 [m, c, H, W]; grey images become three channels.

    With means m and covariances S of features, a Fréchet distance is ||m1 - m2||^2 + tr(S1 + S2 - 2 (S1 S2)^1/2). It
    falls as n grows, so only those of equal n and m are comparable.

    - ``fid``: Fréchet distance of Inception's 2,048 features (Heusel et al. 2017).
    - ``kid``, ``kid_std``: squared maximum mean discrepancy of them, over 100 subsets of at most 1,000 images; the
      kernel is (x.y / 2048 + 1)^3 (Binkowski et al. 2018).
    - ``inception_score``, ``inception_score_std``: exp E KL(p(y|x) || p(y)) of its classes over ten parts of the
      samples (Salimans et al. 2016). It knows nothing of the training set.
    - ``frechet_resnet56``: Fréchet distance of the 64 features of a ResNet-56 for CIFAR-10. It is not FID.

    Args:
        inception_weights, resnet56: the networks' files. Nothing is downloaded: without a file, what needs it is
            missing, except that Inception's is looked for where torch.hub keeps it.
        cache: a folder for the training set's features, found again by the content of its images and of the weights;
            about 12 kB per image and Inception, 0.5 kB per image and ResNet-56. Only folders of one's own will do:
            torch-fidelity unpickles what is in them.
        device: what the networks run on.
        names: the metrics that are wanted.

    Raises:
        InputError: a file of weights is not what it should be.
    """
    if samples.shape[1:] != reference.shape[1:] or min(len(samples), len(reference)) < LEAST:
        raise ValueError(f"needs {LEAST} images of one shape; got {list(samples.shape)} and {list(reference.shape)}")
    metrics, missing = dict[str, float](), dict[str, str]()
    pair = _Pair(samples, reference, cache, device)
    of_inception = [name for name in names if name != "frechet_resnet56"]
    weights = inception_weights or INCEPTION.downloaded()
    if of_inception and weights:
        metrics |= _by_inception(pair, weights, of_inception)
    elif of_inception:
        missing |= dict.fromkeys(of_inception, f"no Inception weights: {INCEPTION.hint}")
    if "frechet_resnet56" in names:
        if tuple(samples.shape[2:]) != (SIZE, SIZE):
            missing["frechet_resnet56"] = f"it is for images of {SIZE} x {SIZE} pixels, not {_size(samples)}"
        elif resnet56 is None:
            missing["frechet_resnet56"] = f"no ResNet-56 weights: {RESNET56.hint}"
        else:
            metrics["frechet_resnet56"] = _by_resnet56(pair, resnet56)
    return Judged(metrics, missing)


def check(inception_weights: Path | None, resnet56: Path | None) -> None:
    """Loads the networks that ``judge`` will use, so that a bad file is found before a long run.

    Raises:
        InputError: a file of weights is not what it should be.
    """
    if weights := inception_weights or INCEPTION.downloaded():
        _verified(weights)
    if resnet56:
        load(resnet56)


class _Images(Dataset[Tensor]):
    """Images uint8 [n, c, H, W] as torch-fidelity takes them, each [3, H, W]."""

    def __init__(self, images: Tensor) -> None:
        self._images = images.expand(-1, 3, -1, -1)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return self._images[index]


@dataclasses.dataclass(frozen=True)
class _Pair:
    """What is compared, and where."""

    samples: Tensor
    reference: Tensor
    cache: Path
    device: torch.device

    def compare(self, weights: Weights, **options: Any) -> dict[str, float]:
        """torch-fidelity's metrics; it finds the reference's features again by a name, which says what they are of."""
        name = f"{_content(self.reference)}-{weights.sha256[:32]}-{torch_fidelity.__version__}"
        cuda = self.device.type == "cuda"
        compared = options.get("fid") or options.get("kid")
        with torch.cuda.device(self.device) if cuda else contextlib.nullcontext():
            return torch_fidelity.calculate_metrics(
                input1=_Images(self.samples.cpu()),
                input2=_Images(self.reference.cpu()) if compared else None,
                input2_cache_name=name,
                cache_root=str(self.cache),
                feature_extractor_weights_path=str(weights.path),
                cuda=cuda,
                save_cpu_ram=True,  # reads images in this process, and starts no others
                verbose=False,
                **options,
            )


def _content(images: Tensor) -> str:
    """Tells images from others: of the sha256 of their shape and pixels, 128 bits."""
    digest = hashlib.sha256(str(tuple(images.shape)).encode())
    digest.update(images.cpu().contiguous().view(-1).numpy().data)
    return digest.hexdigest()[:32]


def _size(images: Tensor) -> str:
    return " x ".join(str(length) for length in images.shape[2:])


def _by_inception(pair: _Pair, path: Path, names: Sequence[Metric]) -> dict[str, float]:
    found = pair.compare(
        _verified(path),
        isc=True,  # wanted or not, so that whatever is wanted, the same features are in the cache
        fid="fid" in names,
        kid="kid" in names,
        kid_subset_size=min(_KID_SUBSET, len(pair.samples), len(pair.reference)),
    )
    return {ours: found[theirs] for theirs, (name, ours) in _OURS.items() if name in names}


def _verified(path: Path) -> Weights:
    """Inception's weights, found to be tensors and no more, and to fit: torch-fidelity unpickles whatever it is given.

    Raises:
        InputError: they are not.
    """
    weights = INCEPTION.read(path)
    with INCEPTION.fitting(path):
        torch_fidelity.FeatureExtractorInceptionV3("", ["2048"], feature_extractor_weights_path=str(path))
    return weights


class _ResNet56Features(torch_fidelity.FeatureExtractorBase):
    """ResNet-56 in torch-fidelity's terms. Its name is part of the cache's: features of other code need another."""

    NAME = "cifar10-resnet56"
    LAYER = "pooled"

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str, **options: Any
    ) -> None:
        super().__init__(name, features_list)
        self.network = load(Path(feature_extractor_weights_path))

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return (_ResNet56Features.LAYER,)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return _ResNet56Features.LAYER

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """float64 [n, 64]: the mean of many is taken in the precision that they come in."""
        return (self.network.features(images).double(),)


torch_fidelity.register_feature_extractor(_ResNet56Features.NAME, _ResNet56Features)


def _by_resnet56(pair: _Pair, path: Path) -> float:
    found = pair.compare(RESNET56.read(path), feature_extractor=_ResNet56Features.NAME, fid=True)
    return found[torch_fidelity.KEY_METRIC_FID]
