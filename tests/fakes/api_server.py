"""A server that answers as it is told, for what a real API server does only under stress: 429, 410, broken connections.

server = ApiServer()
server.answers += [Reply(429, headers={"Retry-After": "0"}), Reply(200, {"kind": "Status"}), DROP]
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DROP = "drop"
"""Closes the connection without an answer."""
HANG = "hang"
"""Takes the request and says nothing until the server is closed."""


@dataclass(frozen=True)
class Reply:
    """One answer. A body that is a list is sent as lines of JSON in chunks, as a watch is."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    breaks_off: bool = False
    """Whether the connection breaks before the answer is whole."""


@dataclass(frozen=True)
class Request:
    """What was asked. `connection` is the same for requests on one connection."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Says nothing: clients here go away as they like."""


class ApiServer:
    """Answers the requests in their order with `answers`; `requests` has what was asked."""

    def __init__(self) -> None:
        self.answers: list[Reply | str | Callable[[], Reply | str]] = []
        """A function says what to answer when it is asked, and may do something then."""
        self.requests: list[Request] = []
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's below
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                asked = Request(
                    self.command, self.path, dict(self.headers), self.rfile.read(length), self.client_address[1]
                )
                server.requests.append(asked)
                reply = server.answers.pop(0) if server.answers else Reply(500, {"message": "no answer is left"})
                if not isinstance(reply, Reply | str):
                    reply = reply()
                if reply == HANG:
                    server._closing.wait(60)
                if isinstance(reply, str):
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send(reply)

            def send(self, reply: Reply) -> None:
                self.send_response_only(reply.status)
                self.send_header("Date", reply.headers.get("Date") or self.date_time_string())
                self.send_header("Content-Type", reply.content_type)
                for name, value in reply.headers.items():
                    if name != "Date":
                        self.send_header(name, value)
                self.close_connection = reply.breaks_off or reply.headers.get("Connection") == "close"
                if isinstance(reply.body, list):
                    self.send_chunks([json.dumps(line).encode() + b"\n" for line in reply.body], reply.breaks_off)
                    return
                content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_header("Content-Length", str(len(content) + (10 if reply.breaks_off else 0)))
                self.end_headers()
                self.wfile.write(content)

            def send_chunks(self, lines: list[bytes], breaks_off: bool) -> None:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for line in lines if breaks_off else [*lines, b""]:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))

            do_GET = do_POST = do_PATCH = do_DELETE = do_CONNECT = answer  # noqa: N815 - as the base class looks for it

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        return Handler


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """A server for the length of a block."""
    server = ApiServer()
    try:
        yield server
    finally:
        server.close()
