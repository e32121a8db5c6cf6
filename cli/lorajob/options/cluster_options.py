"""The options that every command on a cluster has, as kubectl has them, and the way from them to the cluster."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from lorajob.cluster import Cluster, connect
from lorajob.environment import process_variables
from lorajob.errors import UsageError
from lorajob.options.flags import option

SECTION = "Cluster"
DEFAULT_TIMEOUT = "30s"

_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --context, --namespace, --kubeconfig and --request-timeout; what they say goes to `connect_from`.

    The command gets them as `kube_context`, `namespace`, `kubeconfig` and `request_timeout`, best as `**params`.
    """
    for declarations, keywords in reversed(_OPTIONS):
        command = option(*declarations, section=SECTION, **keywords)(command)
    return command


platform_option = option(
    "--platform",
    "platform_file",
    section=SECTION,
    type=click.Path(path_type=Path),
    help="Platform file. [LORAJOB_PLATFORM, else the namespace's ConfigMap, else ~/.config/lorajob/platform.yaml]",
)
"""--platform, as the parameter `platform_file`, for `lorajob.platform.platform_lookup.load`."""


def connect_from(params: Mapping[str, Any]) -> Cluster:
    """The cluster that a command line names. Raises UsageError."""
    return connect(
        params["kubeconfig"],
        context=params["kube_context"],
        namespace=params["namespace"],
        timeout_seconds=timeout(params["request_timeout"]),
    )


def timeout(text: str) -> float | None:
    """`30s`, `2m`, `1m30s` or `30` in seconds; 0 is no limit, None. Raises UsageError."""
    if re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h)?)+", text) is None:
        raise UsageError(f"--request-timeout is {text!r}: it must be like 30s, 2m or 0 for no limit")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", text))
    return seconds or None


def _namespace(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value and (len(value) > 63 or re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", value) is None):
        raise UsageError(
            f"--namespace is {value!r}: it must be lower-case letters, digits and -, with at most 63 characters"
        )
    return value


def _contexts(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """What a shell completes --context with."""
    from lorajob.cluster.kubeconfig import candidates, read

    try:
        found = read(candidates(context.params.get("kubeconfig"), process_variables())).contexts
    except UsageError:
        # a shell has no place for an error; the command itself will say it
        return []
    return [name for name in found if name.startswith(incomplete)]


_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("-n", "--namespace", "namespace"),
        {"metavar": "NAMESPACE", "callback": _namespace, "help": "Namespace. [that of the context]"},
    ),
    (
        ("--context", "kube_context"),
        {
            "metavar": "CONTEXT",
            "shell_complete": _contexts,
            "help": "Context of the kubeconfig. [its current-context]",
        },
    ),
    (
        ("--kubeconfig", "kubeconfig"),
        {
            "type": click.Path(),
            "help": "Kubeconfig file. [KUBECONFIG, else ~/.kube/config, else the pod's service account]",
        },
    ),
    (
        ("--request-timeout", "request_timeout"),
        {"metavar": "TIME", "default": DEFAULT_TIMEOUT, "help": f"Longest time of one request. [{DEFAULT_TIMEOUT}]"},
    ),
)
