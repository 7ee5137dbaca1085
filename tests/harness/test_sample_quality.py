"""Distances of samples to the training set: torch-fidelity's own numbers, closed forms, caching, bad files."""

import math
import os
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from benchmark.data.formats import read_cifar
from benchmark.measures import sample_quality
from benchmark.measures.resnet56 import ResNet56
from benchmark.measures.resnet56 import load as load_resnet56
from benchmark.measures.sample_quality import INCEPTION, METRICS, RESNET56, Judged, Metric, check, judge
from bism.errors import InputError

torch_fidelity = sample_quality.torch_fidelity
CPU = torch.device("cpu")
CIFAR10 = Path(os.environ.get("BISM_DATA", "nowhere"), "cifar10/cifar-10-batches-bin/test_batch.bin")
TRAINED = Path(os.environ.get("BISM_RESNET56", "nowhere"))


def images(count: int, *, seed: int = 0, channels: int = 3, side: int = 32) -> Tensor:
    """Random pixels, uint8 [count, channels, side, side]."""
    return torch.randint(
        256, (count, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@pytest.fixture(autouse=True)
def _no_internet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is there already, and nothing may be downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "urlopen", mock.Mock(side_effect=AssertionError("the internet")))


@pytest.fixture(scope="session")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Inception of random weights, scaled so that its features vary."""
    kind = torch_fidelity.FeatureExtractorInceptionV3
    with mock.patch.object(kind, "load_state_dict"), mock.patch("torch.load"):
        network = kind("random", ["2048"], feature_extractor_weights_path="none")
    return saved(network, tmp_path_factory.mktemp("inception") / "inception.pth")


@pytest.fixture(scope="session")
def resnet56(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-56 of random weights."""
    return random_resnet56(tmp_path_factory.mktemp("resnet56") / "resnet56.th", seed=0)


def random_resnet56(path: Path, seed: int) -> Path:
    """A file as its authors make them."""
    torch.manual_seed(seed)
    torch.save({"state_dict": {f"module.{k}": v for k, v in ResNet56().state_dict().items()}, "best_prec1": 10.0}, path)
    return path


def saved(network: nn.Module, path: Path) -> Path:
    """Writes a network's weights, with convolutions that keep the scale of what they are given."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)
    return path


def judged(
    cache: Path,
    samples: Tensor,
    reference: Tensor,
    names: Sequence[Metric] = METRICS,
    inception: Path | None = None,
    resnet56: Path | None = None,
) -> Judged:
    """``judge`` on the CPU."""
    return judge(
        samples, reference, inception_weights=inception, resnet56=resnet56, cache=cache, device=CPU, names=names
    )


class Counting:
    """Counts the images that a network looks at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, network: type[nn.Module], method: str = "forward") -> None:
        self._seen, original = 0, getattr(network, method)

        def counted(self_: Any, x: Tensor) -> Any:
            self._seen += len(x)
            return original(self_, x)

        monkeypatch.setattr(network, method, counted)

    def since(self) -> int:
        """How many since the last time."""
        seen, self._seen = self._seen, 0
        return seen


