"""What the platform allows a run, and what a run on a cluster needs to have. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lorajob.errors import UsageError
from lorajob.platform import quantities
from lorajob_runtime.contract import kubernetes
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.spec import RunSpec

if TYPE_CHECKING:
    # its module reads YAML, which not every command that comes here does
    from lorajob.platform.platform_config import Platform

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def check_limits(spec: RunSpec, platform: Platform) -> None:
    """Raises UsageError for the first thing that this platform does not allow or cannot run."""
    _check_places(spec)
    _check_amounts(spec, platform)
    _check_names(spec, platform)
    _check_code(spec, platform)
    size_bytes = _size_bytes(spec)
    if size_bytes > kubernetes.SPEC_MAX_BYTES:
        raise UsageError(
            f"the spec has {size_bytes} bytes: at most {kubernetes.SPEC_MAX_BYTES} fit into the Job",
            hint="put long texts, like data.system, into the dataset",
        )


def check_defaults(spec: RunSpec, platform: Platform) -> None:
    """Raises UsageError where a platform's own defaults, as a spec, are nothing that it allows or can run."""
    _check_uri(spec)
    _check_amounts(spec, platform)
    _check_names(spec, platform)
    _check_code(spec, platform)
    for path, given in (("resources.cpu", spec.resources.cpu), ("resources.memory", spec.resources.memory)):
        if given != "auto" and quantities.amount(given, path=path) < quantities.MEBIBYTE and path == "resources.memory":
            raise UsageError(f"{path} is {given!r}, in bytes: it must be a size like 64Gi", path=path)


def _size_bytes(spec: RunSpec) -> int:
    return len(specs.dumps(spec).encode())


def run_seconds(spec: RunSpec, platform: Platform) -> int:
    """How long the run may be active, in seconds: its own timeout, else the platform's. Raises UsageError."""
    if spec.resources.timeout is not None:
        return quantities.seconds(spec.resources.timeout, path="resources.timeout")
    return quantities.seconds(platform.limits.timeout, "the platform's limits.timeout")


def _check_code(spec: RunSpec, platform: Platform) -> None:
    if spec.model.trust_remote_code and not platform.limits.trust_remote_code:
        raise UsageError(
            "model.trustRemoteCode is true: this platform does not run code of model repositories",
            hint="take a model that transformers knows, or ask the platform's team (limits.trustRemoteCode)",
            path="model.trustRemoteCode",
        )


def _check_uri(spec: RunSpec) -> None:
    uri = spec.storage.uri
    if uri is not None and not uri.startswith("s3://"):
        raise UsageError(
            f"storage.uri is {uri!r}: on a cluster it must be s3://BUCKET/PREFIX, since a pod's folders end with it",
            path="storage.uri",
        )


def _check_places(spec: RunSpec) -> None:
    _check_uri(spec)
    source = spec.data.source
    if source is not None and not source.startswith(("s3://", "/")):
        message = f"data.source is {source!r}: it must be s3://BUCKET/PATH, or a path in the pods"
        raise UsageError(message, path="data.source")


def _check_amounts(spec: RunSpec, platform: Platform) -> None:
    wanted, limits = spec.resources, platform.limits
    allowed = quantities.seconds(limits.timeout, "the platform's limits.timeout")
    if run_seconds(spec, platform) > allowed:
        raise _too_much("resources.timeout", wanted.timeout, limits.timeout)
    if limits.nodes is not None and wanted.nodes > limits.nodes:
        raise _too_much("resources.nodes", wanted.nodes, limits.nodes)
    if limits.gpus is not None and wanted.gpus * wanted.nodes > limits.gpus:
        shown = f"{wanted.gpus} on each of {wanted.nodes} nodes" if wanted.nodes > 1 else wanted.gpus
        raise _too_much("resources.gpus", shown, f"{limits.gpus} for a run")
    if limits.retries is not None and wanted.retries > limits.retries:
        raise _too_much("resources.retries", wanted.retries, limits.retries)


def _too_much(path: str, value: object, allowed: object) -> UsageError:
    return UsageError(
        f"{path} is {value}: this platform allows at most {allowed}",
        hint="ask for less, or ask the platform's team for more",
        path=path,
    )


def _check_names(spec: RunSpec, platform: Platform) -> None:
    wanted, known = spec.resources, platform.scheduling.gpu_types
    if wanted.gpu_type is not None and wanted.gpu_type not in known:
        there = f"the platform knows {', '.join(known)}" if known else "the platform names no types of GPU"
        raise UsageError(f"resources.gpuType is {wanted.gpu_type!r}: {there}", path="resources.gpuType")
    if wanted.queue is not None and _LABEL.fullmatch(wanted.queue) is None:
        message = f"resources.queue is {wanted.queue!r}: it must be the name of a Kueue LocalQueue"
        raise UsageError(message, path="resources.queue")
    if wanted.priority is not None and _SUBDOMAIN.fullmatch(wanted.priority) is None:
        message = f"resources.priority is {wanted.priority!r}: it must be the name of a PriorityClass"
        raise UsageError(message, path="resources.priority")
