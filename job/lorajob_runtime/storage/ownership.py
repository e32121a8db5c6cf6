"""Keeps a run's prefix in S3 to one namespace for good, and to one writing process at a time.

    owner.json             the namespace whose run this is; a run on a user's own machine has none
    lease/000001.json      who writes: the newest counts, its age by the server's clock says whether it still does

A lease is only ever made under the next number, which S3 gives to one of two that ask at once. So a process that
was frozen while another took over finds a number after its own, and stops. The lock of the run's folder
(system/run_lock.py) does the same for processes of one machine; storage in a folder needs no more, since the lock is
beside it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Protocol

from lorajob_runtime.contract.errors import ConfigError, CredentialsError, LorajobError, TakenOverError
from lorajob_runtime.contract.layout import LEASES, OWNER, SPEC, lease_key, lease_number
from lorajob_runtime.storage.store import Store
from lorajob_runtime.storage.writer import Writer


class SharedStore(Store, Protocol):
    """Storage that several machines may write to at once."""

    def create(self, key: str, data: bytes) -> bool:
        """Stores a file that is not there yet; False where one is. Of two who do so at once one gets True."""

    def age_seconds(self, key: str) -> float | None:
        """How long ago a file was written, by the server's own clock; None when it is not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseIntervals:
    """How a lease is kept, in seconds."""

    renew: float = 20.0
    stale: float = 90.0
    """From this age on another process may take the lease over."""
    hand_over: float = 600.0
    """How long a new Job of the same namespace waits for the pods of the one before it to stop."""
    look: float = 1.0
    release: float = 5.0
    """How long the end of a run waits to give its lease back."""


def check_owner(store: Store, namespace: str) -> None:
    """Raises ConfigError when the run's results are those of a run in another namespace."""
    owner = _owner(store)
    if owner and namespace and owner != namespace:
        raise ConfigError(
            f"{store.uri} holds the run of that name in namespace {owner}: this one is in {namespace}",
            hint=f"give this run another name or its namespace a storage.uri of its own; "
            f"to let it take over those results, delete {store.uri}/{OWNER}",
        )


def _owner(store: Store) -> str:
    try:
        values = json.loads(store.get_bytes(OWNER) or b"{}")
    except ValueError:
        return ""
    return str(values.get("namespace") or "") if isinstance(values, dict) else ""


class Lease:
    """The right to write to a run's prefix, renewed by a thread of its own while it is held."""

    def __init__(self, store: SharedStore, writer: Writer, number: int, pace: LeaseIntervals) -> None:
        self._store = store
        self._writer = writer
        self._number = number
        self._pace = pace
        self._ending = threading.Event()
        self._taken_by = ""
        self._renewed_at = time.time()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    @property
    def taken_by(self) -> str:
        """The process that took the run over from this one, which must not write any more; empty while none has."""
        return self._taken_by

    def check(self) -> None:
        """Raises TakenOverError when another process has taken over. Sends no request."""
        if self._taken_by:
            raise TakenOverError(f"{self._taken_by} has taken this run over: nothing more is written here")

    def confirm(self) -> None:
        """As `check`, before something is written: a lease that others may take for stale by now is looked at first.

        Raises what the store raises, too.
        """
        if not self._taken_by and self._is_old():
            self._renew()
        self.check()

    def prove(self) -> None:
        """As `confirm`, but storage is asked in any case: what is written next may replace what another has written.

        Of the time since then only what one request takes is left to another.
        """
        if not self._taken_by:
            self._look()
        self.check()

    def release(self) -> None:
        """Lets the next writer begin at once. Where storage does not answer it waits until the lease is stale."""
        self._ending.set()
        self._thread.join(self._pace.release)

    def _keep(self) -> None:
        while not self._ending.wait(self._pace.renew):
            # storage that is away has its own warning; a lease is kept as soon as it is back
            with suppress(LorajobError):
                self._renew()
            if self._taken_by:
                return
        # in this thread, so that no renewal comes after it
        with suppress(LorajobError):
            self._store.delete([lease_key(self._number)])

    def _is_old(self) -> bool:
        # wall-clock time, which goes on while a laptop sleeps
        return time.time() - self._renewed_at > self._pace.stale

    def _was_taken_away(self) -> bool:
        """Whether this lease alone is gone: from a bucket that was emptied or made again everything is."""
        return self._store.get_bytes(lease_key(self._number)) is None and self._store.get_bytes(SPEC) is not None

    def _look(self) -> None:
        found = _newest(self._store)
        if found is None and (self._is_old() or self._was_taken_away()):
            # a process that takes over removes the lease before its own, and its own at its end
            self._taken_by = "a process that has ended meanwhile"
        elif found is not None and (found[0] > self._number or found[1].id != self._writer.id):
            self._taken_by = found[1].name

    def _renew(self) -> None:
        self._look()
        if not self._taken_by and not self._ending.is_set():
            self._store.put_bytes(lease_key(self._number), _dumps(self._writer))
            self._renewed_at = time.time()


