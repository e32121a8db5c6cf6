"""Processes with all that descend from them, in tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lorajob_runtime.system import processes


@contextmanager
def standing_still(process_id: int) -> Iterator[None]:
    """Stops a process and all that descend from it, and lets them go on at the end.

    What they have written meanwhile is what a SIGKILL would leave, which cannot be caught either.
    """
    stopped = [process_id, *processes.descendants(process_id)]
    for each in stopped:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        # those that work first: who watches them must not find them silent
        for each in reversed(stopped):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)
