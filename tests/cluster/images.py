"""containerd's images and containers, through its own client."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path

from cluster.places import Places, State
from cluster.running import run
from cluster.settings import PAUSE_IMAGE

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def _client(state: State) -> tuple[str, ...]:
    return ("ctr", "--address", str(state.containerd_socket), "--namespace", "k8s.io")


def answers(state: State) -> bool:
    """Whether containerd runs."""
    return subprocess.run([*_client(state), "version"], capture_output=True, check=False).returncode == 0


def forget_containers(state: State) -> bool:
    """Removes every container and its processes; whether there was one."""
    containers = run(*_client(state), "containers", "list", "--quiet").split()
    for container in containers:
        for words in (("tasks", "delete", "--force"), ("containers", "delete")):
            subprocess.run([*_client(state), *words, container], capture_output=True, check=False)
    return bool(containers)


def names(state: State) -> list[str]:
    """Every image, as tests name it."""
    return run(*_client(state), "images", "list", "--quiet").split()


def pull(state: State, image: str, hosts: Path) -> None:
    """Pulls what is missing of an image from the server that `hosts` names for its host."""
    run(*_client(state), "images", "pull", "--hosts-dir", hosts, image)


def remove(state: State, removed: list[str]) -> None:
    """Removes images with all their names; a container that runs keeps what it needs."""
    rows = [line.split()[:3] for line in run(*_client(state), "images", "list").splitlines()[1:]]
    contents = {content for name, _, content in rows if name in removed}
    # the kubelet's side of containerd adds each image's identifier as a name
    if every := [name for name, _, content in rows if content in contents]:
        run(*_client(state), "images", "delete", *every)


def load_pause(places: Places, state: State) -> None:
    """Loads the image of the container that is in every pod, unless it is there."""
    if PAUSE_IMAGE not in names(state):
        archive = state.folder / "pause.tar"
        _write_image(places.programs / "pause", archive)
        run(*_client(state), "images", "import", archive)


def _write_image(program: Path, archive: Path) -> None:
    """An image of one static program, as `docker save` writes it."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(program, "pause")
    config = {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
    members = {"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(config).encode()}
    with tarfile.open(archive, "w") as tar:
        for name, content in {**members, "layer.tar": layer.getvalue()}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
