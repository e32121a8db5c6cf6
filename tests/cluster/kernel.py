"""What a cluster changes in the kernel's settings, and how they were before."""

from __future__ import annotations

import json
from pathlib import Path

# of kubelet and kube-proxy, and of the bridge that pods are on
CHANGED = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "vm/overcommit_memory",
)
_ALL = Path("/proc/sys")


def remember(path: Path) -> None:
    """Writes the settings into a file, unless an earlier start did."""
    if not path.exists():
        present = {name: (_ALL / name).read_text().strip() for name in CHANGED if (_ALL / name).exists()}
        path.write_text(json.dumps(present, indent=1))


def restore(path: Path) -> None:
    """Sets what was remembered."""
    if path.exists():
        for name, value in json.loads(path.read_text()).items():
            set_value(name, value)
        path.unlink()


def set_value(name: str, value: str) -> None:
    file = _ALL / name
    if file.exists() and file.read_text().strip() != value:
        file.write_text(value)
