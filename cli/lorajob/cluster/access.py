"""How to reach one cluster, and as whom: the outcome of a kubeconfig, or of a pod's service account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorajob.cluster.errors import Unauthenticated
from lorajob.environment import process_variables
from lorajob.errors import UsageError

SERVICE_ACCOUNT_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """A login that another program does: the `exec` or `auth-provider` of a kubeconfig's user, as it stands there."""

    kind: str
    user: str
    """Name of the user, for errors."""
    settings: Mapping[str, Any]
    cluster: Mapping[str, Any]
    context: str
    files: tuple[Path, ...]
    """The kubeconfig's files, the one with the user first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """Where a cluster is and how to log in. Certificates and keys are PEM texts; None is: not given."""

    server: str
    namespace: str
    source: str
    """Where this comes from: `context NAME of FILE`, or `the pod's service account`."""
    context: str | None = None
    authority: str | None = None
    client_certificate: str | None = field(default=None, repr=False)
    client_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    """Read again for every request: what is in it is renewed by others."""
    basic: tuple[str, str] | None = field(default=None, repr=False)
    login: Login | None = field(default=None, repr=False)
    tls_server_name: str | None = None
    insecure: bool = False
    proxy: str | None = None
    impersonate: tuple[tuple[str, str], ...] = ()
    """Headers with which the user asks to be taken for another."""

    def bearer(self) -> str | None:
        """The token of the next request. Raises Unauthenticated when its file can't be read."""
        if self.token_file is None:
            return self.token
        try:
            return self.token_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unauthenticated(
                f"the token file {self.token_file} can't be read: {error}", hint="log in to the cluster again"
            ) from error


def in_cluster(
    variables: Mapping[str, str] | None = None, folder: Path = SERVICE_ACCOUNT_FOLDER, *, namespace: str | None = None
) -> Access | None:
    """The access that a pod has by its service account; None outside of a cluster. Raises UsageError."""
    variables = process_variables() if variables is None else variables
    host, port = variables.get("KUBERNETES_SERVICE_HOST"), variables.get("KUBERNETES_SERVICE_PORT")
    token = folder / "token"
    if not host or not port or not token.is_file():
        return None
    try:
        authority = (folder / "ca.crt").read_text("utf-8")
        if namespace is None:
            namespace = (folder / "namespace").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the pod's service account in {folder} can't be read: {error}") from error
    return Access(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=namespace or "default",
        source="the pod's service account",
        authority=authority,
        token_file=token,
    )
