"""The only module of the runtime that reads environment variables: credentials stay in them, settings become values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from lorajob_runtime import pod as pod_names
from lorajob_runtime.exits import ConfigError

Device = Literal["auto", "cpu"]
Addressing = Literal["auto", "path", "virtual"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pod:
    """Which pod of which Job this process runs in, and where the API server is."""

    job: str
    namespace: str
    name: str
    node: int
    """Which of the run's nodes this is, from 0."""
    api_server: str
    """host:port."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Where this machine keeps things and whom it talks to. Secrets are read by the libraries that need them."""

    cache: Path
    """Shared cache of model weights (LORAJOB_CACHE)."""
    work: Path
    """Run folders of runs whose storage is remote (LORAJOB_WORK)."""
    hubs: tuple[str, ...]
    """Model hubs in the order they are asked (LORAJOB_HUBS=modelscope,hf)."""
    remote_code: bool
    """Whether code of model repositories may run if a run asks for it too (LORAJOB_TRUST_REMOTE_CODE).

    Left out, it may on a machine of one's own, and not in a pod, where the platform says so.
    """
    device: Device
    """cpu: a machine without GPUs stands in for one with as many as asked (LORAJOB_DEVICE)."""
    s3_endpoint: str | None
    s3_addressing: Addressing
    s3_region: str | None
    s3_ca_bundle: str | None
    swanlab_has_key: bool
    pod: Pod | None = None
    """None on a machine of one's own."""


def read(variables: Mapping[str, str] = os.environ) -> Environment:
    """The settings in environment variables. Raises ConfigError for a wrong value or for no home folder."""
    listed = variables.get("LORAJOB_HUBS", "modelscope,hf").split(",")
    hubs = tuple(part.strip() for part in listed if part.strip())
    for hub in hubs:
        if hub not in ("modelscope", "hf"):
            raise ConfigError(f"LORAJOB_HUBS has {hub!r}: it must be a list of modelscope and hf")
    return Environment(
        cache=_folder(variables, "LORAJOB_CACHE", "models"),
        work=_folder(variables, "LORAJOB_WORK", "runs"),
        hubs=hubs,
        remote_code=_consent(variables),
        device=cast(Device, _choice(variables, "LORAJOB_DEVICE", ("auto", "cpu"))),
        s3_endpoint=variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL") or None,
        s3_addressing=cast(Addressing, _choice(variables, "LORAJOB_S3_ADDRESSING", ("auto", "path", "virtual"))),
        s3_region=variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION") or None,
        s3_ca_bundle=variables.get("AWS_CA_BUNDLE") or None,
        swanlab_has_key=bool(variables.get("SWANLAB_API_KEY")),
        pod=_pod(variables),
    )


def is_in_pod(variables: Mapping[str, str] = os.environ) -> bool:
    """Whether this process was started for a Job, whatever else its settings are."""
    return bool(variables.get(pod_names.JOB_VARIABLE))


def _pod(variables: Mapping[str, str]) -> Pod | None:
    if not is_in_pod(variables):
        return None
    job = variables[pod_names.JOB_VARIABLE]
    index = variables.get(pod_names.NODE_VARIABLE, "0")
    if not index.isdecimal():
        raise ConfigError(f"{pod_names.NODE_VARIABLE} is {index!r}: it must be a number, as the Job controller sets it")
    host, port = (
        variables.get("KUBERNETES_SERVICE_HOST", "kubernetes.default"),
        variables.get("KUBERNETES_SERVICE_PORT"),
    )
    return Pod(
        job=job,
        namespace=variables.get(pod_names.NAMESPACE_VARIABLE) or "default",
        name=variables.get(pod_names.POD_VARIABLE) or variables.get("HOSTNAME", job),
        node=int(index),
        api_server=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
    )


_SECRETS = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "MODELSCOPE_API_TOKEN",
        "SWANLAB_API_KEY",
    }
)


def without_secrets(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What training processes inherit: they talk to no storage, hub or report, and may run a repository's code."""
    return {name: value for name, value in variables.items() if name not in _SECRETS}


def _consent(variables: Mapping[str, str]) -> bool:
    said = _choice(variables, pod_names.REMOTE_CODE_VARIABLE, ("auto", "true", "false"))
    return not is_in_pod(variables) if said == "auto" else said == "true"


def _folder(variables: Mapping[str, str], name: str, below: str) -> Path:
    """The folder a variable names, else one in the user's cache. A container's user may have no home at all."""
    try:
        if given := variables.get(name):
            return Path(given).expanduser()
        cache = variables.get("XDG_CACHE_HOME")
        return (Path(cache).expanduser() if cache else Path.home() / ".cache") / "lorajob" / below
    except RuntimeError as error:
        raise ConfigError("no home folder: set LORAJOB_CACHE and LORAJOB_WORK") from error


def _choice(variables: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = variables.get(name) or choices[0]
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}: it must be one of {', '.join(choices)}")
    return value
