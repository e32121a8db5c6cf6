"""Lets several pytests share the tests of one run: each takes the next file that no other one has taken.

LORAJOB_TEST_SHARED names the folder in which a file's name is written by the one that runs its tests. Without it every
test is run. A whole file goes to one pytest, since its fixtures are made once for all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

VARIABLE = "LORAJOB_TEST_SHARED"


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """pytest's own loop, over what is taken here. One test is taken ahead: what is torn down depends on the next."""
    folder = os.environ.get(VARIABLE)
    if folder is None or session.config.option.collectonly or session.testsfailed:
        return None
    items = taken(session.items, Path(folder))
    item = next(items, None)
    while item is not None:
        following = next(items, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


def taken(items: Sequence[pytest.Item], folder: Path) -> Iterator[pytest.Item]:
    """The tests of files that were not taken before, in their order; each file is taken when its first test is due."""
    mine: dict[Path, bool] = {}
    for item in items:
        if item.path not in mine:
            mine[item.path] = _take(folder / str(item.path).replace(os.sep, "%"))
        if mine[item.path]:
            yield item


def _take(record: Path) -> bool:
    try:
        record.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
