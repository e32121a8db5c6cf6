"""Where a run goes on from, with damage in one place or another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from golden.said import Said
from lorajob_runtime.contract import events as event_logs
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.events import EventLog
from lorajob_runtime.contract.layout import ADAPTER_WEIGHTS, OPTIMIZER, STATE, RunFolder
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.storage.folder import FolderStore
from lorajob_runtime.storage.resume import ResumePoint, restore
from lorajob_runtime.storage.sync import StorageSync

SPEC = specs.parse({"name": "n", "storage": {"uri": "/nowhere"}})


class Place:
    """A run's folder and its storage, which share no file."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder(path / "run")
        self.storage = path / "storage"
        self.store = FolderStore(self.storage)
        self.warnings: list[str] = []
        self.folder.work.mkdir(parents=True)

    def train(self, *steps: int, keep: int = 9) -> None:
        """Makes these steps, each with a checkpoint, and uploads them."""
        for step in steps:
            with EventLog(self.folder.events) as log:
                log.append("step", step=step)
            checkpoint.save(self.folder, step, lambda draft, step=step: self._write(draft, step))
        mirror = StorageSync(self.store, self.folder, keep=keep)
        mirror.checkpoints()
        mirror.events()
        for path in self.storage.rglob("*"):
            if path.is_file():
                _unlink(path)

    def restore(self, spec: RunSpec = SPEC) -> ResumePoint:
        return restore(self.folder, self.store, spec, warn=self.warnings.append)

    def steps_in_log(self) -> list[int]:
        return [event["step"] for event in event_logs.read(self.folder.events) if "step" in event]

    @staticmethod
    def _write(draft: Path, step: int) -> None:
        (draft / ADAPTER_WEIGHTS).write_text(f"adapter {step}")
        (draft / OPTIMIZER).write_text(f"optimizer {step}")
        (draft / STATE).write_text(json.dumps({"step": step, "finished": step == 9}))