class Pairs(torch.utils.data.Dataset[Tensor]):
    """Images one by one."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


@pytest.mark.long
def test_inception_s_metrics_are_torch_fidelity_s(
    inception: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, reference = images(11), images(10, seed=1) // 2
    seen = Counting(monkeypatch, torch_fidelity.FeatureExtractorInceptionV3)
    kid = judged(tmp_path, samples, reference, ("kid",), inception)
    assert seen.since() == 21
    found = judged(tmp_path, samples, reference, ("fid", "kid", "inception_score"), inception)
    assert seen.since() == 11  # other metrics of the same features
    score = judged(tmp_path, samples, images(10, seed=2), ("inception_score",), inception)
    assert seen.since() == 11  # the training set has no part in it
    direct = torch_fidelity.calculate_metrics(
        input1=Pairs(samples),
        input2=Pairs(reference),
        fid=True,
        kid=True,
        isc=True,
        kid_subset_size=10,
        feature_extractor_weights_path=str(inception),
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    assert found.missing == {}
    assert found.metrics == pytest.approx(
        {
            "fid": direct["frechet_inception_distance"],
            "kid": direct["kernel_inception_distance_mean"],
            "kid_std": direct["kernel_inception_distance_std"],
            "inception_score": direct["inception_score_mean"],
            "inception_score_std": direct["inception_score_std"],
        }
    )
    assert found.metrics["fid"] > 1
    assert found.metrics["inception_score"] > 1
    assert kid.metrics == {name: found.metrics[name] for name in ("kid", "kid_std")}
    assert score.metrics == {name: found.metrics[name] for name in ("inception_score", "inception_score_std")}


class FirstPixels(nn.Module):
    """Two features: the first two pixels of the first channel, and so much more that float32 cannot add them up."""

    def features(self, images: Tensor) -> Tensor:
        """[n, 2]."""
        return images[:, 0, 0, :2].float() + 2**22


def test_the_frechet_distance_of_known_means_and_covariances(
    tmp_path: Path, resnet56: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_quality, "load", lambda path: FirstPixels())
    white = torch.tensor(scipy.linalg.hadamard(16)[:, 1:3])  # mean 0, covariance exactly 16/15 of the identity
    means = torch.tensor([[100, 90], [110, 87]])
    mixing = torch.tensor([[[10, 0], [0, 20]], [[8, 6], [-6, 12]]])
    first, second = images(16), images(16, seed=1)
    for k, pictures in enumerate((first, second)):
        pictures[:, 0, 0, :2] = (means[k] + white @ mixing[k]).to(torch.uint8)
    s1, s2 = (a.T @ a * 16 / 15 for a in mixing.double())
    # Of two by two matrices, tr M^1/2 = (tr M + 2 det(M)^1/2)^1/2.
    root = math.sqrt(torch.trace(s1 @ s2) + 2 * math.sqrt(torch.det(s1 @ s2)))
    expected = 10**2 + 3**2 + float(torch.trace(s1 + s2)) - 2 * root
    found = judged(tmp_path, first, second, ("frechet_resnet56",), resnet56=resnet56)
    assert found.metrics["frechet_resnet56"] == pytest.approx(expected, rel=1e-9)


def test_a_set_is_at_distance_nought_from_itself_in_any_order(tmp_path: Path, resnet56: Path) -> None:
    some = images(100)
    found = judged(tmp_path, some.flip(0), some, ("frechet_resnet56",), resnet56=resnet56)
    assert found.metrics["frechet_resnet56"] == pytest.approx(0, abs=1e-6)
    other = judged(tmp_path, some // 2, some, ("frechet_resnet56",), resnet56=resnet56)
    assert other.metrics["frechet_resnet56"] > 0.01


def test_a_grey_image_is_the_same_in_three_channels(tmp_path: Path, resnet56: Path) -> None:
    grey, other = images(20, channels=1), images(20, seed=1, channels=1)
    found = judged(tmp_path / "grey", grey, other, ("frechet_resnet56",), resnet56=resnet56)
    repeated = judged(
        tmp_path / "rgb", grey.repeat(1, 3, 1, 1), other.repeat(1, 3, 1, 1), METRICS[-1:], resnet56=resnet56
    )
    assert found.metrics == repeated.metrics


def test_the_training_set_is_looked_at_once(tmp_path: Path, resnet56: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Counting(monkeypatch, ResNet56, "features")
    samples, reference = images(10), images(20, seed=1)

    def distance(reference: Tensor, weights: Path) -> float:
        return judged(tmp_path, samples, reference, METRICS[-1:], resnet56=weights).metrics["frechet_resnet56"]

    first = distance(reference, resnet56)
    assert seen.since() == 30
    assert distance(reference.clone(), resnet56) == first
    assert seen.since() == 10
    changed = reference.clone()
    changed[7, 1, 2, 3] += 1
    assert distance(changed, resnet56) != first
    assert seen.since() == 30
    assert distance(reference.transpose(2, 3), resnet56) != first  # the same bytes elsewhere
    assert seen.since() == 30
    grey = judged(tmp_path, samples[:, :1], reference.view(60, 1, 32, 32), METRICS[-1:], resnet56=resnet56)
    assert grey.metrics["frechet_resnet56"] != first  # the same bytes, of other images
    assert seen.since() == 70
    other = random_resnet56(tmp_path / resnet56.name, seed=1)  # another file of this name
    assert distance(reference, other) != first
    assert seen.since() == 30


def test_without_weights_it_says_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    found = judged(tmp_path, images(10), images(10))
    assert found.metrics == {}
    assert list(found.missing) == list(METRICS)
    for name in ("fid", "kid", "inception_score"):
        assert found.missing[name].startswith("no Inception weights: give --inception-weights PATH")
        assert "https://github.com/toshas/torch-fidelity/releases/" in found.missing[name]
    assert found.missing["frechet_resnet56"].startswith("no ResNet-56 weights: give --resnet56-weights PATH")
    assert judged(tmp_path, images(10), images(10), ("kid",)).missing.keys() == {"kid"}


def test_images_of_another_size_are_not_for_resnet56(tmp_path: Path, resnet56: Path) -> None:
    found = judged(tmp_path, images(10, side=8), images(10, side=8), METRICS[-1:], resnet56=resnet56)
    assert found == Judged({}, {"frechet_resnet56": "it is for images of 32 x 32 pixels, not 8 x 8"})


def test_too_few_images_and_images_of_two_shapes_are_refused(tmp_path: Path) -> None:
    for samples, reference in ((images(9), images(10)), (images(10), images(9)), (images(10), images(10, side=28))):
        with pytest.raises(ValueError, match="needs 10 images of one shape"):
            judged(tmp_path, samples, reference)


def test_weights_that_torch_hub_has_already_are_used(tmp_path: Path) -> None:
    path = tmp_path / "torch" / "hub" / "checkpoints" / INCEPTION.file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half a download")
    with pytest.raises(InputError, match="its name says"):
        judged(tmp_path, images(10), images(10))
    with pytest.raises(InputError, match="its name says"):
        check(None, None)


class Hostile:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import os; os.environ['BISM_TEST_HOSTILE'] = '1'",)


BAD = {
    "absent": ("a.pth", None, "cannot be read (No such file or directory)"),
    "empty": ("a.pth", b"", "damaged, or holds more than weights (EOFError)"),
    "web page": ("a.pth", b"<html>404</html>", "it is a web page"),
    "altered": ("a-0123abcd.pth", b"weights", "its name says that its sha256 begins with 0123abcd, not 9a129038"),
    "not weights": ("a.pth", {"a": Hostile()}, "damaged, or holds more than weights (UnpicklingError)"),
    "another network": ("a.pth", {"state_dict": {"conv.weight": torch.zeros(1)}}, "the weights of another network"),
    "no network": ("a.pth", {"weights": 1}, "the weights of another network"),
    "a tensor": ("a.pth", torch.zeros(3), "the weights of another network"),
}


@pytest.fixture(params=["inception", "resnet56"])
def either(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """The name of the argument, and the network's description."""
    return request.param, {"inception": INCEPTION, "resnet56": RESNET56}[request.param]


