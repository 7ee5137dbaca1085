"""Brings the files of data sets into the data folder: verified before they are there, and never half."""

import dataclasses
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from benchmark.data import catalogue, fetch
from benchmark.data.catalogue import Entry
from benchmark.data.files import OK, VARIANT, DataFile, MissingData, data_command
from bism.errors import InputError

_SCHEMES = ("http", "https", "file")


def check_mirror(mirror: str) -> None:
    """Refuses what is not the address of a folder."""
    try:
        fits = urlsplit(mirror).scheme in _SCHEMES
    except ValueError:
        fits = False
    if not fits:
        raise InputError(f"--mirror {mirror}: must be an address that begins with http://, https:// or file:///")


def download(
    names: Iterable[str], folder: Path, console: Console, mirrors: Iterable[str] = (), force: bool = False
) -> None:
    """Fetches what is missing or damaged of each data set; with ``force`` what is there as well.

    Raises:
        MissingData: something could not be had: every address that was tried and why; all else is there.
    """
    failures = list[str]()
    with _bars(console) as bars:
        for name in names:
            one = _Download(catalogue.entry(name), folder, console, bars, tuple(mirrors))
            failures += one.bring(force)
    if failures:
        raise MissingData("\n".join(failures))


def _bars(console: Console) -> Progress:
    """Bars in a terminal; a log has a line for each file instead."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)


class _NotHad(Exception):
    """A file could not be had; the text says why and how to put it there by hand."""


@dataclasses.dataclass(frozen=True)
class _Download:
    """The download of one data set."""

    entry: Entry
    folder: Path
    console: Console
    bars: Progress
    mirrors: tuple[str, ...]

    def bring(self, force: bool) -> list[str]:
        """Brings what is wanted; returns what went wrong."""
        findings = self.entry.find(self.folder)
        if not findings:
            self._say(f"{self.entry.name}: {self.entry.origin}, there is nothing to download")
        wanted = list[DataFile]()
        for part, finding in zip(self.entry.parts, findings, strict=True):
            if force or not finding.good:
                wanted.append(part)
            elif finding.verdict == VARIANT:
                command = data_command("download", f"{self.entry.name} --force", self.folder)
                self._say(f"{finding.path}: already there, {finding.detail}; to fetch the official file: {command}")
            else:
                self._say(f"{finding.path}: already there and verified")
        return list(self._failures(wanted))

    def _failures(self, wanted: list[DataFile]) -> Iterator[str]:
        """Brings each of these files, or the archive that they come in; yields what went wrong."""
        for part in wanted:
            if part.addresses:
                try:
                    self._fetch(part, data_command("verify", self.entry.name, self.folder))
                except _NotHad as error:
                    yield str(error)
        packed = [part for part in wanted if not part.addresses]
        if packed and self.entry.archive:
            try:
                self._from_archive(self.entry.archive, packed)
            except _NotHad as error:
                yield str(error)

    def _fetch(self, part: DataFile, afterwards: str) -> None:
        """One file from the first address that gives it; ``afterwards`` is the command once it is there by hand."""
        tried = list[str]()
        for address in self._addresses(part):
            reason = self._try(part, address)
            if reason is None:
                return
            tried.append(f"\n  {address}: {reason}")
        raise _NotHad(
            f"{part.name} of {self.entry.title} could not be had:{''.join(tried)}\n"
            f"to put it there by hand, save it as {part.home(self.folder)} and run: {afterwards}"
        )

    def _addresses(self, part: DataFile) -> Iterator[str]:
        """A mirror has the file by its name, or is a copy of a data folder."""
        for mirror in self.mirrors:
            for path in dict.fromkeys((part.name, part.places[0])):
                yield f"{mirror.rstrip('/')}/{path}"
        yield from part.addresses

    def _try(self, part: DataFile, address: str) -> str | None:
        """Why an address does not give the file; None where it did, and the file is in its place."""
        home = part.home(self.folder)
        partial = home.with_name(f"{home.name}.partial")
        task = self.bars.add_task(part.name, total=None)
        try:
            continued = fetch.fetch(
                address, partial, lambda done, total: self.bars.update(task, completed=done, total=total)
            )
        except fetch.Unavailable as error:
            return str(error)
        finally:
            self.bars.remove_task(task)
        finding = part.examine(partial)
        if finding.verdict == OK:
            size = partial.stat().st_size
            _move(partial, home)
            fetch.discard(partial)
            self._say(f"{home}: downloaded and verified, {size:,} bytes from {address}")
            return None
        fetch.discard(partial)
        if continued:  # the damage may have been in what an earlier run left
            return self._try(part, address)
        return f"what came is {finding.verdict}: {finding.detail}"

    def _from_archive(self, archive: DataFile, wanted: list[DataFile]) -> None:
        """Unpacks the archive, which is fetched unless a user put it in its place, and then left there."""
        home = archive.home(self.folder)
        by_hand = archive.examine(home).good
        if not by_hand:
            self._fetch(archive, data_command("download", self.entry.name, self.folder))
        try:
            self._unpack(home, {f"{self.entry.inside}/{part.name}": part for part in wanted})
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise _NotHad(f"{home}: cannot be unpacked ({error})") from None
        if not by_hand:
            home.unlink()

    def _unpack(self, archive: Path, wanted: dict[str, DataFile]) -> None:
        """Moves members to their places once they are verified; whatever else the archive has is not unpacked."""
        with tempfile.TemporaryDirectory(dir=archive.parent) as scratch, tarfile.open(archive) as tar:
            for member in tar:
                part = wanted.pop(member.name, None) if member.isreg() else None
                if part is None:
                    continue
                tar.extract(member, scratch, filter="data")
                finding = part.examine(Path(scratch) / member.name)
                if finding.verdict != OK:
                    raise _NotHad(f"{archive}: its {member.name} is {finding.verdict}: {finding.detail}")
                _move(finding.path, part.home(self.folder))
                self._say(f"{part.home(self.folder)}: unpacked and verified")
        if wanted:
            raise _NotHad(f"{archive}: it has no {', '.join(wanted)}")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)


def _move(verified: Path, home: Path) -> None:
    """Puts a verified file in its place at one stroke."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        os.replace(verified, home)
    except OSError as error:
        raise InputError(f"{home}: cannot be written: {error.strerror}") from None
