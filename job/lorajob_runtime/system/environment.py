"""The only module of the runtime that reads environment variables: credentials stay in them, settings become values."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from lorajob_runtime.contract import hubs
from lorajob_runtime.contract import kubernetes as pod_names
from lorajob_runtime.contract.errors import ConfigError

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
    uid: str = ""
    """The Job's; empty for one that an older command line made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Where this machine keeps things and whom it talks to. Secrets are read by the libraries that need them."""

    cache: Path
    """Shared cache of model weights (LORAJOB_CACHE)."""
    work: Path
    """Run folders of runs whose storage is remote (LORAJOB_WORK)."""
    hubs: tuple[str, ...]
    """Names of model hubs in the order they are asked (LORAJOB_HUBS=modelscope,hf)."""
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
    stall_seconds: float | None = None
    """How long training may show no sign of life (LORAJOB_STALL_SECONDS); None: as the supervisor thinks right."""
    storage_patience_seconds: float | None = None
    """How long finished work waits for storage at the end (LORAJOB_STORAGE_PATIENCE_SECONDS); None: likewise."""
    grace_seconds: float | None = None
    """How long after SIGTERM this process is killed (LORAJOB_GRACE_SECONDS); None: nobody said."""
    pod: Pod | None = None
    """None on a machine of one's own."""


def read(variables: Mapping[str, str] = os.environ) -> Environment:
    """The settings in environment variables. Raises ConfigError for a wrong value or for no home folder.

    White space around values of this process's own variables is taken away for good, before a library reads them: keys
    come from files, which end with a line break.
    """
    if variables is os.environ:
        strip(os.environ)
    return Environment(
        cache=_folder(variables, "LORAJOB_CACHE", "models"),
        work=_folder(variables, "LORAJOB_WORK", "runs"),
        hubs=_hubs(variables),
        remote_code=_consent(variables),
        device=cast(Device, _choice(variables, "LORAJOB_DEVICE", ("auto", "cpu"))),
        s3_endpoint=variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL") or None,
        s3_addressing=cast(Addressing, _choice(variables, "LORAJOB_S3_ADDRESSING", ("auto", "path", "virtual"))),
        s3_region=variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION") or None,
        s3_ca_bundle=variables.get("AWS_CA_BUNDLE") or None,
        stall_seconds=_seconds(variables, "LORAJOB_STALL_SECONDS"),
        storage_patience_seconds=_seconds(variables, "LORAJOB_STORAGE_PATIENCE_SECONDS"),
        grace_seconds=_seconds(variables, pod_names.GRACE_VARIABLE),
        pod=_pod(variables),
    )


_STRIPPED = (*(beginning for hub in hubs.ALL for beginning in hub.variables), "LORAJOB_")
"""Beginnings of the names of variables that are read here, or by the libraries that speak to storage and hubs."""


def strip(variables: MutableMapping[str, str]) -> None:
    """Takes the white space around settings and keys away."""
    for name, value in list(variables.items()):
        if name.startswith(_STRIPPED) and value != value.strip():
            variables[name] = value.strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchrunProcess:
    """Which of the run's training processes this one is, as torchrun says. Without torchrun it is the only one."""

    rank: int
    node: int
    local_world_size: int | None
    """Training processes on this node; None without torchrun."""

    def ranks_here(self, world_size: int) -> int:
        """How many of the `world_size` training processes run on this node."""
        return world_size if self.local_world_size is None else self.local_world_size


def torchrun(variables: Mapping[str, str] = os.environ) -> TorchrunProcess:
    """This process's place among the training processes, from the variables that torchrun sets."""
    here = variables.get("LOCAL_WORLD_SIZE")
    return TorchrunProcess(
        rank=int(variables.get("RANK", "0")),
        node=int(variables.get("GROUP_RANK", "0")),
        local_world_size=None if here is None else int(here),
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
        uid=variables.get(pod_names.JOB_UID_VARIABLE, ""),
        api_server=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
    )


