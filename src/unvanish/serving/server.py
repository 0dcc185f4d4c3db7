"""The answers: a page, its data, nothing else; GET and HEAD alone, no file by its path.

Of the standard library: a handful of addresses that are only read need no framework, and so `run --live` works
wherever unvanish does. A thread answers each request, so that a big run keeps only those waiting who ask for it.
"""

from __future__ import annotations

import errno
import html
import math
import re
import socket
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from unvanish.errors import RecordError, UnvanishError, UsageError
from unvanish.present.html import render_shell
from unvanish.serving.guard import HEADER, Guard
from unvanish.serving.kept import as_json, etag_of
from unvanish.serving.places import NotServedError
from unvanish.serving.runs import Runs

DEFAULT_PORT = 8777
MOST_AT_ONCE = 48  # requests; more are closed at once
IDLE_SECONDS = 20.0  # a client that is slower than this to say what it wants is left
_JSON, _HTML, _TEXT = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache, private",
}


class Server(ThreadingHTTPServer):
    """Listens from the moment it is made; `serve_forever` answers, `close` ends it."""

    daemon_threads = True
    request_queue_size = 64
    allow_reuse_address = sys.platform != "win32"  # there it would let a second server have the same port

    def __init__(self, runs: Runs, guard: Guard, port: int) -> None:
        """`port` 0 takes a free one. UsageError where it can't listen there."""
        self.runs, self.guard = runs, guard
        self.asked = -math.inf  # when somebody last asked for something (time.monotonic)
        self._places = threading.Semaphore(MOST_AT_ONCE)
        try:
            info = socket.getaddrinfo(guard.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self.address_family = info[0]
            super().__init__((str(info[4][0]), port), _Handler)
        except (OSError, OverflowError, UnicodeError) as error:
            raise _cannot_listen(error, guard.host, port) from None

    @property
    def url(self) -> str:
        """Where to look, with the token where one is wanted."""
        host, port = str(self.server_address[0]), self.server_address[1]
        if host in ("0.0.0.0", "::"):  # noqa: S104 - told apart, not listened on
            host = socket.gethostname()
        shown = f"[{host}]" if ":" in host else host
        query = "" if self.guard.token is None else f"?token={quote(self.guard.token, safe='')}"
        only = self.runs.places.only
        page = "" if only is None else f"run/{quote(only, safe='')}"
        return f"http://{shown}:{port}/{page}{query}"

    def close(self) -> None:
        """Listen no more."""
        self.server_close()
        self.runs.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, unless there are too many."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread's work."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def server_bind(self) -> None:
        """Without the look-up of the machine's full name, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(self.allow_reuse_address))
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to report."""


def _cannot_listen(error: Exception, host: str, port: int) -> UsageError:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} of {host} is in use by another program",
            "name another with --port, or 0 for a free one",
        )
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return UsageError(f"port {port} may not be used by you", "name one above 1023 with --port")
    why = str(getattr(error, "strerror", None) or error).lower()
    return UsageError(f"{host} can't be listened on: {why}", "name an address of this machine with --host")


