"""A small reverse proxy: what is asked for under one path is another server's under another."""

import contextlib
import http.server
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

_OURS = ("connection", "transfer-encoding", "content-length", "server", "date", "host", "accept-encoding")


class _Proxy(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, path: str, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.path, self.upstream, self.elsewhere = path, upstream, list[str]()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Proxy

    def _pass_on(self) -> None:
        if not self.path.startswith(f"{self.server.path}/"):
            self.server.elsewhere.append(self.path)
            self.send_error(404)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OURS}
        address = self.server.upstream + self.path.removeprefix(self.server.path)
        try:
            answer = urllib.request.urlopen(urllib.request.Request(address, body, headers, method=self.command))
        except urllib.error.HTTPError as refused:
            answer = refused
        with answer:
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _OURS:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass_on

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def proxied(path: str, upstream: str) -> Iterator[tuple[str, list[str]]]:
    """An address under which a server answers; and what was asked for beside it."""
    with _Proxy(path, upstream) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_address[1]}{path}", proxy.elsewhere
        finally:
            proxy.shutdown()
            thread.join()
