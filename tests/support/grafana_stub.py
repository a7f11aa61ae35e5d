"""A recording stand-in for the part of Grafana's HTTP API that we use: no source this project installs from has a Grafana server.

It keeps folders, dashboards and data sources in memory and answers as Grafana's documentation of that API says. What it cannot show is how
Grafana draws a board.
"""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(slots=True)
class GrafanaStub:
    """Listens on a free port under ``prefix`` until ``close``; ``requests`` are (method, path, authorization, body)."""

    token: str = "right"
    prefix: str = ""
    broken: bytes | None = None  # answered to everything instead, with status 200
    requests: list[tuple[str, str, str, dict | None]] = field(default_factory=list)
    folders: dict[str, dict] = field(default_factory=dict)
    dashboards: dict[str, dict] = field(default_factory=dict)
    sources: dict[str, dict] = field(default_factory=dict)
    server: ThreadingHTTPServer | None = None
    thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_port}{self.prefix}"

    def start(self) -> "GrafanaStub":
        handler = type("Handler", (_Handler,), {"stub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, name="grafana-stub")
        self.thread.start()
        return self

    def close(self) -> None:
        assert self.server is not None
        assert self.thread is not None
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, method: str, path: str, body: dict | None) -> tuple[int, object]:
        """Status and document."""
        kind, _, uid = path.removeprefix(f"{self.prefix}/api/").partition("/")
        if (method, kind) == ("GET", "folders"):
            return (200, self.folders[uid]) if uid in self.folders else (404, {"message": "folder not found"})
        if (method, path) == ("POST", f"{self.prefix}/api/folders") and body:
            self.folders[body["uid"]] = body
            return 200, {**body, "id": len(self.folders)}
        if (method, path) == ("POST", f"{self.prefix}/api/dashboards/db") and body:
            return self._save(body)
        if kind == "datasources":
            return self._source(method, uid.removeprefix("uid/"), body)
        return 404, {"message": "Not found"}

    def _save(self, body: dict) -> tuple[int, object]:
        board = body["dashboard"]
        if body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found"}
        if board["uid"] in self.dashboards and not body.get("overwrite"):
            return 412, {"message": "A dashboard with the same uid already exists", "status": "name-exists"}
        version = self.dashboards.get(board["uid"], {}).get("version", 0) + 1
        self.dashboards[board["uid"]] = {**board, "version": version}
        return 200, {"id": 1, "uid": board["uid"], "url": f"/d/{board['uid']}/x", "status": "success", "version": version}

    def _source(self, method: str, uid: str, body: dict | None) -> tuple[int, object]:
        if method == "POST" and body:
            self.sources[body["uid"]] = body
            return 200, {"datasource": body, "message": "Datasource added"}
        if uid not in self.sources:
            return 404, {"message": "Data source not found"}
        if method == "PUT" and body:
            self.sources[uid] = body
        return 200, self.sources[uid]


class _Handler(BaseHTTPRequestHandler):
    stub: GrafanaStub

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        authorization = self.headers.get("Authorization", "")
        self.stub.requests.append((self.command, self.path, authorization, body))
        if self.stub.broken is not None:
            self._send(200, self.stub.broken)
            return
        if authorization != f"Bearer {self.stub.token}":
            self._send(401, json.dumps({"message": "Invalid API key"}).encode())
            return
        status, document = self.stub.answer(self.command, self.path, body)
        self._send(status, json.dumps(document).encode())

    do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - names that the standard library looks for

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Quiet."""
