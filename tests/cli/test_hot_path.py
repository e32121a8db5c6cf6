"""What the commands that people call all day load: no library that takes longer than what they do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fakes.api_server import ApiServer, Reply, api_server

HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "peft",
    "numpy",
    "kubernetes",
    "requests",
    "urllib3",
    "boto3",
    "botocore",
    "pydantic",
    "rich",
}

LISTED = Reply(200, {"kind": "JobList", "apiVersion": "batch/v1", "metadata": {"resourceVersion": "1"}, "items": []})
NAMESPACE = Reply(200, {"kind": "Namespace", "metadata": {"name": "team"}})
MISSING = Reply(404, {"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found"})


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as started:
        yield started


def _loaded(server: ApiServer, folder: Path, arguments: Sequence[str]) -> set[str]:
    """The top-level packages that one call of `lorajob` loads."""
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.address}}],
        "users": [{"name": "u", "user": {"token": "x"}}],
    }
    (folder / "config").write_text(json.dumps(config))
    platform = {"image": "registry.example/lorajob:0.1.0", "storage": {"uri": "s3://bucket/lora"}}
    (folder / "platform.yaml").write_text(json.dumps(platform))
    (folder / "rows.json").write_text(json.dumps([{"instruction": "Who?", "output": "Me."}] * 8))
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lorajob", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=60,
        env=os.environ | {"KUBECONFIG": str(folder / "config"), "HOME": str(folder)},
    )
    lines = [line for line in shown.stderr.splitlines() if line.startswith("import time:")]
    assert any("http.client" in line for line in lines), shown.stderr[-2000:]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_list_loads_neither_a_heavy_library_nor_the_parser_of_spec_files(server: ApiServer, tmp_path: Path) -> None:
    server.answers += [LISTED, NAMESPACE]

    loaded = _loaded(server, tmp_path, ["list"])

    assert not loaded & {*HEAVY, "ruamel"}


def test_status_loads_no_heavy_library(server: ApiServer, tmp_path: Path) -> None:
    server.answers += [MISSING, NAMESPACE]

    assert not _loaded(server, tmp_path, ["status", "gone"]) & {*HEAVY, "ruamel"}


@pytest.mark.parametrize("dry_run", [["--dry-run=client"], []])
def test_submit_of_a_small_dataset_loads_no_heavy_library(
    server: ApiServer, tmp_path: Path, dry_run: list[str]
) -> None:
    server.answers += [MISSING] * 8
    arguments = ["submit", "--yes", "-m", "smollm2-135m", "-d", "rows.json", "--platform", "platform.yaml", *dry_run]

    assert not _loaded(server, tmp_path, arguments) & HEAVY
