"""Bringing a cluster up and down. Both can be said again and again, and after a run that was killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

from cluster import api_server, debian, images, kernel, node, programs, traces
from cluster.places import Places, State
from cluster.running import ClusterError, only_one, say

API_ONLY_PARTS = ("etcd", "kube-apiserver")


def why_not() -> str | None:
    """Why no cluster can be brought up on this machine; None where one can."""
    if os.geteuid() != 0:
        return "only root can bring one up"
    if debian.missing() and not debian.can_install():
        return f"these Debian packages are missing: {' '.join(debian.missing())}"
    return programs.why_not()


def up(places: Places) -> bool:
    """Brings up the cluster with a node. Returns whether it was started: False where it ran already."""
    state = places.full
    with only_one(places.root / "full.lock"):
        if _runs(places, state, node.PARTS):
            return False
        if os.geteuid() != 0:
            raise ClusterError("only root can bring up a node")
        begin = time.monotonic()
        _build(places)
        _down(places, state)
        state.folder.mkdir(parents=True)
        node.prepare(state)
        authority = api_server.start(places, state)
        node.start_containers(places, state)
        api_server.wait(places, state)
        node.start(places, state, authority)
        say(f"up in {time.monotonic() - begin:.1f} s")
        return True


def up_api_only(places: Places) -> bool:
    """Brings up etcd and the API server alone, beside whatever else runs. Returns as `up` does."""
    state = places.api_only
    with only_one(places.root / "api.lock"):
        if _runs(places, state, API_ONLY_PARTS):
            return False
        begin = time.monotonic()
        _build(places)
        _down_api_only(state)
        api_server.start(places, state)
        api_server.wait(places, state)
        say(f"API server up in {time.monotonic() - begin:.1f} s")
        return True


def down(places: Places) -> None:
    """Takes down the cluster with a node and removes what it left, but for programs and images."""
    with only_one(places.root / "full.lock"):
        _down(places, places.full)
    with only_one(places.root / "image.lock"):
        # buildah leaves its storage mounted
        traces.unmount(places.images)


def down_api_only(places: Places) -> None:
    """Takes down the API server that is alone."""
    with only_one(places.root / "api.lock"):
        _down_api_only(places.api_only)


def purge(places: Places) -> None:
    """Takes everything down and removes programs and images too. Raises ClusterError if something is still mounted."""
    down(places)
    down_api_only(places)
    traces.unmount(places.root)
    shutil.rmtree(places.root)


def _build(places: Places) -> None:
    places.programs.mkdir(parents=True, exist_ok=True)
    # both kinds of cluster want the same packages and programs
    with only_one(places.root / "programs.lock"):
        debian.install()
        programs.build(places)


def _runs(places: Places, state: State, parts: tuple[str, ...]) -> bool:
    started = api_server.processes(state)
    return all(started.is_alive(part) for part in parts) and api_server.is_ready(places, state)


def _down_api_only(state: State) -> None:
    started = api_server.processes(state)
    for part in reversed(API_ONLY_PARTS):
        started.stop(part)
    shutil.rmtree(state.folder, ignore_errors=True)


def _down(places: Places, state: State) -> None:
    """In an order in which nobody starts again what was just stopped."""
    if not state.folder.is_dir():
        return
    started = api_server.processes(state)
    begin = time.monotonic()
    for part in ("volume-provisioner", "coredns", "kube-proxy", "kubelet", "kube-scheduler", "kube-controller-manager"):
        started.stop(part)
    started.stop("kube-apiserver", seconds=2)
    if started.is_alive("containerd"):
        try:
            images.forget_containers(state)
        except (ClusterError, subprocess.SubprocessError) as error:
            say(f"containerd does not answer, its containers are killed: {error}")
    started.stop("containerd")
    traces.kill_containers(state)
    started.stop("etcd")
    traces.unmount(state.folder)
    traces.remove_network(places)
    traces.remove_cgroups()
    traces.remove_files(state)
    kernel.restore(state.kernel_settings)
    shutil.rmtree(state.folder)
    say(f"down in {time.monotonic() - begin:.1f} s")
