"""Removing what a cluster leaves on the machine outside its processes, whether it ended well or was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from cluster.places import BRIDGE, NETWORK, Places, State
from cluster.running import run

_TABLES = ("nat", "filter", "mangle")


def kill_containers(state: State) -> None:
    """Ends what still runs in containers, and the shims that hold them. For a containerd that is gone."""
    for file in state.containerd_state.glob("io.containerd.runtime.v2.task/*/*/init.pid"):
        pid = file.read_text().strip()
        with contextlib.suppress(OSError):
            # the number may be another process's by now
            if file.parent.name in Path(f"/proc/{pid}/cgroup").read_text():
                os.kill(int(pid), signal.SIGKILL)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if words[0].endswith("containerd-shim-runc-v2") and str(state.containerd_socket) in words:
                os.kill(int(process.name), signal.SIGKILL)


def unmount(folder: Path) -> None:
    """Unmounts everything below a folder. Raises ClusterError for what will not go."""
    for mounted in sorted(mounts(folder), reverse=True):
        # several may lie over one another
        subprocess.run(["umount", "--lazy", mounted], capture_output=True, check=False)
    for mounted in mounts(folder):
        run("umount", "--lazy", mounted)


def mounts(folder: Path) -> list[str]:
    """What is mounted below a folder."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [point for point in (line.split()[1] for line in lines) if point.startswith(f"{folder}/")]


def remove_network(places: Places) -> None:
    """Removes the bridge and every rule that kube-proxy and the kubelet made."""
    proxy = places.programs / "kube-proxy"
    if proxy.exists():
        subprocess.run([proxy, "--cleanup"], capture_output=True, check=False)
    for command in ("iptables", "ip6tables"):
        if shutil.which(command) is not None:
            for table in _TABLES:
                _remove_rules(command, table)
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        run("ip", "link", "delete", BRIDGE)


def _remove_rules(command: str, table: str) -> None:
    """Takes Kubernetes' own chains, and the jumps to them, out of a table."""
    saved = subprocess.run([f"{command}-save", "-t", table], capture_output=True, text=True, check=False)
    rules = saved.stdout.splitlines()
    chains = [rule.split()[0][1:] for rule in rules if rule.startswith(":KUBE-")]
    jumps = [
        rule for rule in rules if rule.startswith("-A ") and not rule.startswith("-A KUBE-") and "-j KUBE-" in rule
    ]
    changes = [f"*{table}", *(f"-D{jump[2:]}" for jump in jumps)]
    changes += [f"-{change} {chain}" for change in "FX" for chain in chains]
    if chains:
        run(f"{command}-restore", "--noflush", input="\n".join([*changes, "COMMIT", ""]))


def remove_cgroups() -> None:
    """Removes the empty groups that the kubelet leaves."""
    for top in (*Path("/sys/fs/cgroup").glob("*/kubepods"), Path("/sys/fs/cgroup/kubepods")):
        _remove_empty(top)


def remove_files(state: State) -> None:
    """Removes what kubelet, containerd and the network's plugins put where only they may choose."""
    for link in Path("/var/log/containers").glob("*"):
        if link.is_symlink() and str(state.pod_logs) in os.readlink(link):
            link.unlink()
    for result in Path("/var/lib/cni/results").glob(f"{NETWORK}-*"):
        result.unlink()
    for top in ("/var/log/containers", "/var/lib/cni", "/var/lib/kubelet", "/run/containerd"):
        _remove_empty(Path(top))


def _remove_empty(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        # what is not empty is somebody's
        with contextlib.suppress(OSError):
            os.rmdir(folder)
