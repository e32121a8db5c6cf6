"""A model's folder on this machine, used where it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lorajob_runtime.fetch.selection import check_folder
from lorajob_runtime.models.config_files import CONFIG


def revision_of(folder: Path, *, with_weights: bool) -> str:
    """A fingerprint of its configuration and of its weights' names and sizes.

    Raises ModelError for a folder that holds no model that can be loaded.
    """
    check_folder(folder, f"the model folder {folder}", with_weights=with_weights)
    digest = hashlib.sha256((folder / CONFIG).read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    return f"folder-{digest.hexdigest()[:12]}"
