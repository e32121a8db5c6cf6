"""The ranks' logs in the container's log."""

from __future__ import annotations

import os
from pathlib import Path

from lorajob_runtime.run.log_forwarder import LogForwarder
from waiting import wait_until


def test_whole_lines_come_with_their_rank_and_the_last_state_of_a_progress_bar(tmp_path: Path) -> None:
    said: list[str] = []
    attempt = tmp_path / "attempt-1"
    attempt.mkdir()
    with LogForwarder(tmp_path, said.append):
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


def test_no_file_elsewhere_is_shown_by_a_link_in_the_place_of_a_log(tmp_path: Path) -> None:
    said: list[str] = []
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "rank-0.log").write_text("a-key\n")
    logs = tmp_path / "logs"
    (logs / "attempt-1").mkdir(parents=True)
    (logs / "attempt-1/rank-0.log").symlink_to(secret / "rank-0.log")
    os.mkfifo(logs / "attempt-1/rank-1.log")
    (logs / "attempt-1/rank-2.log").write_text("a line\n")
    (logs / "attempt-2").symlink_to(secret)

    with LogForwarder(logs, said.append):
        wait_until(lambda: "[rank 2] a line" in said, what="the plain log's line")

    refused = [f"{logs / name} is not a regular file" for name in ("attempt-1/rank-0.log", "attempt-1/rank-1.log")]
    refused.append(f"{logs / 'attempt-2/rank-0.log'} is not a regular file")
    assert sorted(line.partition(",")[0] for line in said) == sorted([*refused, "[rank 2] a line"])
