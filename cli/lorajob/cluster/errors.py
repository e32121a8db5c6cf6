"""How a request to a cluster may fail: one class a cause.

They are raised with one line of text by `answers`, for what a server says, and by `network_errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorajob.errors import BUSY, NOT_FOUND, UNREACHABLE, USAGE
from lorajob_runtime.contract.errors import CONFIG, CREDENTIALS, FailureClass, LorajobError


class ClusterError(LorajobError):
    """A request that failed. `status` is the HTTP code, 0 without an answer."""

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
    """The version or page asked for is gone: start again. `details["continue"]`, if given, continues a list."""

    failure = BUSY


class QuotaExceeded(ClusterError):
    """The namespace's quota does not allow it."""

    failure = CONFIG


class Refused(ClusterError):
    """The object is invalid, or an admission rule of the cluster does not allow it."""

    failure = CONFIG


def run_exists(name: str, namespace: str, **known: Any) -> AlreadyExists:
    """The error for a name that another run has; `known` is what the server said."""
    return AlreadyExists(
        f"run {name} exists already in namespace {namespace}",
        hint=f"choose another --name, or `lorajob retry {name}`, or `lorajob delete {name}` first",
        **known,
    )
