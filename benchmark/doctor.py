"""What works on this machine and what does not."""

import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import torch
from rich.table import Table

from benchmark import tracking_store
from benchmark.catalogue import CATALOGUE, state
from benchmark.datasets import load
from benchmark.files import DATA_VARIABLE, data_folder
from benchmark.provenance import cores
from benchmark.resnet56 import WEIGHTS as RESNET56
from benchmark.weights import INCEPTION, Published
from bism.errors import InputError

PACKAGES = ("torch", "mlflow", "optuna", "pandas", "matplotlib", "seaborn", "torch-fidelity", "pydantic")
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}
Line = tuple[str, bool, str]


def examine(data_dir: Path | None, run_dir: Path, tracking_uri: str) -> Iterator[Line]:
    """Yields (what, whether it works, detail)."""
    yield "python", sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.platform()}"
    for package in PACKAGES:
        yield _package(package)
    yield "cores", True, f"{cores()} for this process, so as many jobs at once"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield "GPUs", True, ", ".join(gpus) or "none; everything runs on the CPU"
    yield _compiler()
    yield "run directory", _writable(run_dir), f"{run_dir.resolve()}"
    yield _store(tracking_uri)
    folder = data_folder(data_dir)
    yield "data folder", True, f"{folder} (--data-dir, ${DATA_VARIABLE})"
    for name in CATALOGUE:
        yield _data_set(name, folder)
    for network in (INCEPTION, RESNET56):
        yield _network(network)


def _package(name: str) -> Line:
    try:
        return name, True, importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return name, False, f"not installed: pip install {name}"


def _store(uri: str) -> Line:
    if uri == "none":
        return "tracking store", True, "none: the run directory alone"
    try:
        resolved = tracking_store.resolve(uri)
    except InputError as error:
        return "tracking store", False, str(error)
    file, shown = tracking_store.database_file(resolved), tracking_store.unsecret(resolved)
    if file is not None:
        state = "there" if file.exists() else "not there yet, made by the first run"
        return "tracking store", _writable(file), f"{shown}: {state}"
    address = urlsplit(resolved)
    if address.scheme not in _PORTS:
        return "tracking store", True, f"{shown}: not tried"
    try:
        socket.create_connection((address.hostname or "", address.port or _PORTS[address.scheme]), timeout=3).close()
    except OSError as error:
        return "tracking store", False, f"{shown}: cannot be reached ({error})"
    return "tracking store", True, f"{shown}: answers"


def _compiler() -> Line:
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not headers.exists():
        return "C++ compiler", False, f"Python's headers are missing ({headers}): training runs uncompiled (slower)"
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if found:
        return "C++ compiler", True, f"{found}: long runs are compiled"
    return "C++ compiler", False, "none: training runs uncompiled (slower, same numbers); install g++"


def _writable(folder: Path) -> bool:
    place = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    return os.access(place, os.W_OK)


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
