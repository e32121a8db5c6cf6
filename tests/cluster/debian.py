"""Packages of Debian that the cluster is made of."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cluster.running import ClusterError, progress, run

PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "etcd": "etcd-server",
    "iptables": "iptables",
    "ip": "iproute2",
    "openssl": "openssl",
    "buildah": "buildah",
    "skopeo": "skopeo",
    "debootstrap": "debootstrap",
}
NETWORK_PLUGINS = Path("/usr/lib/cni")
_ASKED_BEFORE_A_SERVICE_STARTS = Path("/usr/sbin/policy-rc.d")


def missing() -> list[str]:
    """Packages whose programs are not on this machine."""
    packages = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    return packages + ([] if (NETWORK_PLUGINS / "bridge").exists() else ["containernetworking-plugins"])


def can_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install() -> None:
    """Installs what is missing, without starting the services that come with it: the cluster runs its own."""
    packages = missing()
    if not packages:
        return
    if not can_install():
        raise ClusterError(f"Debian packages are missing, and only root can install them: {' '.join(packages)}")
    refuses = not _ASKED_BEFORE_A_SERVICE_STARTS.exists()
    if refuses:
        _ASKED_BEFORE_A_SERVICE_STARTS.write_text("#!/bin/sh\nexit 101\n")
        _ASKED_BEFORE_A_SERVICE_STARTS.chmod(0o755)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        with progress(f"installing {' '.join(packages)}"):
            run("apt-get", "update", "-q", env=quiet)
            run("apt-get", "install", "-y", "-q", "--no-install-recommends", *packages, env=quiet)
    finally:
        if refuses:
            _ASKED_BEFORE_A_SERVICE_STARTS.unlink()
    if Path("/run/systemd/system").is_dir():
        services = {"containerd", "etcd-server"} & set(packages)
        run("systemctl", "disable", *(service.removesuffix("-server") for service in services))
