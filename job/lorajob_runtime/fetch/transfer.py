"""Downloads a model from a hub into the cache: what is missing is fetched and checked, then shown at once."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorajob_runtime.contract.errors import ConfigError, HubError, StorageError
from lorajob_runtime.contract.text import decimal_size, plural
from lorajob_runtime.fetch import cache, hubs, process
from lorajob_runtime.fetch.cache import CacheEntry, Manifest
from lorajob_runtime.fetch.cache_lock import Holder, WriterLock
from lorajob_runtime.fetch.hubs import Source
from lorajob_runtime.fetch.selection import INSPECTED, RemoteFile, check_folder, choose
from lorajob_runtime.models.config_files import CONFIG

Notify = Callable[[str], None]
Inspect = Callable[[Path], object]
"""Gets the path of a config.json before any weights come, and raises what speaks against them."""

STALL_SECONDS = 600
_PROGRESS_SECONDS = 15
_JOURNAL = ".verified.jsonl"


def download(
    source: Source,
    entry: CacheEntry,
    *,
    remote_code: bool,
    notify: Notify,
    with_weights: bool = True,
    inspect: Inspect = lambda _: None,
) -> tuple[Path, Manifest]:
    """The complete copy of a source, or all but its weights, downloaded unless another process did so meanwhile.

    Raises ModelError, CredentialsError, HubError or StorageError, ConfigError for code at a revision that moves, and
    what `inspect` raises.
    """
    with entry_lock(entry, str(source), notify) as lock:
        if (found := cache.find(entry, remote_code=remote_code)) is not None:
            return found
        with process.answers({"action": "list", "source": asdict(source)}) as listing:
            answer = next(listing)
        if remote_code:
            _check_commit(source, answer["revision"])
        listed = [RemoteFile(**file) for file in answer["files"]]
        files = choose(listed, remote_code=remote_code, source=str(source), with_weights=with_weights)
        cache.prefill(entry)
        hashes = _get(source, answer["revision"], files, entry.partial, notify, inspect)
        check_folder(entry.partial, str(source), with_weights=with_weights)
        lock.check_held()
        manifest = Manifest(
            source=str(source),
            revision=answer["revision"],
            remote_code=remote_code,
            files={file.path: {"size": file.size, "sha256": hashes[file.path]} for file in files},
        )
        cache.finish(entry, manifest)
        return entry.final, manifest


def _check_commit(source: Source, commit: str) -> None:
    """Raises ConfigError for a branch or a tag where the hub tells its commit; not every hub does."""
    if source.hub.tells_commit and not commit.startswith(source.revision):
        raise ConfigError(
            f"model.trustRemoteCode is true and model.revision {source.revision!r}, which may move: "
            f"today it is the commit {commit} of {source}",
            hint="read the code of that commit, and give it as model.revision",
            path="model.revision",
        )


def entry_lock(entry: CacheEntry, what: str, notify: Notify) -> WriterLock:
    """The lock of an entry. Raises StorageError when the cache cannot be written."""
    try:
        entry.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the model cache {entry.root} cannot be made: {error.strerror}",
            hint=cache.unwritable_hint(),
        ) from error

    def on_wait(holder: Holder) -> None:
        notify(f"waiting for process {holder.pid} on {holder.host}, which is fetching {what}")

    return WriterLock(entry.lock, on_wait=on_wait)


def _get(
    source: Source, revision: str, files: list[RemoteFile], folder: Path, notify: Notify, inspect: Inspect
) -> dict[str, str]:
    """Fetches what the folder lacks; returns the sha256 of every file. What was checked before is not read again."""
    journal = folder / _JOURNAL
    hashes = _checked_before(journal, files, folder)
    missing = [file for file in files if file.path not in hashes]
    inspected = {file.path for file in files if file.path in INSPECTED}
    if inspected <= hashes.keys():
        inspect(folder / CONFIG)
    if not missing:
        return hashes
    for leftover in hubs.module_of(source).Client.useless_files(folder):
        leftover.unlink()
    total = sum(file.size for file in files)
    _check_room(folder, total - sum((folder / name).stat().st_size for name in hashes), source)
    again = f", {len(hashes)} of them here already" if hashes else ""
    notify(f"downloading {source} at {revision}: {plural(len(files), 'file')}{again}, {decimal_size(total)}")
    request = {
        "action": "get",
        "source": asdict(source),
        "revision": revision,
        "folder": str(folder),
        "files": [asdict(file) for file in missing],
    }
    by_path = {file.path: file for file in missing}
    with (
        process.answers(request, tick=Progress(source, folder, total, notify).tick) as checked,
        journal.open("a", encoding="utf-8") as log,
    ):
        for answer in checked:
            hashes[answer["path"]] = answer["sha256"]
            log.write(json.dumps(asdict(by_path[answer["path"]]) | {"sha256": answer["sha256"]}) + "\n")
            log.flush()
            if answer["path"] in inspected and inspected <= hashes.keys():
                inspect(folder / CONFIG)
    return hashes


def _checked_before(journal: Path, files: list[RemoteFile], folder: Path) -> dict[str, str]:
    """sha256 by path of files that an earlier attempt finished and that the hub still lists as they were then."""
    wanted = {file.path: asdict(file) for file in files}
    hashes: dict[str, str] = {}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else ():
        try:
            entry: dict[str, Any] = json.loads(line)
            sha256 = entry.pop("sha256")
            here = (folder / entry["path"]).stat().st_size
        except (ValueError, KeyError, OSError):
            continue
        if entry == wanted.get(entry["path"]) and here == entry["size"]:
            hashes[entry["path"]] = sha256
    return hashes


def _check_room(folder: Path, need: int, source: Source) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise StorageError(
            f"{source} needs {decimal_size(need)} more in the model cache, "
            f"and {folder.parent} has {decimal_size(free)} free",
            hint=cache.unwritable_hint(),
        )


class Progress:
    """Says now and then how far a download is, and ends one in which nothing arrives any more."""

    def __init__(
        self,
        source: Source,
        folder: Path,
        total: int,
        notify: Notify,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._folder, self._total, self._notify, self._clock = source, folder, total, notify, clock
        self._bytes = self._first_bytes = _folder_bytes(folder)
        self._first_at = self._grown_at = self._said_at = clock()

    def tick(self) -> None:
        """Raises HubError after STALL_SECONDS without a new byte."""
        now = self._clock()
        if now - self._said_at < _PROGRESS_SECONDS:
            return
        self._said_at = now
        held = _folder_bytes(self._folder)
        if held != self._bytes:
            self._bytes, self._grown_at = held, now
            self._notify(self._line(held, now))
        elif now - self._grown_at > STALL_SECONDS:
            raise HubError(f"{self._source} sent nothing for {STALL_SECONDS // 60} minutes")

    def _line(self, held: int, now: float) -> str:
        percent = min(99, 100 * held // max(1, self._total))
        line = f"downloading {self._source}: {percent}% of {decimal_size(self._total)}"
        rate = (held - self._first_bytes) / max(1e-9, now - self._first_at)
        if rate <= 0:
            return line
        minutes = max(0, self._total - held) / rate / 60
        left = "less than a minute" if minutes < 1 else f"about {minutes:.0f} min"
        return f"{line}, {decimal_size(rate)}/s, {left} left"


def _folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder that others are writing to."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue  # a client has renamed its temporary file since
    return total
