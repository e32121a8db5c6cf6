"""Writes and checks checkpoints on disk: each is written whole or not at all, checked by hash, without pickle.

    step-000100/{adapter_model.safetensors, adapter_config.json, tokenizer files…, optimizer.safetensors, state.json,
                 checkpoint.json}

`checkpoint.json` lists every other file with size and sha256 and is written last; the folder gets its name after that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from lorajob_runtime.contract import layout
from lorajob_runtime.contract.errors import StorageError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.plain_files import NotPlainError, open_plain, read_plain
from lorajob_runtime.system import atomic


class FileEntry(TypedDict):
    """One file of a manifest."""

    size: int
    sha256: str


class Manifest(TypedDict):
    """The content of checkpoint.json."""

    step: int
    files: dict[str, FileEntry]


def save(folder: RunFolder, step: int, write: Callable[[Path], None]) -> Path:
    """Has `write` fill a folder, then makes it the checkpoint of `step`. Nothing is seen of it before it is whole.

    Raises StorageError when the disk does not take it.
    """
    target = folder.checkpoint(step)
    try:
        with atomic.replacing_folder(target) as draft:
            write(draft)
            seal(draft, step)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {_reason(error, atomic.draft_of(target))}") from error
    return target


def evaluation_pending(state: dict[str, Any]) -> bool:
    """Whether the evaluation and samples that belong to a checkpoint were still to be made when it was written.

    `state` is its state.json, in which an earlier version called the key `owes_look`.
    """
    return bool(state.get("evaluation_pending", state.get("owes_look")))


def _reason(error: OSError, draft: Path) -> str:
    """What the system says, and of which file where that is none of the checkpoint's: one that goes into it is gone."""
    said = error.strerror or str(error)
    is_another = error.filename is not None and not Path(str(error.filename)).is_relative_to(draft)
    return f"{said}: {error.filename}" if is_another else said


def seal(path: Path, step: int) -> Manifest:
    """Writes the manifest over the files that are there, each safely on the disk first."""
    entries: dict[str, FileEntry] = {}
    for file in sorted(path.iterdir()):
        if file.name != layout.MANIFEST:
            atomic.sync(file)
            entries[file.name] = {"size": file.stat().st_size, "sha256": sha256(file)}
    manifest: Manifest = {"step": step, "files": entries}
    _write_manifest(path, manifest)
    return manifest


def steps(folder: RunFolder) -> list[int]:
    """Steps of the complete checkpoints in a run folder, oldest first."""
    if not folder.checkpoints.is_dir():
        return []
    found = (layout.step_of(path.name) for path in folder.checkpoints.iterdir() if (path / layout.MANIFEST).is_file())
    return sorted(step for step in found if step is not None)


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of a checkpoint folder; None where there is none, or none that can be read."""
    try:
        return parse_manifest(read_plain(path / layout.MANIFEST))
    except (OSError, NotPlainError):
        return None


def dump_manifest(manifest: Manifest) -> bytes:
    """The bytes of checkpoint.json, on disk and in storage."""
    return json.dumps(manifest, indent=2).encode() + b"\n"


def parse_manifest(content: bytes) -> Manifest | None:
    """A manifest from its bytes; None for anything else, and for file names that lead out of the folder."""
    try:
        value = json.loads(content)
        files = {
            str(name): FileEntry(size=int(entry["size"]), sha256=str(entry["sha256"]))
            for name, entry in value["files"].items()
        }
        manifest = Manifest(step=int(value["step"]), files=files)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if all(name != ".." and Path(name).name == name for name in manifest["files"]) else None


def verify(path: Path) -> bool:
    """Whether every file that the manifest lists is there with its size and hash."""
    manifest = read_manifest(path)
    return manifest is not None and all(_matches(path / name, entry) for name, entry in manifest["files"].items())


def resumable(path: Path) -> bool:
    """Whether a checkpoint still has what only resuming needs."""
    manifest = read_manifest(path)
    return manifest is not None and all(name in manifest["files"] for name in layout.RESUME_ONLY)


def read_state(path: Path) -> dict[str, Any]:
    """state.json of a checkpoint. Raises StorageError when it cannot be read."""
    try:
        state: dict[str, Any] = json.loads(read_plain(path / layout.STATE))
    except (OSError, ValueError, NotPlainError) as error:
        raise StorageError(f"{path / layout.STATE} cannot be read: {error}") from error
    return state


def prune(folder: RunFolder, keep: int) -> list[int]:
    """Takes what only resuming needs out of all but the newest `keep` checkpoints. Returns the steps pruned now."""
    pruned = []
    for step in steps(folder)[:-keep]:
        path = folder.checkpoint(step)
        if resumable(path):
            strip(path, step)
            pruned.append(step)
    return pruned


def strip(path: Path, step: int) -> None:
    """Makes a checkpoint one of the adapter alone: first the manifest says so, then the files go."""
    manifest = read_manifest(path)
    if manifest is None:
        return
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if name not in layout.RESUME_ONLY}
    _write_manifest(path, manifest)
    for name in layout.RESUME_ONLY:
        (path / name).unlink(missing_ok=True)


def remove_drafts(folder: RunFolder) -> None:
    """Removes what a killed process left half written."""
    atomic.remove_leftovers(folder.checkpoints)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _matches(path: Path, entry: FileEntry) -> bool:
    with contextlib.suppress(OSError, NotPlainError):
        return path.stat().st_size == entry["size"] and sha256(path) == entry["sha256"]
    return False


def _write_manifest(path: Path, manifest: Manifest) -> None:
    atomic.replace_file(path / layout.MANIFEST, dump_manifest(manifest))
