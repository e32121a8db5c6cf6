"""A checkpoint is whole or it is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golden.said import Said
from lorajob_runtime.contract import layout
from lorajob_runtime.contract.errors import StorageError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.storage import checkpoint


def fill(path: Path) -> None:
    (path / layout.ADAPTER_WEIGHTS).write_bytes(b"adapter")
    (path / layout.OPTIMIZER).write_bytes(b"moments")
    (path / layout.STATE).write_text("{}")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path)
    for step in (10, 20, 30):
        checkpoint.save(made, step, fill)
    return made


def test_the_manifest_lists_every_file_with_size_and_hash(folder: RunFolder) -> None:
    manifest = checkpoint.read_manifest(folder.checkpoint(10))

    assert manifest is not None
    assert manifest["files"][layout.ADAPTER_WEIGHTS] == {
        "size": 7,
        "sha256": checkpoint.sha256(folder.checkpoint(10) / layout.ADAPTER_WEIGHTS),
    }
    assert set(manifest["files"]) == {layout.ADAPTER_WEIGHTS, layout.OPTIMIZER, layout.STATE}


def test_a_write_that_fails_leaves_no_checkpoint_and_no_draft(folder: RunFolder) -> None:
    def full(path: Path) -> None:
        fill(path)
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left on device"):
        checkpoint.save(folder, 40, full)

    assert checkpoint.steps(folder) == [10, 20, 30]
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step-000010", "step-000020", "step-000030"]


def test_a_write_that_misses_a_file_from_elsewhere_names_it(folder: RunFolder, tmp_path: Path, said: Said) -> None:
    gone = tmp_path / "data" / "samples.json"

    with pytest.raises(StorageError) as caught:
        checkpoint.save(folder, 40, lambda path: (path / "copy.json").write_bytes(gone.read_bytes()) and None)
    said(caught.value.message.replace(str(tmp_path), "HERE"))

    with pytest.raises(StorageError) as caught:
        checkpoint.save(folder, 40, lambda path: (path / "no" / "such").touch())
    said(caught.value.message.replace(str(tmp_path), "HERE"))


def test_a_folder_without_its_manifest_is_no_checkpoint(folder: RunFolder) -> None:
    (folder.checkpoint(30) / layout.MANIFEST).unlink()

    assert checkpoint.steps(folder) == [10, 20]


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(b"adaptor"), lambda p: p.write_bytes(b""), Path.unlink])
def test_damage_to_any_file_is_seen(folder: RunFolder, damage: object) -> None:
    assert checkpoint.verify(folder.checkpoint(30))

    damage(folder.checkpoint(30) / layout.ADAPTER_WEIGHTS)  # type: ignore[operator]

    assert not checkpoint.verify(folder.checkpoint(30))


def test_pruning_leaves_every_adapter_and_what_resuming_needs_of_the_newest(folder: RunFolder) -> None:
    assert checkpoint.prune(folder, keep=1) == [10, 20]

    assert [checkpoint.resumable(folder.checkpoint(step)) for step in (10, 20, 30)] == [False, False, True]
    assert all(checkpoint.verify(folder.checkpoint(step)) for step in (10, 20, 30))
    assert not (folder.checkpoint(10) / layout.OPTIMIZER).exists()
    assert checkpoint.prune(folder, keep=1) == []


def test_what_a_killed_process_left_is_removed(folder: RunFolder) -> None:
    (folder.checkpoints / ".step-000040.new").mkdir()

    checkpoint.remove_drafts(folder)

    assert checkpoint.steps(folder) == [10, 20, 30]
    assert not list(folder.checkpoints.glob(".*"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"step": "x", "files": {}}',
        json.dumps({"step": 1, "files": {"../../etc/passwd": {"size": 1, "sha256": "0"}}}).encode(),
        json.dumps({"step": 1, "files": {"..": {"size": 1, "sha256": "0"}}}).encode(),
    ],
)
def test_a_manifest_that_is_broken_or_leads_out_of_its_folder_is_none(content: bytes) -> None:
    assert checkpoint.parse_manifest(content) is None
