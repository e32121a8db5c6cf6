"""The plan that `submit` prints before anything is created or spent. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorajob.plan import plan_text
from lorajob.plan.run_plan import RunPlan, is_in_cache
from lorajob.platform.platform_config import Platform
from lorajob.submit.dataset import LocalData
from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.kubernetes import CONTAINER
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.contract.text import binary_size, decimal_size, duration, plural

_GAP = 2

_NUMBER = re.compile(r"[-+]?\.?\d")
"""How a text begins that a reader of YAML could take for a number or a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What a plan is made from. `job` is the manifest that will be sent: what it says of the pod is the truth."""

    spec: RunSpec
    platform: Platform
    plan: RunPlan
    job: Mapping[str, Any]
    local: LocalData | None
    """The dataset on this machine; None when it is in storage, or the example set."""
    uploaded_to: str | None
    """Where a local dataset goes in storage; None when it goes with the Job."""
    place: str
    """Which cluster, and by which kubeconfig or service account."""
    platform_source: str
    files: tuple[str, ...] = ()
    """Spec files that were read."""


def lines(preview: Preview) -> list[str]:
    """The plan, `name  value` a line."""
    spec, container = preview.spec, _container(preview.job)
    rows = [
        ("run", f"{spec.run_name} in namespace {preview.job['metadata']['namespace']}"),
        ("cluster", preview.place),
        ("platform", preview.platform_source),
        *(("spec", file) for file in preview.files),
        ("model", plan_text.model_text(preview.plan)),
        ("weights", weights_text(spec, preview.platform)),
        ("data", data_text(preview)),
        ("steps", plan_text.steps_text(preview.plan)),
        ("compute", compute_text(spec, container)),
        *plan_text.rows(preview.plan),
        ("limits", limits_text(preview.job, spec)),
        ("results", f"{(spec.storage.uri or '').rstrip('/')}/{spec.run_name}"),
        ("image", str(container.get("image"))),
    ]
    width = max(len(name) for name, _ in rows) + _GAP
    return [f"{name:<{width}}{value}" for name, value in rows]


def weights_text(spec: RunSpec, platform: Platform) -> str:
    """Where the weights come from and how much that is. Raises ModelError for a name that is no place."""
    from lorajob_runtime.fetch.sources import candidates

    if is_in_cache(spec.model):
        return f"{spec.model.source or spec.model.name} in the cache (claim {platform.cache.claim})"
    places = [str(place) for place in candidates(spec.model, tuple(platform.hubs))]
    entry = catalog.find(spec.model.source or spec.model.name)
    download = f", {decimal_size(entry.weights_bytes)}" if entry is not None else ""
    return f"{', else '.join(places)}{download}, unless they are in the cache (claim {platform.cache.claim})"


def data_text(preview: Preview) -> str:
    """Which rows, and how they get there."""
    spec, local = preview.spec, preview.local
    chosen = "".join(
        f", {name} {value}" for name, value in (("rows", spec.data.rows), ("held out", spec.data.eval_rows)) if value
    )
    if local is None:
        return f"{spec.data.source or 'the example set that comes with lorajob'}{chosen}"
    rows = "" if local.rows is None else f"{plural(local.rows, 'row')}, "
    form = "" if local.verdict is None else f", {local.verdict}"
    way = f"uploaded to {preview.uploaded_to}" if preview.uploaded_to else "sent along with the run"
    return f"{local.path} ({rows}{binary_size(local.size_bytes)}){form}{chosen}, {way}"


def compute_text(spec: RunSpec, container: Mapping[str, Any]) -> str:
    """GPUs, and the CPU and memory that each pod asks for."""
    wanted = spec.resources
    kind = f"{wanted.gpu_type} " if wanted.gpu_type else ""
    gpus = plural(wanted.gpus, f"{kind}GPU")
    if wanted.nodes > 1:
        gpus += f" on each of {wanted.nodes} nodes, {wanted.gpus * wanted.nodes} in all"
    asked = container.get("resources", {}).get("requests", {})
    shares = [f"{asked[key]} {title}" for key, title in (("cpu", "CPU"), ("memory", "memory")) if key in asked]
    return ", ".join([gpus, *shares]) + (" a node" if wanted.nodes > 1 and shares else "")


def limits_text(job: Mapping[str, Any], spec: RunSpec) -> str:
    """How long the run may take and how often it is tried."""
    deadline = job["spec"].get("activeDeadlineSeconds")
    longest = f"at most {duration(deadline)}" if deadline else "no limit in time"
    parts = [longest, plural(spec.resources.retries, "retry", "retries")]
    if spec.resources.queue:
        parts.append(f"queue {spec.resources.queue}")
    if spec.resources.priority:
        parts.append(f"priority {spec.resources.priority}")
    return ", ".join(parts)


def manifests_text(objects: Sequence[Mapping[str, Any]], form: str) -> str:
    """Manifests for `kubectl create -f -`: YAML documents, or one List as JSON."""
    if form == "json":
        return (
            json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}, indent=2, ensure_ascii=False)
            + "\n"
        )
    import yaml  # only for what is printed

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if _NUMBER.match(value) else None)

    # kubectl reads YAML 1.1 with the numbers of 1.2: what either takes for something else than text is quoted
    dumper: Any = type("Dumper", (yaml.SafeDumper,), {})
    dumper.add_representer(str, text)
    printed: str = yaml.dump_all(
        objects, Dumper=dumper, sort_keys=False, allow_unicode=True, width=float("inf"), explicit_start=True
    )
    return printed


def _container(job: Mapping[str, Any]) -> Mapping[str, Any]:
    containers = job["spec"]["template"]["spec"]["containers"]
    return next(each for each in containers if each["name"] == CONTAINER)
