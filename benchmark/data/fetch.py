"""One file from one address: resumed where the server allows it, restarted where it does not."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.system.credentials import unsecret
from bism.errors import InputError

Report = Callable[[int, int | None], None]  # bytes there so far, and of how many where the server says
_TIMEOUT_SECONDS = 30.0  # of silence
_CHUNK = 1 << 18  # bytes


class Unavailable(Exception):
    """An address did not give the file; the text says why."""


def fetch(address: str, partial: Path, report: Report) -> bool:
    """Brings ``partial`` to the whole content of an address; returns whether it went on from an earlier run's part.

    Goes on by itself after a broken connection as long as each try brings something.

    Raises:
        Unavailable: the address does not give it. What came stays in ``partial`` for the next time, and what came
            from another address does so too, until this one begins to send.
        InputError: ``partial`` cannot be written.
    """
    continued, there = bool(_resumption(address, partial)), _came_from(address, partial)
    while True:
        try:
            _once(address, partial, report)
            return continued
        except (OSError, http.client.HTTPException) as error:
            before, there = there, _came_from(address, partial)
            if there <= before:
                raise Unavailable(_reason(error)) from None


def discard(partial: Path) -> None:
    """Removes a partial file and what is known of it."""
    try:
        partial.unlink(missing_ok=True)
        _guard(partial).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(partial, error) from None


def _once(address: str, partial: Path, report: Report) -> None:
    """One request. Raises OSError or HTTPException where it breaks off."""
    with _open(address, partial) as response:
        appending = getattr(response, "status", None) == 206
        done = _size(partial) if appending else 0
        total = _total(response, done)
        with _opened(partial, "ab" if appending else "wb") as file:
            if not appending:  # once what was there is gone, so that it is never taken for a part of this version
                _write(_guard(partial), "w", json.dumps(_identity(address, response)))
            report(done, total)
            while chunk := response.read(_CHUNK):
                _put(file, chunk, partial)
                done += len(chunk)
                report(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


def _open(address: str, partial: Path) -> Any:
    """The answer to a request for what is missing, or for everything where the server cannot or must not resume."""
    wanted = _resumption(address, partial)
    try:
        response = urllib.request.urlopen(_request(address, wanted), timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if not wanted or error.code != 416:  # 416: the file has become shorter, or there is nothing left of it
            raise
        error.close()
        return urllib.request.urlopen(_request(address, {}), timeout=_TIMEOUT_SECONDS)
    start = (response.headers.get("Content-Range") or "").removeprefix("bytes ").partition("-")[0]
    if getattr(response, "status", None) == 206 and start != str(_size(partial)):
        response.close()
        return urllib.request.urlopen(_request(address, {}), timeout=_TIMEOUT_SECONDS)
    return response


def _request(address: str, headers: dict[str, str]) -> urllib.request.Request:
    return urllib.request.Request(
        address, headers={"User-Agent": "bism-benchmark", "Accept-Encoding": "identity", **headers}
    )


def _resumption(address: str, partial: Path) -> dict[str, str]:
    """Headers that ask for the rest, if what is there surely belongs to the file that is at the address now."""
    version, there = _noted(partial).get("version"), _came_from(address, partial)
    return {"Range": f"bytes={there}-", "If-Range": str(version)} if version and there else {}


def _came_from(address: str, partial: Path) -> int:
    """How many bytes are there from this address."""
    return _size(partial) if _noted(partial).get("address") == unsecret(address) else 0


def _noted(partial: Path) -> dict[str, Any]:
    """The identity of what ``partial`` is a part of; empty where it is unknown."""
    try:
        noted = json.loads(_guard(partial).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _identity(address: str, response: Any) -> dict[str, str | None]:
    """What tells this version of the file from others. A weak ETag does not: it may cover files of other bytes."""
    etag = response.headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None
    return {"address": unsecret(address), "version": strong or response.headers.get("Last-Modified")}


def _total(response: Any, done: int) -> int | None:
    length = response.headers.get("Content-Length")
    return done + int(length) if length and length.isdecimal() else None


def _guard(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _opened(path: Path, mode: str) -> Any:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open(mode)
    except OSError as error:
        raise _unwritable(path, error) from None


def _put(file: Any, content: Any, path: Path) -> None:
    """Writes at once, so that a full disk is not taken for a broken connection."""
    try:
        file.write(content)
        file.flush()
    except OSError as error:
        raise _unwritable(path, error) from None


def _write(path: Path, mode: str, content: str) -> None:
    with _opened(path, mode) as file:
        _put(file, content, path)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written: {error.strerror or error} (--data-dir names another folder)")


def _reason(error: Exception) -> str:
    """Why, in few words."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"HTTP {error.code} {error.reason}"
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
