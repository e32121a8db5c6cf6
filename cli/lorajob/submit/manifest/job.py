"""The Job of a run and what it owns, as the plain mappings that are sent. Pure: no clock, no chance, no network."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorajob.platform import quantities
from lorajob.platform.run_limits import check_limits, run_seconds
from lorajob.submit.manifest import data as datasets
from lorajob.submit.manifest.data import DataFile
from lorajob.submit.manifest.pods import JOB_NAME_LABEL, pod_spec
from lorajob_runtime.contract import catalog, errors, kubernetes
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import RunSpec, StorageSpec

if TYPE_CHECKING:
    # its module reads YAML, which not every command that comes here does
    from lorajob.platform.platform_config import Platform

_KEPT_ON_ITS_NODE = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""An autoscaler that tidies up nodes would cost the run what it did since its last checkpoint."""


_LONGEST_KEPT_SECONDS = 2**31 - 1
"""68 years: what fits into the Job's field."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifests:
    """The Job, which is created first, and what it is to own once the server has given it its uid."""

    job: dict[str, Any]
    owned: tuple[dict[str, Any], ...]

    def all(self) -> list[dict[str, Any]]:
        """Every object in the order in which it is created."""
        return [self.job, *self.owned]


def build(
    spec: RunSpec, platform: Platform, *, namespace: str, version: str, data: DataFile | None = None
) -> Manifests:
    """The objects of a run: an Indexed Job, with several nodes a headless Service, with `data` a ConfigMap.

    `version` is that of the command line. A dataset that the ConfigMap of an earlier Job of this name holds is mounted
    without `data`. Raises UsageError for what the platform does not allow, and DataTooLarge.
    """
    spec = dataclasses.replace(spec, storage=StorageSpec(uri=spec.storage.uri or platform.storage.uri))
    if data is not None:
        source = datasets.path_in_pod(data)
        spec = dataclasses.replace(spec, data=dataclasses.replace(spec.data, source=source))
    check_limits(spec, platform)
    labels = labels_of(spec)
    owned = []
    if spec.resources.nodes > 1:
        owned.append(_service(spec.run_name, namespace, labels))
    if data is not None:
        owned.append(datasets.config_map(data, run=spec.run_name, namespace=namespace, labels=labels))
    return Manifests(job=_job(spec, platform, namespace, labels, version), owned=tuple(owned))


def owned_by(manifest: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with `job`, as the server returned it, as its owner: it goes when the Job goes."""
    owned = copy.deepcopy(dict(manifest))
    owned["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]
    return owned


def spec_of(job: Mapping[str, Any]) -> RunSpec:
    """The spec that a Job was made from. Raises ConfigError for a Job that is no run, or a newer version's."""
    name = job["metadata"]["name"]
    annotations = job["spec"]["template"].get("metadata", {}).get("annotations") or {}
    text = annotations.get(kubernetes.SPEC_ANNOTATION)
    if text is None:
        raise ConfigError(f"job {name} has no annotation {kubernetes.SPEC_ANNOTATION}: it is not a run of lorajob")
    try:
        return specs.loads(text)
    except ConfigError as error:
        version = (job["metadata"].get("annotations") or {}).get(kubernetes.VERSION_ANNOTATION, "another version")
        raise ConfigError(
            f"run {name} was submitted by lorajob {version}: {error.message}", hint="use that version for this run"
        ) from error


def labels_of(spec: RunSpec) -> dict[str, str]:
    """What everything of a run is labelled with."""
    return {
        kubernetes.MANAGED_BY_LABEL: kubernetes.MANAGED_BY,
        kubernetes.RUN_LABEL: spec.run_name,
        kubernetes.MODEL_LABEL: _model_label(spec.model.name),
    }


def _model_label(model: str) -> str:
    entry = catalog.find(model)
    if entry is not None:
        return entry.name
    last = model.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", last)[:63].strip("-_.") or "model"


def _job(spec: RunSpec, platform: Platform, namespace: str, labels: dict[str, str], version: str) -> dict[str, Any]:
    wanted = spec.resources
    keep_seconds = quantities.seconds(platform.keep_finished, "the platform's keepFinished")
    # Kueue's webhook suspends what has a queue as it is created, and alone says when it runs: a manifest that said
    # `suspend: true` too would stop the running pods whenever it is applied again
    queue = {} if wanted.queue is None else {kubernetes.QUEUE_LABEL: wanted.queue}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": spec.run_name,
            "namespace": namespace,
            "labels": labels | queue,
            "annotations": {kubernetes.VERSION_ANNOTATION: version},
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": wanted.nodes,
            "parallelism": wanted.nodes,
            # of an attempt that fails one pod ends, on however many nodes it ran
            "backoffLimit": wanted.retries,
            "activeDeadlineSeconds": run_seconds(spec, platform),
            "ttlSecondsAfterFinished": min(keep_seconds, _LONGEST_KEPT_SECONDS),
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": _failure_policy(),
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {**_KEPT_ON_ITS_NODE, kubernetes.SPEC_ANNOTATION: specs.dumps(spec)},
                },
                "spec": pod_spec(spec, platform),
            },
        },
    }


def _failure_policy() -> dict[str, Any]:
    """Ends that no retry can help fail the Job at once, disruptions do not count, everything else does.

    137 is not among the former: a process killed for memory and one killed for any other reason look the same.
    """
    final = [each.code for each in errors.ALL if each.final and each not in (errors.SUCCEEDED, errors.INTERRUPTED)]
    return {
        "rules": [
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": kubernetes.CONTAINER, "operator": "In", "values": sorted(final)},
            },
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]
    }


def _service(name: str, namespace: str, labels: dict[str, str]) -> dict[str, Any]:
    """Gives every pod of the run a name; published before it is ready, since the pods wait for one another."""
    ports = {"rendezvous": kubernetes.RENDEZVOUS_PORT, "link": kubernetes.COORDINATOR_PORT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {JOB_NAME_LABEL: name},
            "ports": [{"name": port_name, "port": port} for port_name, port in ports.items()],
        },
    }