@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused_in_one_message(
    name: str, content: Any, message: str, either: tuple[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    argument, network = either
    for refused in (
        lambda: judged(tmp_path / "cache", images(10), images(10), **{argument: path}),
        lambda: check(*(path if argument == one else None for one in ("inception", "resnet56"))),
    ):
        with pytest.raises(InputError) as raised:
            refused()
        said = str(raised.value)
        assert said.startswith(f"{path}: ")
        assert message in said
        assert said.endswith(f"; {network.option} needs {network.file} ({network.network}) from {network.address}")
        assert "\n" not in said
    assert not (tmp_path / "cache").exists()
    assert "BISM_TEST_HOSTILE" not in os.environ


def test_a_truncated_file_is_refused(resnet56: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.th"
    short.write_bytes(resnet56.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"short\.th: damaged"):
        check(None, short)
    check(None, resnet56)


@pytest.mark.long
@pytest.mark.skipif(
    not (CIFAR10.exists() and TRAINED.exists()), reason="BISM_DATA and BISM_RESNET56 do not name CIFAR-10 and weights"
)
def test_resnet56_has_its_authors_accuracy() -> None:
    records = torch.tensor(read_cifar(CIFAR10))
    network = load_resnet56(TRAINED)
    with torch.no_grad():
        classes = [network(some.view(-1, 3, 32, 32)).argmax(1) for some in records[:, 1:].split(500)]
    accuracy = 100 * float((torch.cat(classes) == records[:, 0]).double().mean())
    assert accuracy == pytest.approx(
        100 - 6.61, abs=0.05
    )  # per cent; 5 images of 10,000: other machines round otherwise
