"""Runs whose Kubernetes objects are kept as golden files, one for each thing that shapes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorajob.platform import platform_parsing
from lorajob.submit import manifest
from lorajob.submit.manifest import DataFile, Manifests
from lorajob_runtime.contract import spec as specs

FOLDER = Path(__file__).parent / "manifests"
NAMESPACE = "fine-tuning"
VERSION = "0.1.0"

PLATFORM: dict[str, Any] = {
    "image": "registry.example.org/lorajob:0.1.0",
    "storage": {"uri": "s3://models/lora", "endpoint": "https://s3.example.org"},
}

_SCHEDULING = {
    "gpuTypes": {"h200": {"nvidia.com/gpu.product": "NVIDIA-H200"}},
    "nodeSelector": {"pool": "training"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "topologyKey": "topology.kubernetes.io/rack",
}
_ON_THE_CPU = {
    "device": "cpu",
    "hubs": ["hf"],
    "hubEndpoints": {"hf": "http://10.0.0.1:8080"},
    "swanlab": {"host": "https://swanlab.example.org"},
    "secrets": {"storage": "storage-keys", "swanlab": "swanlab-key", "hub": "storage-keys"},
    "imagePullPolicy": "Never",
    "imagePullSecrets": ["registry"],
    "resources": {"cpuPerGpu": "250m", "memoryPerGpu": "3Gi", "sharedMemory": "256Mi", "work": "5Gi"},
    "limits": {"timeout": "4h"},
    "storage": {"patience": "90m"},
    "stallAfter": "1h",
    "gracePeriodSeconds": 60,
}

_QWEN = {"model": {"name": "qwen3-8b"}, "data": {"source": "s3://models/data/huanhuan.json"}}

RUNS: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "one-node": (_QWEN | {"resources": {"gpus": 4}}, {}),
    "two-nodes": (_QWEN | {"resources": {"gpus": 8, "nodes": 2, "timeout": "36h", "retries": 2}}, {}),
    "kueue-queue": (_QWEN | {"resources": {"queue": "research"}}, {}),
    "gpu-type": (
        _QWEN | {"resources": {"gpuType": "h200", "nodes": 2, "priority": "lorajob-urgent"}},
        {"scheduling": _SCHEDULING},
    ),
    "data-in-a-config-map": ({"model": {"name": "modelscope:Qwen/Qwen3-0.6B"}}, {}),
    "on-the-cpu": ({"resources": {"gpus": 2}}, _ON_THE_CPU),
}
"""Name -> (spec, what the platform's config says besides PLATFORM)."""

DATA = {"data-in-a-config-map": DataFile(name="poems.json", content=b'[{"instruction": "a", "output": "b"}]')}


def build(name: str, namespace: str = NAMESPACE) -> Manifests:
    """The objects of one of the runs."""
    spec, more = RUNS[name]
    return manifest.build(
        specs.parse(specs.merge(spec, {"name": name})),
        platform_parsing.parse(specs.merge(PLATFORM, more), "platform.yaml"),
        namespace=namespace,
        version=VERSION,
        data=DATA.get(name),
    )


def documents() -> dict[Path, str]:
    """Every golden file with its text."""
    return {
        FOLDER / f"{name}.json": json.dumps(build(name).all(), indent=2, ensure_ascii=False) + "\n" for name in RUNS
    }
