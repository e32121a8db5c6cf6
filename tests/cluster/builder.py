"""The image of a run, built from the working tree on a plain Debian, and brought into the cluster.

A Debian made by debootstrap stands in for the base with CUDA, which needs a registry. All else is docker/Dockerfile as
users build it. Only layers that the cluster lacks travel: a megabyte when code changed, gigabytes when the locked
requirements did.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster import images, layout_server
from cluster.places import REPOSITORY, Places, State
from cluster.running import ClusterError, only_one, progress, run

BASE = "localhost/debian:bookworm"
NAME = "localhost/lorajob"
KEPT = 5
"""So many images stay in the cluster: test runs of other working trees may use them."""

ROOM_BYTES, ROOM_FOR_CODE_BYTES = 25 * 10**9, 2 * 10**9
"""What an image takes on the disk while it is built and brought: from nothing, and after a change of code."""

_CONTEXT = ("docker/Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "cli", "job")
_LOCKS = ("requirements/uv.txt", "requirements/runtime.txt", "requirements/dev.txt")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def ensure(places: Places, state: State) -> str:
    """The name of the working tree's image, which is in the cluster when this returns. Raises ClusterError."""
    with only_one(places.root / "image.lock"), tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        # a copy: whoever edits the tree meanwhile does not change what is built
        name = f"{NAME}:{_copy_context(context)}"
        if name in images.names(state):
            return name
        builder = _Builder(places)
        is_new = builder.forget_unless_locked_as(context, state)
        require_room(places.root, ROOM_BYTES if is_new else ROOM_FOR_CODE_BYTES)
        builder.ensure_base()
        builder.build(context, name)
        with progress(f"bringing {name} to the cluster"):
            builder.bring(name, state)
        builder.forget(state, [image for image in builder.images() if image != name][KEPT - 1 :])
        return name