@contextmanager
def hold(
    store: SharedStore,
    writer: Writer,
    *,
    say: Callable[[str], None] = lambda _: None,
    pace: LeaseIntervals = LeaseIntervals(),
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[Lease]:
    """Makes the run's prefix this process's to write to while the block lasts.

    Raises ConfigError when it is another namespace's, or another process writes there: one that was lost is told from
    one that lives by waiting until its lease is stale or renewed. `say` is told what is waited for.
    """
    check_owner(store, writer.namespace)
    lease = Lease(store, writer, _take(store, writer, say, pace, wait), pace)
    try:
        # once more: the one that was waited for may have made it meanwhile
        check_owner(store, writer.namespace)
        if writer.namespace and not _owner(store):
            store.put_bytes(OWNER, json.dumps({"namespace": writer.namespace}).encode() + b"\n")
        yield lease
    finally:
        lease.release()


def _take(
    store: SharedStore, writer: Writer, say: Callable[[str], None], pace: LeaseIntervals, wait: Callable[[float], None]
) -> int:
    """The number of the lease that is ours now."""
    before: tuple[int, str, float] | None = None
    waited = 0.0
    while True:
        found = _newest(store)
        number = 1 if found is None else found[0] + 1
        holder = None if found is None else found[1]
        age = None if found is None else store.age_seconds(lease_key(found[0]))
        if found is not None and age is None:
            # released meanwhile
            wait(pace.look)
            continue
        is_gone = holder is None or age is None or age > pace.stale or holder.has_ended()
        if found is None or holder is None or age is None or is_gone or holder.place == writer.place:
            if store.create(lease_key(number), _dumps(writer)):
                # only for tidiness, and some buckets refuse every deletion
                with suppress(CredentialsError):
                    store.delete(lease_key(old) for old in _numbers(store) if old < number)
                return number
            continue
        if before is None:
            say(f"{holder.name} wrote this run {age:.0f} s ago: waiting to see whether it still does")
        is_renewed = before is not None and (before[:2] != (found[0], holder.id) or age < before[2])
        may_wait = holder.namespace == writer.namespace != "" and waited < pace.hand_over
        if is_renewed and not may_wait:
            raise ConfigError(
                f"another process writes to {store.uri}: {holder.name}, {age:.0f} s ago",
                hint="wait for it or stop it, or give this run another name",
            )
        before = (found[0], holder.id, age)
        wait(pace.look)
        waited += pace.look


def _numbers(store: SharedStore) -> list[int]:
    numbers = (lease_number(entry.key) for entry in store.list(LEASES))
    return sorted(number for number in numbers if number is not None)


def _newest(store: SharedStore) -> tuple[int, Writer] | None:
    """The lease that counts, with its number; for one that cannot be read the writer is unknown."""
    numbers = _numbers(store)
    if not numbers:
        return None
    text = store.get_bytes(lease_key(numbers[-1])) or b""
    try:
        return numbers[-1], Writer(**{name: str(value) for name, value in json.loads(text).items()})
    except (ValueError, TypeError, AttributeError):
        return numbers[-1], Writer(id="", place="", namespace="", name="a process that gave no name")


def _dumps(writer: Writer) -> bytes:
    return json.dumps(asdict(writer)).encode() + b"\n"
