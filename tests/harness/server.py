"""A web server on this machine that serves bytes and can misbehave."""

import dataclasses
import http.server
import re
from pathlib import Path


@dataclasses.dataclass
class Page:
    """What is at an address: cut off after ``cuts`` bytes each, in turn, then whole."""

    content: bytes
    version: str | None = '"1"'  # the ETag
    modified: str | None = None
    ranges: bool = True
    length: bool = True
    status: int = 200
    cuts: list[int] = dataclasses.field(default_factory=list)
    late: int = 0  # a range starts so many bytes later than was asked


class Server(http.server.ThreadingHTTPServer):
    """Serves ``pages``; ``asked`` has (path, the Range header or "", status) of each request, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages = dict[str, Page]()
        self.asked = list[tuple[str, str, int]]()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path, Page(b"<html>not found</html>", status=404))
        wanted, content, status, start = self.headers.get("Range", ""), page.content, page.status, 0
        current = self.headers.get("If-Range") in (page.version, page.modified)
        if wanted and page.ranges and current:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) + page.late  # type: ignore[index]
            status = 206 if start < len(content) else 416
        self.server.asked.append((self.path, wanted, status))
        self.send_response(status)
        if page.version:
            self.send_header("ETag", page.version)
        if page.modified:
            self.send_header("Last-Modified", page.modified)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        body = b"" if status == 416 else content[start:]
        if page.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: page.cuts.pop(0)] if page.cuts else body)

    def log_message(self, *_: object) -> None:
        pass


def serve(server: Server, files: dict[str, bytes], base: str = "") -> str:
    """Serves files by their names alone; the address of their folder."""
    server.pages |= {f"{base}/{Path(name).name}": Page(content) for name, content in files.items()}
    return f"{server.address}{base}/"
