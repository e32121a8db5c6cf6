"""Signs of life where no event is due for a while: loading the model, a step, evaluating, answering samples.

The supervisor ends training that shows none. A hang must not be covered up, so each micro-batch and each while of
answering shows one by itself, and only loading has a thread that says so. It begins when all processes have joined:
one that does not join is seen as a stall, too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lorajob_runtime.contract.layout import RunFolder

EVERY_SECONDS = 30.0


def beat(folder: RunFolder) -> None:
    """One sign of life. Raises OSError when the run's folder takes no file."""
    folder.alive.touch()


@contextmanager
def beating(folder: RunFolder, *, every_seconds: float = EVERY_SECONDS) -> Iterator[None]:
    """Signs of life as long as the block lasts."""
    ending = threading.Event()

    def keep_on() -> None:
        while not ending.wait(every_seconds):
            beat(folder)

    beat(folder)
    threading.Thread(target=keep_on, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        ending.set()