def require_room(folder: Path, needed_bytes: int) -> None:
    """Raises ClusterError where a disk has too little room: buildah would say so after minutes, in words of its own."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise ClusterError(
            f"{folder} has {free / 10**9:.0f} GB free and the image needs {needed_bytes / 10**9:.0f}: make room, "
            "or name another folder with LORAJOB_TEST_CLUSTER_DIR"
        )


def _copy_context(folder: Path) -> str:
    """Copies what the image is made of. Returns a key of its content."""
    digest = hashlib.sha256()
    for path in _context_files():
        copy = folder / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / path, copy)
        digest.update(f"{path}\n".encode() + hashlib.sha256(copy.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _context_files() -> Iterator[Path]:
    for top in map(REPOSITORY.joinpath, (*_CONTEXT, *_LOCKS)):
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                yield file.relative_to(REPOSITORY)


class _Builder:
    """buildah, with everything that it keeps in a folder of ours."""

    def __init__(self, places: Places) -> None:
        self._folder = places.images
        self._logs = places.images / "logs"
        self._temporary = places.images / "tmp"
        self.layout = places.images / "layout"
        self._pulled = places.containers / "io.containerd.content.v1.content"
        # what it mounts as caches lies below TMPDIR
        self._environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self._temporary)}
        for each in (self._logs, self._temporary):
            each.mkdir(parents=True, exist_ok=True)

    def run(self, *arguments: str | Path, log: str | None = None) -> str:
        """What buildah printed. Raises ClusterError."""
        storage = ("--root", self._folder / "storage", "--runroot", self._folder / "run", "--storage-driver", "overlay")
        file = self._logs / f"{log}.log" if log else None
        return run("buildah", *storage, *arguments, log=file, env=self._environment)

    def images(self) -> list[str]:
        """Names of a run's images that were built, newest first."""
        return [name for name in self._all_images() if name.startswith(f"{NAME}:")]

    def _all_images(self) -> list[str]:
        return self.run("images", "--format", "{{.Name}}:{{.Tag}}").split()

    def forget_unless_locked_as(self, context: Path, state: State) -> bool:
        """Makes room: with other locked requirements every image that there is shares no large layer with the next.

        Returns whether it did, so that the next one is built from nothing.
        """
        digest = hashlib.sha256()
        for path in ("docker/Dockerfile", *_LOCKS[:2]):
            digest.update((context / path).read_bytes())
        record = self._folder / "locked"
        is_new = not record.exists() or record.read_text() != digest.hexdigest()
        if is_new:
            # a build that was killed leaves its container, which holds on to an image
            self.run("rm", "--all")
            self.forget(state, self.images())
            self.run("rmi", "--prune")
            shutil.rmtree(self.layout, ignore_errors=True)
            record.write_text(digest.hexdigest())
        return is_new

    def forget(self, state: State, names: list[str]) -> None:
        """Removes images here and in the cluster; a pod that runs keeps what it needs."""
        images.remove(state, names)
        for name in names:
            self.run("rmi", name)

    def ensure_base(self) -> None:
        """A minimal Debian that trusts whom this machine trusts."""
        if BASE in self._all_images():
            return
        root, archive = self._temporary / "debian", self._temporary / "debian.tar"
        shutil.rmtree(root, ignore_errors=True)
        with progress("making the base image"):
            run("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", root)
        shutil.copy(_CERTIFICATES, root / "etc/ssl/certs/")
        for left in (*root.glob("var/cache/apt/archives/*.deb"), *root.glob("var/lib/apt/lists/*_*")):
            left.unlink()
        with tarfile.open(archive, "w") as tar:
            tar.add(root, ".")
        container = self.run("from", "scratch").strip()
        self.run("add", "--quiet", container, archive, "/")
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.run("config", "--env", path, "--env", f"SSL_CERT_FILE={_CERTIFICATES}", container)
        self.run("commit", "--quiet", "--rm", container, BASE)
        shutil.rmtree(root)
        archive.unlink()

    def build(self, context: Path, name: str) -> None:
        """Builds docker/Dockerfile as users do, but for the base."""
        version = re.search(r'__version__ = "(.+)"', (context / "job/lorajob_runtime/__init__.py").read_text())
        arguments = ("--build-arg", f"BASE_IMAGE={BASE}", "--build-arg", f"VERSION={version[1] if version else ''}")
        file = ("--file", context / "docker/Dockerfile", "--ignorefile", context / ".dockerignore")
        command = ("build", "--layers", *file, *arguments, "--tag", name)
        with progress(f"building {name}, minutes when the locked requirements changed"):
            try:
                self.run(*command, context, log="build-from-cache")
            except ClusterError as error:
                # buildah 1.28 cannot mount a stage that it took from its cache
                if "uv: not found" not in str(error):
                    raise
                self.run(*command, "--no-cache", context, log="build")
        # downloads of gigabytes, for a change of the locked requirements that may never come
        shutil.rmtree(self._temporary)
        self._temporary.mkdir()

    def bring(self, name: str, state: State) -> None:
        """Hands the image's new layers to containerd."""
        tag = name.rpartition(":")[2]
        stored = f"containers-storage:[overlay@{self._folder}/storage+{self._folder}/run]{name}"
        # compressing gigabytes, for a copy on the same disk, takes longer than all the rest
        uncompressed = ("--quiet", "--dest-oci-accept-uncompressed-layers")
        run("skopeo", "copy", *uncompressed, stored, f"oci:{self.layout}:{tag}", env=self._environment)
        with layout_server.serve(self.layout) as url, tempfile.TemporaryDirectory() as hosts:
            host = Path(hosts) / name.partition("/")[0]
            host.mkdir()
            (host / "hosts.toml").write_text(f'[host."{url}"]\ncapabilities = ["pull", "resolve"]\n')
            images.pull(state, name, Path(hosts))
        self._share_blobs()

    def _share_blobs(self) -> None:
        """Keeps the gigabytes that skopeo wrote and containerd pulled once: as one file with two names."""
        for pulled in self._pulled.glob("blobs/sha256/*"):
            written = self.layout / "blobs" / "sha256" / pulled.name
            if written.exists() and not written.samefile(pulled):
                written.unlink()
                written.hardlink_to(pulled)
