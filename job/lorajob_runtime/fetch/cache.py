"""Keeps model files in a cache: where each model is, what makes it complete, and the one rename that shows it.

<cache>/<hub>/<org>--<name>/<revision>/            the files, and the manifest that was written last
                           /.partial-<revision>/   a download that is going on, or was broken off
                           /.lock-<revision>       its one writer
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorajob_runtime.fetch.hubs import Source
from lorajob_runtime.system import atomic, environment

MANIFEST = ".complete.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a complete model consists of. `revision` is the commit where the hub tells it, else what was asked for.

    `files` maps a path to its size in bytes and its sha256. `remote_code` says whether Python files were fetched too.
    """

    source: str
    revision: str
    remote_code: bool = False
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One model at one revision in the cache."""

    root: Path
    revision: str

    @property
    def _name(self) -> str:
        return self.revision.replace("/", "--")

    @property
    def final(self) -> Path:
        return self.root / self._name

    @property
    def partial(self) -> Path:
        return self.root / f".partial-{self._name}"

    @property
    def lock(self) -> Path:
        return self.root / f".lock-{self._name}"

    @property
    def retired_path(self) -> Path:
        """A new name for a folder that is being replaced and that someone may still be reading."""
        return self.root / f".retired-{self._name}-{uuid.uuid4().hex[:8]}"


def entry_of(cache: Path, source: Source) -> CacheEntry:
    """Where a hub's, a bucket's or a package's model belongs."""
    return CacheEntry(cache / source.kind / source.id.replace("/", "--"), source.revision)


def find(entry: CacheEntry, *, remote_code: bool) -> tuple[Path, Manifest] | None:
    """The complete copy of an entry, or beside it one whose resolved commit is the revision asked for. Reads no file's
    content: a size that differs from the manifest's makes a copy incomplete.
    """
    for folder in (entry.final, *_siblings(entry)):
        manifest = read_manifest(folder)
        if manifest is None or (remote_code and not manifest.remote_code):
            continue
        if folder == entry.final or manifest.revision == entry.revision:
            return folder, manifest
    return None


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder whose files are all there in their size, else None."""
    try:
        manifest = Manifest(**json.loads((folder / MANIFEST).read_bytes()))
        sizes = {name: (folder / name).stat().st_size for name in manifest.files}
    except (OSError, ValueError, TypeError):
        return None
    return manifest if all(sizes[name] == item["size"] for name, item in manifest.files.items()) else None


def finish(entry: CacheEntry, manifest: Manifest) -> None:
    """Makes the partial download the model: stray files go, the manifest comes last, one rename shows it all."""
    kept = set(manifest.files)
    for path in sorted(entry.partial.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(entry.partial).as_posix() not in kept:
            path.unlink()
    for name in manifest.files:
        # some writers make files that only their owner may read; the cache is shared
        (entry.partial / name).chmod(0o644)
    (entry.partial / MANIFEST).write_text(json.dumps(dataclasses.asdict(manifest), indent=1), encoding="utf-8")
    atomic.replace_folder(entry.partial, entry.final, retired=entry.retired_path)


def prefill(entry: CacheEntry) -> None:
    """Starts the partial folder from a copy that has become incomplete, by hard links where the disk can."""
    entry.partial.mkdir(parents=True, exist_ok=True)
    if not entry.final.is_dir():
        return
    for path in entry.final.rglob("*"):
        target = entry.partial / path.relative_to(entry.final)
        if path.is_file() and path.name != MANIFEST and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)


def _siblings(entry: CacheEntry) -> Iterator[Path]:
    if entry.root.is_dir():
        yield from (path for path in sorted(entry.root.iterdir()) if path.is_dir() and not path.name.startswith("."))


def unwritable_hint() -> str:
    """What to do about a cache that takes no more files: in a pod only the platform's people can."""
    if environment.is_in_pod():
        return "the platform's volume claim for the model cache must be writable and have room"
    return "make room, or set LORAJOB_CACHE to another folder"
