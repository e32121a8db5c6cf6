"""A watch that continues until its deadline, across the server's time limits, broken connections and lost versions.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes has the protocol.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lorajob.cluster.answers import error_of
from lorajob.cluster.errors import ClusterError, Gone, Unreachable
from lorajob.cluster.request_target import target_of
from lorajob_runtime.contract.backoff import Pauses

Json = dict[str, Any]

SERVER_TIMEOUT_SECONDS = 300
"""After this long the server is asked again, so that a connection that died silently is noticed."""

GRACE_SECONDS = 15.0
"""By so much a silent server may exceed its own limit."""

PATIENCE_SECONDS = 60.0
"""A server that can't be reached for longer ends the watch."""

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0
_LIVED_SECONDS = 1.0
"""A watch that ends sooner is not repeated at once: a proxy may end each one, a server forget each version."""


def pauses() -> Pauses:
    """The pauses between watches; a caller that makes one watch after another gives each the same."""
    return Pauses(first_seconds=_FIRST_PAUSE_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS)


@dataclass(kw_only=True, slots=True)
class Watch:
    """One watch. `deadline` is of time.monotonic(); None: no end."""

    list_: Callable[[str, Mapping[str, Any]], Json]
    lines: Callable[[str, Mapping[str, Any], float | None], Iterator[bytes]]
    path: str
    query: Mapping[str, Any]
    deadline: float | None
    pauses: Pauses = field(default_factory=pauses)
    _version: str = ""
    _known: dict[str, Json] = field(default_factory=dict)
    """uid -> the object as last told: after a gap, what is no longer there is told as deleted."""

    def events(self) -> Iterator[Json]:
        """Yields every event. Raises a ClusterError when the server refuses, or is gone for PATIENCE_SECONDS."""
        self._version = str(self.query.get("resourceVersion") or "")
        lost_at: float | None = None
        while not self._is_over():
            began = time.monotonic()
            try:
                for event in self._told():
                    lost_at = None
                    yield event
                lost_at = None
            except Gone:
                self._version = ""
            except Unreachable:
                now = time.monotonic()
                lost_at = lost_at or now
                if now - lost_at > PATIENCE_SECONDS:
                    raise
            if time.monotonic() - began > _LIVED_SECONDS and lost_at is None:
                self.pauses.reset()
            else:
                self._pause()

    def _pause(self) -> None:
        seconds = self.pauses.take()
        if self.deadline is not None:
            seconds = max(0.0, min(seconds, self.deadline - time.monotonic()))
        time.sleep(seconds)

    def _is_over(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _told(self) -> Iterator[Json]:
        """What one list, if there is no version to go on from, and one watch of the server tell."""
        if not self._version:
            yield from self._listed()
        now = time.monotonic()
        seconds = SERVER_TIMEOUT_SECONDS
        if self.deadline is not None:
            seconds = max(1, min(seconds, math.ceil(self.deadline - now)))
        silent = now + seconds + GRACE_SECONDS
        query = {
            **self.query,
            "watch": True,
            "allowWatchBookmarks": True,
            "resourceVersion": self._version,
            "timeoutSeconds": seconds,
        }
        for line in self.lines(self.path, query, silent if self.deadline is None else min(silent, self.deadline)):
            try:
                event = json.loads(line)
            except ValueError:
                # a proxy that ends the connection in the middle of an event: the next watch tells it again
                return
            if event["type"] == "ERROR":
                raise self._error(event["object"])
            metadata = event["object"]["metadata"]
            self._version = metadata["resourceVersion"]
            if event["type"] == "BOOKMARK":
                continue
            self._remember(event)
            yield event

    def _listed(self) -> Iterator[Json]:
        """The objects there are as events, and those that vanished since they were told last."""
        page = self.list_(self.path, {key: value for key, value in self.query.items() if key != "resourceVersion"})
        there = {item["metadata"]["uid"]: item for item in page["items"]}
        # items of a list do not say what they are; those of a watch do
        kind = str(page.get("kind", "")).removesuffix("List")
        gone = [{"type": "DELETED", "object": last} for uid, last in self._known.items() if uid not in there]
        events = []
        for uid, item in there.items():
            was = self._known.get(uid)
            if was is None or was["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                whole = {"apiVersion": page.get("apiVersion"), "kind": kind} | item
                events.append({"type": "ADDED" if was is None else "MODIFIED", "object": whole})
        for event in gone + events:
            self._remember(event)
            yield event
        self._version = page["metadata"]["resourceVersion"]

    def _remember(self, event: Json) -> None:
        uid = event["object"]["metadata"]["uid"]
        if event["type"] == "DELETED":
            self._known.pop(uid, None)
        else:
            self._known[uid] = event["object"]

    def _error(self, status: Json) -> ClusterError:
        code = int(status.get("code") or 500)
        what = target_of("GET", self.path, watch=True)
        return error_of(what, code, json.dumps(status).encode(), server="the server")
