"""Hugging Face by huggingface_hub, which resumes inside a file while it runs and checks no content."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lorajob_runtime.contract.errors import CredentialsError, LorajobError, ModelError
from lorajob_runtime.contract.text import error_line
from lorajob_runtime.fetch import hubs
from lorajob_runtime.fetch.hubs import Listing, Source, shared_errors
from lorajob_runtime.fetch.selection import RemoteFile


class Client(hubs.Client):
    def __init__(self, source: Source, folder: Path | None) -> None:
        super().__init__(source, folder)
        if folder is not None:
            # beside the download, as the home folder of a container may be read-only or small
            os.environ.setdefault("HF_XET_CACHE", str(folder / ".cache" / "xet"))
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
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

    @classmethod
    def useless_files(cls, folder: Path) -> Iterable[Path]:
        return (folder / ".cache" / "huggingface").rglob("*.incomplete")


def explain(error: Exception, source: Source) -> LorajobError:
    """The error of ours for one of huggingface_hub's. The hub answers 401 for a model that is not there, too."""
    from huggingface_hub import errors as theirs

    if isinstance(error, theirs.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return explain(error.__cause__, source)
    if isinstance(error, theirs.GatedRepoError):
        page, token = source.hub.page_of(source.id), source.hub.token_variable
        return CredentialsError(
            f"{source} is only for accounts that accepted its terms",
            hint=f"accept them on {page} and set {token} to a token of that account",
        )
    if isinstance(error, theirs.RevisionNotFoundError):
        return ModelError(f"{source} has no revision {source.revision!r}", hint="see the branches on its page")
    if isinstance(error, theirs.HfHubHTTPError):
        status = error.response.status_code
        says_unknown = error.response.headers.get("X-Error-Code") == "RepoNotFound"
        if status == 404 or says_unknown:
            return shared_errors.no_such_model(source)
        if status in (401, 403):
            return shared_errors.access_refused(source)
    if isinstance(error, theirs.HFValidationError):
        return ModelError(f"{source} is not the name of a model: {error_line(error)}")
    return shared_errors.download_failed(source, error)
