"""What the known data sets are: facts for people, and the files of those that have files."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Mapping
from pathlib import Path

from benchmark.data import files
from benchmark.data.files import MISSING, VARIANT, DataFile, Finding, MissingData, data_command
from bism.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class Entry:
    """A data set. ``shape`` is that of one example, ``sizes`` are of training, validation and test data.

    A data set without ``parts`` needs no files, and ``origin`` says why. Parts without addresses come in ``archive``,
    beneath the folder ``inside``.
    """

    name: str
    title: str
    about: str
    shape: tuple[int, ...]
    sizes: tuple[int, int, int]
    source: str
    licence: str
    citation: str
    origin: str = ""
    parts: tuple[DataFile, ...] = ()
    archive: DataFile | None = None
    inside: str = ""

    @property
    def dimensions(self) -> int:
        """Length of the vector that an example is flattened to."""
        return math.prod(self.shape)

    def find(self, folder: Path) -> list[Finding]:
        """What each part's file is, in the parts' order."""
        return [part.find(folder) for part in self.parts]


def _freyface() -> tuple[DataFile, ...]:
    check = functools.partial(
        files.check_freyface, pixels="2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"
    )
    official = "cs.nyu.edu/~roweis/data/frey_rawface.mat"
    places = ("freyface/frey_rawface.mat", "frey_rawface.mat")
    return (DataFile("frey_rawface.mat", places, check, (f"https://{official}", f"http://{official}")),)


_MNIST_BASES = (
    "http://yann.lecun.com/exdb/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_MNIST = {  # md5 of the .gz as published, sha256 of what it holds
    "train-images-idx3-ubyte": (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        "d53e105ee54ea40749a09fcbcd1e9432",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        "9fb629c4189551a2d022fa330f9573f3",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        "ec29112dd5afa0611ce80d1b7f02629c",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}


def mnist_parts(known: Mapping[str, tuple[str, str]], bases: tuple[str, ...]) -> tuple[DataFile, ...]:
    """The idx files, packed or not, in the order of ``known``: md5 of the .gz and sha256 of its content by name."""
    return tuple(
        DataFile(
            f"{name}.gz",
            (f"mnist/{name}.gz", f"mnist/{name}"),
            functools.partial(files.check_idx, name=name, known=known),
            tuple(f"{base}{name}.gz" for base in bases),
        )
        for name in known
    )


_FASHION_BASES = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
_FASHION = {  # md5 of the .gz as published
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


def _fashion_parts() -> tuple[DataFile, ...]:
    return tuple(
        DataFile(
            name,
            (f"fashion/{name}",),
            functools.partial(files.check_digest, algorithm="md5", wanted=md5),
            tuple(f"{base}{name}" for base in _FASHION_BASES),
        )
        for name, md5 in _FASHION.items()
    )


_CIFAR_FOLDER = "cifar-10-batches-bin"
_CIFAR_SIZE = 10_000 * 3073  # bytes of a batch
_CIFAR = {  # sha1, as Apache MXNet's reader of the binary version publishes them (gluon.data.vision.CIFAR10)
    "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
}
_CIFAR_VARIANTS = {
    "cbea4389ae3e377c0090406f1f786efe5ded9c7e": (
        "test_batch.bin",
        "not the official file: a known variant in which 20 of the 10,000 test images (19 ships, 1 horse) are inexact; "
        "a result that depends on the exact test set has to say so",
    )
}


def cifar_parts(
    known: Mapping[str, str], variants: Mapping[str, tuple[str, str]] = _CIFAR_VARIANTS, size: int = _CIFAR_SIZE
) -> tuple[DataFile, ...]:
    """The batches in the order of ``known``, the sha1 by name.

    One rule for all six: the official files' sha1 is published, so no record of a download is needed to know one, and
    files put there by hand count as much. The variant of the test batch that goes round is known by its own sha1.
    """
    return tuple(
        DataFile(
            name,
            (f"cifar10/{_CIFAR_FOLDER}/{name}",),
            functools.partial(files.check_cifar, name=name, known=known, variants=variants, size=size),
        )
        for name in known
    )


def cifar_archive(md5: str, *addresses: str) -> DataFile:
    """The archive that the batches come in; deleted once they are unpacked, unless a user put it there."""
    check = functools.partial(files.check_digest, algorithm="md5", wanted=md5)
    return DataFile("cifar-10-binary.tar.gz", ("cifar10/cifar-10-binary.tar.gz",), check, addresses)


def _points(name: str, title: str, about: str, citation: str) -> Entry:
    return Entry(
        name=name,
        title=title,
        about=f"points, {about}; their density is known",
        shape=(2,),
        sizes=(50_000, 10_000, 10_000),
        source="made by this package from a fixed seed",
        licence="MIT, as this package",
        citation=citation,
        origin="made by this package",
    )


_ENTRIES = (
    Entry(
        name="checkerboard",
        title="the checkerboard",
        about="points, uniform on the two diagonal squares of a 2 x 2 board on the unit square (Section 5.1)",
        shape=(2,),
        sizes=(60_000, 10_000, 10_000),
        source="made by this package from a fixed seed",
        licence="MIT, as this package",
        citation="Bao et al., Bi-level Score Matching for Learning Energy-based Latent Variable Models, NeurIPS 2020",
        origin="made by this package",
    ),
    _points(
        "eight_gaussians",
        "eight Gaussians",
        "of eight Gaussians around a circle",
        "Metz, Poole, Pfau, Sohl-Dickstein: Unrolled Generative Adversarial Networks, ICLR 2017, in its way",
    ),
    _points(
        "rings",
        "rings",
        "around three circles, with Gaussian noise",
        "Grathwohl et al., FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models, ICLR 2019, "
        "in its way",
    ),
    _points(
        "pinwheel",
        "pinwheel",
        "of five Gaussians as twisted arms",
        "Johnson et al., Composing graphical models with neural networks, NIPS 2016, in its way",
    ),
    _points(
        "checkerboard_4x4",
        "checkerboard of 4 x 4",
        "uniform on the squares of one colour of a 4 x 4 board",
        "Grathwohl et al., FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models, ICLR 2019, "
        "in its way",
    ),
    Entry(
        name="digits",
        title="scikit-learn's digits",
        about="images of handwritten digits with 17 grey levels, made continuous by noise of one level",
        shape=(8, 8),
        sizes=(1297, 250, 250),
        source="sklearn.datasets.load_digits, the test set of UCI's Optical Recognition of Handwritten Digits",
        licence="CC BY 4.0 (UCI); bundled with scikit-learn",
        citation="Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998",
        origin="bundled with scikit-learn",
    ),
    Entry(
        name="bars_and_stripes",
        title="Bars and stripes",
        about="images of equal columns or of equal rows, each with its probability; every split has them all",
        shape=(4, 4),
        sizes=(32, 32, 32),
        source="made by this package",
        licence="MIT, as this package",
        citation="MacKay: Information Theory, Inference, and Learning Algorithms, 2003",
        origin="made by this package",
    ),
    Entry(
        name="ferromagnet",
        title="Ferromagnet",
        about="spins of an Ising model on a periodic 4 x 4 x 4 lattice with J = 0.2 between neighbours",
        shape=(64,),
        sizes=(2_000, 500, 500),
        source="made by this package from a fixed seed",
        licence="MIT, as this package",
        citation="Ingraham, Marks: Variational Inference for Sparse and Undirected Models, ICML 2017",
        origin="made by this package",
    ),
    Entry(
        name="freyface",
        title="Frey face",
        about="frames of a video of Brendan Frey's face",
        shape=(28, 20),
        sizes=(1400, 300, 265),
        source="https://cs.nyu.edu/~roweis/data.html",
        licence="none stated",
        citation="Roweis, Saul, Hinton: Global Coordination of Local Linear Models, NIPS 2001",
        parts=_freyface(),
    ),
    Entry(
        name="mnist",
        title="MNIST",
        about="images of handwritten digits; the last 5,000 training images are the validation data",
        shape=(28, 28),
        sizes=(55_000, 5_000, 10_000),
        source="http://yann.lecun.com/exdb/mnist/",
        licence="CC BY-SA 3.0, by the common reading; its page states none",
        citation="LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, 1998",
        parts=mnist_parts(_MNIST, _MNIST_BASES),
    ),
    Entry(
        name="fashion",
        title="Fashion-MNIST",
        about="images of clothes, split as MNIST",
        shape=(28, 28),
        sizes=(55_000, 5_000, 10_000),
        source="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        citation="Xiao, Rasul, Vollgraf: Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning "
        "Algorithms, 2017",
        parts=_fashion_parts(),
    ),
    Entry(
        name="cifar10",
        title="CIFAR-10",
        about="small colour photographs; the last 5,000 training images are the validation data",
        shape=(3, 32, 32),
        sizes=(45_000, 5_000, 10_000),
        source="https://www.cs.toronto.edu/~kriz/cifar.html (binary version)",
        licence="none stated; its authors ask to be cited",
        citation="Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009",
        parts=cifar_parts(_CIFAR),
        archive=cifar_archive(
            "c32a1d4ab5d03f1284b67883e8d87530", "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
        ),
        inside=_CIFAR_FOLDER,
    ),
)
CATALOGUE = {entry.name: entry for entry in _ENTRIES}


def entry(name: str) -> Entry:
    """A data set by name.

    Raises:
        InputError: there is none.
    """
    if name not in CATALOGUE:
        raise InputError(f"no data set '{name}': {nearest(name, CATALOGUE)}")
    return CATALOGUE[name]


def state(name: str, folder: Path) -> tuple[bool, str]:
    """Whether a data set can be used, and what there is of it, in one line; its files are read and verified."""
    known, findings = entry(name), entry(name).find(folder)
    if not findings:
        return True, known.origin
    bad = [finding for finding in findings if not finding.good]
    if all(finding.verdict == MISSING for finding in findings):
        return False, f"missing; to fetch it: {data_command('download', name, folder)}"
    if bad:
        what = ", ".join(f"{finding.path.name} {finding.verdict}" for finding in bad)
        return False, f"damaged: {what}; to mend it: {data_command('download', name, folder)}"
    notes = [f"; {one.path.name} is {one.detail}" for one in findings if one.verdict == VARIANT]
    return True, "present and verified" + "".join(notes)


def verified(name: str, folder: Path) -> list[Path]:
    """The files of a data set, in its parts' order; warns of a known variant.

    Raises:
        MissingData: one is missing or not what it should be; says which, how, and the command that mends it.
    """
    known, findings = entry(name), entry(name).find(folder)
    bad = [finding for finding in findings if not finding.good]
    if bad:
        wrong = f" {bad[0]}" if len(bad) == 1 else "".join(f"\n  {finding}" for finding in bad)
        command = data_command("download", name, folder)
        raise MissingData(f"{known.title} cannot be read:{wrong}\nto mend it: {command}")
    for finding in findings:
        if finding.verdict == VARIANT:
            warnings.warn(f"{finding.path} is {finding.detail}", stacklevel=3)
    return [finding.path for finding in findings]
