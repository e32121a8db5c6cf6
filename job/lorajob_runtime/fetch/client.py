"""Runs the hubs' clients in a process of its own, which takes one request and answers in JSON lines.

    {"action": "list", "source": {…}}                                    -> {"revision": …, "files": [{…}, …]}
    {"action": "get", "source": {…}, "revision": …, "folder": …, "files": […]}  -> {"path": …, "sha256": …} a file
    {"action": "dequantize", "source": {…}, "gguf": …, "folder": …}      -> {"path": …, "sha256": …} a file

It ends with {"error": class, "message": …, "hint": …} when it fails, and at once when its caller's end closes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorajob_runtime.contract.errors import HubError, LorajobError
from lorajob_runtime.fetch import hubs
from lorajob_runtime.fetch.hubs import Source, shared_errors
from lorajob_runtime.fetch.selection import RemoteFile
from lorajob_runtime.system import atomic, key_isolation
from lorajob_runtime.system.child_process import Parent

_ATTEMPTS_AT_CONTENT = 2


def main() -> None:
    """Answers one request."""
    key_isolation.keep_private()
    parent = Parent()
    request = parent.request()
    try:
        for answer in _answers(request):
            parent.answer(answer)
    except LorajobError as error:
        parent.fail(error)
    parent.leave()


def _answers(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    source = Source(**request["source"])
    answer = {"list": _list, "get": _get_files, "dequantize": _dequantize}[request["action"]]
    try:
        yield from answer(source, request)
    except Exception as error:
        # clients raise what they like; this is where it gets one of our names
        raise shared_errors.explain(error, source) from error


def _list(source: Source, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    listing = hubs.module_of(source).Client(source, None).list()
    yield {"revision": listing.revision, "files": [asdict(file) for file in listing.files]}


def _get_files(source: Source, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    folder = Path(request["folder"])
    files = [RemoteFile(**file) for file in request["files"]]
    yield from _get_all(hubs.module_of(source).Client(source, folder), files, request["revision"], folder)


def _dequantize(source: Source, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from lorajob_runtime.fetch.dequantize import dequantize

    for path in dequantize(Path(request["gguf"]), Path(request["folder"])):
        yield {"path": path.name, "sha256": digest_of(path, "sha256")}


def _get_all(hub: hubs.Client, files: list[RemoteFile], revision: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Gets and checks files side by side. After a failure the ones in flight are finished and kept."""
    pending = list(files)
    with ThreadPoolExecutor(hub.workers) as pool:
        running: dict[Future[str], RemoteFile] = {}
        failure: BaseException | None = None
        while running or (pending and failure is None):
            while pending and failure is None and len(running) < hub.workers:
                file = pending.pop(0)
                running[pool.submit(_get, hub, file, revision, folder)] = file
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                file = running.pop(future)
                if (error := future.exception()) is not None:
                    failure = failure or error
                else:
                    yield {"path": file.path, "sha256": future.result()}
    if failure is not None:
        raise failure


def _get(hub: hubs.Client, file: RemoteFile, revision: str, folder: Path) -> str:
    """Gets one file, content checked and on the disk; returns its sha256. Raises HubError for wrong content."""
    path = folder / file.path
    kind, _, expected = file.digest.partition(":")
    for _ in range(_ATTEMPTS_AT_CONTENT):
        hub.get(file, revision, folder)
        atomic.sync(path)
        if hub.verifies and kind == "sha256":
            return expected
        if path.stat().st_size == file.size and (not kind or digest_of(path, kind) == expected):
            return expected if kind == "sha256" else digest_of(path, "sha256")
        path.unlink()
    raise HubError(f"the hub sent {file.path} {_ATTEMPTS_AT_CONTENT} times with content that differs from its listing")


def digest_of(path: Path, kind: str) -> str:
    """The sha256 of a file, or (`git-sha1`) the name that git gives to its content."""
    digest = hashlib.sha1(usedforsecurity=False) if kind == "git-sha1" else hashlib.sha256()
    if kind == "git-sha1":
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
