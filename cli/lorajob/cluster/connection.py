"""One connection to a server: with TLS, through a proxy, with a time limit that may change while it is used."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import time

CONNECT_TIMEOUT_SECONDS = 10.0
"""A reachable server accepts a connection at once; a user who forgot the VPN should not wait longer."""


class Connection(http.client.HTTPConnection):
    """A connection that may go through a proxy, and speaks TLS with a server of the kubeconfig's choice of name."""

    def __init__(self, host: str, port: int, *, context: ssl.SSLContext | None, name: str) -> None:
        super().__init__(host, port)
        self._context = context
        self._name = name
        self._wire: socket.socket | None = None

    def connect(self) -> None:
        limit, self.timeout = self.timeout, min(self.timeout or CONNECT_TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS)
        super().connect()
        # a router that forgot the connection is noticed, however long the server has nothing to say
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self._name)
        self.timeout = limit
        self.sock.settimeout(limit)
        # http.client forgets the socket of an answer that ends with its connection, and its time limit with it
        self._wire = self.sock

    def limit(self, deadline: float | None) -> None:
        """What comes next may take until `deadline`, of time.monotonic(). Raises TimeoutError when that is past."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self.timeout = left
        if self._wire is not None:
            self._wire.settimeout(left)

    def is_stale(self) -> bool:
        """Whether the server has closed the idle connection: there is something to read where nothing may be."""
        return self.sock is None or bool(select.select([self.sock], [], [], 0)[0])
