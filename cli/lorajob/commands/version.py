"""`lorajob version`."""

from __future__ import annotations

import importlib.metadata
import platform as machine
import re
from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from lorajob import tables
from lorajob.cluster import Cluster
from lorajob.options.cluster_options import cluster_options, connect_from
from lorajob.options.command import Command
from lorajob.options.output_option import output_option
from lorajob.platform import platform_lookup
from lorajob_runtime import __version__
from lorajob_runtime.contract import hubs
from lorajob_runtime.contract.errors import LorajobError
from lorajob_runtime.contract.spec import API_VERSION

LIBRARIES = (
    *("torch", "transformers", "peft", "accelerate", "pyarrow", "boto3", "swanlab"),
    *(hub.library for hub in hubs.MODEL_HUBS if hub.library),
)

OLDEST_KUBERNETES = (1, 31)
"""The first with everything that a run's Job uses as generally available: podFailurePolicy came last."""

QUICK_TIMEOUT = "3s"
"""Versions are asked for when something is wrong, so nobody should wait for a cluster that does not answer."""


@click.command("version", cls=Command, examples=["lorajob version", "lorajob version --client -o json"])
@output_option("text", "json", "yaml")
@click.option("--client", is_flag=True, help="Don't ask the cluster.")
@cluster_options
@click.pass_context
def command(context: click.Context, /, output_form: str, client: bool, **params: Any) -> None:
    """Print the versions of lorajob, of what it trains with, and of the cluster and the image of its runs.

    Without a cluster, or with one that does not answer at once, the output says why; that is not an error.
    """
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "Version", "versions": installed()}
    if not client:
        if context.get_parameter_source("request_timeout") is not ParameterSource.COMMANDLINE:
            params["request_timeout"] = QUICK_TIMEOUT
        document |= _cluster_part(params)
        document["skew"] = skew(document["cluster"], document["platform"])
    if output_form != "text":
        click.echo(tables.document(document, output_form), nl=False)
        return
    for name, text in _lines(document):
        click.echo(f"{name:<15}{text}")
    for warning in document.get("skew", ()):
        click.echo(click.style("warning: ", fg="yellow") + warning, err=True)


def installed() -> dict[str, str]:
    """Name -> version of lorajob, Python, and what is installed of the libraries that train."""
    versions = {"lorajob": __version__, "python": machine.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def skew(cluster: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """What does not fit together, one sentence each; what is not known is not guessed at."""
    found = []
    numbers = re.match(r"v?(\d+)\.(\d+)", str(cluster.get("version", "")))
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < OLDEST_KUBERNETES:
        oldest = ".".join(map(str, OLDEST_KUBERNETES))
        found.append(f"Kubernetes is {cluster['version']}: lorajob needs {oldest} or newer")
    runtime = config.get("imageVersion")
    if runtime is not None and runtime != __version__:
        found.append(
            f"runs use lorajob {runtime} and this is {__version__}: "
            "a field that one of the two does not know ends a run at once"
        )
    return found


def image_version(image: str) -> str | None:
    """The version that an image's tag tells: `registry:5000/lorajob:v0.1.0-cuda` -> `0.1.0`; None if it tells none."""
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    match = re.match(r"v?(\d+\.\d+\.\d+)(?![\d.])", tag)
    return match[1] if match else None


def _cluster_part(params: Mapping[str, Any]) -> dict[str, Any]:
    try:
        with connect_from(params) as cluster:
            found = {"server": cluster.server, "from": cluster.source, "version": cluster.get("/version")["gitVersion"]}
            return {"cluster": found, "platform": _platform_part(cluster)}
    except LorajobError as error:
        return {"cluster": {"error": error.message}, "platform": {"error": "the cluster was not asked"}}


def _platform_part(cluster: Cluster) -> dict[str, Any]:
    try:
        loaded = platform_lookup.load(cluster)
    except LorajobError as error:
        return {"error": error.message}
    image = loaded.platform.image
    return {"image": image, "imageVersion": image_version(image), "from": loaded.source}


def _lines(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = list(document["versions"].items())
    if "cluster" in document:
        cluster, config = document["cluster"], document["platform"]
        lines.append(("kubernetes", cluster.get("error") or f"{cluster['version']} ({cluster['server']})"))
        if "error" not in cluster:
            lines.append(("image", config.get("error") or f"{config['image']} ({config['from']})"))
    return lines
