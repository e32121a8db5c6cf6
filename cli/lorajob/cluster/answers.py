"""From what a server answers to the error that says it in one line: who may not do what, what was refused. Pure.

Answers are `Status` objects (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/). Some
causes differ only in their message, whose wording is that of Kubernetes 1.35.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lorajob.cluster import errors
from lorajob.cluster.kinds import noun
from lorajob.cluster.request_target import RequestTarget
from lorajob_runtime.contract.text import truncate

MESSAGE_MAX_LENGTH = 1000
"""Of what a server or a proxy says, so much is shown."""

PROXY_STATUSES = (401, 413, 429)
"""Codes that mean the same from a proxy between. The server's own `404 page not found` is no Status either."""


def error_of(what: RequestTarget, status: int, body: bytes, *, server: str) -> errors.ClusterError:
    """The error for an answer that is not a success. `body` is a Status object, or what a proxy between put there."""
    answer = _status_object(body)
    reason = str(answer.get("reason") or "")
    message = truncate(answer.get("message") or "", MESSAGE_MAX_LENGTH) or _text_of(body) or f"HTTP {status}"
    details = answer.get("details")
    known: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "details": details if isinstance(details, dict) else {},
    }
    if not answer and status in range(400, 500) and status not in PROXY_STATUSES and not body.startswith(b"404 page"):
        return errors.Unreachable(
            f"{server} does not answer as a Kubernetes API does ({status}): {message}",
            hint="correct the server's address in your kubeconfig: https://, the host and the port",
            **known,
        )
    if status == 401:
        return errors.Unauthenticated(
            f"{server} does not accept your credentials: {message}",
            hint="they are expired or wrong: log in to the cluster again, or choose another --context",
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
        return errors.Gone(f"{what}: {message}", **known)
    if status in (400, 405, 413, 415, 422):
        return _refused(what, message, known)
    if status < 400:
        return errors.Unreachable(
            f"{server} answers with a redirect ({status})",
            hint="correct the server's address in your kubeconfig",
            **known,
        )
    return errors.Unreachable(
        f"{server} can't answer now ({status}): {message}",
        hint="try again; if it does not recover, ask the people who run the cluster",
        **known,
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


def _forbidden(what: RequestTarget, message: str, known: Mapping[str, Any]) -> errors.ClusterError:
    if any(sign in message for sign in _QUOTA):
        return errors.QuotaExceeded(
            f"the quota of namespace {what.namespace} does not allow it: {_after(message, 'is forbidden: ')}",
            hint="ask for fewer GPUs, wait until other runs end, or ask for a larger quota",
            **known,
        )
    if "because it is being terminated" in message:
        return errors.Refused(
            f"namespace {what.namespace} is being deleted: nothing can be created in it",
            hint="choose another namespace with -n",
            **known,
        )
    # RBAC's answers are the only ones that say `User "x" cannot VERB`
    if re.search(r'User ".*" cannot ', message) is None and any(sign in message for sign in _DENIALS):
        return _refused(what, message, known)
    user = re.search(r'User "([^"]+)"', message)
    if user is not None and user[1] == "system:anonymous":
        return errors.Unauthenticated(
            f"the cluster does not know who asks to {what}",
            hint="your kubeconfig's user has no credential: log in, or choose another --context",
            **known,
        )
    who = f"{user[1]} may not" if user else "you may not"
    scope = "" if what.namespace else " in the cluster"
    return errors.Forbidden(
        f"{who} {what}{scope}" if user else f"{who} {what}{scope}: {message}",
        hint=f"ask for the Role lorajob-user of namespace {what.namespace}, which the chart installs"
        if what.namespace
        else "ask the people who run the cluster for this permission",
        **known,
    )


def _not_found(what: RequestTarget, message: str, known: Mapping[str, Any]) -> errors.ClusterError:
    if re.match(r'namespaces "[^"]*" not found', message):
        return errors.NotFound(
            f"namespace {what.namespace} does not exist",
            hint="choose another one with -n, or have it created with `kubectl create namespace`",
            **known,
        )
    if not known["details"].get("name") and message.startswith(("404 page", "the server could not find")):
        return errors.NotFound(
            f"the cluster has no {what.resource}{'.' + what.group if what.group else ''}",
            hint="lorajob needs Kubernetes 1.31 or newer",
            **known,
        )
    where = f" in namespace {what.namespace}" if what.namespace else ""
    return errors.NotFound(f"{noun(what.resource)} {what.name} not found{where}" if what.name else message, **known)


def _taken(what: RequestTarget, message: str, known: Mapping[str, Any]) -> errors.ClusterError:
    if known["reason"] != "AlreadyExists":
        return errors.Conflict(f"{what}: {message}", **known)
    name = str(known["details"].get("name") or what.name)
    if what.resource != "jobs":
        return errors.AlreadyExists(
            f"{noun(what.resource)} {name} exists already in namespace {what.namespace}",
            hint="choose another name",
            **known,
        )
    return errors.run_exists(name, what.namespace, **known)


def _refused(what: RequestTarget, message: str, known: Mapping[str, Any]) -> errors.ClusterError:
    return errors.Refused(
        f"the cluster refuses to {what}: {message}",
        hint="the message says what the cluster's rule asks for; the people who run the cluster can say more",
        **known,
    )


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) and value.get("kind") == "Status" else {}


def _text_of(body: bytes) -> str:
    """The text of an answer that is no Status object, as a proxy's page: its words without its tags."""
    text = body[:20_000].decode("utf-8", "replace")
    words = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    return truncate(words, MESSAGE_MAX_LENGTH)


def _after(message: str, words: str) -> str:
    return message.partition(words)[2] or message
