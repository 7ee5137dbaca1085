"""The command ``data``: what data sets there are, where they lie, fetching and verifying them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmark.data import catalogue
from benchmark.data.catalogue import CATALOGUE, Entry
from benchmark.data.files import VARIANT, Finding, data_command


def show(folder: Path, console: Console) -> int:
    """Prints every data set with its state in this folder."""
    for entry in CATALOGUE.values():
        works, state = catalogue.state(entry.name, folder)
        train, val, test = entry.sizes
        console.print(f"[bold]{entry.name}[/]: {entry.title}, {entry.about}", soft_wrap=True)
        _row(console, "shape", f"{' x '.join(map(str, entry.shape))}, float32 in [0, 1]")
        _row(console, "splits", f"{train:,} training, {val:,} validation, {test:,} test")
        _row(console, "source", entry.source)
        _row(console, "licence", entry.licence)
        _row(console, "cite", entry.citation)
        for path in _files(entry, folder):
            _row(console, "file", str(path))
        _row(console, "state", state, "green" if works else "yellow")
    return 0


def _row(console: Console, label: str, text: str, style: str = "") -> None:
    console.print(f"  {label:<8} {text}", style=style, markup=False, soft_wrap=True)


def where(name: str | None, folder: Path) -> int:
    """Prints the folder, or one data set's files, plainly, a line each."""
    if name is None:
        print(folder)
        return 0
    entry = catalogue.entry(name)
    for path in _files(entry, folder):
        print(path)
    if not entry.parts:
        print(f"{name} has no files: it is {entry.origin}", file=sys.stderr)
    return 0


def _files(entry: Entry, folder: Path) -> list[Path]:
    """Each part's file where one is there, else where it must lie."""
    return [
        next((folder / place for place in part.places if (folder / place).exists()), part.home(folder))
        for part in entry.parts
    ]


def download(
    names: Sequence[str], folder: Path, console: Console, mirrors: Sequence[str] = (), force: bool = False
) -> int:
    """Fetches what is missing or damaged; ``all`` stands for every data set that has files."""
    from benchmark.data import download as downloads

    for mirror in mirrors:
        downloads.check_mirror(mirror)
    chosen = _with_files() if "all" in names else names
    entries = [catalogue.entry(name) for name in dict.fromkeys(chosen)]  # a misspelt name before anything is fetched
    downloads.download([entry.name for entry in entries], folder, console, mirrors, force)
    return 0


def verify(names: Sequence[str], folder: Path, console: Console) -> int:
    """Reads every file and prints what it is; 1 where one is missing or not what it should be."""
    entries = [catalogue.entry(name) for name in dict.fromkeys(names or _with_files())]
    good = [_verify(entry, folder, console) for entry in entries]
    return 0 if all(good) else 1


def _verify(entry: Entry, folder: Path, console: Console) -> bool:
    if not entry.parts:
        console.print(f"{entry.name}: {entry.origin}, no files")
        return True
    findings = entry.find(folder)
    for finding in findings:
        console.print(str(finding), style=_style(finding), markup=False, soft_wrap=True)
    if all(finding.good for finding in findings):
        return True
    command = data_command("download", entry.name, folder)
    console.print(f"to mend {entry.name}: {command}", markup=False, soft_wrap=True)
    return False


def _style(finding: Finding) -> str:
    if not finding.good:
        return "red"
    return "yellow" if finding.verdict == VARIANT else "green"


def _with_files() -> list[str]:
    return [entry.name for entry in CATALOGUE.values() if entry.parts]
