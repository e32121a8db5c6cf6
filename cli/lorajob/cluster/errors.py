"""What a cluster may answer, as errors of one line: who may not do what, what is there already, what was refused.

Answers are `Status` objects (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/). Some
causes differ only in their message, whose wording is that of Kubernetes 1.35.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorajob.errors import BUSY, NOT_FOUND, UNREACHABLE, USAGE
from lorajob_runtime.contract.errors import CONFIG, CREDENTIALS, FailureClass, LorajobError

MESSAGE_MAX_LENGTH = 1000
"""Of what a server or a proxy says, so much is shown."""


class ClusterError(LorajobError):
    """A request that did not come to what was asked. `status` is the HTTP code, 0 without an answer."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status: int = 0,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reason = reason
        self.details = dict(details or {})


class Unreachable(ClusterError):
    """No answer, or one that says that the server can't answer now."""

    failure: FailureClass = UNREACHABLE


class Unauthenticated(ClusterError):
    """The server does not know who asks: an expired, wrong or missing credential."""

    failure = CREDENTIALS


class Forbidden(ClusterError):
    """The server knows who asks, and this user may not."""

    failure = CREDENTIALS


class NotFound(ClusterError):
    """No such object, namespace or kind."""

    failure = NOT_FOUND


class AlreadyExists(ClusterError):
    """The name is taken."""

    failure = USAGE


class Conflict(ClusterError):
    """Someone else changed the object at the same time."""

    failure = BUSY


class Gone(ClusterError):
    """The version or page asked for is no longer kept; begin anew. `details["continue"]` goes on a list, if given."""

    failure = BUSY


class QuotaExceeded(ClusterError):
    """The namespace's quota does not allow it."""

    failure = CONFIG


class Refused(ClusterError):
    """The object is invalid, or an admission rule of the cluster does not allow it."""

    failure = CONFIG


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a request is about, in the words of RBAC."""

    verb: str
    resource: str
    """With its subresource: jobs, pods/log."""
    group: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {resource}" + (f" in namespace {self.namespace}" if self.namespace else "")


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def target(method: str, path: str, *, watch: bool = False) -> Target:
    """What a request asks of the API.

    >>> str(target("GET", "/apis/batch/v1/namespaces/team/jobs"))
    'list jobs.batch in namespace team'
    """
    parts = [part for part in path.partition("?")[0].split("/") if part]
    group = ""
    if parts[:1] == ["apis"] and len(parts) >= 3:
        group, parts = parts[1], parts[3:]
    elif parts[:1] == ["api"]:
        parts = parts[2:]
    else:
        return Target(verb=method.lower(), resource=path)
    namespace = ""
    if len(parts) >= 3 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    resource, name, subresource = (*parts, "", "", "")[:3]
    verb = _VERBS.get(method, "get")
    if not name:
        verb = {"get": "watch" if watch else "list", "delete": "deletecollection"}.get(verb, verb)
    return Target(
        verb=verb,
        resource=f"{resource}/{subresource}" if subresource else resource,
        group=group,
        namespace=namespace,
        name=name,
    )


PROXY_STATUSES = (401, 413, 429)
"""Codes that mean the same from a proxy between. The server's own `404 page not found` is no Status either."""


def from_answer(what: Target, status: int, body: bytes, *, server: str) -> ClusterError:
    """The error for an answer that is not a success. `body` is a Status object, or what a proxy between put there."""
    answer = _status_object(body)
    reason = str(answer.get("reason") or "")
    message = _one_line(answer.get("message")) or _text_of(body) or f"HTTP {status}"
    details = answer.get("details")
    known: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "details": details if isinstance(details, dict) else {},
    }
    if not answer and status in range(400, 500) and status not in PROXY_STATUSES and not body.startswith(b"404 page"):
        return Unreachable(
            f"{server} does not answer as a Kubernetes API does ({status}): {message}",
            hint="correct the server's address in your kubeconfig: https://, the host and the port",
            **known,
        )
    if status == 401:
        return Unauthenticated(
            f"{server} does not accept your credentials: {message}",
            hint="they are expired or wrong: log in to the cluster again, or take another --context",
            **known,
        )
    if status == 403:
        return _forbidden(what, message, known)
    if status == 404:
        return _not_found(what, message, known)
    if status == 409:
        return _taken(what, message, known)
    if status == 410:
        known["details"]["continue"] = str((answer.get("metadata") or {}).get("continue") or "")
        return Gone(f"{what}: {message}", **known)
    if status in (400, 405, 413, 415, 422):
        return _refused(what, message, known)
    if status < 400:
        return Unreachable(
            f"{server} sends us elsewhere ({status})", hint="correct the server's address in your kubeconfig", **known
        )
    return Unreachable(
        f"{server} can't answer now ({status}): {message}", hint="try again; if it stays so, ask who runs it", **known
    )


