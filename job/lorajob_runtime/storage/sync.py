"""Uploads what is finished in the run's folder to storage, in an order that no interruption can spoil.

A checkpoint's files go first, then the event log, then the manifest: without it there is no checkpoint. Retention goes
the other way: first a manifest that no longer promises the files, then the files. One thread uses a StorageSync, and
nothing else removes files of finished checkpoints, so that none disappears while it is read.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from lorajob_runtime.contract.layout import (
    ADAPTER,
    ATTEMPT_PATTERN,
    CHECKPOINTS,
    EVENTS,
    LOG_PATTERN,
    LOGS,
    MANIFEST,
    OPTIMIZER,
    RESUME_ONLY,
    SINKS,
    RunFolder,
    attempt_of,
    checkpoint_file,
    checkpoint_key,
    log_key,
)
from lorajob_runtime.contract.plain_files import pinned, read_plain
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.storage.appended_files import GrowingFile
from lorajob_runtime.storage.checkpoint import Manifest
from lorajob_runtime.storage.store import Store


class StorageSync:
    """The run's folder on one side, its storage on the other.

    Raises what the store raises, OSError, and NotPlainError for a log or a checkpoint's file that is none.
    """

    def __init__(
        self,
        store: Store,
        folder: RunFolder,
        *,
        keep: int,
        reports: Sequence[str] = (),
        on_stored: Callable[[int], None] = lambda step: None,
        prove: Callable[[], None] = lambda: None,
    ) -> None:
        """`keep`: how many of the newest checkpoints stay resumable, in storage and here.

        `reports`: the folders that report sinks keep below the run's.
        `on_stored` is told the step of a checkpoint when the last of it is in storage. `prove` raises TakenOverError
        where no checkpoint may be written, and is asked before its first file and before its manifest.
        """
        self._store = store
        self._folder = folder
        self._keep = keep
        self._reports = reports
        self._on_stored = on_stored
        self._prove = prove
        self.uploads = 0
        """How many large files were uploaded so far."""
        self._pruned_at: list[int] = []
        self._stored: dict[int, Manifest] | None = None
        self._put: set[tuple[str, str]] = set()
        self._sinks = b""
        self._events: GrowingFile | None = None
        self._logs: dict[str, GrowingFile] = {}
        self._logs_before: set[str] | None = None

    def checkpoints(self) -> None:
        """Uploads what is finished here and not in storage, the newest first; then applies retention on both sides."""
        steps = checkpoint.steps(self._folder)
        if steps != self._pruned_at:
            checkpoint.prune(self._folder, self._keep)
            self._pruned_at = steps
        stored = self._load_stored()
        for step in reversed(steps):
            manifest = checkpoint.read_manifest(self._folder.checkpoint(step))
            if manifest is not None and not _holds(stored.get(step), manifest):
                self._upload(step, manifest, stored)
        self._retain(stored)

    def events(self, *, whole: bool = False) -> None:
        """Uploads what is new of the event log, up to its last whole line, and what the reports remember of it.

        `whole`: the log is then one file again. It begins as one too, since a resumed run's log was cut back.
        """
        if self._events is None:
            events = GrowingFile(self._store, EVENTS, self._folder.events, whole_lines=True)
            events.consolidate()
            self._events = events
        elif whole:
            self._events.consolidate()
        else:
            self._events.add()
        if (sinks := _read(self._folder.sinks)) and sinks != self._sinks:
            self._store.put_bytes(SINKS, sinks)
            self._sinks = sinks

    def adapter(self) -> None:
        """Uploads the published adapter."""
        self._put_tree(ADAPTER, self._folder.adapter)

    def reports(self) -> None:
        """Uploads what report sinks keep in folders of their own; what an earlier attempt wrote is part of it."""
        for name in self._reports:
            kept = self._put_tree(name, self._folder.report(name))
            if kept:
                self._store.delete(entry.key for entry in self._store.list(name) if entry.key not in kept)

    def logs(self, *, whole: bool = False) -> None:
        """Uploads what is new of the logs, and those of earlier attempts that storage does not have, compressed.

        `whole`: each is then one file in storage.
        """
        if self._logs_before is None:
            # the logs of an attempt that is over never grow again
            self._logs_before = {entry.key for entry in self._store.list(LOGS)}
        newest = max((attempt_of(path.name) or 0 for path in self._folder.logs.glob(ATTEMPT_PATTERN)), default=0)
        for path in sorted(self._folder.logs.glob(LOG_PATTERN)):
            if (attempt := attempt_of(path.parent.name)) is None:
                continue
            key = log_key(attempt, path.name)
            is_over = attempt < newest
            if is_over and key in self._logs_before:
                continue
            log = self._logs.setdefault(key, GrowingFile(self._store, key, path, below=self._folder.root))
            if whole or is_over:
                log.consolidate()
            else:
                log.add()
            if is_over:
                self._logs_before.add(key)

    def _load_stored(self) -> dict[int, Manifest]:
        """The manifests in storage. Files that a broken-off retention has left behind are removed."""
        if self._stored is not None:
            return self._stored
        stored: dict[int, Manifest] = {}
        keys = {entry.key for entry in self._store.list(CHECKPOINTS)}
        for step in sorted({file[0] for key in keys if (file := checkpoint_file(key)) is not None}):
            if checkpoint_key(step, MANIFEST) not in keys:
                continue
            manifest = checkpoint.parse_manifest(self._store.get_bytes(checkpoint_key(step, MANIFEST)) or b"")
            if manifest is not None:
                stored[step] = manifest
                orphans = [checkpoint_key(step, name) for name in RESUME_ONLY if name not in manifest["files"]]
                self._store.delete(key for key in orphans if key in keys)
        self._stored = stored
        return stored

    def _upload(self, step: int, manifest: Manifest, stored: dict[int, Manifest]) -> None:
        self._prove()
        if stored.pop(step, None) is not None:
            # another attempt's checkpoint of this step: it stops to exist before its files are replaced
            self._store.delete([checkpoint_key(step, MANIFEST)])
        path = self._folder.checkpoint(step)
        for name, entry in manifest["files"].items():
            self._upload_if_new(checkpoint_key(step, name), path / name, entry["sha256"])
        self.events()
        self._prove()
        self._store.put_bytes(checkpoint_key(step, MANIFEST), checkpoint.dump_manifest(manifest))
        stored[step] = manifest
        self._on_stored(step)

    def _put_tree(self, prefix: str, folder: Path) -> set[str]:
        """Uploads the files below a folder that are new or changed. Returns the keys of all of them."""
        keys = set()
        for path in sorted(folder.rglob("*")):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                self._upload_if_new(key, path, f"{status.st_size}-{status.st_mtime_ns}")
                keys.add(key)
        return keys

    def _upload_if_new(self, key: str, path: Path, version: str) -> None:
        """Uploads a file unless this process has: a second try begins where the first one broke off."""
        if (key, version) not in self._put:
            with pinned(path, below=self._folder.root) as file:
                self._store.put(key, file)
            self._put.add((key, version))
            self.uploads += 1

    def _retain(self, stored: dict[int, Manifest]) -> None:
        resumable = sorted(step for step, manifest in stored.items() if OPTIMIZER in manifest["files"])
        for step in resumable[: -self._keep]:
            files = stored[step]["files"]
            smaller = Manifest(step=step, files={name: files[name] for name in files if name not in RESUME_ONLY})
            self._store.put_bytes(checkpoint_key(step, MANIFEST), checkpoint.dump_manifest(smaller))
            self._store.delete(checkpoint_key(step, name) for name in RESUME_ONLY)
            stored[step] = smaller


def _holds(stored: Manifest | None, local: Manifest) -> bool:
    """Whether storage has every file of a local checkpoint, with its content; it may have more before retention."""
    return stored is not None and all(stored["files"].get(name) == entry for name, entry in local["files"].items())


def _read(path: Path) -> bytes:
    try:
        return read_plain(path)
    except FileNotFoundError:
        return b""
