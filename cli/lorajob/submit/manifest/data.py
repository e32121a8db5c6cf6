"""A small local dataset as a ConfigMap that the run's pods mount. Pure."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any

from lorajob.errors import UsageError
from lorajob_runtime.contract import kubernetes

DATA_MAX_BYTES = 2**20
"""What a ConfigMap's values may hold together: https://kubernetes.io/docs/concepts/configuration/configmap/."""

VOLUME = "data"

_KEY = re.compile(r"(?!\.\.)[-._a-zA-Z0-9]{1,253}")


class DataTooLarge(UsageError):  # noqa: N818 the name says it
    """The dataset does not fit into a ConfigMap: it has to go through storage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """A dataset as it is put into a ConfigMap: its key there, which ends as the file's name does, and its bytes.

    Bytes that are compressed have a key that ends with .gz; the pods unpack them.
    """

    name: str
    content: bytes


def object_name(run: str) -> str:
    """Name of the ConfigMap of a run's dataset."""
    return f"{run}-data"


def path_in_pod(data: DataFile) -> str:
    """Where the pods find the dataset."""
    return f"{kubernetes.DATA_FOLDER}/{data.name}"


def is_mounted(source: str | None) -> bool:
    """Whether a spec's dataset is in the run's ConfigMap."""
    return source is not None and source.startswith(kubernetes.DATA_FOLDER + "/")


def config_map(data: DataFile, *, run: str, namespace: str, labels: dict[str, str]) -> dict[str, Any]:
    """The ConfigMap, immutable: what a run trains on does not change under it.

    Raises DataTooLarge, and UsageError for a name that cannot be a key.
    """
    if _KEY.fullmatch(data.name) is None:
        raise UsageError(f"the dataset's name is {data.name!r}: in a ConfigMap it must be letters, digits and - _ .")
    if len(data.content) > DATA_MAX_BYTES:
        raise DataTooLarge(
            f"{data.name} has {len(data.content)} bytes: a ConfigMap holds at most {DATA_MAX_BYTES}",
            hint="upload it and give its address: --data s3://BUCKET/PATH",
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": object_name(run), "namespace": namespace, "labels": labels},
        "immutable": True,
        "binaryData": {data.name: base64.b64encode(data.content).decode()},
    }
