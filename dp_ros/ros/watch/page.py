"""The live page and its server: HTTP on the loopback address. Browsers poll; nothing is queued for them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from socketserver import TCPServer
from urllib.parse import unquote, urlsplit

from dp_ros.ros.watch.state import WatchState

LOOPBACK = "127.0.0.1"
_NAMES = {LOOPBACK, "localhost"}  # a page of another site may not read ours through a name of its own
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'"
)
_IDLE_S = 10.0  # a silent connection is closed


class PageServer:
    """Server of `/` (the page), `/state` (JSON) and `/camera/NAME` (JPEG), in threads of its own."""

    def __init__(self, state: WatchState, port: int) -> None:
        """port: 0, or one that is taken: a free one."""
        handler = partial(_Handler, state, self._note)
        try:
            self._server = _Server((LOOPBACK, port), handler)
        except OSError:
            self._server = _Server((LOOPBACK, 0), handler)
        self._asked_s = float("-inf")
        self._thread = threading.Thread(target=self._server.serve_forever, name="page", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self._server.server_port}"

    def is_watched(self, within_s: float = 3.0) -> bool:
        """Whether a browser asked for the state in the last seconds."""
        return time.monotonic() - self._asked_s < within_s

    def _note(self) -> None:
        self._asked_s = time.monotonic()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Without the look-up of this machine's name, which may ask a server for it."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a browser that went away is no fault."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S

    def __init__(self, state: WatchState, note: Callable[[], None], *arguments: object) -> None:
        self._state, self._note = state, note
        super().__init__(*arguments)

    def do_GET(self) -> None:
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host not in _NAMES:
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"ask for 127.0.0.1\n")
            return
        path = urlsplit(self.path).path
        if path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", page().encode())
        elif path == "/state":
            self._note()
            self._answer(HTTPStatus.OK, "application/json", json.dumps(self._state.as_dict()).encode())
        elif path.startswith("/camera/") and (data := self._state.jpeg(unquote(path[len("/camera/") :]))):
            self._answer(HTTPStatus.OK, "image/jpeg", data)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is / and /state and /camera/NAME\n")

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing: ten requests a second would fill the log."""


def page() -> str:
    """The whole page, with its styles and scripts."""
    return (files("dp_ros.ros.watch") / "page.html").read_text(encoding="utf-8")
