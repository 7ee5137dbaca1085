"""What works on this machine and what does not."""

import importlib.metadata
import os
import platform
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.table import Table

from baselines import DSM
from benchmark.data.catalogue import CATALOGUE, state
from benchmark.data.datasets import load
from benchmark.data.files import DATA_VARIABLE, data_folder
from benchmark.measures.resnet56 import WEIGHTS as RESNET56
from benchmark.measures.weights import INCEPTION, Published
from benchmark.records.provenance import cores
from benchmark.running.executors import DeviceSlots, prepare_environment
from benchmark.system.credentials import unsecret
from benchmark.system.folders import CACHE_VARIABLE, cache_folder, can_be_written, home_cache
from benchmark.tracking import store as tracking_store
from bism import GRBM
from bism.engine import Trainer
from bism.errors import InputError, first_line

PACKAGES = ("torch", "mlflow", "optuna", "pandas", "matplotlib", "seaborn", "torch-fidelity", "pydantic")
_APART = 1e-4  # ten steps in float32, added up in another order
Line = tuple[str, bool, str]


def examine(data_dir: Path | None, run_dir: Path, tracking_uri: str) -> Iterator[Line]:
    """Yields (what, whether it works, detail)."""
    yield "python", sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.platform()}"
    for package in PACKAGES:
        yield _package(package)
    yield "cores", True, f"{cores()} for this process, so as many jobs at once"
    yield from _gpus()
    yield _compiler()
    yield _caches()
    yield "run directory", _writable(run_dir), f"{run_dir.resolve()}"
    yield _store(tracking_uri)
    folder = data_folder(data_dir)
    yield "data folder", True, f"{folder} (--data-dir, ${DATA_VARIABLE})"
    for name in CATALOGUE:
        yield _data_set(name, folder)
    for network in (INCEPTION, RESNET56):
        yield _network(network)


def _gpus() -> Iterator[Line]:
    count = torch.cuda.device_count()
    if not count and shutil.which("nvidia-smi"):
        yield "GPUs", False, f"torch {torch.__version__} finds none, nvidia-smi is here: docs/gpu.md says which to take"
    elif not count:
        yield "GPUs", True, "none; everything runs on the CPU"
    prepare_environment([DeviceSlots(f"cuda:{number}", 1, 0.0) for number in range(min(1, count))])
    for number in range(count):
        yield f"GPU {number}", *_trial(torch.device("cuda", number))


def _trial(device: torch.device) -> tuple[bool, str]:
    """Ten compiled and captured steps of three seeds on a device, beside the same ones on the CPU."""
    try:
        free, total = torch.cuda.mem_get_info(device)
        card = f"{torch.cuda.get_device_name(device)}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            there, here = (_trained(place, compile=place is device) for place in (device, torch.device("cpu")))
        apart = max(float((a - b).abs().max()) for a, b in zip(there.values(), here.values(), strict=True))
    except Exception as error:  # whatever is wrong with the card, its driver or this build of torch
        return False, f"{device} does not work: {first_line(error)}; docs/gpu.md says which torch fits"
    if not apart < _APART:
        return False, f"{card}: ten steps of DSM end {apart:.1g} from where the CPU's do"
    reasons = [str(warning.message) for warning in said if "training runs" in str(warning.message)]
    if reasons:
        return False, f"{card}: {'; '.join(reasons)}"
    return True, f"{card}: ten steps compiled, captured and as the CPU's"


def _trained(device: torch.device, compile: bool) -> dict[str, torch.Tensor]:
    """What ten steps of DSM make of a small GRBM."""
    data = torch.linspace(-1, 1, 200).reshape(100, 2)
    trainer = Trainer(DSM(), GRBM(2, 4), data, seeds=range(3), batch_size=20, device=str(device), compile=compile)
    trainer.run(10)
    return {
        f"{seed}.{name}": tensor.cpu()
        for seed in trainer.seeds
        for name, tensor in trainer.fitted().parameters(seed)["model"].items()
    }


def _package(name: str) -> Line:
    try:
        return name, True, importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return name, False, f"not installed: pip install {name}"


def _store(uri: str) -> Line:
    what = "tracking store"
    if uri == "none":
        return what, True, "none: the run directory alone"
    try:
        resolved = tracking_store.resolve(uri)
        file, shown = tracking_store.database_file(resolved), unsecret(resolved)
        if file is not None and not file.exists():
            return what, can_be_written(file.parent), f"{shown}: not there yet, made by the first run"
        tracking_store.check(resolved, write=True)
    except InputError as error:
        return what, False, str(error)
    return what, True, f"{shown}: {'there' if file else 'answers'}"


def _caches() -> Line:
    """The folder of what may be lost: the home's, or what is taken where that cannot be written."""
    usual = home_cache()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # this line says it
            folder = cache_folder()
    except InputError as error:
        return "caches", False, str(error)
    why = "" if can_be_written(usual) or folder == usual else f", since {usual} cannot be written"
    return "caches", can_be_written(folder), f"{folder}{why} (${CACHE_VARIABLE})"


def _compiler() -> Line:
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not headers.exists():
        return "C++ compiler", False, f"Python's headers are missing ({headers}): training runs uncompiled (slower)"
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if found:
        return "C++ compiler", True, f"{found}: long runs are compiled"
    return "C++ compiler", False, "none: training runs uncompiled (slower, same numbers); install g++"


def _writable(folder: Path) -> bool:
    return can_be_written(folder.absolute())


def _data_set(name: str, folder: Path) -> Line:
    """Files are verified and not loaded; what needs no files is made, which is quick."""
    works, found = state(name, folder)
    if not CATALOGUE[name].parts:
        data = load({"name": name}, folder)
        found = f"{len(data.train)}/{len(data.val)}/{len(data.test)}, sha256 {data.hash[:12]}, {found}"
    return f"data set {name}", works, found


def _network(published: Published) -> Line:
    try:
        path = published.given(None) or published.downloaded()
    except InputError as error:
        return published.network, False, str(error)
    wanting = f"none, so what it judges is not computed: ${published.variable}, or {published.option} with run"
    return published.network, path is not None, str(path or wanting)


def table(lines: list[Line]) -> Table:
    """The findings for people."""
    shown = Table(show_header=False, box=None)
    for what, works, detail in lines:
        shown.add_row("[green]ok[/]" if works else "[yellow]no[/]", what, detail)
    return shown
