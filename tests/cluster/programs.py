"""Kubernetes, CoreDNS and Helm, built from their Go modules once and kept until a source or the compiler changes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cluster.places import SOURCES, Places
from cluster.running import ClusterError, progress, run

OLDEST_GO = (1, 26)
KUBERNETES_PARTS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "volume-provisioner",
)


@dataclass(frozen=True)
class Program:
    """One executable: the module that pins it, the package in it, and the names it goes by."""

    name: str
    module: str
    package: str = "."
    names: tuple[str, ...] = ()


PROGRAMS = (
    Program("components", "components", names=KUBERNETES_PARTS),
    Program("coredns", "dns"),
    Program("pause", "pause"),
    Program("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
)


def why_not() -> str | None:
    """Why nothing can be built here; None where it can."""
    if shutil.which("go") is None:
        return "there is no Go"
    version = re.search(r"go(\d+)\.(\d+)", _go_version())
    if version is None or tuple(map(int, version.groups())) < OLDEST_GO:
        return f"Go is older than {'.'.join(map(str, OLDEST_GO))}: {_go_version()}"
    return None


def build(places: Places) -> None:
    """Builds what is missing or out of date. Raises ClusterError."""
    for program in PROGRAMS:
        key = _key(program)
        executable, record = places.programs / program.name, places.programs / f".{program.name}.key"
        if not (executable.exists() and record.exists() and record.read_text() == key):
            if reason := why_not():
                raise ClusterError(f"{program.name} has to be built, and {reason}")
            _build(program, executable)
            record.write_text(key)
        for name in program.names:
            link = places.programs / name
            if not link.is_symlink():
                link.symlink_to(program.name)


def _build(program: Program, executable: Path) -> None:
    executable.parent.mkdir(parents=True, exist_ok=True)
    flags = f"-s -w {_version_flags()}" if program.names else "-s -w"
    draft, log = (executable.with_name(f".{executable.name}.{ending}") for ending in ("new", "log"))
    environment = {**os.environ, "CGO_ENABLED": "0" if program.name == "pause" else "1"}
    # -v names each package that is compiled, of which there are about two thousand the first time
    arguments = ("-v", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", draft, program.package)

    def compiled() -> str:
        return f", {len(log.read_bytes().splitlines())} packages compiled"

    with log.open("wb") as said, progress(f"building {program.name}, minutes the first time", compiled):
        done = subprocess.run(
            ["go", "build", *arguments], cwd=SOURCES / program.module, env=environment, stdout=said, stderr=said
        )
    if done.returncode:
        end = log.read_text(errors="replace").strip()[-2000:]
        raise ClusterError(f"go build of {program.name}: exit {done.returncode}: {end}")
    draft.rename(executable)


def _version_flags() -> str:
    """What makes node and server report the version of Kubernetes that they are."""
    version = run("go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes", cwd=SOURCES / "components").strip()
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())


def _key(program: Program) -> str:
    digest = hashlib.sha256()
    for path in sorted((SOURCES / program.module).iterdir()):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _go_version() -> str:
    return subprocess.run(["go", "version"], capture_output=True, text=True, check=False).stdout.strip()
