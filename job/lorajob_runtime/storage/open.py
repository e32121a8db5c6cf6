"""Opens the storage that an address names, and finds the run's folder on this machine that belongs to it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.storage.folder import FolderStore
from lorajob_runtime.storage.s3 import S3Store
from lorajob_runtime.storage.store import Keys, Store, is_s3, split_s3
from lorajob_runtime.system.environment import Environment

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def open_store(uri: str, name: str, environment: Environment, *, keys: Keys | None = None) -> Store:
    """The store of the run `name` under `uri`: s3://bucket/prefix or a folder. Contacts nobody yet.

    Without `keys` they are looked for where boto3 does.
    """
    if not is_s3(uri):
        return FolderStore(_folder(uri) / name)
    bucket, prefix = split_s3(uri)
    return S3Store(bucket, "/".join(part for part in (prefix, name) if part), environment, keys)


def run_folder(uri: str, name: str, environment: Environment) -> RunFolder:
    """The run's folder on this machine: beside the results where those are local too, so that links can be made."""
    if not is_s3(uri):
        return RunFolder(_folder(uri) / ".work" / name)
    address = "s3://" + "/".join(part for part in split_s3(uri) if part)
    return RunFolder(environment.work / hashlib.sha256(address.encode()).hexdigest()[:12] / name)


def _folder(uri: str) -> Path:
    if not uri or _SCHEME.match(uri):
        raise ConfigError(f"storage.uri is {uri!r}: it must be s3://bucket/prefix or a folder", path="storage.uri")
    return Path(uri).expanduser().absolute()
