"""Uploads what is finished at the end of a run, and tells what happens to the rest.

On a machine of one's own the rest stays there. A pod's disk goes with the pod and has the only copy, so a pod tries for
much longer, also where storage refuses: a bucket may be created again, or a key be allowed again.
"""

from __future__ import annotations

from dataclasses import dataclass

from lorajob_runtime.contract.errors import STOPPED, InterruptedByUserError, LorajobError, StorageError, TakenOverError
from lorajob_runtime.contract.layout import RunFolder, step_name
from lorajob_runtime.contract.plain_files import NotPlainError
from lorajob_runtime.report import registry
from lorajob_runtime.run.event_stream import EventWriter
from lorajob_runtime.run.limits import Limits
from lorajob_runtime.run.signals import StopSignals
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.storage.ownership import Lease
from lorajob_runtime.storage.store import Store
from lorajob_runtime.storage.uploader import Uploader

_LOST_HINT = "repair the storage; the next attempt, or `lorajob retry`, goes on from the checkpoints that are in it"


@dataclass(kw_only=True)
class Delivery:
    """Uploads the results of one attempt."""

    folder: RunFolder
    store: Store
    events: EventWriter
    signals: StopSignals
    limits: Limits
    is_in_pod: bool
    lease: Lease | None
    stored_step: int | None
    """The newest checkpoint in storage."""

    def uploader(self, keep: int) -> Uploader:
        """What uploads beside training; `keep` as for a StorageSync."""
        after = (
            "the upload is tried again"
            if self.is_in_pod
            else f"finished work is kept in {self.folder.checkpoints} and uploaded later"
        )
        return Uploader(
            self.store,
            self.folder,
            keep=keep,
            intervals=self.limits.pace,
            warn=self.events.warn,
            reports=registry.folders(),
            on_stored=self._note_stored,
            trouble=self.events.storage,
            consequence=f"the run continues, and {after}",
            confirm=(lambda: None) if self.lease is None else self.lease.confirm,
            prove=(lambda: None) if self.lease is None else self.lease.prove,
        )

    def wait(self, uploader: Uploader, *, error: LorajobError | None) -> LorajobError | None:
        """Waits, within a limit, until all that is finished is in storage. Returns why it is not.

        `error` is what the run ended with. Raises TakenOverError.
        """
        is_told = self.signals.requested

        def tell_once() -> None:
            nonlocal is_told
            if self.signals.requested and not is_told:
                self.events.notice("finishing the upload" + at_once(is_in_pod=self.is_in_pod))
                is_told = True

        def patience_seconds() -> float:
            limits = self.limits
            patience = limits.storage_at_end
            if self.signals.requested:
                patience = min(patience, limits.storage_when_stopped)
            return patience if self._has_results(error) else min(patience, limits.storage_for_logs)

        insists = self.is_in_pod and self._has_results(error)
        return uploader.drain(patience_seconds, left_seconds=self.left_seconds, insists=insists, tick=tell_once)

    def left_seconds(self) -> float:
        """How long storage may still be waited for before the termination message must be written."""
        return self.limits.until_closing(self.signals)

    def _has_results(self, error: LorajobError | None) -> bool:
        """Whether more than logs waits for storage, or the next attempt needs storage as much as this one."""
        if error is None or not error.failure.final:
            return True
        return max(checkpoint.steps(self.folder), default=0) > (self.stored_step or 0)

    def final_error(self, error: LorajobError | None, failed: LorajobError | None) -> LorajobError | None:
        """What the run ended with: an error of its own comes before results that did not reach storage."""
        if failed is None or isinstance(failed, InterruptedByUserError):
            return failed or error
        message = f"{failed.message}; {self._rest()}"
        if error is not None and error.failure is not STOPPED:
            self.events.warn(message)
            return error
        if isinstance(failed, TakenOverError):
            return failed
        if self.is_in_pod and not isinstance(failed, NotPlainError):
            # the same again may well help: what there is in storage is gone on from
            return StorageError(message, hint=_LOST_HINT)
        return type(failed)(message, hint=failed.hint)

    def _rest(self) -> str:
        if not self.is_in_pod:
            return (
                f"finished checkpoints are kept in {self.folder.checkpoints}, "
                "and running the same command again uploads them"
            )
        if self.stored_step is None:
            return "no checkpoint of this run is in storage, and the work of this pod is lost"
        return (
            f"the newest checkpoint in storage is {step_name(self.stored_step)}, "
            "and the work of this pod after it is lost"
        )

    def _note_stored(self, step: int) -> None:
        self.stored_step = max(step, self.stored_step or 0)
        self.events.stored(step)


def at_once(*, is_in_pod: bool) -> str:
    """How a person at a terminal ends the wait; a pod has no terminal."""
    return "" if is_in_pod else "; press Ctrl-C again to end at once"
