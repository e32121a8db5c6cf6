"""The lock of a run's folder."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.system import run_lock


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_mount_without_locks_is_a_config_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)

    with pytest.raises(ConfigError) as raised, run_lock.hold(tmp_path / "lock"):
        pass

    assert raised.value.message == f"{tmp_path / 'lock'} cannot be locked: {os.strerror(number)}"
    assert "LORAJOB_WORK" in raised.value.hint
