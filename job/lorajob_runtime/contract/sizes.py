"""Bytes as a person reads them, and how many a folder holds."""

from __future__ import annotations

import os
from pathlib import Path


def human(size: float) -> str:
    """16381470720 -> 16.4 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("bytes", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder that others are writing to."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue  # a client has renamed its temporary file since
    return total
