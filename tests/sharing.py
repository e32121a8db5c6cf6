"""Lets several pytests share the tests of one run: each takes the next file that no other one has taken.

LORAJOB_TEST_SHARED names the folder in which a file's name is written by the one that runs its tests. Without it every
test is run. Slow files come first. A whole file goes to one pytest, since its fixtures are made once for all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

VARIABLE = "LORAJOB_TEST_SHARED"
_MARK = "mark.cluster"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves files out of a pytest for the tests that need a cluster where they have none: most of those load torch."""
    if VARIABLE not in os.environ or config.option.markexpr != "cluster" or collection_path.suffix != ".py":
        return None
    places = (collection_path, collection_path.with_name("conftest.py"))
    return None if any(_MARK in place.read_text("utf-8") for place in places if place.exists()) else True


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """pytest's own loop, over what is taken here. One test is taken ahead: what is torn down depends on the next."""
    folder = os.environ.get(VARIABLE)
    if folder is None or session.config.option.collectonly or session.testsfailed:
        return None
    items = taken(slow_first(session.items), Path(folder))
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


def slow_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests with those of slow files in front, so that no pytest begins one when the others have nothing left.

    A file is slow that has a test marked so, or one that trains in pods, for which it asks for the fixture `image`.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow") or "image" in _fixtures(item)}
    return sorted(items, key=lambda item: item.path not in slow)


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else ()


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
