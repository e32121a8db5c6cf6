"""HTTP to one server: kept connections, logins, proxies, time limits, and which requests are repeated.

Standard library only. A fault of the network becomes an Unreachable that says what to do; an answer is only returned.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lorajob.cluster import proxy as proxies
from lorajob.cluster import tls
from lorajob.cluster.access import Access
from lorajob.cluster.connection import Connection
from lorajob.cluster.errors import Unreachable
from lorajob.cluster.network_errors import LOST, explain
from lorajob.cluster.stream import Stream
from lorajob.environment import process_variables
from lorajob_runtime import __version__
from lorajob_runtime.contract import backoff

if TYPE_CHECKING:
    from lorajob.cluster.logins import Credentials

RETRIES = 3
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
_FRESH_SECONDS = 30.0
"""A login that is refused so soon after it was made is not made again."""
_CLOCK_TOLERANCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered, its body whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def pause_seconds(self) -> float | None:
        """How long the server asks to be left alone; None when it does not say."""
        text = self.headers.get("Retry-After", "")
        return float(text) if text.isdigit() else None


class Transport:
    """Sends requests to the server of one Access. Safe to use from several threads."""

    def __init__(
        self, access: Access, *, timeout_seconds: float | None = 30, variables: Mapping[str, str] | None = None
    ) -> None:
        """`timeout_seconds` bounds one request with all its retries; None: no limit."""
        self.access = access
        self.timeout_seconds = timeout_seconds
        address = urlsplit(access.server)
        self._host, self._secure, self._prefix = address.hostname or "", address.scheme == "https", address.path
        self._port = address.port or (443 if self._secure else 80)
        variables = process_variables() if variables is None else variables
        self._proxy = proxies.choose(access.server, access.proxy, variables)
        self._idle: list[Connection] = []
        self._credentials: Credentials | None = None
        self._logged_in = 0.0
        self._context: ssl.SSLContext | None = None
        self.ahead_seconds = 0.0
        """By so much the server's clock is ahead of this machine's, as far as that is worth a word."""

    @property
    def place(self) -> str:
        """The server for a person: host and port."""
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    def send(self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str]) -> Answer:
        """One request and its answer, whether it succeeded or not.

        Asked again, a few times and within the time limit: what the server was too busy to look at (429), and a GET
        whose connection broke or that found the server unavailable. Raises Unreachable.
        """
        deadline = None if self.timeout_seconds is None else time.monotonic() + self.timeout_seconds
        pauses = backoff.Pauses(first_seconds=_FIRST_PAUSE_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS)
        for _ in range(RETRIES):
            pause = pauses.take()
            try:
                answer = self._ask(method, path, body, headers, deadline)
            except LOST as error:
                if method != "GET" or isinstance(error, ConnectionRefusedError) or not _wait(pause, deadline):
                    raise self.fault(error, method) from error
                continue
            except (OSError, http.client.HTTPException) as error:
                raise self.fault(error, method) from error
            asked = answer.pause_seconds()
            busy = answer.status == 429 or (method == "GET" and answer.status >= 500 and asked is not None)
            if not busy or not _wait(pause if asked is None else asked, deadline):
                return answer
        try:
            return self._ask(method, path, body, headers, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise self.fault(error, method) from error

    def stream(self, path: str, *, headers: Mapping[str, str], deadline: float | None) -> Stream:
        """A GET whose answer comes bit by bit, on a connection of its own. Raises Unreachable."""
        began = None if self.timeout_seconds is None else time.monotonic() + self.timeout_seconds
        try:
            connection = self._connection()
            stream = Stream(self._get_fault, connection, self._exchange(connection, "GET", path, None, headers, began))
        except (OSError, http.client.HTTPException) as error:
            raise self.fault(error, "GET") from error
        if stream.status == 401 and self._forget_login():
            stream.close()
            return self.stream(path, headers=headers, deadline=deadline)
        stream.deadline = deadline
        return stream

    def fault(self, error: Exception, method: str) -> Unreachable:
        """The error for what the network did."""
        proxy = f"{self._proxy.host}:{self._proxy.port}" if self._proxy is not None else None
        return explain(error, place=self.place, proxy=proxy, method=method, timeout_seconds=self.timeout_seconds)

    def close(self) -> None:
        """Ends the connections that were kept."""
        while self._idle:
            self._idle.pop().close()

    def _get_fault(self, error: Exception) -> Unreachable:
        return self.fault(error, "GET")

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], deadline: float | None
    ) -> Answer:
        """One request on a kept connection, or on two if a login had run out in between."""
        connection = self._idle_connection() or self._connection()
        try:
            response = self._exchange(connection, method, path, body, headers, deadline)
            answer = Answer(response.status, response.headers, response.read())
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:
            self._idle.append(connection)
        if answer.status == 401 and self._forget_login():
            return self._ask(method, path, body, headers, deadline)
        return answer

    def _exchange(
        self,
        connection: Connection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        deadline: float | None,
    ) -> http.client.HTTPResponse:
        connection.limit(deadline)
        connection.putrequest(method, self._prefix + path, skip_accept_encoding=True)
        for name, value in (*headers.items(), *self._identity()):
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        connection.limit(deadline)
        response = connection.getresponse()
        self._compare_clocks(response.headers.get("Date"))
        return response

    def _compare_clocks(self, date: str | None) -> None:
        """Keeps by how much the clocks differ. The header has whole seconds, and an answer takes a moment."""
        try:
            ahead = parsedate_to_datetime(date).timestamp() - time.time() if date else 0.0
        except ValueError:
            return
        self.ahead_seconds = ahead if abs(ahead) > _CLOCK_TOLERANCE_SECONDS else 0.0

    def _idle_connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_stale():
                return connection
            connection.close()
        return None

    def _connection(self) -> Connection:
        if self._secure and self._context is None:
            shown = self._login()
            certificate = shown.certificate if shown is not None else self.access.client_certificate
            key = shown.key if shown is not None else self.access.client_key
            self._context = tls.context(self.access, certificate, key)
        name = self.access.tls_server_name or self._host
        if self._proxy is None:
            return Connection(self._host, self._port, context=self._context, name=name)
        connection = Connection(self._proxy.host, self._proxy.port, context=self._context, name=name)
        connection.set_tunnel(self._host, self._port, headers=self._proxy.headers())
        return connection

    def _identity(self) -> Iterator[tuple[str, str]]:
        """The headers that say who asks."""
        yield "User-Agent", f"lorajob/{__version__}"
        login = self._login()
        token = login.token if login is not None else self.access.bearer()
        if token is not None:
            yield "Authorization", f"Bearer {token}"
        elif self.access.basic is not None:
            yield "Authorization", proxies.basic(*self.access.basic)
        yield from self.access.impersonate

    def _login(self) -> Credentials | None:
        if self.access.login is not None and self._credentials is None:
            from lorajob.cluster.logins import log_in  # takes half a second to load, and most need none

            self._credentials = log_in(self.access.login)
            self._logged_in = time.monotonic()
        return self._credentials

    def _forget_login(self) -> bool:
        """Whether there is a login by another program that has not just been made; it is then made again."""
        if self._credentials is None or time.monotonic() - self._logged_in < _FRESH_SECONDS:
            return False
        self._credentials = None
        self._context = None
        self.close()
        return True


def _wait(seconds: float, deadline: float | None) -> bool:
    """Waits, unless that is too long or would pass the deadline; returns whether it did."""
    return seconds <= _LONGEST_PAUSE_SECONDS and backoff.wait(seconds, deadline)
