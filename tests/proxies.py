"""A way to a server that tests can cut and mend."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Passes TCP connections on to a server until it is cut or frozen.

    Cut, it refuses new ones and drops those there are. Frozen, it takes new ones and nothing comes of any.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._port = 0
        self._flows = threading.Event()
        self._flows.set()
        self.restore()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def restore(self) -> None:
        """Listens again, on the same port."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(64)
        self._port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """From now on nobody gets through."""
        with self._lock:
            sockets, self._open = self._open, set()
        listener, self._listener = self._listener, None
        for each in [listener, *sockets] if listener else list(sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def freeze(self) -> None:
        """From now on everybody is let in and nobody gets an answer, for good."""
        self._flows.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            with self._lock:
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
