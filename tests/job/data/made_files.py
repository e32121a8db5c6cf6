"""A dataset's file with some content, and what is said of one that can't be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.data.rows.read import read


def file_of(folder: Path, content: str | bytes, name: str = "rows.json") -> Path:
    """A file of that name; text is written as UTF-8."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path) -> DataError:
    """The error that reading a file ends with: one line of no great length, which begins with the file."""
    with pytest.raises(DataError) as caught:
        read(path)
    message = caught.value.message
    assert message.startswith(f"{path} ")
    assert "\n" not in message
    assert len(message) < 400
    return caught.value
