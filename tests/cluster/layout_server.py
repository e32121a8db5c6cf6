"""As much of a container registry as a client needs to pull: an OCI image layout, served read-only."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_REFERENCE = "org.opencontainers.image.ref.name"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@contextlib.contextmanager
def serve(layout: Path) -> Iterator[str]:
    """Serves a layout's images under any name, by the layout's tags, on a port of this machine. Yields the URL."""
    handler = type("Handler", (_Handler,), {"layout": layout})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _tagged(layout: Path, tag: str) -> str | None:
    for manifest in json.loads((layout / "index.json").read_text())["manifests"]:
        if manifest.get("annotations", {}).get(_REFERENCE) == tag:
            return str(manifest["digest"])
    return None


class _Handler(BaseHTTPRequestHandler):
    layout: Path
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what fails is said by the client."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        # /v2/<name>/manifests/<tag or digest>   /v2/<name>/blobs/<digest>
        kind, _, reference = self.path.partition("?")[0].rpartition("/")
        digest = reference if reference.startswith("sha256:") else _tagged(self.layout, reference)
        file = self.layout / "blobs" / (digest or "none").replace(":", "/")
        if not file.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", _MANIFEST if kind.endswith("/manifests") else "application/octet-stream")
        self.send_header("Content-Length", str(file.stat().st_size))
        self.send_header("Docker-Content-Digest", str(digest))
        self.end_headers()
        if self.command == "GET":
            with file.open("rb") as content:
                shutil.copyfileobj(content, self.wfile, 1 << 20)
