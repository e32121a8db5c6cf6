"""Keeps the supervisors of a run's nodes in step: a connection from every other node to node 0, with JSON lines.

    a node sends  {"run": NAME, "node": K, "secret": SECRET}   when it connects
                  {"ready": true}                              when it can train: it has its weights, nothing runs
                  {"ended": TERMINATION, "attempt": ATTEMPT}   when its training processes have ended
    node 0 sends  {"train": ATTEMPT}                           when every node is ready
                  {"stop": ATTEMPT}                            when it has given that attempt up
                  {"mine": ATTEMPT}                            when that was for a cause of its own, which ends its pod
                  {"end": TERMINATION}                         when the run is over

A client that does not know the run's secret is closed: a pod of another namespace can reach the port.

Training itself uses torch.distributed; this is for what must be known before and after it. A node that is replaced
connects again; the other nodes connect again when node 0 is replaced.
"""

from __future__ import annotations

import dataclasses
import hmac
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from lorajob_runtime.contract import schema
from lorajob_runtime.contract.errors import LorajobError, PeerError
from lorajob_runtime.contract.kubernetes import COORDINATOR_PORT, TerminationMessage
from lorajob_runtime.contract.termination import from_termination_message
from lorajob_runtime.run.connection import HELLO_SECONDS, TICK_SECONDS, Connection, Message, parse_termination_message


@dataclass(slots=True)
class _Node:
    """What node 0 knows of another node. Guarded by the coordinator's condition."""

    connection: Connection
    is_ready: bool = False
    is_gone: bool = False
    ended: TerminationMessage | None = None


class Coordinator:
    """Node 0's end. Lives as long as its supervisor, through every attempt at training that this makes."""

    def __init__(self, run: str, *, nodes: int, secret: str = "", host: str = "", port: int = COORDINATOR_PORT) -> None:
        """Listens at once, so that the other nodes may come early. Raises OSError when the port is taken."""
        self._run = run
        self._nodes = nodes
        self._secret = secret
        self._changed = threading.Condition()
        self._known: dict[int, _Node] = {}
        self._attempt = 0
        self._is_closed = False
        self._server = socket.create_server((host, port), backlog=nodes)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, name="coordinator", daemon=True).start()

    def gather(self, *, patience_seconds: float, say: Callable[[str], None] = lambda _: None) -> None:
        """Waits until every node is ready. Raises PeerError when one has been away for too long.

        A node that is there and not ready ends an attempt, or downloads its weights, which takes the time it takes.
        `say` is told whom it waits for, whenever that changes.
        """
        away_since = time.monotonic()
        said = ""
        with self._changed:
            while missing := self._missing():
                if (waits := self._waiting_text(missing)) != said:
                    said = waits
                    say(said)
                if all(self._is_here(node) for node in missing):
                    away_since = time.monotonic()
                if time.monotonic() - away_since > patience_seconds:
                    nodes = ", ".join(str(node) for node in missing if not self._is_here(node))
                    raise PeerError(f"node {nodes} of {self._nodes} did not connect within {patience_seconds:g} s")
                self._changed.wait(TICK_SECONDS)

    def begin(self, attempt: int) -> None:
        """Has every node start its training processes. Each is ready again when these have ended."""
        with self._changed:
            self._attempt = attempt
            for known in self._known.values():
                known.is_ready, known.ended = False, None
        self._broadcast({"train": attempt})

    def give_up(self) -> None:
        """Has every node end the training processes of this attempt."""
        self._broadcast({"stop": self._attempt})

    def take_blame(self) -> None:
        """Tells every node that the attempt ends for a cause of node 0 itself, whose pod alone then ends and counts."""
        self._broadcast({"mine": self._attempt})

    def lost(self) -> LorajobError | None:
        """Why training cannot go on with the nodes there were: one is gone, or its processes failed."""
        with self._changed:
            for node, known in sorted(self._known.items()):
                if known.ended is not None and known.ended.exit_code != 0:
                    return _of_node(node, known.ended)
                if known.is_gone:
                    return PeerError(f"the connection to node {node} was lost")
        return None

    def loss(self, *, within_seconds: float) -> LorajobError | None:
        """As `lost`, waiting a moment for the news: what failed here may only be its echo."""
        deadline = time.monotonic() + within_seconds
        while (error := self.lost()) is None and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS)
        return error

    def end(self, termination: TerminationMessage) -> None:
        """Tells every node that the run is over, and closes."""
        self._broadcast({"end": schema.encode(termination)})
        self._is_closed = True
        self._server.close()
        with self._changed:
            for known in self._known.values():
                known.connection.close()

    def _waiting_text(self, missing: list[int]) -> str:
        away = [node for node in missing if not self._is_here(node)]
        word = "node" if len(away or missing) == 1 else "nodes"
        named = f"{word} {', '.join(str(node) for node in away or missing)} of {self._nodes}"
        return f"waits for {named} to connect" if away else f"waits for {named} to be ready"

    def _missing(self) -> list[int]:
        found = (node for node in range(1, self._nodes))
        return [node for node in found if not (self._is_here(node) and self._known[node].is_ready)]

    def _is_here(self, node: int) -> bool:
        return node in self._known and not self._known[node].is_gone

    def _broadcast(self, message: Message) -> None:
        with self._changed:
            nodes = list(self._known.values())
        for known in nodes:
            known.connection.send(message)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                connection = Connection(client)
            except OSError:
                # a client that closed before it was accepted, or no file left to open: the next one may succeed
                if self._is_closed:
                    return
                time.sleep(TICK_SECONDS)
                continue
            threading.Thread(target=self._serve, args=(connection,), name="coordinator-node", daemon=True).start()

    def _knows(self, hello: Message) -> bool:
        shown = str(hello.get("secret") or "")
        # what JSON can say and UTF-8 cannot is a stranger's as well
        known = hmac.compare_digest(shown.encode(errors="surrogatepass"), self._secret.encode())
        return hello.get("run") == self._run and known

    def _serve(self, connection: Connection) -> None:
        messages = connection.messages()
        # a stranger may connect and send nothing
        connection.wait_at_most(HELLO_SECONDS)
        hello = next(messages, {})
        connection.wait_at_most(None)
        node = hello.get("node")
        if not self._knows(hello) or not isinstance(node, int) or not 0 < node < self._nodes:
            connection.close()
            return
        known = _Node(connection)
        with self._changed:
            former = self._known.get(node)
            self._known[node] = known
            self._changed.notify_all()
        if former is not None:
            former.connection.close()
        for message in messages:
            with self._changed:
                known.is_ready |= bool(message.get("ready"))
                if message.get("attempt") == self._attempt:
                    # what a node says of an attempt that was given up is no news of this one
                    known.ended = parse_termination_message(message.get("ended")) or known.ended
                self._changed.notify_all()
        with self._changed:
            known.is_gone = True
            self._changed.notify_all()
        connection.close()


def _of_node(node: int, termination: TerminationMessage) -> LorajobError:
    """What a node's cause means for the run: a final one ends it; after any other it goes on when the node is back."""
    named = dataclasses.replace(termination, message=f"node {node}: {termination.message}")
    error = from_termination_message(named)
    return error if error.failure.final else PeerError(named.message)
