"""The model hubs and S3 through their own clients: list a model's files, get one of them, say what went wrong.

Runs in the client process only: the clients draw progress bars, keep threads that cannot be stopped, and take a
second to import.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from lorajob_runtime.contract.errors import CredentialsError, HubError, LorajobError, ModelError, StorageError
from lorajob_runtime.contract.text import error_line
from lorajob_runtime.fetch import cache
from lorajob_runtime.fetch.selection import RemoteFile
from lorajob_runtime.fetch.sources import Source
from lorajob_runtime.system.environment import read as read_environment

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """A model's files at one revision; `revision` is the commit where the hub tells it."""

    revision: str
    files: Sequence[RemoteFile]


class Hub(Protocol):
    """One hub. `workers` files are fetched at a time; `verifies` says that `get` compares a sha256 that was listed."""

    workers: int
    verifies: bool

    def list(self) -> Listing: ...

    def get(self, file: RemoteFile, revision: str, folder: Path) -> None:
        """Puts one file into the folder, going on from what an earlier call left there where the client can."""

    def explain(self, error: Exception) -> LorajobError:
        """The error of ours for one of the client's."""


def open_hub(source: Source) -> Hub:
    """The hub of a source."""
    if source.kind == "modelscope":
        return ModelScope(source)
    if source.kind == "hf":
        return HuggingFace(source)
    return S3(source)


class ModelScope:
    """ModelScope by its own SDK, which compares the sha256 of what it gets and resumes inside a file."""

    workers = 8
    verifies = True

    def __init__(self, source: Source) -> None:
        from modelscope_hub import HubApi

        self._source = source
        api = HubApi()
        # .cn or .ai, unless MODELSCOPE_ENDPOINT says where
        endpoint = api.resolve_endpoint_for_read(source.id, repo_type="model")
        self._api: Any = HubApi(endpoint=endpoint)

    def list(self) -> Listing:
        items = self._api.list_repo_files(self._source.id, "model", revision=self._source.revision)
        files = [
            RemoteFile(path=item.path, size=item.size, digest=f"sha256:{item.sha256}" if item.sha256 else "")
            for item in items
            if not item.is_dir
        ]
        return Listing(revision=self._source.revision, files=files)

    def get(self, file: RemoteFile, revision: str, folder: Path) -> None:
        self._api.download_file(
            self._source.id,
            "model",
            file.path,
            revision=revision,
            local_dir=folder,
            cache_dir=folder / ".cache" / "modelscope",
            expected_sha256=file.digest.removeprefix("sha256:") or None,
            file_size=file.size,
        )

    def explain(self, error: Exception) -> LorajobError:
        return explain_modelscope(error, self._source)


def explain_modelscope(error: Exception, source: Source) -> LorajobError:
    """The error of ours for one of the ModelScope SDK's."""
    from modelscope_hub import errors

    if isinstance(error, errors.AuthenticationError | errors.PermissionDeniedError):
        return _refused(source, "MODELSCOPE_API_TOKEN")
    if isinstance(error, errors.NotExistError | errors.InvalidParameter):
        return _unknown(source, "MODELSCOPE_API_TOKEN")
    if isinstance(error, errors.FileIntegrityError):
        return HubError(f"{source} keeps sending a file whose content is not what it lists: {error_line(error)}")
    return _broken(source, error)


class HuggingFace:
    """Hugging Face by huggingface_hub, which resumes inside a file while it runs and checks no content."""

    workers = 4
    verifies = False

    def __init__(self, source: Source) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        self._source = source
        self._api: Any = HfApi(library_name="lorajob")

    def list(self) -> Listing:
        from huggingface_hub.hf_api import RepoFile

        commit = self._api.model_info(self._source.id, revision=self._source.revision).sha
        items = self._api.list_repo_tree(self._source.id, recursive=True, revision=commit)
        files = [
            RemoteFile(
                path=item.path,
                size=item.size,
                digest=f"sha256:{item.lfs.sha256}" if item.lfs else f"git-sha1:{item.blob_id}",
            )
            for item in items
            if isinstance(item, RepoFile)
        ]
        return Listing(revision=commit, files=files)

    def get(self, file: RemoteFile, revision: str, folder: Path) -> None:
        self._api.hf_hub_download(self._source.id, file.path, revision=revision, local_dir=folder)

    def explain(self, error: Exception) -> LorajobError:
        return explain_hugging_face(error, self._source)


