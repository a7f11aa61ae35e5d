"""A rewriting proxy: ``/api/v2/write`` for an InfluxDB that is too old to have it, and the places where an answer can go wrong.

It does what a site would do with a dozen lines of nginx: bucket → db and rp, precision names, ``Token user:password`` → query credentials.
"""

import contextlib
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PRECISIONS = {"ns": "n", "us": "u", "ms": "ms", "s": "s"}


@dataclass(slots=True)
class Answer:
    """What the proxy says instead of asking the server."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(slots=True)
class Rewriter:
    """Listens on a free port until ``close``; ``instead`` may answer a write itself (a status, or silence by closing the connection)."""

    upstream: str
    instead: Callable[[bytes], Answer | None] = lambda _body: None
    after: Callable[[int], Answer | None] = lambda _status: None
    writes: list[tuple[str, int]] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None
    thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_port}"

    def start(self) -> "Rewriter":
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, name="rewriter")
        self.thread.start()
        return self

    def close(self) -> None:
        assert self.server is not None
        assert self.thread is not None
        self.server.shutdown()
        self.server.server_close()
        for one in self.connections:  # a client may hold its end until its garbage is collected
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.thread.join()

    def forward(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """The server's own answer to a rewritten write."""
        url = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(url.query))
        database, _, policy = query.get("bucket", "").partition("/")
        target = {"db": database, "precision": PRECISIONS[query.get("precision", "ns")]} | ({"rp": policy} if policy else {})
        kind, _, token = headers.get("Authorization", "").partition(" ")
        if kind == "Token" and ":" in token:
            target["u"], _, target["p"] = token.partition(":")
        request = urllib.request.Request(f"{self.upstream}/write?{urllib.parse.urlencode(target)}", body, method="POST")
        for name in ("Content-Encoding", "Content-Type"):
            if name in headers:
                request.add_header(name, headers[name])
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return Answer(answer.status, {}, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, {"Content-Type": "application/json"}, error.read())
        except (urllib.error.URLError, OSError) as error:
            return Answer(502, {}, str(error).encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Rewriter

    def setup(self) -> None:
        super().setup()
        self.proxy.connections.append(self.connection)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if not self.path.startswith("/api/v2/write?"):
            self._send(Answer(404, {}, b"only writes"))
            return
        answer = self.proxy.instead(body)
        if answer is None:
            answer = self.proxy.forward(self.path, dict(self.headers), body)
            answer = self.proxy.after(answer.status) or answer
        self.proxy.writes.append((self.headers.get("Content-Encoding", ""), answer.status))
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        if answer.status == 0:  # silence: the connection ends without a word
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if answer.status != 204:
            self.wfile.write(answer.body)

    def log_message(self, *_args: object) -> None:
        """Quiet."""


def _handler(proxy: Rewriter) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"proxy": proxy})
