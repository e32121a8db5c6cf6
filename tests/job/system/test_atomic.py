"""Files and folders that are seen whole or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from lorajob_runtime.system.atomic import (
    draft_of,
    move_folder,
    replace_file,
    replace_folder,
    replacing_file,
    replacing_folder,
)


def test_a_file_takes_its_new_content_and_no_draft_stays(tmp_path: Path) -> None:
    path = tmp_path / "state.json"

    replace_file(path, "早\n")
    assert path.read_text(encoding="utf-8") == "早\n"
    replace_file(path, b"\xff")

    assert path.read_bytes() == b"\xff"
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_block_that_fails_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    replace_file(path, "old")

    with suppress(KeyError), replacing_file(path) as draft:
        draft.write_text("ne")
        raise KeyError

    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_link_in_the_place_of_a_draft_is_not_followed(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "state.json"
    other.write_text("another's")
    draft_of(path).symlink_to(other)

    replace_file(path, "new")

    assert other.read_text() == "another's"
    assert path.read_text() == "new"
    assert not path.is_symlink()


def test_a_folder_is_replaced_whole_and_leftovers_of_a_killed_process_go(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    path.mkdir()
    (path / "old").touch()
    draft_of(path).mkdir()
    (draft_of(path) / "half").touch()

    with replacing_folder(path) as draft:
        (draft / "inner").mkdir()
        (draft / "inner" / "new").touch()
        (draft / "link").symlink_to("nowhere")

    assert sorted(os.listdir(path)) == ["inner", "link"]
    assert os.listdir(tmp_path) == ["adapter"]


def test_a_folder_whose_block_fails_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    path.mkdir()
    (path / "old").touch()

    with suppress(KeyError), replacing_folder(path) as draft:
        (draft / "new").touch()
        raise KeyError

    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["adapter"]


def test_a_folder_that_must_be_new_does_not_take_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    path.mkdir()
    (path / "old").touch()

    with pytest.raises(OSError, match="not empty"), replacing_folder(path, may_exist=False) as draft:
        (draft / "new").touch()

    assert os.listdir(path) == ["old"]


def test_the_old_folder_goes_by_the_name_that_was_given(tmp_path: Path) -> None:
    draft, path, retired = tmp_path / "draft", tmp_path / "final", tmp_path / "retired"
    for folder in (draft, path):
        folder.mkdir()
        (folder / folder.name).touch()
    with (path / "final").open() as reader:
        replace_folder(draft, path, retired=retired)
        assert reader.read() == ""

    assert os.listdir(path) == ["draft"]
    assert os.listdir(tmp_path) == ["final"]


def test_a_pipe_among_the_files_is_no_reason_to_wait(tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    draft.mkdir()
    os.mkfifo(draft / "pipe")

    move_folder(draft, tmp_path / "final")

    assert (tmp_path / "final" / "pipe").is_fifo()


def test_a_folder_that_cannot_get_onto_the_disk_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path, draft = tmp_path / "adapter", tmp_path / "draft"
    for folder, content in ((path, "old"), (draft, "new")):
        folder.mkdir()
        (folder / "weights").write_text(content)
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space left"):
        replace_folder(draft, path)

    assert (path / "weights").read_text() == "old"


def test_a_folder_that_is_gone_before_it_takes_its_place_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    path.mkdir()
    (path / "weights").write_text("old")

    with pytest.raises(OSError, match="draft"):
        replace_folder(tmp_path / "draft", path)

    assert (path / "weights").read_text() == "old"