def explain_hugging_face(error: Exception, source: Source) -> LorajobError:
    """The error of ours for one of huggingface_hub's. The hub answers 401 for a model that is not there, too."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return explain_hugging_face(error.__cause__, source)
    if isinstance(error, errors.GatedRepoError):
        return CredentialsError(
            f"{source} is only for accounts that accepted its terms",
            hint=f"accept them on the page of {source.id} and set HF_TOKEN to a token of that account",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{source} has no revision {source.revision!r}", hint="see the branches on its page")
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        says_unknown = error.response.headers.get("X-Error-Code") == "RepoNotFound"
        if status == 404 or says_unknown:
            return _unknown(source, "HF_TOKEN")
        if status in (401, 403):
            return _refused(source, "HF_TOKEN")
    if isinstance(error, errors.HFValidationError):
        return ModelError(f"{source} names no model: {error_line(error)}")
    return _broken(source, error)


class S3:
    """A folder of model files under an S3 prefix, with the storage's own settings and keys."""

    workers = 4
    verifies = False

    def __init__(self, source: Source) -> None:
        from lorajob_runtime.storage.open import open_store

        bucket, _, prefix = source.id.partition("/")
        parent, _, name = prefix.rpartition("/")
        if not name:
            raise ModelError(f"{source} is a whole bucket: it must be like s3://{bucket}/PREFIX")
        self._source = source
        self._store = open_store(f"s3://{bucket}/{parent}" if parent else f"s3://{bucket}", name, read_environment())

    def list(self) -> Listing:
        entries = self._store.list()
        if not entries:
            raise ModelError(f"nothing lies under {self._source}", hint="give the prefix that has config.json in it")
        return Listing(revision="latest", files=[RemoteFile(path=item.key, size=item.size) for item in entries])

    def get(self, file: RemoteFile, revision: str, folder: Path) -> None:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        self._store.get(file.path, target)

    def explain(self, error: Exception) -> LorajobError:
        return _broken(self._source, error)


def explain(error: Exception, source: Source, hub: Hub | None) -> LorajobError:
    """The error of ours for what happened at a hub: ours as it is, a full disk, else as its client means it."""
    if isinstance(error, LorajobError):
        return error
    if (full := _disk_trouble(error)) is not None:
        return full
    if hub is not None:
        return hub.explain(error)
    if source.kind == "package":
        return ModelError(f"the weights in {source} cannot be made ready: {error_line(error)}", hint="")
    if source.kind == "modelscope":
        return explain_modelscope(error, source)
    return explain_hugging_face(error, source)


def _disk_trouble(error: BaseException) -> StorageError | None:
    """The disk's error in a chain of errors, if it was that."""
    cause: BaseException | None = error
    while cause is not None:
        full = isinstance(cause, OSError) and cause.errno in _DISK_ERRORS
        # safetensors has an error of its own, with the number in its text
        if full or f"(os error {errno.ENOSPC})" in str(cause):
            return StorageError(
                f"the model cache cannot be written: {error_line(cause)}",
                hint=cache.another_place(),
            )
        cause = cause.__cause__ or cause.__context__
    return None


def _unknown(source: Source, token: str) -> ModelError:
    return ModelError(
        f"no such model: {source} at revision {source.revision!r}",
        hint=f"check the name on the hub; for a private model set {token}",
    )


def _refused(source: Source, token: str) -> CredentialsError:
    return CredentialsError(f"access to {source} was refused", hint=f"set {token} to a token that may read it")


def _broken(source: Source, error: BaseException) -> HubError:
    host = _host(error)
    line = error_line(error)
    place = f" from {host}" if host and host not in line else ""
    return HubError(f"{source} cannot be downloaded{place}: {line}")


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
