"""A small local dataset as a ConfigMap that the run's pods mount. Pure."""

from __future__ import annotations

import base64
import gzip
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from lorajob.errors import UsageError
from lorajob_runtime import pod

DATA_MAX_BYTES = 700 * 1024
"""Largest file, compressed. A ConfigMap holds at most 1 MiB, and base64 makes its way there a third longer."""

VOLUME = "data"

_KEY_MAX_LENGTH = 200


class DataTooLarge(UsageError):  # noqa: N818 the name says it
    """The dataset does not fit into a ConfigMap: it has to go through storage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """A dataset on this machine: its file name, whose ending says what form it has, and its bytes."""

    name: str
    content: bytes


def object_name(run: str) -> str:
    """Name of the ConfigMap of a run's dataset."""
    return f"{run}-data"


def path_in_pod(data: DataFile) -> str:
    """Where the pods find the dataset."""
    return f"{pod.DATA_FOLDER}/{_stored(data)[0]}"


def is_mounted(source: str | None) -> bool:
    """Whether a spec's dataset lies in the run's ConfigMap."""
    return source is not None and source.startswith(pod.DATA_FOLDER + "/")


def config_map(data: DataFile, *, run: str, namespace: str, labels: dict[str, str]) -> dict[str, Any]:
    """The ConfigMap, immutable: what a run trains on does not change under it. Raises DataTooLarge."""
    key, content = _stored(data)
    if len(content) > DATA_MAX_BYTES:
        raise DataTooLarge(
            f"{data.name} has {len(content) / 1024:.0f} KiB even compressed: without storage of your own at most "
            f"{DATA_MAX_BYTES // 1024} KiB can go to the cluster",
            hint="upload it and give its address: --data s3://BUCKET/PATH",
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": object_name(run), "namespace": namespace, "labels": labels},
        "immutable": True,
        "binaryData": {key: base64.b64encode(content).decode()},
    }


def _stored(data: DataFile) -> tuple[str, bytes]:
    """(key, bytes) in the ConfigMap: compressed where that is shorter."""
    path = PurePath(data.name)
    # a key has letters, digits and -_. only, and its start and end must be told apart from .. and the like
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.name.removesuffix(path.suffix)).strip("-_")[:_KEY_MAX_LENGTH]
    suffix = re.sub(r"[^A-Za-z0-9.]+", "", path.suffix)
    key = (stem or "data") + suffix
    # no time in it: the same file makes the same manifest
    compressed = gzip.compress(data.content, mtime=0)
    return (f"{key}.gz", compressed) if len(compressed) < len(data.content) else (key, data.content)
