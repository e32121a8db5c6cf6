"""ModelScope by its own SDK, which compares the sha256 of what it gets and resumes inside a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lorajob_runtime.contract.errors import HubError, LorajobError
from lorajob_runtime.contract.text import error_line
from lorajob_runtime.fetch import hubs
from lorajob_runtime.fetch.hubs import Listing, Source, shared_errors
from lorajob_runtime.fetch.selection import RemoteFile

_SETTINGS = {
    # an hour a file is too little for 5 GB over a slow line; the caller watches that bytes arrive
    "MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT": "86400",
    "MODELSCOPE_LOG_LEVEL": "ERROR",
}


class Client(hubs.Client):
    workers = 8
    verifies = True

    def __init__(self, source: Source, folder: Path | None) -> None:
        super().__init__(source, folder)
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        from modelscope_hub import HubApi

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


def explain(error: Exception, source: Source) -> LorajobError:
    """The error of ours for one of the SDK's."""
    from modelscope_hub import errors as theirs

    if isinstance(error, theirs.AuthenticationError | theirs.PermissionDeniedError):
        return shared_errors.access_refused(source)
    if isinstance(error, theirs.NotExistError | theirs.InvalidParameter):
        return shared_errors.no_such_model(source)
    if isinstance(error, theirs.FileIntegrityError):
        line = error_line(error)
        return HubError(f"{source} sent a file whose content differs from the listed hash: {line}")
    return shared_errors.download_failed(source, error)
