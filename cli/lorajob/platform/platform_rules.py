"""What the values of a platform's config may be, field by field: all that Kubernetes, or a submit, would refuse later.

The chart refuses the same values in the same words (charts/lorajob/templates/_checks.tpl); a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lorajob.errors import UsageError
from lorajob.platform import quantities, run_limits
from lorajob_runtime.contract import hubs
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError

if TYPE_CHECKING:
    from lorajob.platform.platform_config import Platform, PlatformToleration

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}([.]{_LABEL})*"
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_HOST = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]+)?"
_IMAGE = (
    rf"({_HOST}/)?[a-z0-9][a-z0-9._-]*(/[a-z0-9._-]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?"
)

OBJECT_NAME = "the name of a Kubernetes object: lower-case letters, digits, - and ."
ADDRESS = "an address like https://host:port"
AMOUNT = "a quantity above 0, like 8, 500m or 64Gi"
SIZE = "a size of at least 1Mi, like 64Gi"
DURATION = "a duration like 90m, 24h or 3d"
WAIT = "a duration from 1m to 7d, like 30m or 2h"
KEY = "the key of a label, like topology.kubernetes.io/zone"
LABELS = "labels of nodes, like {nvidia.com/gpu.product: NVIDIA-H200}"


def check(platform: Platform, values: Mapping[str, Any]) -> None:
    """Raises ConfigError for the first value that is wrong. `values` are those of the platform, in its file's form."""
    for path, is_right, right in _RULES:
        value: Any = values
        for key in path.split("."):
            value = value[key]
        if value is not None and not is_right(value):
            raise ConfigError(f"{path} is {value!r}: it must be {right}", path=path)
    for name, labels in platform.scheduling.gpu_types.items():
        if not _are_labels(labels):
            path = f"scheduling.gpuTypes.{name}"
            raise ConfigError(f"{path} is {labels!r}: it must be {LABELS}", path=path)
    for number, each in enumerate(platform.scheduling.tolerations):
        _check_toleration(each, f"scheduling.tolerations[{number}]")
    _check_defaults(platform)


def _check_toleration(toleration: PlatformToleration, path: str) -> None:
    """As the API server does: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/."""
    key, exists = toleration.key or "", toleration.operator == "Exists"
    value = toleration.value or ""
    if key and not _is_key(key):
        raise ConfigError(
            f"{path}.key is {key!r}: it must be the key of a taint, like nvidia.com/gpu", path=f"{path}.key"
        )
    if not key and not exists:
        raise ConfigError(f"{path} has no key: that must have the operator Exists, and tolerates all taints", path=path)
    if exists and value:
        raise ConfigError(
            f"{path}.value is {value!r}: with the operator Exists there must be none", path=f"{path}.value"
        )
    if not _is_label_value(value):
        raise ConfigError(
            f"{path}.value is {value!r}: it must be the value of a taint, like present", path=f"{path}.value"
        )
    if toleration.toleration_seconds is not None and toleration.effect != "NoExecute":
        path = f"{path}.tolerationSeconds"
        raise ConfigError(f"{path} is set: it must come with the effect NoExecute", path=path)


def _check_defaults(platform: Platform) -> None:
    """Raises ConfigError for defaults with which no submit could do, if its user says nothing to them."""
    if platform.defaults.get("name") is not None:
        raise ConfigError("defaults.name is set: every run needs a name of its own", path="defaults.name")
    try:
        spec = specs.parse(platform.defaults)
        run_limits.check_defaults(spec, platform)
    except (ConfigError, UsageError) as error:
        if error.path:
            raise ConfigError(f"defaults.{error.message}", path=f"defaults.{error.path}") from error
        raise ConfigError(f"defaults: {error.message}", path="defaults") from error


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda value: re.fullmatch(pattern, value) is not None


def _is_key(value: str) -> bool:
    prefix, slash, name = value.rpartition("/")
    return (not slash or _is_name(prefix)) and re.fullmatch(_WORD, name) is not None


def _is_label_value(value: str) -> bool:
    return not value or re.fullmatch(_WORD, value) is not None


def _are_labels(value: Mapping[str, str]) -> bool:
    return all(_is_key(key) and _is_label_value(text) for key, text in value.items())


def _is_resource(value: str) -> bool:
    """An extended resource has a domain, which is not Kubernetes' own."""
    domain = value.rpartition("/")[0]
    return bool(domain) and _is_key(value) and not f".{domain}".endswith(".kubernetes.io")


def _is_name(value: str) -> bool:
    return len(value) <= 253 and re.fullmatch(_SUBDOMAIN, value) is not None


def _is_duration(value: str, *, least: str = "1s", most: str | None = None) -> bool:
    try:
        given = quantities.seconds(value)
    except UsageError:
        return False
    return quantities.seconds(least) <= given and (most is None or given <= quantities.seconds(most))


def _is_wait(value: str) -> bool:
    return _is_duration(value, least="1m", most="7d")


def _is_amount(value: object, *, least: int = 0) -> bool:
    try:
        return quantities.amount(str(value)) >= least
    except UsageError:
        return False


def _is_size(value: str) -> bool:
    return _is_amount(value, least=quantities.MEBIBYTE)


_is_address = _matches(r"https?://[^\s/]+(/\S*)?")

_RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("image", _matches(_IMAGE), "an image like registry.example/lorajob:0.1.0"),
    ("storage.uri", _matches(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?"), "s3://BUCKET/PREFIX"),
    ("storage.endpoint", _is_address, ADDRESS),
    ("storage.region", _matches(r"[A-Za-z0-9-]+"), "a region like eu-central-1"),
    ("storage.patience", _is_wait, WAIT),
    *((f"hubEndpoints.{hub.name}", _is_address, ADDRESS) for hub in hubs.MODEL_HUBS),
    ("swanlab.host", _is_address, ADDRESS),
    (
        "hubs",
        lambda value: 0 < len(value) == len(set(value)) and set(value) <= set(hubs.NAMES),
        f"a list of {hubs.NAMES_TEXT}, in the order to ask",
    ),
    ("imagePullSecrets", lambda value: all(map(_is_name, value)), "a list of names of Secrets"),
    ("serviceAccount", _is_name, OBJECT_NAME),
    ("cache.claim", _is_name, OBJECT_NAME),
    ("secrets.storage", _is_name, OBJECT_NAME),
    ("secrets.swanlab", _is_name, OBJECT_NAME),
    ("secrets.hub", _is_name, OBJECT_NAME),
    ("scheduling.gpuResource", _is_resource, "the name of an extended resource, like nvidia.com/gpu"),
    ("scheduling.nodeSelector", _are_labels, LABELS),
    ("scheduling.topologyKey", _is_key, KEY),
    ("scheduling.runtimeClassName", _is_name, OBJECT_NAME),
    ("limits.timeout", _is_duration, DURATION),
    ("limits.gpus", lambda value: value >= 1, "at least 1, or null"),
    ("limits.nodes", lambda value: value >= 1, "at least 1, or null"),
    ("limits.retries", lambda value: value >= 0, "at least 0, or null"),
    ("resources.cpuPerGpu", _is_amount, AMOUNT),
    ("resources.memoryPerGpu", _is_size, SIZE),
    ("resources.gpuMemory", _is_size, SIZE),
    ("resources.sharedMemory", _is_size, SIZE),
    ("resources.work", _is_size, SIZE),
    ("stallAfter", _is_wait, WAIT),
    ("gracePeriodSeconds", lambda value: value >= 1, "at least 1 second"),
    ("keepFinished", _is_duration, "a duration like 12h or 7d"),
)
