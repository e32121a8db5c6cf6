"""Starts the client process, which alone imports the hubs' clients, and reads its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from lorajob_runtime.contract.errors import HubError
from lorajob_runtime.system import child_process, environment

_MODULE = "lorajob_runtime.fetch.client"


def answers(
    request: dict[str, Any], *, tick: Callable[[], None] = lambda: None, tick_seconds: float = 1
) -> AbstractContextManager[Iterator[dict[str, Any]]]:
    """The answers to one request, one at a time; the client gets the keys of the request's hub and no others.

    `tick` is called while waiting; what it raises ends the process.
    Raises the error that the client reports, or HubError when it dies without a word.
    """
    return child_process.answers(
        _MODULE,
        request,
        died=_died,
        variables=environment.for_training(),
        keys=environment.for_hub(request["source"]["kind"]),
        tick=tick,
        tick_seconds=tick_seconds,
    )


def _died(status: int, last_line: str) -> HubError:
    return HubError(f"the download process ended with {status}: {last_line}")