_QUOTA = ("exceeded quota", "failed quota", "status unknown for quota")
"""What the answer holds for a quota that is used up, that wants limits to be named, or that is not counted yet."""

_DENIALS = (
    "admission webhook",
    "ValidatingAdmissionPolicy",
    "violates PodSecurity",
    "is forbidden: maximum",
    "minimum ",
)
"""What an admission rule's answer holds, where it comes with the code of a missing permission."""


def _forbidden(what: Target, message: str, known: Mapping[str, Any]) -> ClusterError:
    if any(sign in message for sign in _QUOTA):
        return QuotaExceeded(
            f"the quota of namespace {what.namespace} does not allow it: {_after(message, 'is forbidden: ')}",
            hint="ask for fewer GPUs, wait until other runs end, or ask for a larger quota",
            **known,
        )
    if "because it is being terminated" in message:
        return Refused(
            f"namespace {what.namespace} is being deleted: nothing new can be made in it",
            hint="take another namespace with -n",
            **known,
        )
    # RBAC's answers are the only ones that say `User "x" cannot VERB`
    if re.search(r'User ".*" cannot ', message) is None and any(sign in message for sign in _DENIALS):
        return _refused(what, message, known)
    user = re.search(r'User "([^"]+)"', message)
    if user is not None and user[1] == "system:anonymous":
        return Unauthenticated(
            f"the cluster does not know who asks to {what}",
            hint="your kubeconfig's user has no credential: log in, or take another --context",
            **known,
        )
    who = f"{user[1]} may not" if user else "you may not"
    scope = "" if what.namespace else " in the cluster"
    return Forbidden(
        f"{who} {what}{scope}" if user else f"{who} {what}{scope}: {message}",
        hint=f"ask for the Role lorajob-user of namespace {what.namespace}, which the chart installs"
        if what.namespace
        else "ask who runs the cluster for this right",
        **known,
    )


def _not_found(what: Target, message: str, known: Mapping[str, Any]) -> ClusterError:
    if re.match(r'namespaces "[^"]*" not found', message):
        return NotFound(
            f"namespace {what.namespace} does not exist",
            hint="take another one with -n, or have it created with `kubectl create namespace`",
            **known,
        )
    if not known["details"].get("name") and message.startswith(("404 page", "the server could not find")):
        return NotFound(
            f"the cluster has no {what.resource}{'.' + what.group if what.group else ''}",
            hint="lorajob needs Kubernetes 1.31 or newer",
            **known,
        )
    where = f" in namespace {what.namespace}" if what.namespace else ""
    return NotFound(f"{_kind(what)} {what.name} not found{where}" if what.name else message, **known)


def _taken(what: Target, message: str, known: Mapping[str, Any]) -> ClusterError:
    if known["reason"] != "AlreadyExists":
        return Conflict(f"{what}: {message}", **known)
    name = str(known["details"].get("name") or what.name)
    if what.resource != "jobs":
        return AlreadyExists(
            f"{_kind(what)} {name} exists already in namespace {what.namespace}", hint="take another name", **known
        )
    return AlreadyExists(
        f"run {name} exists already in namespace {what.namespace}",
        hint=f"take another --name, or `lorajob retry {name}`, or `lorajob delete {name}` first",
        **known,
    )


def _refused(what: Target, message: str, known: Mapping[str, Any]) -> ClusterError:
    return Refused(
        f"the cluster refuses to {what}: {message}",
        hint="what a rule of the cluster asks for is in the message; its owners can say more",
        **known,
    )


_KINDS = {"jobs": "run", "pods": "pod", "configmaps": "ConfigMap", "services": "Service", "secrets": "Secret"}


def _kind(what: Target) -> str:
    """One object of a resource, for a person: whoever asks for a Job here asks for a run."""
    return _KINDS.get(what.resource, what.resource)


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) and value.get("kind") == "Status" else {}


def _text_of(body: bytes) -> str:
    """The text of an answer that is no Status object, as a proxy's page: its words without its tags."""
    text = body[:20_000].decode("utf-8", "replace")
    return _one_line(re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE))


def _one_line(text: object) -> str:
    line = " ".join(str(text or "").split())
    return line if len(line) <= MESSAGE_MAX_LENGTH else line[: MESSAGE_MAX_LENGTH - 1] + "…"


def _after(message: str, words: str) -> str:
    return message.partition(words)[2] or message
