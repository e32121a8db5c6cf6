"""Certificates of one cluster, made anew at each start, and the kubeconfigs that hold them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from cluster.running import run

_DAYS = "365"
_CONFIG = "[req]\ndistinguished_name = name\n[name]\n"


class Authority:
    """A certificate authority in a folder, and what it signed: NAME.crt and NAME.key."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        (folder / "openssl.cnf").write_text(_CONFIG)
        self._request("ca", "/CN=lorajob test cluster", "basicConstraints=critical,CA:TRUE")
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "accounts.key")

    def sign(self, name: str, subject: str, *alternatives: str) -> None:
        """A certificate for clients and servers. `alternatives`: DNS:name and IP:address."""
        extensions = ["basicConstraints=critical,CA:FALSE"]
        if alternatives:
            extensions.append(f"subjectAltName={','.join(alternatives)}")
        signed = ("-CA", self.folder / "ca.crt", "-CAkey", self.folder / "ca.key")
        self._request(name, subject, *extensions, signed=signed)

    def _request(self, name: str, subject: str, *extensions: str, signed: tuple[str | Path, ...] = ()) -> None:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        out = ("-keyout", self.folder / f"{name}.key", "-out", self.folder / f"{name}.crt")
        added = [word for extension in extensions for word in ("-addext", extension)]
        config = ("-config", self.folder / "openssl.cnf")
        run("openssl", "req", "-x509", *config, *key, *signed, "-days", _DAYS, "-subj", subject, *added, *out)

    def kubeconfig(self, path: Path, user: str, server: str) -> None:
        """Writes how `user`, who has a certificate, reaches the API server."""
        cluster = {"server": server, "certificate-authority-data": self._encoded("ca.crt")}
        login = {
            "client-certificate-data": self._encoded(f"{user}.crt"),
            "client-key-data": self._encoded(f"{user}.key"),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lorajob-test",
            "clusters": [{"name": "lorajob-test", "cluster": cluster}],
            "users": [{"name": user, "user": login}],
            "contexts": [{"name": "lorajob-test", "context": {"cluster": "lorajob-test", "user": user}}],
        }
        path.touch(mode=0o600)
        # JSON is YAML
        path.write_text(json.dumps(config, indent=1))

    def _encoded(self, name: str) -> str:
        return base64.b64encode((self.folder / name).read_bytes()).decode()
