"""Sends and receives JSON lines on a connection between the supervisors of two nodes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

from lorajob_runtime.contract import errors, schema
from lorajob_runtime.contract.kubernetes import TerminationMessage

Message = dict[str, Any]

HELLO_SECONDS = 5.0
"""How long either end waits for the other at the beginning."""
TICK_SECONDS = 0.2
_LONGEST_LINE = 64 * 1024


class Connection:
    """One connection, either end of it."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        # a peer whose machine is lost says nothing: the kernel asks after it and gives up after about a minute
        client.settimeout(None)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 3)):
            client.setsockopt(socket.IPPROTO_TCP, option, value)
        # and no longer for an answer to what was said to it, for which it would not ask
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
        self._lock = threading.Lock()

    def wait_at_most(self, seconds: float | None) -> None:
        """How long `messages` waits for the next one before it ends; None: for as long as the other end is there."""
        with contextlib.suppress(OSError):
            self._client.settimeout(seconds)

    def send(self, message: Message) -> None:
        """Sends a message; to one who is gone it is lost, and `messages` ends."""
        with self._lock, contextlib.suppress(OSError):
            self._client.sendall(json.dumps(message, ensure_ascii=False).encode() + b"\n")

    def messages(self) -> Iterator[Message]:
        """What the other end says, until it goes away."""
        with contextlib.suppress(OSError), self._client.makefile("rb") as lines:
            while line := lines.readline(_LONGEST_LINE):
                message = _parse(line)
                if message is None:
                    return
                yield message

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)
        self._client.close()


def parse_termination_message(value: object) -> TerminationMessage | None:
    """A termination message as the other end sent it; None for anything else."""
    if not isinstance(value, dict):
        return None
    with contextlib.suppress(errors.ConfigError):
        return schema.decode(TerminationMessage, value)
    return None


def _parse(line: bytes) -> Message | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
