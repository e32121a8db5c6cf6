"""Every path of the test cluster, and every address that it takes on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent / "go"
REPOSITORY = Path(__file__).parents[2]

BRIDGE = "lorajob0"
NETWORK = "lorajob-test"
HOST_IP = "10.88.0.1"
"""This machine on the bridge: the API server, the DNS, and whatever tests serve to pods."""
POD_NETWORK = "10.88.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
NODE = "test-node"
GPUS = 8


@dataclass(frozen=True)
class Places:
    """The folder of everything: programs and images, which stay, and one folder of state for each kind of cluster."""

    root: Path

    @property
    def programs(self) -> Path:
        return self.root / "bin"

    @property
    def containers(self) -> Path:
        """What containerd keeps between starts: images."""
        return self.root / "containerd"

    @property
    def images(self) -> Path:
        """Where images are built."""
        return self.root / "images"

    @property
    def full(self) -> State:
        return State(self.root / "full", HOST_IP, 16443, 12379)

    @property
    def api_only(self) -> State:
        return State(self.root / "api", "127.0.0.1", 16444, 12389)


@dataclass(frozen=True)
class State:
    """One cluster: its folder, thrown away at each start, and where it listens."""

    folder: Path
    host: str
    api_port: int
    etcd_port: int

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def processes(self) -> Path:
        """One file a running process: its number and when it started."""
        return self.folder / "processes"

    @property
    def certificates(self) -> Path:
        return self.folder / "pki"

    @property
    def containerd_socket(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def containerd_state(self) -> Path:
        return self.folder / "containerd"

    @property
    def pod_logs(self) -> Path:
        return self.folder / "pods"

    @property
    def volumes(self) -> Path:
        return self.folder / "volumes"

    @property
    def kernel_settings(self) -> Path:
        """What the kernel's settings were before the cluster changed them."""
        return self.folder / "sysctl.json"


def default() -> Places:
    """LORAJOB_TEST_CLUSTER_DIR, else a folder in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    given = os.environ.get("LORAJOB_TEST_CLUSTER_DIR")
    return Places(Path(given or Path(cache) / "lorajob" / "cluster").absolute())
