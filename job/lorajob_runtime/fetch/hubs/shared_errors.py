"""What goes wrong at any hub, in one line that names the place and what to do."""

from __future__ import annotations

import errno
from contextlib import suppress
from urllib.parse import urlsplit

from lorajob_runtime.contract.errors import CredentialsError, HubError, LorajobError, ModelError, StorageError
from lorajob_runtime.contract.text import error_line
from lorajob_runtime.fetch import cache, hubs
from lorajob_runtime.fetch.hubs import Source

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def explain(error: Exception, source: Source) -> LorajobError:
    """The error of ours for what happened at a hub: ours as it is, a full disk, else as the hub's module reads it."""
    if isinstance(error, LorajobError):
        return error
    return _of_disk(error) or hubs.module_of(source).explain(error, source)


def no_such_model(source: Source) -> ModelError:
    """For a name that the hub does not know, or knows and keeps private."""
    return ModelError(
        f"no such model: {source} at revision {source.revision!r}",
        hint=f"check the name on the hub; for a private model set {source.hub.token_variable}",
    )


def access_refused(source: Source) -> CredentialsError:
    """For a model that this token, or nobody without one, may read."""
    return CredentialsError(
        f"access to {source} was refused", hint=f"set {source.hub.token_variable} to a token that may read it"
    )


def download_failed(source: Source, error: BaseException) -> HubError:
    """For everything that may go well another time."""
    host, line = _host(error), error_line(error)
    place = f" from {host}" if host and host not in line else ""
    return HubError(f"{source} cannot be downloaded{place}: {line}")


def _of_disk(error: BaseException) -> StorageError | None:
    """The error for the disk, if it is in a chain of errors."""
    cause: BaseException | None = error
    while cause is not None:
        is_full = isinstance(cause, OSError) and cause.errno in _DISK_ERRORS
        # safetensors has an error of its own, with the number in its text
        if is_full or f"(os error {errno.ENOSPC})" in str(cause):
            return StorageError(f"the model cache cannot be written: {error_line(cause)}", hint=cache.unwritable_hint())
        cause = cause.__cause__ or cause.__context__
    return None


def _host(error: BaseException) -> str:
    """host:port that a client's error came from, as far as it says; a user and password in the address are left out."""
    cause: BaseException | None = error
    while cause is not None:
        # clients raise RuntimeError for an error without its request
        with suppress(RuntimeError):
            if url := getattr(getattr(cause, "request", None), "url", None):
                return urlsplit(str(url)).netloc.rpartition("@")[2]
        cause = cause.__cause__ or cause.__context__
    return ""
