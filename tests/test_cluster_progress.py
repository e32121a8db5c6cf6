"""What `make cluster` and `make image` say while they work, and what they look at before they begin."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path

import pytest

from cluster import builder
from cluster.running import ClusterError, progress


def test_long_work_says_what_it_is_how_long_it_has_taken_and_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    seen = threading.Event()
    packages = iter(range(1, 1000))

    def compiled() -> str:
        count = next(packages)
        if count == 3:
            seen.set()
        return f", {count} packages compiled"

    with progress("building components", compiled, every_seconds=0.01):
        assert seen.wait(30)

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "cluster: building components"
    assert lines[1] == "cluster: building components: 0 s so far, 1 packages compiled"
    assert re.fullmatch(r"cluster: building components: done in \d+ s, \d+ packages compiled", lines[-1])


def test_work_that_fails_is_not_said_to_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ClusterError), progress("building components"):
        raise ClusterError("no compiler")

    assert capsys.readouterr().err == "cluster: building components\n"


def test_a_disk_without_room_for_the_image_is_named_with_both_numbers(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free

    builder.require_room(tmp_path, free // 2)
    with pytest.raises(ClusterError, match=rf"{tmp_path} has \d+ GB free and the image needs {2 * free / 10**9:.0f}"):
        builder.require_room(tmp_path, 2 * free)
