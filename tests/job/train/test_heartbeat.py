"""Signs of life while there is nothing to log."""

from __future__ import annotations

from pathlib import Path

from lorajob_runtime.layout import RunFolder
from lorajob_runtime.train import heartbeat
from waiting import wait_until


def test_loading_gives_signs_of_life_as_long_as_it_lasts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.work.mkdir()

    with heartbeat.beating(folder, every_seconds=0.01):
        first = folder.alive.stat().st_mtime_ns
        wait_until(lambda: folder.alive.stat().st_mtime_ns > first, what="another sign of life")
