"""A folder of model files under an S3 prefix, with the storage's own settings and keys."""

from __future__ import annotations

from pathlib import Path

from lorajob_runtime.contract.errors import LorajobError, ModelError
from lorajob_runtime.fetch import hubs
from lorajob_runtime.fetch.hubs import Listing, Source, shared_errors
from lorajob_runtime.fetch.selection import RemoteFile
from lorajob_runtime.system import environment


class Client(hubs.Client):
    def __init__(self, source: Source, folder: Path | None) -> None:
        super().__init__(source, folder)
        from lorajob_runtime.storage.open import open_store

        bucket, _, prefix = source.id.partition("/")
        parent, _, name = prefix.rpartition("/")
        if not name:
            raise ModelError(f"{source} is a whole bucket: it must be like {source.hub.address(bucket)}/PREFIX")
        above = "/".join(part for part in (bucket, parent) if part)
        self._store = open_store(source.hub.address(above), name, environment.read())

    def list(self) -> Listing:
        entries = self._store.list()
        if not entries:
            raise ModelError(
                f"there is nothing under {self._source}", hint="give the prefix that has config.json in it"
            )
        files = [RemoteFile(path=item.key, size=item.size) for item in entries]
        return Listing(revision=self._source.hub.default_revision, files=files)

    def get(self, file: RemoteFile, revision: str, folder: Path) -> None:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        self._store.get(file.path, target)


def explain(error: Exception, source: Source) -> LorajobError:
    """For what the store has no error of its own for."""
    return shared_errors.download_failed(source, error)
