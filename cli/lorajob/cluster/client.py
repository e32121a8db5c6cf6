"""The client of a cluster: objects as plain JSON, lists in pages, streams of lines, and watches.

Paths are those of the API, `/apis/batch/v1/namespaces/team/jobs/zhenhuan`; query parameters have the API's own names.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self
from urllib.parse import urlencode

from lorajob.cluster import answers, errors
from lorajob.cluster.access import Access
from lorajob.cluster.kinds import KINDS
from lorajob.cluster.kubeconfig import find
from lorajob.cluster.request_target import target_of
from lorajob.cluster.transport import Answer, Transport
from lorajob_runtime.contract.backoff import Pauses

Json = dict[str, Any]

PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}

_GZIP = 16 + zlib.MAX_WBITS
_SUCCESS = range(200, 300)


def connect(
    kubeconfig: str | None = None,
    context: str | None = None,
    namespace: str | None = None,
    timeout_seconds: float | None = 30,
) -> Cluster:
    """The cluster that kubectl would talk to; nothing is sent yet. Raises UsageError when none is configured."""
    return Cluster(find(kubeconfig, context, namespace), timeout_seconds=timeout_seconds)


class Cluster:
    """One cluster and one namespace in it. Every request has a time limit; what goes wrong is a ClusterError."""

    def __init__(self, access: Access, *, timeout_seconds: float | None = 30) -> None:
        self.namespace = access.namespace
        self.server = access.server
        self.source = access.source
        self._transport = Transport(access, timeout_seconds=timeout_seconds)

    def jobs(self, name: str = "") -> str:
        """The path of the namespace's Jobs, or of one."""
        return self.objects("Job", name)

    def pods(self, name: str = "") -> str:
        return self.objects("Pod", name)

    def config_maps(self, name: str = "") -> str:
        return self.objects("ConfigMap", name)

    def services(self, name: str = "") -> str:
        return self.objects("Service", name)

    def secrets(self, name: str = "") -> str:
        return self.objects("Secret", name)

    def events(self) -> str:
        return self.objects("Event")

    def objects(self, kind: str, name: str = "") -> str:
        """The path of the namespace's objects of a kind, as manifests name it, or of one."""
        return KINDS[kind].path(self.namespace, name)

    def get(self, path: str, **query: Any) -> Json:
        """One object, or one list whole."""
        return self._json("GET", path, query)

    def post(self, path: str, body: Mapping[str, Any], **query: Any) -> Json:
        """Makes an object; returns it as the server has it. `dryRun="All"` only tries."""
        return self._json("POST", path, query, body)

    def patch(
        self, path: str, body: Any, *, kind: Literal["merge", "json", "strategic"] = "merge", **query: Any
    ) -> Json:
        """Changes an object; returns it as it is then."""
        return self._json("PATCH", path, query, body, content_type=PATCH_TYPES[kind])

    def delete(
        self,
        path: str,
        *,
        uid: str | None = None,
        propagation: Literal["Foreground", "Background", "Orphan"] | None = None,
        dry_run: bool = False,
    ) -> Json:
        """Deletes an object, with `uid` only that very one and not another that has got its name since: Conflict.

        Returns the object while it waits for what it owns, else a Status. The options are the body of the request: the
        server does not look at the query where there is a body.
        """
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if propagation is not None:
            options["propagationPolicy"] = propagation
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if dry_run:
            options["dryRun"] = ["All"]
        return self._json("DELETE", path, {}, options)

    def text(self, path: str, **query: Any) -> str:
        """An answer that is text, as a log."""
        return self._send("GET", path, query).decode("utf-8", "replace")

    def pages(self, path: str, *, limit: int = 500, **query: Any) -> Iterator[Json]:
        """The items of a list, fetched in pages of `limit`, so that memory holds one page.

        A list that takes longer than the server keeps its pages (5 minutes) goes on with what is there by then.
        """
        for page in self._pages(path, limit, query):
            yield from page.get("items") or []

    def lines(self, path: str, *, timeout_seconds: float | None, **query: Any) -> Iterator[bytes]:
        """The lines of an answer as they come, without their ends; for `follow="true"` of a log.

        Ends when the server ends it, or quietly after `timeout_seconds` (None: no limit).
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        yield from self._lines(path, query, deadline)

    def watch(
        self, path: str, *, timeout_seconds: float | None, pauses: Pauses | None = None, **query: Any
    ) -> Iterator[Json]:
        """What happens to the objects of a list: `{"type": "ADDED"|"MODIFIED"|"DELETED", "object": …}`.

        Begins with an ADDED for every object there is, unless `resourceVersion` says from where on; survives what ends
        a single watch; ends quietly after `timeout_seconds` (None: never). Who makes one watch after another gives
        each the same `pauses`. See `lorajob.cluster.watching`.
        """
        from lorajob.cluster import watching

        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        return watching.Watch(
            list_=self._list,
            lines=self._lines,
            path=path,
            query=query,
            deadline=deadline,
            pauses=pauses or watching.pauses(),
        ).events()

    def check_namespace(self) -> None:
        """Raises NotFound for a namespace that does not exist, which a list of its Jobs does not tell."""
        try:
            self.get(f"/api/v1/namespaces/{self.namespace}")
        except errors.Forbidden:
            return
        except errors.NotFound as error:
            raise errors.NotFound(
                f"namespace {self.namespace} does not exist", hint="choose another one with -n NAMESPACE"
            ) from error

    def now(self) -> datetime:
        """The time by the server's clock as of its last answer, by this machine's before there was one.

        Kubernetes writes times of the server's clock: ages must not depend on the clock of this machine.
        """
        return datetime.now(UTC) + timedelta(seconds=self._transport.ahead_seconds)

    def limit_timeout(self, timeout_seconds: float) -> None:
        """From now on no request takes longer than that."""
        limit = self._transport.timeout_seconds
        self._transport.timeout_seconds = timeout_seconds if limit is None else min(limit, timeout_seconds)

    def close(self) -> None:
        """Ends the connections that were kept."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _list(self, path: str, query: Mapping[str, Any]) -> Json:
        """A list whole, with the resourceVersion of its end."""
        items: list[Json] = []
        page: Json = {}
        for page in self._pages(path, 500, query):
            items += page.get("items") or []
        return page | {"items": items}

    def _pages(self, path: str, limit: int, query: Mapping[str, Any]) -> Iterator[Json]:
        onward = str(query.get("continue") or "")
        while True:
            try:
                page = self._json("GET", path, {**query, "limit": limit, "continue": onward or None})
            except errors.Gone as error:
                if not error.details.get("continue") or error.details["continue"] == onward:
                    raise
                onward = error.details["continue"]
                continue
            yield page
            onward = (page.get("metadata") or {}).get("continue") or ""
            if not onward:
                return

    def _lines(self, path: str, query: Mapping[str, Any], deadline: float | None) -> Iterator[bytes]:
        if deadline is not None and deadline <= time.monotonic():
            return
        with self._transport.stream(_with_query(path, query), headers={"Accept": "*/*"}, deadline=deadline) as stream:
            if stream.status not in _SUCCESS:
                raise self._error("GET", path, query, stream.status, stream.read())
            yield from stream.lines()

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Any = None,
        *,
        content_type: str = "application/json",
    ) -> Json:
        answer = self._send(method, path, query, body, content_type=content_type)
        try:
            value = json.loads(answer)
        except ValueError as error:
            raise errors.Unreachable(
                f"{self._transport.place} answers with something other than JSON: {answer[:80]!r}",
                hint="check the server's address in your kubeconfig: it must be that of a Kubernetes API",
            ) from error
        if not isinstance(value, dict):
            raise errors.Unreachable(
                f"{self._transport.place} answers with {type(value).__name__} where an object belongs"
            )
        return value

    def _send(
        self, method: str, path: str, query: Mapping[str, Any], body: Any = None, *, content_type: str = ""
    ) -> bytes:
        headers = {"Accept": "application/json" if content_type else "*/*", "Accept-Encoding": "gzip"}
        content = None
        if body is not None:
            content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
            headers["Content-Type"] = content_type
        answer = self._transport.send(method, _with_query(path, query), body=content, headers=headers)
        plain = _plain(answer)
        if answer.status not in _SUCCESS:
            raise self._error(method, path, query, answer.status, plain)
        return plain

    def _error(self, method: str, path: str, query: Mapping[str, Any], status: int, body: bytes) -> errors.ClusterError:
        what = target_of(method, path, watch=bool(query.get("watch")))
        return answers.error_of(what, status, body, server=self._transport.place)


def _plain(answer: Answer) -> bytes:
    """The body as it was before the server packed it, which it does with long lists."""
    if answer.headers.get("Content-Encoding", "").lower() != "gzip":
        return answer.body
    return zlib.decompress(answer.body, wbits=_GZIP)


def _with_query(path: str, query: Mapping[str, Any]) -> str:
    """The path with its parameters: true and false as the API writes them, None left out."""
    given = {
        key: str(value).lower() if isinstance(value, bool) else value
        for key, value in query.items()
        if value is not None
    }
    return f"{path}?{urlencode(given)}" if given else path
