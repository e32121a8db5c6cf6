"""The ranks' logs in the container's log."""

from __future__ import annotations

from pathlib import Path

from lorajob_runtime.relay import Relay
from waiting import wait_until


def test_whole_lines_come_with_their_rank_and_the_last_state_of_a_progress_bar(tmp_path: Path) -> None:
    said: list[str] = []
    attempt = tmp_path / "attempt-1"
    attempt.mkdir()
    with Relay(tmp_path, said.append):
        (attempt / "rank-0.log").write_text("loading\n10%\r50%\r100%\nhalf a li")
        wait_until(lambda: "[rank 0] loading" in said, what="the first line")
        with (attempt / "rank-0.log").open("a") as log:
            log.write("ne\n")
        (attempt / "rank-3.log").write_text("here\n\n")
        (attempt / "supervisor.log").write_text("not from a rank\n")
        second = tmp_path / "attempt-2"
        second.mkdir()
        (second / "rank-0.log").write_text("again\nand kill")

    assert sorted(said) == [
        "[rank 0] 100%",
        "[rank 0] again",
        "[rank 0] and kill",
        "[rank 0] half a line",
        "[rank 0] loading",
        "[rank 3] here",
    ]
