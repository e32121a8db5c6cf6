"""A stand-in for both model hubs: what their own clients ask, answered from a folder, with faults on demand.

<root>/<org>/<name>/<file>     the files of one model, at one revision
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TAG = "v1"
"""A tag of every model, beside its branches."""
_LFS_FROM = 1000
"""Files of at least so many bytes are stored as LFS objects, whose sha256 the hub lists."""


@dataclass
class Faults:
    """What goes wrong. `cut` maps a file to how many of its bytes come before the connection breaks, once."""

    status: int | None = None
    missing: set[str] = field(default_factory=set)
    """Hubs (modelscope, hf) that have no model at all."""
    corrupt: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    held: dict[str, threading.Event] = field(default_factory=dict)
    """Files that are not sent before their event is set."""


@dataclass(frozen=True)
class Asked:
    """One request for a file's content, from which byte on."""

    path: str
    start: int


class HubServer:
    """Speaks ModelScope's and Hugging Face's protocol on one port until it is stopped."""

    def __init__(self, root: Path, host: str = "127.0.0.1") -> None:
        self.root = root
        self.host = host
        self.faults = Faults()
        self.requests: list[str] = []
        self.asked: list[Asked] = []
        self.tokens: set[str] = set()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self._port}"

    def start(self) -> None:
        """Listens, on the same port as before."""
        hub = self

        class Handler(_Handler):
            server_hub = hub

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer((self.host, self._port), Handler)
        self._server.daemon_threads = True
        self._port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """From now on nobody answers."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def variables(self, cache: Path) -> dict[str, str]:
        """The environment variables with which the hubs' clients come here, and try for a short time only."""
        return {
            "MODELSCOPE_ENDPOINT": self.url,
            "MODELSCOPE_HOME": str(cache / "modelscope-home"),
            "MODELSCOPE_API_MAX_RETRIES": "1",
            "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "1",
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache / "hf-home"),
            "HF_HUB_DISABLE_XET": "1",
            "LORAJOB_CACHE": str(cache / "models"),
        }

    def starts_of(self, path: str) -> list[int]:
        """From which bytes on a file was asked for, one entry a request."""
        return [item.start for item in self.asked if item.path == path]


class _Handler(BaseHTTPRequestHandler):
    server_hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test's own record is in `requests`."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.server_hub
        hub.requests.append(f"{self.command} {self.path}")
        for name in ("Authorization", "Cookie"):
            if value := self.headers.get(name):
                hub.tokens.add(value)
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if hub.faults.status is not None:
            self._json({"error": "refused", "Message": "refused", "Code": hub.faults.status}, hub.faults.status)
        elif parts[:3] == ["api", "v1", "models"]:
            self._modelscope(parts[3:], {key: values[0] for key, values in parse_qs(url.query).items()})
        elif parts[:2] == ["api", "models"]:
            self._hugging_face(parts[2:])
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), "/".join(parts[4:]), hugging_face=True)
        else:
            self._json({"Code": 404, "Message": "not found"}, 404)

    def _modelscope(self, parts: list[str], query: dict[str, str]) -> None:
        model, rest = "/".join(parts[:2]), parts[2:]
        gone = "modelscope" in self.server_hub.faults.missing or not (self.server_hub.root / model).is_dir()
        if gone or query.get("Revision", "master") not in ("master", TAG):
            self._json({"Code": 10010205001, "Message": "no such model", "Success": False}, 404)
        elif rest == ["repo", "files"]:
            files = [
                {"Path": name, "Name": name, "Type": "blob", "Size": len(data), "Sha256": _sha256(data)}
                for name, data in self._files(model)
            ]
            self._json({"Code": 200, "Data": {"Files": files}, "Success": True})
        elif rest == ["repo"]:
            self._file(model, query["FilePath"], hugging_face=False)
        else:
            self._json({"Code": 404, "Message": "not found"}, 404)

    def _hugging_face(self, parts: list[str]) -> None:
        model, rest = "/".join(parts[:2]), parts[2:]
        if "hf" in self.server_hub.faults.missing or not (self.server_hub.root / model).is_dir():
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif rest and rest[-1] not in ("main", TAG, COMMIT):
            self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        elif rest[:1] == ["tree"]:
            self._json([_tree_entry(name, data) for name, data in self._files(model)])
        else:
            siblings = [{"rfilename": name} for name, _ in self._files(model)]
            self._json({"id": model, "modelId": model, "sha": COMMIT, "siblings": siblings, "tags": []})

    def _files(self, model: str) -> list[tuple[str, bytes]]:
        folder = self.server_hub.root / model
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in found]

    def _file(self, model: str, name: str, *, hugging_face: bool) -> None:
        path = self.server_hub.root / model / name
        if not path.is_file():
            self._json({"Code": 404, "Message": "no such file"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        data = path.read_bytes()
        entry = _tree_entry(name, data)
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes", "Content-Length": str(len(data) - start)}
        if hugging_face:
            headers["X-Repo-Commit"] = COMMIT
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send_response(206 if start else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self._send(name, data, start)

    def _send(self, name: str, data: bytes, start: int) -> None:
        faults = self.server_hub.faults
        self.server_hub.asked.append(Asked(name, start))
        if name in faults.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if (end := faults.cut.pop(name, None)) is not None:
            self.wfile.write(data[start:end])
            self.wfile.flush()
            if (event := faults.held.get(name)) is not None:
                event.wait(30)
            # a mere close leaves clients waiting for more
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if (event := faults.held.get(name)) is not None:
            event.wait(30)
        self.wfile.write(data[start:])

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _tree_entry(name: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"type": "file", "oid": blob, "size": len(data), "path": name}
    if len(data) >= _LFS_FROM:
        entry["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 130}
    return entry


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
