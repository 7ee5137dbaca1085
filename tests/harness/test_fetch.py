"""One file from one address: resumed, restarted, given up."""

import socket
from pathlib import Path

import numpy as np
import pytest

from benchmark.data import fetch
from benchmark.data.fetch import Unavailable
from bism import InputError
from tests.harness import synthetic
from tests.harness.server import Page, Server

CONTENT, OTHER = (np.random.RandomState(seed).bytes(100_000) for seed in (5, 6))
HALF = CONTENT[:50_000]


def fetched(address: str, partial: Path) -> bytes:
    fetch.fetch(address, partial, lambda done, total: None)
    return partial.read_bytes()


def unavailable(address: str, partial: Path) -> str:
    """Why an address does not give its file."""
    with pytest.raises(Unavailable) as error:
        fetched(address, partial)
    return str(error.value)


def interrupt(address: str, partial: Path) -> None:
    """Ctrl-C after the first bytes."""

    def stop(done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(address, partial, stop)


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / "new" / "file.partial"


@pytest.mark.parametrize(("length", "total"), [(True, len(CONTENT)), (False, None)])
def test_a_file_is_fetched_and_progress_reported(
    server: Server, partial: Path, length: bool, total: int | None
) -> None:
    server.pages["/file"] = Page(CONTENT, length=length)
    seen = list[tuple[int, int | None]]()
    fetch.fetch(f"{server.address}/file", partial, lambda done, of: seen.append((done, of)))
    assert partial.read_bytes() == CONTENT
    assert seen[0] == (0, total)
    assert seen[-1] == (len(CONTENT), total)


def test_a_cut_connection_is_resumed_at_once(server: Server, partial: Path) -> None:
    server.pages["/file"] = Page(CONTENT, cuts=[50_000, 20_000])
    assert fetched(f"{server.address}/file", partial) == CONTENT
    assert server.asked == [("/file", "", 200), ("/file", "bytes=50000-", 206), ("/file", "bytes=70000-", 206)]


def test_a_connection_that_brings_no_more_is_given_up(server: Server, partial: Path) -> None:
    server.pages["/file"] = Page(CONTENT, cuts=[50_000, 0])
    assert unavailable(f"{server.address}/file", partial) == "the connection ended after 50,000 of 100,000 bytes"
    assert partial.read_bytes() == HALF


@pytest.mark.parametrize("tag", ["etag", "date"])
def test_a_later_run_goes_on_where_an_earlier_one_stopped(server: Server, partial: Path, tag: str) -> None:
    date = "Mon, 01 Jan 2024 00:00:00 GMT"
    server.pages["/file"] = page = Page(CONTENT, cuts=[50_000, 0])
    page.version, page.modified = ('"1"', None) if tag == "etag" else ('W/"1"', date)
    unavailable(f"{server.address}/file", partial)
    assert fetched(f"{server.address}/file", partial) == CONTENT
    assert server.asked[-1] == ("/file", "bytes=50000-", 206)


def test_an_interrupted_run_goes_on(server: Server, partial: Path) -> None:
    large = CONTENT * 10
    server.pages["/file"] = Page(large)
    interrupt(f"{server.address}/file", partial)
    there = partial.stat().st_size
    assert 0 < there < len(large)
    assert fetched(f"{server.address}/file", partial) == large
    assert server.asked[-1] == ("/file", f"bytes={there}-", 206)


def test_a_file_that_has_changed_meanwhile_is_fetched_anew(server: Server, partial: Path) -> None:
    server.pages["/file"] = Page(CONTENT, cuts=[50_000, 0])
    unavailable(f"{server.address}/file", partial)
    server.pages["/file"] = Page(OTHER, version='"2"')
    assert fetched(f"{server.address}/file", partial) == OTHER
    assert server.asked[-1] == ("/file", "bytes=50000-", 200)


@pytest.mark.parametrize("version", [None, 'W/"1"'])
def test_without_a_sure_version_a_file_is_fetched_anew(server: Server, partial: Path, version: str | None) -> None:
    server.pages["/file"] = Page(CONTENT, version=version, cuts=[50_000, 50_000])
    unavailable(f"{server.address}/file", partial)
    assert fetched(f"{server.address}/file", partial) == CONTENT
    assert {wanted for _, wanted, _ in server.asked} == {""}


def test_a_server_that_ignores_ranges_sends_everything_anew(server: Server, partial: Path) -> None:
    server.pages["/file"] = Page(CONTENT, ranges=False, cuts=[50_000])
    assert fetched(f"{server.address}/file", partial) == CONTENT
    assert server.asked == [("/file", "", 200), ("/file", "bytes=50000-", 200)]


def test_a_range_that_starts_elsewhere_is_not_appended(server: Server, partial: Path) -> None:
    server.pages["/file"] = Page(CONTENT, late=3, cuts=[50_000])
    assert fetched(f"{server.address}/file", partial) == CONTENT


def test_a_file_that_has_become_shorter_is_fetched_anew(server: Server, partial: Path) -> None:
    server.pages["/file"] = Page(CONTENT, cuts=[50_000, 0])
    unavailable(f"{server.address}/file", partial)
    server.pages["/file"] = Page(OTHER[:40_000])  # the same version, by mistake
    assert fetched(f"{server.address}/file", partial) == OTHER[:40_000]
    assert [status for _, _, status in server.asked[-2:]] == [416, 200]


def test_what_came_from_another_address_is_not_continued(server: Server, partial: Path) -> None:
    server.pages |= {"/one": Page(CONTENT, cuts=[50_000, 0]), "/two": Page(OTHER, cuts=[30_000])}
    unavailable(f"{server.address}/one", partial)  # has sent more than the other will before it is cut
    assert fetched(f"{server.address}/two", partial) == OTHER
    assert server.asked[2:] == [("/two", "", 200), ("/two", "bytes=30000-", 206)]


def test_what_came_is_kept_while_other_addresses_give_nothing(server: Server, partial: Path) -> None:
    server.pages["/one"] = Page(CONTENT, cuts=[50_000, 0])
    unavailable(f"{server.address}/one", partial)
    unavailable(f"{server.address}/none", partial)
    assert fetched(f"{server.address}/one", partial) == CONTENT
    assert server.asked[-1] == ("/one", "bytes=50000-", 206)


def test_a_partial_file_of_unknown_origin_is_not_continued(server: Server, partial: Path) -> None:
    server.pages["/file"] = Page(CONTENT)
    for note in (None, "", "[]", "{}"):
        synthetic.place(partial.parent, {partial.name: b"something"})
        if note is not None:
            synthetic.place(partial.parent, {f"{partial.name}.json": note.encode()})
        assert fetched(f"{server.address}/file", partial) == CONTENT
    assert {wanted for _, wanted, _ in server.asked} == {""}


def test_why_an_address_does_not_give_a_file(server: Server, partial: Path) -> None:
    server.pages["/busy"] = Page(b"", status=503)
    assert unavailable(f"{server.address}/none", partial) == "HTTP 404 Not Found"
    assert unavailable(f"{server.address}/busy", partial) == "HTTP 503 Service Unavailable"
    with socket.socket() as closed:  # bound, and nothing listens
        closed.bind(("127.0.0.1", 0))
        assert unavailable(f"http://127.0.0.1:{closed.getsockname()[1]}/x", partial) == "Connection refused"
    missing = partial.parent / "missing"
    assert unavailable(missing.as_uri(), partial) == "No such file or directory"
    assert not partial.exists()


def test_a_file_that_cannot_be_written_is_the_user_s_to_mend(server: Server, tmp_path: Path) -> None:
    server.pages["/file"] = Page(CONTENT)
    synthetic.place(tmp_path, {"taken": b""})
    partial = tmp_path / "taken" / "file.partial"
    with pytest.raises(InputError) as error:
        fetched(f"{server.address}/file", partial)
    assert str(error.value).startswith(f"{partial}: cannot be written: ")
