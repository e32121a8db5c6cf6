"""Chooses where a run's log is read from: its pods while they exist, else storage, which keeps it for every attempt."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorajob.cluster import Cluster, NotFound
from lorajob.errors import UsageError
from lorajob.logs import log_lines, pod_logs
from lorajob.logs.follow import Following
from lorajob.logs.log_lines import LogFilter
from lorajob.platform import platform_lookup
from lorajob.platform.storage import connect_store
from lorajob.runs import lookup
from lorajob.runs.lookup import Found
from lorajob_runtime.contract import layout
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError, LorajobError, StorageError
from lorajob_runtime.contract.text import plural

if TYPE_CHECKING:
    from lorajob_runtime.storage.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class LogQuery:
    """What a user asks of a run's log. At most one of `attempt` and `previous` is given."""

    rank: int | None = None
    node: int | None = None
    attempt: int | None = None
    previous: bool = False
    since_seconds: int | None = None
    tail: int | None = None
    timestamps: bool = False
    platform_file: Path | None = None
    """Names the storage, instead of the namespace's own configuration."""


def read(cluster: Cluster, name: str, query: LogQuery, say: Callable[[str], None]) -> Iterator[str]:
    """The log as far as it is. `say` takes what a user should know beside it.

    Raises NotFound when there is neither a run of this name nor a log of one, UsageError for an attempt, rank or node
    that it does not have, and what the cluster and storage raise.
    """
    try:
        found = lookup.read(cluster, name)
    except NotFound as missing:
        yield from _without_run(cluster, name, query, missing, say)
        return
    wanted = _wanted(found.status.gpus, found.status.nodes, query)
    if query.attempt is None:
        pods = pod_logs.pods_of_attempt(found, ago=1 if query.previous else 0)
        if any(wanted.has_node(node) for node in pods):
            yield from pod_logs.of_pods(cluster, pods, wanted, since_seconds=query.since_seconds, tail=query.tail)
            return
    try:
        store = _store(cluster, name, found, query)
        attempt = _attempt(store, found, query)
        if query.attempt is None:
            say(f"the log of attempt {attempt} is in {store.uri}")
        _say_what_storage_lacks(query, wanted, say)
        yield from _of_storage(store, attempt, wanted, query.tail)
    except LorajobError as error:
        if query.attempt is not None or query.previous or found.status.is_terminal:
            raise
        say(f"run {name} has no log yet: {pod_logs.waiting_text(found.status)}")
        if not isinstance(error, UsageError) and not found.is_new:
            say(f"the log of an earlier attempt can't be read either: {error.message}")


def follow(cluster: Cluster, name: str, query: LogQuery, say: Callable[[str], None]) -> Iterator[str]:
    """The log as it grows, from before its pods begin, until the run ends.

    Raises NotFound, UsageError, ClusterError.
    """
    status = lookup.read(cluster, name).status
    wanted = _wanted(status.gpus, status.nodes, query)
    following = Following(cluster, name, wanted, say)
    return following.lines(since_seconds=query.since_seconds, tail=query.tail)


def _wanted(gpus: int, nodes: int, query: LogQuery) -> LogFilter:
    if query.rank is not None and query.rank >= gpus * nodes:
        raise UsageError(f"--rank is {query.rank}: the run has ranks 0 to {gpus * nodes - 1}")
    if query.node is not None and query.node >= nodes:
        raise UsageError(f"--node is {query.node}: the run has nodes 0 to {nodes - 1}")
    wanted = LogFilter(rank=query.rank, node=query.node, gpus=gpus, nodes=nodes, timestamps=query.timestamps)
    if query.rank is not None and not wanted.has_node(query.rank // gpus):
        raise UsageError(f"--rank is {query.rank} and --node {query.node}: that rank is on node {query.rank // gpus}")
    return wanted


def _without_run(
    cluster: Cluster, name: str, query: LogQuery, missing: NotFound, say: Callable[[str], None]
) -> Iterator[str]:
    """The log of a run whose Job is gone; without one, that it is missing is what there is to say."""
    try:
        store = _store(cluster, name, None, query)
        attempt = _attempt(store, None, query)
        resources = specs.loads((store.get_bytes(layout.SPEC) or b"{}").decode("utf-8", "replace")).resources
    except LorajobError as error:
        raise missing from error
    wanted = _wanted(resources.gpus, resources.nodes, query)
    say(f"run {name} is no longer in the cluster: this is the log of attempt {attempt} in {store.uri}")
    _say_what_storage_lacks(query, wanted, say)
    yield from _of_storage(store, attempt, wanted, query.tail)


def _store(cluster: Cluster, name: str, found: Found | None, query: LogQuery) -> Store:
    loaded = platform_lookup.load(cluster, query.platform_file)
    uri = loaded.platform.storage.uri
    if found is not None:
        if found.status.storage_uri is None:
            raise ConfigError(f"run {name} does not say where its results are")
        uri = found.status.storage_uri
    return connect_store(uri, name, loaded.platform, cluster)


def _attempt(store: Store, found: Found | None, query: LogQuery) -> int:
    """Which attempt is meant. Raises UsageError when storage has no log of it."""
    known = log_lines.attempts(layout.whole_key(entry.key) for entry in store.list(layout.LOGS))
    if not known:
        raise UsageError(f"{store.uri} has no log", hint="logs are uploaded while a run is running, and at its end")
    if query.previous:
        report = found.status.progress if found is not None else None
        last = report.attempt if report is not None else known[-1]
        before = [attempt for attempt in known if attempt < last]
        if not before:
            raise UsageError(f"{store.uri} has no log of an attempt before the last one")
        return before[-1]
    if query.attempt is not None and query.attempt not in known:
        shown = ", ".join(map(str, known))
        raise UsageError(f"{store.uri} has no log of attempt {query.attempt}: it has those of {shown}")
    return known[-1] if query.attempt is None else query.attempt


def _of_storage(store: Store, attempt: int, wanted: LogFilter, tail: int | None) -> Iterator[str]:
    """The logs of an attempt, file after file: of the supervisors, then of each rank; with `tail` the end of each."""
    keys = {layout.whole_key(entry.key) for entry in store.list(layout.LOGS)}
    for key, mark in log_lines.stored(keys, attempt, wanted):
        for line in pod_logs.last_lines(_unpacked(store, key), tail):
            yield mark + line


def _unpacked(store: Store, key: str) -> Iterator[str]:
    """The lines of a log as they come from storage: it may be larger than memory."""
    from lorajob_runtime.storage import appended_files

    try:
        yield from log_lines.lines_of(appended_files.pieces(store, key))
    except zlib.error as error:
        raise StorageError(f"{store.uri}/{key} is not a log: it can't be decompressed") from error


def _say_what_storage_lacks(query: LogQuery, wanted: LogFilter, say: Callable[[str], None]) -> None:
    given = [("--since", query.since_seconds is not None), ("--timestamps", query.timestamps)]
    flags = [flag for flag, is_given in given if is_given]
    if flags:
        say(f"the log in storage has no times: {' and '.join(flags)} can't be applied, and all lines are shown")
    if query.tail is not None and wanted.rank is None:
        lines = plural(query.tail, "line")
        say(f"the log in storage has no times: --tail shows the last {lines} of each process")