_EXACT = frozenset(
    """
    PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TERM HOSTNAME TMPDIR TEMP TMP PWD VIRTUAL_ENV
    LD_LIBRARY_PATH LD_PRELOAD LIBRARY_PATH CPATH CC CXX XDG_CACHE_HOME XDG_RUNTIME_DIR
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    HF_HOME HF_HUB_CACHE HF_ASSETS_CACHE HF_DATASETS_CACHE HF_MODULES_CACHE HF_HUB_OFFLINE HF_DATASETS_OFFLINE
    HF_HUB_DISABLE_TELEMETRY HF_HUB_DISABLE_PROGRESS_BARS MODELSCOPE_CACHE
    LORAJOB_JOB LORAJOB_CACHE LORAJOB_WORK LORAJOB_DEVICE
    GLIBC_TUNABLES TOKENIZERS_PARALLELISM MASTER_ADDR MASTER_PORT RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE
    """.split()  # noqa: SIM905 shorter than a list of strings
)
_BEGINNINGS = (
    *("LC_", "PYTHON", "CONDA_"),
    *("CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_", "NVTE_", "BNB_", "HIP_", "HSA_", "ROCR_", "ROCM_"),
    *("NCCL_", "RCCL_", "GLOO_", "UCX_", "FI_", "OFI_", "IBV_", "RDMAV_", "MLX5_"),
    *("TORCH_", "TORCHINDUCTOR_", "TORCHELASTIC_", "PYTORCH_", "TRITON_", "TRANSFORMERS_", "SAFETENSORS_", "PEFT_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "NUMEXPR_", "RAYON_", "MALLOC_", "ARROW_"),
)
_LIKE_A_KEY = re.compile(r"_(KEY|KEYS|KEY_ID|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$")

_WEB = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
"""In either case. An address of a proxy may hold a password."""

_FILES_WITH_KEYS = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
)
_MOUNTED_TOKENS = Path("/var/run/secrets")
"""Where tokens of the pod's account are: the cluster's own, and those that a cloud adds."""


def for_training(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What every process inherits that may run a repository's code: preparation of data, training, generating.

    Only what their libraries are known to read. They talk to no storage, hub or report, so whatever else is set, by a
    Secret whose keys nobody here knows too, is not theirs.
    """
    return {
        name: value
        for name, value in variables.items()
        if (name in _EXACT or name.startswith(_BEGINNINGS)) and not _LIKE_A_KEY.search(name)
    }


def for_hub(kind: str, variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the client of a hub (`kind` of a source: its name in contract/hubs.py) gets besides `for_training`."""
    return _beginning_with(hubs.BY_NAME[kind].variables, variables)


def for_report(beginnings: tuple[str, ...], variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a report sink gets besides `for_training`: the variables whose names begin as its SinkType says.

    Without the white space around them: keys come from files, which end with a line break.
    """
    return {name: value.strip() for name, value in _beginning_with(beginnings, variables).items()}


@contextlib.contextmanager
def keys_put_away(variables: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """For as long as the block lasts this process has the variables of `for_training` only.

    For code of a repository that runs in this very process, on a machine of one's own: it still runs as its user.
    """
    kept = for_training(variables)
    away = {name: value for name, value in variables.items() if name not in kept}
    for name in away:
        del variables[name]
    try:
        yield
    finally:
        variables.update(away)


def hidden_files(variables: Mapping[str, str] = os.environ) -> list[Path]:
    """Files and folders with keys that such processes cannot open in a pod; on a machine of one's own there are none.

    There they run as the user who trusts them, and see what that user sees.
    """
    if not is_in_pod(variables):
        return []
    named = (Path(variables[name]) for name in _FILES_WITH_KEYS if variables.get(name))
    # AWS_CONFIG_FILE=/dev/null is how one says that there is none; os.path, since what cannot be looked at hides itself
    return [path for path in (_MOUNTED_TOKENS, *named) if os.path.isfile(path) or os.path.isdir(path)]


def _beginning_with(beginnings: tuple[str, ...], variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(beginnings) or name.upper() in _WEB}


def _hubs(variables: Mapping[str, str]) -> tuple[str, ...]:
    listed = variables.get("LORAJOB_HUBS", ",".join(hubs.NAMES))
    names = tuple(dict.fromkeys(part.strip() for part in listed.split(",") if part.strip()))
    for name in names:
        if name not in hubs.NAMES:
            raise ConfigError(f"LORAJOB_HUBS has {name!r}: it must be a list of {hubs.NAMES_TEXT}")
    if not names:
        raise ConfigError(f"LORAJOB_HUBS is {listed!r} and names no hub: it must be a list of {hubs.NAMES_TEXT}")
    return names


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


def _seconds(variables: Mapping[str, str], name: str) -> float | None:
    value = variables.get(name)
    if not value:
        return None
    if not value.isdecimal() or not int(value):
        raise ConfigError(f"{name} is {value!r}: it must be a whole number of seconds, of at least 1")
    return float(value)


def _choice(variables: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = variables.get(name) or choices[0]
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}: it must be one of {', '.join(choices)}")
    return value
