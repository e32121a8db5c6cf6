"""Kubeconfig files: found, merged and read as kubectl does, one context of them as an Access.

https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/ has the rules. Read with PyYAML's
C parser, which the `kubernetes` package depends on: it loads and reads faster than ruamel.yaml, and reads YAML 1.1.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lorajob.cluster.access import Access, Login, in_cluster
from lorajob.environment import home_folder, process_variables
from lorajob.errors import UsageError

DEFAULT_FILE = Path(".kube/config")
"""Below the home folder."""

_LOGIN_KINDS = ("exec", "auth-provider")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A cluster or user of a kubeconfig, and where it stands: paths in it begin at that file's folder."""

    kind: str
    name: str
    values: Mapping[str, Any]
    file: Path

    def text(self, key: str) -> str | None:
        """The text of a field; None when it is not there or empty. Raises UsageError when it is something else."""
        value = self.values.get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise UsageError(f"{self.file}: {key} of {self.kind} {self.name} must be text; put it in quotes")
        return value

    def path(self, key: str) -> Path | None:
        """The file that a field names."""
        text = self.text(key)
        return self.file.parent / Path(text).expanduser() if text else None

    def pem(self, key: str) -> str | None:
        """A certificate or key: the field `<key>-data` in base64, else the file that `key` names."""
        data, path = self.text(f"{key}-data"), self.path(key)
        try:
            if data is not None:
                return base64.b64decode(data, validate=True).decode("ascii")
            return path.read_text("ascii") if path is not None else None
        except (binascii.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{self.file}: {key} of {self.kind} {self.name} is not a PEM text: {error}") from error
        except OSError as error:
            raise UsageError(f"{self.file}: {key} of {self.kind} {self.name}: {error.strerror}: {path}") from error


@dataclass(kw_only=True, slots=True)
class Kubeconfig:
    """Several files merged: of two entries of one name the first one found counts."""

    files: list[Path] = field(default_factory=list)
    current: str | None = None
    contexts: dict[str, Entry] = field(default_factory=dict)
    clusters: dict[str, Entry] = field(default_factory=dict)
    users: dict[str, Entry] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return ", ".join(str(file) for file in self.files)


def find(
    kubeconfig: str | None = None,
    context: str | None = None,
    namespace: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Access:
    """The access that kubectl would have: `kubeconfig`, else KUBECONFIG, else ~/.kube/config, else the pod's own.

    Raises UsageError when there is none, when it can't be read, or when it has no such context.
    """
    variables = process_variables() if variables is None else variables
    paths = candidates(kubeconfig, variables)
    config = read(paths, must_exist=kubeconfig is not None)
    if config.files and (config.current or context or config.contexts):
        return access(config, context=context, namespace=namespace)
    own = in_cluster(variables, namespace=namespace)
    if own is not None and context is None:
        return own
    looked = ", ".join(str(path) for path in paths)
    raise UsageError(
        f"no cluster is configured: {'empty' if config.files else 'no'} kubeconfig at {looked}",
        hint="give one with --kubeconfig or KUBECONFIG; the people who run the cluster hand it out",
    )


def candidates(kubeconfig: str | None, variables: Mapping[str, str]) -> list[Path]:
    """The files to read, which need not exist."""
    if kubeconfig is not None:
        return [Path(kubeconfig).expanduser()]
    listed = [Path(path).expanduser() for path in variables.get("KUBECONFIG", "").split(os.pathsep) if path]
    return list(dict.fromkeys(listed)) or [home_folder(variables) / DEFAULT_FILE]


def read(paths: Sequence[Path], *, must_exist: bool = False) -> Kubeconfig:
    """The files that exist, merged. Raises UsageError for a file that can't be read or has another form."""
    config = Kubeconfig()
    for path in paths:
        values = _load(path, must_exist=must_exist)
        if values is None:
            continue
        config.files.append(path)
        current = values.get("current-context")
        config.current = config.current or (str(current) if current else None)
        for kind, found in (("context", config.contexts), ("cluster", config.clusters), ("user", config.users)):
            for entry in _entries(kind, values.get(f"{kind}s"), path):
                found.setdefault(entry.name, entry)
    return config


def access(config: Kubeconfig, *, context: str | None = None, namespace: str | None = None) -> Access:
    """One context as an Access. Raises UsageError when it is not there or incomplete."""
    name = context or config.current
    if name is None:
        raise UsageError(
            f"{config.place} has no current-context",
            hint=f"choose one with --context: {', '.join(config.contexts) or 'there is none'}",
        )
    chosen = config.contexts.get(name)
    if chosen is None:
        known = ", ".join(sorted(config.contexts)) or "it has no context"
        raise UsageError(f"context {name!r} is not in {config.place}", hint=f"the contexts there are: {known}")
    cluster = _named(config, config.clusters, chosen, "cluster")
    user = _named(config, config.users, chosen, "user") if chosen.text("user") else _nobody(chosen)
    server = cluster.text("server")
    if server is None or not _is_address(server):
        raise UsageError(
            f"{cluster.file}: server of cluster {cluster.name} is {server!r}: it must be https://HOST:PORT"
        )
    logins = [kind for kind in _LOGIN_KINDS if user.values.get(kind)]
    username, password = user.text("username"), user.text("password")
    token_file = user.path("tokenFile")
    static = token_file is not None or user.text("token") is not None
    return Access(
        server=server.rstrip("/"),
        namespace=namespace or chosen.text("namespace") or "default",
        source=f"context {name} of {chosen.file}",
        context=name,
        authority=cluster.pem("certificate-authority"),
        client_certificate=user.pem("client-certificate"),
        client_key=user.pem("client-key"),
        token=user.text("token"),
        token_file=token_file,
        basic=(username, password) if username is not None and password is not None else None,
        login=_login(logins[0], config, name, user, cluster) if logins and not static else None,
        tls_server_name=cluster.text("tls-server-name"),
        insecure=cluster.values.get("insecure-skip-tls-verify") is True,
        proxy=cluster.text("proxy-url"),
        impersonate=tuple(_impersonation(user)),
    )


def _is_address(server: str) -> bool:
    try:
        address = urlsplit(server)
        # asking for the port is what looks at it
        return address.scheme in ("https", "http") and bool(address.hostname) and address.port != 0
    except ValueError:
        return False


def _login(kind: str, config: Kubeconfig, context: str, user: Entry, cluster: Entry) -> Login:
    settings = user.values[kind]
    if not isinstance(settings, Mapping):
        raise UsageError(f"{user.file}: {kind} of user {user.name} must be a mapping")
    return Login(
        kind=kind,
        user=user.name,
        settings=settings,
        cluster=cluster.values,
        context=context,
        files=(user.file, *(file for file in config.files if file != user.file)),
    )


def _impersonation(user: Entry) -> list[tuple[str, str]]:
    headers = [("Impersonate-User", user.text("as")), ("Impersonate-Uid", user.text("as-uid"))]
    groups = user.values.get("as-groups") or ()
    headers += [("Impersonate-Group", str(group)) for group in groups]
    extra = user.values.get("as-user-extra")
    for key, values in (extra if isinstance(extra, Mapping) else {}).items():
        headers += [(f"Impersonate-Extra-{key}", str(value)) for value in values]
    return [(name, value) for name, value in headers if value is not None]


def _nobody(chosen: Entry) -> Entry:
    """A context without a user asks without a credential."""
    return Entry(kind="user", name="", values={}, file=chosen.file)


def _named(config: Kubeconfig, entries: Mapping[str, Entry], chosen: Entry, kind: str) -> Entry:
    name = chosen.text(kind)
    if name is None:
        raise UsageError(f"{chosen.file}: context {chosen.name} names no {kind}")
    if name not in entries:
        raise UsageError(
            f"{chosen.file}: context {chosen.name} names the {kind} {name!r}, which is not in {config.place}"
        )
    return entries[name]


def _load(path: Path, *, must_exist: bool) -> Mapping[str, Any] | None:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        if must_exist:
            raise UsageError(f"the kubeconfig {path} does not exist") from error
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the kubeconfig {path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    import yaml

    try:
        # the C parser is not in every build of PyYAML
        values = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise UsageError(f"{place} is not YAML: {getattr(error, 'problem', None) or error}") from error
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise UsageError(f"{path} is not a kubeconfig: it must be a mapping with clusters, users and contexts")
    return values


def _entries(kind: str, values: object, path: Path) -> list[Entry]:
    if values is None:
        return []
    if not isinstance(values, list):
        raise UsageError(f"{path}: {kind}s must be a list")
    found = []
    for value in values:
        inner = value.get(kind) if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or not value.get("name") or not (inner is None or isinstance(inner, Mapping)):
            raise UsageError(f"{path}: every entry of {kind}s must have a name and a {kind}")
        found.append(Entry(kind=kind, name=str(value["name"]), values=inner or {}, file=path))
    return found