class _Handler(BaseHTTPRequestHandler):
    """One request and its answer; the connection ends with it."""

    server: Server
    server_version, sys_version = "unvanish", ""
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        """Answer."""
        self._answer()

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self._answer()

    def _not_allowed(self) -> None:
        self._send(405, b"this server only shows: GET and HEAD\n", _TEXT, {"Allow": "GET, HEAD"})

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _not_allowed  # noqa: N815

    def _answer(self) -> None:
        try:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query, keep_blank_values=True, max_num_fields=20)
            segments = [unquote(s, errors="strict") for s in parts.path.split("/")[1:]]
        except (ValueError, UnicodeError):
            self._refuse(400, "this address can't be read")
            return
        if parts.scheme or parts.netloc:
            self._refuse(400, "this server is no proxy")
            return
        if segments == ["favicon.ico"]:  # browsers ask for it by themselves, without the token
            self._send(204, b"", _TEXT)
            return
        refusal = self.server.guard.refusal(
            _only(self.headers.get_all("Host")), self.headers.get("Origin"), self._token(query)
        )
        if refusal is not None:
            self._refuse(refusal.status, refusal.why)
            return
        self.server.asked = time.monotonic()
        try:
            self._route(segments, query)
        except NotServedError as error:
            self._refuse(404, str(error))
        except UsageError as error:
            self._refuse(400, str(error))
        except RecordError as error:
            self._refuse(503, str(error))
        except UnvanishError as error:
            self._refuse(500, str(error))
        except OSError:
            raise  # the client is gone, or the file system is: the connection ends
        except Exception as error:  # noqa: BLE001 - one run that can't be shown must not take the others along
            self._refuse(500, f"a fault of unvanish: {type(error).__name__}")

    def _token(self, query: dict[str, list[str]]) -> str | None:
        kind, _, bearer = (self.headers.get("Authorization") or "").partition(" ")
        if kind.lower() == "bearer":
            return bearer.strip()
        return self.headers.get(HEADER) or _only(query.get("token"))

    def _route(self, segments: list[str], query: dict[str, list[str]]) -> None:
        runs = self.server.runs
        match segments:
            case [""]:
                self._page(render_shell("runs", "api/runs", "runs - unvanish"))
            case ["run", name]:
                runs.places.find(name)
                address = f"../api/runs/{quote(name, safe='')}/view"
                self._page(render_shell("view", address, f"{name} - unvanish"))
            case ["compare"]:
                names = quote(",".join(_asked(query)), safe=",")
                self._page(render_shell("compare", f"api/compare?runs={names}", "compare - unvanish"))
            case ["api", "runs"]:
                self._send_data(runs.listed())
            case ["api", "runs", name, "view"]:
                answer = runs.view(name)
                self._send_data(answer.body, answer.etag)
            case ["api", "runs", name, "window"]:
                first, last = _step(query, "from"), _step(query, "to")
                self._send_data(runs.window(name, _only(query.get("model")) or "", first, last))
            case ["api", "runs", name, "report.html"]:
                page = runs.report(name)
                self._page(page.decode("utf-8"))
            case ["api", "compare"]:
                self._send_data(runs.compared(_asked(query)))
            case _:
                self._refuse(404, "there is nothing at this address")

    def _page(self, page: str) -> None:
        policy = f"{_policy_of(page)}; frame-ancestors 'none'"
        self._send(200, page.encode("utf-8", "backslashreplace"), _HTML, {"Content-Security-Policy": policy})

    def _send_data(self, body: bytes, etag: str | None = None) -> None:
        tag = etag or etag_of(body)
        known = [t.strip().removeprefix("W/") for t in (self.headers.get("If-None-Match") or "").split(",")]
        if tag in known or "*" in known:
            self._send(304, b"", _JSON, {"ETag": tag})
            return
        self._send(200, body, _JSON, {"ETag": tag})

    def _refuse(self, status: int, why: str) -> None:
        if self.path.startswith("/api/"):
            self._send(status, as_json({"error": why}), _JSON)
        else:
            self._send(status, f"unvanish: {why}\n".encode("utf-8", "backslashreplace"), _TEXT)

    def _send(self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.close_connection = True
        self.send_response(status)
        for name, value in {**_HEADERS, **(more or {}), "Connection": "close"}.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - theirs
        """What the standard library refuses by itself, in our words: nothing of the request is said back."""
        self.requestline = getattr(self, "requestline", "")
        self.command = getattr(self, "command", None) or "GET"
        try:
            said = HTTPStatus(code).phrase
        except ValueError:
            said = "refused"
        self.path = ""
        self._send(code, f"unvanish: {said.lower()}\n".encode(), _TEXT)

    def log_message(self, *_: object) -> None:
        """Nothing: addresses hold the token."""


def _policy_of(page: str) -> str:
    """The policy that a page states of itself, for the header."""
    found = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    return html.unescape(found.group(1)) if found else "default-src 'none'"


def _only(values: list[str] | None) -> str | None:
    """The value that is given once; None where there is none or where there are several."""
    return values[0] if values is not None and len(values) == 1 else None


def _step(query: dict[str, list[str]], name: str) -> int:
    """A step that the query names. UsageError where it is none."""
    given = _only(query.get(name)) or ""
    if not given.isascii() or not given.isdecimal() or len(given) > 15:
        raise UsageError(f"{name} must be a step, counted from 0", "ask as window?model=NAME&from=100&to=200")
    return int(given)


def _asked(query: dict[str, list[str]]) -> list[str]:
    return [name for name in (_only(query.get("runs")) or "").split(",") if name]
