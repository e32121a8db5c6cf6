"""An answer of a server that comes bit by bit, as a followed log and a watch do."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from typing import Self

from lorajob.cluster.connection import Connection
from lorajob.cluster.errors import Unreachable

_READ_BYTES = 1 << 16


class Stream:
    """An answer that comes bit by bit. `deadline`, of time.monotonic(), ends it in good order."""

    def __init__(
        self, fault: Callable[[Exception], Unreachable], connection: Connection, response: http.client.HTTPResponse
    ) -> None:
        self.deadline: float | None = None
        self._fault = fault
        self._connection = connection
        self._response = response
        self._is_late = False

    @property
    def status(self) -> int:
        return self._response.status

    def read(self) -> bytes:
        """The rest of the answer. Raises Unreachable."""
        try:
            return self._response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._fault(error) from error

    def lines(self) -> Iterator[bytes]:
        """The lines without their ends, until the server or the deadline ends them. Raises Unreachable.

        A line of which the deadline left the end away is left out.
        """
        rest = b""
        while data := self._next():
            *whole, rest = (rest + data).split(b"\n")
            yield from whole
        if rest and not self._is_late:
            yield rest

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self) -> bytes:
        try:
            self._connection.limit(self.deadline)
            # read1 of an answer whose length is known would wait for more than there is
            if self._response.chunked or self._response.length is None:
                return self._response.read1(_READ_BYTES)
            return self._response.read(_READ_BYTES) or self._end()
        except TimeoutError:
            self._is_late = True
            return b""
        except (OSError, http.client.HTTPException) as error:
            raise self._fault(error) from error

    def _end(self) -> bytes:
        if self._response.length:
            raise http.client.IncompleteRead(b"", self._response.length)
        return b""
