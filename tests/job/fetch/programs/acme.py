"""The module of a hub that lorajob has not: it needs the standard library alone."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from lorajob_runtime.contract.errors import LorajobError
from lorajob_runtime.fetch import hubs
from lorajob_runtime.fetch.hubs import Listing, Source, shared_errors
from lorajob_runtime.fetch.selection import RemoteFile


class Client(hubs.Client):
    def list(self) -> Listing:
        tree = json.loads(self._read(f"api/models/{self._source.id}/tree/{self._source.revision}"))
        files = [RemoteFile(path=item["path"], size=item["size"], digest=f"git-sha1:{item['oid']}") for item in tree]
        return Listing(revision=self._source.revision, files=files)

    def get(self, file: RemoteFile, revision: str, folder: Path) -> None:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self._read(f"{self._source.id}/resolve/{revision}/{file.path}"))

    def _read(self, path: str) -> bytes:
        token = os.environ.get(self._source.hub.token_variable, "")
        url = f"{os.environ[self._source.hub.endpoint_variable]}/{path}"
        with urllib.request.urlopen(
            urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        ) as answer:
            content: bytes = answer.read()
        return content


def explain(error: Exception, source: Source) -> LorajobError:
    status = error.code if isinstance(error, urllib.error.HTTPError) else None
    if status == 404:
        return shared_errors.no_such_model(source)
    return (
        shared_errors.access_refused(source) if status in (401, 403) else shared_errors.download_failed(source, error)
    )
