"""Connects a node to node 0: keeps what node 0 last said, and tells it what happens here."""

from __future__ import annotations

import socket
import threading
import time

from lorajob_runtime.contract import backoff, schema
from lorajob_runtime.contract.errors import PeerError
from lorajob_runtime.contract.kubernetes import COORDINATOR_PORT, TerminationMessage
from lorajob_runtime.run.connection import HELLO_SECONDS, TICK_SECONDS, Connection, parse_termination_message

_LONGEST_PAUSE_SECONDS = 2.0


class CoordinatorClient:
    """Another node's end of its connection to node 0: what it last heard, looked at while it does other things."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._train: int | None = None
        self._stopped = 0
        self._blamed = 0
        self._end: TerminationMessage | None = None
        self._is_lost = False
        threading.Thread(target=self._listen, name="coordinator", daemon=True).start()

    @property
    def is_lost(self) -> bool:
        """Whether the connection to node 0 was lost before it told how the run ended."""
        return self._is_lost and self._end is None

    @property
    def end(self) -> TerminationMessage | None:
        """How the run ended, once node 0 has said so."""
        return self._end

    def take_start(self) -> int | None:
        """The attempt that training is to start with, once for each time that node 0 says so."""
        with self._changed:
            attempt, self._train = self._train, None
        return attempt

    def is_given_up(self, attempt: int) -> bool:
        """Whether node 0 has given an attempt up, or goes on with a later one."""
        return self._stopped >= attempt or (self._train or 0) > attempt

    def is_counted(self, attempt: int) -> bool:
        """Whether an attempt ends node 0's pod, which then is the one that counts."""
        return self._blamed >= attempt or self._end is not None or self._is_lost

    def wait(self, seconds: float = TICK_SECONDS) -> None:
        """Waits a moment, or until there is news."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._train is not None or self._end is not None or self._is_lost, timeout=seconds
            )

    def ready(self) -> None:
        """Tells node 0 that this node can start training."""
        self._connection.send({"ready": True})

    def ended(self, attempt: int, termination: TerminationMessage) -> None:
        """Tells node 0 how the training processes here ended."""
        self._connection.send({"ended": schema.encode(termination), "attempt": attempt})

    def close(self) -> None:
        self._connection.close()

    def _listen(self) -> None:
        for message in self._connection.messages():
            with self._changed:
                if isinstance(message.get("train"), int):
                    self._train = message["train"]
                if isinstance(message.get("stop"), int):
                    self._stopped = message["stop"]
                if isinstance(message.get("mine"), int):
                    self._blamed = message["mine"]
                self._end = parse_termination_message(message.get("end")) or self._end
                self._changed.notify_all()
        with self._changed:
            self._is_lost = True
            self._changed.notify_all()


def join(
    run: str, *, node: int, host: str, port: int = COORDINATOR_PORT, secret: str = "", patience_seconds: float
) -> CoordinatorClient:
    """Connects to node 0, asking again while it is not there. Raises PeerError after `patience_seconds`."""
    deadline = time.monotonic() + patience_seconds
    pauses = backoff.Pauses(first_seconds=TICK_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS)
    while True:
        try:
            client = socket.create_connection((host, port), timeout=HELLO_SECONDS)
        except OSError as error:
            if not backoff.wait(pauses.take(), deadline):
                message = f"node 0 of the run did not answer at {host}:{port} within {patience_seconds:g} s: {error}"
                raise PeerError(message) from error
            continue
        connection = Connection(client)
        connection.send({"run": run, "node": node, "secret": secret})
        return CoordinatorClient(connection)
