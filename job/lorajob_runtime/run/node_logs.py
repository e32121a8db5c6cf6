"""Keeps the logs of a node other than node 0 in storage, and prints what it does to its own container's log."""

from __future__ import annotations

import sys
import threading
import time

from lorajob_runtime.contract.errors import LorajobError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.run.limits import Limits
from lorajob_runtime.run.signals import StopSignals
from lorajob_runtime.storage.store import Store
from lorajob_runtime.storage.sync import StorageSync


class NodeLogs:
    """Keeps this node's logs in storage, beside those of the others. What storage does not take is tried again."""

    def __init__(self, store: Store, folder: RunFolder, limits: Limits, signals: StopSignals) -> None:
        self._sync = StorageSync(store, folder, keep=1)
        self._limits = limits
        self._signals = signals
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._is_failing = False

    def __enter__(self) -> NodeLogs:
        threading.Thread(target=self._keep_up, name="logs", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.upload(whole=True)

    def upload(self, *, whole: bool = False) -> None:
        """Uploads what is new, and waits for that within the limits.

        `whole`: so that each log is one file in storage.
        """
        thread = threading.Thread(target=self._upload, args=(whole,), name="last logs", daemon=True)
        thread.start()
        until = time.monotonic() + self._limits.storage_for_logs
        while thread.is_alive() and time.monotonic() < until and self._limits.until_closing(self._signals) > 0:
            thread.join(self._limits.poll)
        if thread.is_alive():
            print_line("the last logs of this node are not uploaded: storage does not answer in time")

    def _upload(self, whole: bool) -> None:
        with self._lock:
            try:
                self._sync.logs(whole=whole)
                self._is_failing = False
            except (LorajobError, OSError) as error:
                if not self._is_failing:
                    print_line(f"the logs of this node are not uploaded: {error}")
                self._is_failing = True

    def _keep_up(self) -> None:
        while not self._ending.wait(self._limits.pace.events):
            self._upload(whole=False)


def print_line(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)  # noqa: T201 the container's log
