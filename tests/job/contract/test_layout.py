"""Keys in storage: what builds one and what reads it agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorajob_runtime.contract import layout
from lorajob_runtime.contract.layout import LogFile, RunFolder

FOLDER = RunFolder(Path("runs/n"))


@pytest.mark.parametrize(
    ("path", "log"),
    [
        (FOLDER.log(3, 12), LogFile(3, "rank", 12)),
        (FOLDER.launcher_log(3), LogFile(3, "launcher", 0)),
        (FOLDER.supervisor_log(10, 2), LogFile(10, "supervisor", 2)),
    ],
)
def test_a_log_is_known_by_its_key_and_by_the_key_of_a_part_of_it(path: Path, log: LogFile) -> None:
    key = layout.log_key(log.attempt, path.name)
    part = layout.part_key(key, 12345, "90a1b2c3d4e5f60718")

    assert layout.log_of(key) == layout.log_of(layout.whole_key(part)) == log
    assert layout.attempt_in(key) == layout.attempt_in(part) == log.attempt
    assert path.match(layout.LOG_PATTERN)
    assert path.match(layout.RANK_LOG_PATTERN) == (layout.rank_of_log(path.name) is not None) == (log.kind == "rank")


@pytest.mark.parametrize(
    "key", ["events.jsonl", "logs/attempt-1", "logs/attempt-x/rank-0.log.gz", "logs/rank-0.log.gz"]
)
def test_any_other_key_is_no_log(key: str) -> None:
    assert layout.log_of(key) is None


def test_files_of_checkpoints_and_leases_are_known_by_their_keys() -> None:
    assert layout.checkpoint_file(layout.checkpoint_key(100, layout.STATE)) == (100, layout.STATE)
    assert layout.checkpoint_file(layout.checkpoint_key(100)) is None
    assert layout.checkpoint_file(f"adapter/{layout.step_name(1)}/x") is None
    assert layout.lease_number(layout.lease_key(7)) == 7
    assert layout.lease_number("lease/new.json") is None


def test_a_dataset_that_runs_share_is_known_by_its_address() -> None:
    address = layout.data_address("s3://bucket/lora/", layout.data_key("90a1", "poems.csv"))

    assert address == "s3://bucket/lora/.data/90a1/poems.csv"
    assert layout.data_file(address) == "poems.csv"
    assert layout.data_file("s3://bucket/lora/poems.csv") is None
