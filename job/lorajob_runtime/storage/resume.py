"""Finds where a run goes on: from its newest complete checkpoint whose hashes match, here or in storage."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorajob_runtime.contract import events, identity
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import SUCCEEDED, ConfigError, StorageError
from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.identity import Identity
from lorajob_runtime.contract.layout import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    ATTEMPT_PATTERN,
    CHECKPOINTS,
    EVENTS,
    LOGS,
    MANIFEST,
    RESUME_ONLY,
    SINKS,
    SPEC,
    STATE,
    RunFolder,
    adapter_key,
    attempt_in,
    attempt_of,
    checkpoint_file,
    checkpoint_key,
    step_of,
)
from lorajob_runtime.contract.spec import Change, RunSpec
from lorajob_runtime.storage import appended_files, checkpoint, event_log
from lorajob_runtime.storage.checkpoint import Manifest
from lorajob_runtime.storage.store import Store
from lorajob_runtime.system import atomic

Warn = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumePoint:
    """What a start of a run finds."""

    attempt: int
    """1 for the first."""
    step: int | None
    """The checkpoint to go on from; None: from the beginning."""
    is_trained: bool
    """That checkpoint is the last one: nothing is left to train."""
    is_published: bool
    """All work is done and in storage."""
    evaluation_pending: bool = False
    """The evaluation and samples that belong to that checkpoint are not made yet."""
    made_with: Identity = Identity()  # noqa: RUF009 frozen
    """What the checkpoint to go on from, or the finished run, was made with."""


def _remove_drafts_of_0_1(folder: RunFolder) -> None:
    """Removes what a killed process of version 0.1 left half written, under names that nothing uses now."""
    for pattern in ("data.new", "data.old", "*.arriving"):
        for path in folder.work.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def restore(folder: RunFolder, store: Store, spec: RunSpec, *, warn: Warn) -> ResumePoint:
    """Brings the run's folder to where the run goes on: spec, checkpoint, event log cut back to it.

    Raises ConfigError for a spec that differs from the one the checkpoints were made with.
    """
    checkpoint.remove_drafts(folder)
    _remove_drafts_of_0_1(folder)
    in_storage = _sizes_in_storage(store)
    steps = sorted({*checkpoint.steps(folder), *in_storage}, reverse=True)
    log = _log_in_storage(store)
    done = is_published(store, log)
    if steps or done:
        _refuse_changes(_earlier_spec(folder, store), spec)
    attempt = _next_attempt(folder, store)
    if done:
        made_with = _recorded(max(steps, default=None), folder, store, log)
        return ResumePoint(attempt=attempt, step=None, is_trained=True, is_published=True, made_with=made_with)
    _write_spec(folder, store, spec)
    step = next((step for step in steps if _make_ready(step, folder, store, in_storage.get(step), warn)), None)
    if steps and step is None:
        warn("no checkpoint of this run can be used: training starts from the beginning")
    _drop_later(folder, step)
    if step is not None and log and not _covers(folder, step):
        atomic.replace_file(folder.events, appended_files.read(store, EVENTS))
    if not folder.sinks.exists():
        _download_small(SINKS, folder.sinks, store)
    state = checkpoint.read_state(folder.checkpoint(step)) if step is not None else {}
    evaluation_pending = step is None or (
        checkpoint.evaluation_pending(state) and not events.was_evaluated(folder.events, step)
    )
    event_log.cut_back(folder.events, step or 0, evaluation_pending=evaluation_pending)
    return ResumePoint(
        attempt=attempt,
        step=step,
        is_trained=bool(state.get("finished")) and not evaluation_pending,
        is_published=False,
        evaluation_pending=evaluation_pending,
        made_with=identity.in_state(state),
    )


def describe(changes: list[Change]) -> str:
    """`train.learningRate: 0.0001 -> 0.0002; lora.rank: 8 -> 16`."""
    return "; ".join(f"{change.field}: {_show(change.was)} -> {_show(change.now)}" for change in changes)


def _refuse_changes(was: RunSpec | None, now: RunSpec) -> None:
    changes = specs.changes(was, now) if was is not None else []
    if changes:
        raise ConfigError(
            f"run {now.run_name!r} has checkpoints that were made with another spec ({describe(changes)})",
            hint="give the run another name, or the values it was started with",
        )


def _show(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _earlier_spec(folder: RunFolder, store: Store) -> RunSpec | None:
    stored = store.get_bytes(SPEC)
    if stored is None and folder.spec.exists():
        stored = folder.spec.read_bytes()
    if stored is None:
        return None
    try:
        return specs.loads(stored.decode(errors="replace"))
    except ConfigError as error:
        raise ConfigError(f"{store.uri}/{SPEC} was not written by this version of lorajob: {error.message}") from error


def _write_spec(folder: RunFolder, store: Store, spec: RunSpec) -> None:
    """Writes the spec with its defaults: a later version may have others."""
    data = specs.dumps(spec, defaults=True).encode() + b"\n"
    atomic.replace_file(folder.spec, data)
    store.put_bytes(SPEC, data)


def _next_attempt(folder: RunFolder, store: Store) -> int:
    here = (attempt_of(path.name) for path in folder.logs.glob(ATTEMPT_PATTERN))
    stored = (attempt_in(entry.key) for entry in store.list(LOGS))
    return 1 + max((attempt for attempt in (*here, *stored) if attempt is not None), default=0)


def is_published(store: Store, log: Sequence[Event] | None = None) -> bool:
    """Whether the log in storage, which goes there last of all, says so, and the adapter is still there."""
    log = _log_in_storage(store) if log is None else log
    # a report may have had a warning to give as it ended
    last = next((event for event in reversed(log) if event["event"] != "report"), None)
    if last is None or last["event"] != "end" or last.get("class") != SUCCEEDED.name:
        return False
    return any(entry.key == adapter_key(ADAPTER_WEIGHTS) for entry in store.list(ADAPTER))


def _log_in_storage(store: Store) -> list[Event]:
    lines = appended_files.read(store, EVENTS).splitlines()
    return [event for line in lines if (event := events.parse(line)) is not None]


def _recorded(step: int | None, folder: RunFolder, store: Store, log: Sequence[Event]) -> Identity:
    """What a finished run was made with: its last checkpoint says, and the log where it says nothing of the data."""
    content = None if step is None else store.get_bytes(checkpoint_key(step, STATE))
    if content is None and step is not None and (path := folder.checkpoint(step) / STATE).is_file():
        content = path.read_bytes()
    try:
        known = identity.in_state(json.loads(content or b"{}"))
    except (ValueError, AttributeError) as error:
        raise StorageError(f"{STATE} of checkpoint {step} of {store.uri} cannot be read: {error}") from error
    logged = identity.in_log(log)
    return dataclasses.replace(known, tokens=known.tokens or logged.tokens, contents=known.contents or logged.contents)


def _sizes_in_storage(store: Store) -> dict[int, dict[str, int]]:
    """Step -> file -> size in bytes, of every checkpoint in storage that has its manifest."""
    found: dict[int, dict[str, int]] = {}
    for entry in store.list(CHECKPOINTS):
        if (file := checkpoint_file(entry.key)) is not None:
            step, name = file
            found.setdefault(step, {})[name] = entry.size
    return {step: sizes for step, sizes in found.items() if MANIFEST in sizes}


def _make_ready(step: int, folder: RunFolder, store: Store, in_storage: dict[str, int] | None, warn: Warn) -> bool:
    """Whether the checkpoint of a step is here, whole and fit to resume from; it is fetched if need be."""
    path = folder.checkpoint(step)
    if step in checkpoint.steps(folder):
        if checkpoint.verify(path):
            if checkpoint.resumable(path):
                return True
        else:
            warn(f"checkpoint {path} is damaged: its files are not what its manifest says; it is not used")
    if in_storage is None:
        return False
    stored = store.get_bytes(checkpoint_key(step, MANIFEST)) or b""
    manifest = checkpoint.parse_manifest(stored)
    if manifest is not None and any(name not in manifest["files"] for name in RESUME_ONLY):
        return False
    # twice, since what broke may be one transfer and not what is stored
    if manifest is not None and any(_fetch(step, manifest, in_storage, folder, store) for _ in range(2)):
        return True
    key = checkpoint_key(step)
    warn(f"checkpoint {store.uri}/{key} is damaged: its files are not what its manifest says; it is not used")
    # without its manifest it does not exist, so retention never counts it among those to resume from
    store.put_bytes(checkpoint_key(step, f"{MANIFEST}.damaged"), stored)
    store.delete([checkpoint_key(step, MANIFEST)])
    return False


def _fetch(step: int, manifest: Manifest, in_storage: dict[str, int], folder: RunFolder, store: Store) -> bool:
    """Downloads a checkpoint; it takes its place only when its hashes match. False when they do not."""
    if any(in_storage.get(name) != entry["size"] for name, entry in manifest["files"].items()):
        return False
    arriving = atomic.draft_of(folder.checkpoint(step))
    shutil.rmtree(arriving, ignore_errors=True)
    arriving.mkdir(parents=True)
    for name in manifest["files"]:
        store.get(checkpoint_key(step, name), arriving / name)
    (arriving / MANIFEST).write_bytes(checkpoint.dump_manifest(manifest))
    if not checkpoint.verify(arriving):
        shutil.rmtree(arriving)
        return False
    atomic.replace_folder(arriving, folder.checkpoint(step))
    return True


def _drop_later(folder: RunFolder, step: int | None) -> None:
    """Removes what lies after the checkpoint that the run goes on from: it is made again."""
    for path in folder.checkpoints.glob("*"):
        later = step_of(path.name)
        if later is not None and later > (step or 0):
            shutil.rmtree(path)


def _covers(folder: RunFolder, step: int) -> bool:
    """Whether the log here reaches a step; a log of an older stay on this machine does not."""
    return any(event.get("step", 0) >= step for event in events.read(folder.events))


def _download_small(key: str, path: Path, store: Store) -> None:
    """Brings a small file here, where storage has it."""
    data = store.get_bytes(key)
    if data is not None:
        atomic.replace_file(path, data)