def _unlink(path: Path) -> None:
    """Makes a hard link a file of its own."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    assert place.restore().step is None
    return place


def damage(path: Path) -> None:
    path.write_bytes(b"?" * path.stat().st_size)


def test_a_first_start_begins_at_nothing_and_keeps_its_spec(tmp_path: Path) -> None:
    place = Place(tmp_path)

    start = place.restore()

    assert start == ResumePoint(attempt=1, step=None, is_trained=False, is_published=False, evaluation_pending=True)
    assert specs.loads((place.storage / "spec.json").read_text()) == SPEC
    assert place.warnings == []


def test_the_newest_checkpoint_is_taken_and_the_log_cut_back_to_it(place: Place) -> None:
    place.train(1, 2)
    with EventLog(place.folder.events) as log:
        log.append("step", step=3)

    start = place.restore()

    assert start.step == 2
    assert place.steps_in_log() == [1, 2]


def test_the_last_checkpoint_of_a_run_leaves_nothing_to_train(place: Place) -> None:
    place.train(8, 9)

    assert place.restore().is_trained


def test_a_run_is_done_when_its_log_in_storage_ends_well_and_its_adapter_is_there(place: Place) -> None:
    place.train(8, 9)
    with EventLog(place.folder.events) as log:
        log.append("end", exit_code=0, **{"class": "succeeded"})
        log.append("report", name="warning", message="a report could not finish")
    StorageSync(place.store, place.folder, keep=9).events()

    assert not place.restore().is_published
    place.store.put_bytes(f"adapter/{ADAPTER_WEIGHTS}", b"")
    assert place.restore().is_published


def test_a_damaged_checkpoint_here_is_taken_from_storage(place: Place) -> None:
    place.train(1, 2)
    damage(place.folder.checkpoint(2) / OPTIMIZER)

    start = place.restore()

    assert start.step == 2
    assert checkpoint.verify(place.folder.checkpoint(2))
    [warning] = place.warnings
    assert "step-000002 is damaged" in warning


def test_a_checkpoint_that_is_damaged_everywhere_gives_way_to_the_one_before(place: Place) -> None:
    place.train(1, 2)
    damage(place.folder.checkpoint(2) / OPTIMIZER)
    damage(place.storage / "checkpoints/step-000002" / OPTIMIZER)

    start = place.restore()

    assert start.step == 1
    assert place.steps_in_log() == [1]
    assert len(place.warnings) == 2
    assert checkpoint.steps(place.folder) == [1]
    assert not (place.storage / "checkpoints/step-000002/checkpoint.json").exists()


def test_without_a_folder_here_everything_comes_from_storage(place: Place) -> None:
    place.train(1, 2)
    place.folder.sinks.write_text('{"swanlab": {"id": "abc"}}')
    StorageSync(place.store, place.folder, keep=9).events()
    shutil.rmtree(place.folder.root)
    place.folder.work.mkdir(parents=True)

    start = place.restore()

    assert start.step == 2
    assert checkpoint.verify(place.folder.checkpoint(2))
    assert place.steps_in_log() == [1, 2]
    assert json.loads(place.folder.sinks.read_text()) == {"swanlab": {"id": "abc"}}


def test_a_checkpoint_without_its_manifest_in_storage_does_not_exist(place: Place) -> None:
    place.train(1, 2)
    (place.storage / "checkpoints/step-000002/checkpoint.json").unlink()
    shutil.rmtree(place.folder.checkpoints)

    assert place.restore().step == 1
    assert place.warnings == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"step": 2, "files": {"../../x": {"size": 1, "sha256": "0"}}}'])
def test_a_manifest_that_is_none_gives_way_to_the_checkpoint_before(place: Place, content: bytes) -> None:
    place.train(1, 2)
    shutil.rmtree(place.folder.checkpoints)
    (place.storage / "checkpoints/step-000002/checkpoint.json").write_bytes(content)

    assert place.restore().step == 1


def test_an_older_stay_on_this_machine_gives_way_to_what_storage_has(place: Place, tmp_path: Path) -> None:
    place.train(1)
    kept = tmp_path / "older"
    shutil.copytree(place.folder.root, kept)
    place.train(2, 3)
    shutil.rmtree(place.folder.root)
    kept.rename(place.folder.root)

    start = place.restore()

    assert start.step == 3
    assert place.steps_in_log() == [1, 2, 3]


def test_a_checkpoint_that_retention_has_stripped_is_not_resumed_from(place: Place, said: Said) -> None:
    place.train(1, 2, 3, keep=1)
    for root in (place.folder.checkpoint(3), place.storage / "checkpoints/step-000003"):
        damage(root / OPTIMIZER)

    start = place.restore()

    assert start.step is None
    said("\n".join(place.warnings).replace(str(place.storage.parent), "HERE"))


def test_a_spec_from_storage_is_compared_when_the_folder_here_is_gone(place: Place) -> None:
    place.train(1)
    shutil.rmtree(place.folder.root)
    place.folder.work.mkdir(parents=True)
    changed = specs.parse({"name": "n", "train": {"seed": 7}})

    with pytest.raises(ConfigError, match=r"train\.seed: 42 -> 7"):
        place.restore(changed)


def test_what_may_change_on_resume_does(place: Place) -> None:
    place.train(1)
    changed = specs.parse({"name": "n", "train": {"keepCheckpoints": 1}, "resources": {"gpus": 4}})

    assert place.restore(changed).step == 1
    assert specs.loads((place.storage / "spec.json").read_text()).resources.gpus == 4


def test_attempts_count_on_from_the_highest_here_or_in_storage(place: Place) -> None:
    place.folder.log(2, 0).parent.mkdir(parents=True)
    place.store.put_bytes("logs/attempt-11/rank-0.log.gz", b"")

    assert place.restore().attempt == 12


@pytest.mark.parametrize("key", ["evaluation_pending", "owes_look"])
def test_a_pending_evaluation_is_read_under_the_key_of_the_earlier_version_too(place: Place, key: str) -> None:
    def write(draft: Path) -> None:
        (draft / STATE).write_text(json.dumps({"step": 1, key: True}))

    checkpoint.save(place.folder, 1, write)

    assert place.restore().evaluation_pending


def test_what_version_0_1_left_half_written_is_removed_and_what_counts_stays(place: Place) -> None:
    place.train(1)
    work = place.folder.work
    for folder in ("data.new", "data.old", "data"):
        (work / folder).mkdir()
        (work / folder / "train.safetensors").write_text(folder)
    elsewhere = place.storage / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    (work / "events.jsonl.arriving").write_text("half")
    (work / "linked.arriving").symlink_to(elsewhere)

    assert place.restore().step == 1

    assert sorted(path.name for path in work.glob("*ata*")) == ["data"]
    assert not list(work.glob("*.arriving"))
    assert (work / "data/train.safetensors").read_text() == "data"
    assert (elsewhere / "kept").read_text() == "kept"
