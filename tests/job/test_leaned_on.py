"""Everything private or unstable in other libraries that training leans on, in one list.

An upgrade that takes one of these away fails here first, and the failure names the module of ours that must follow.
What public documentation promises is not in the list, nor what only decides how fast something is.
"""

from __future__ import annotations

from pathlib import Path

import leanings_others
import leanings_peft
import leanings_transformers
import pytest
from leanings import LEANINGS, Leaning

import lorajob_runtime

# each puts its checks into the list as it is imported
LISTED = (leanings_peft, leanings_transformers, leanings_others)


@pytest.mark.parametrize("leaning", LEANINGS, ids=lambda leaning: leaning.check.__name__)
def test_what_other_libraries_do_not_promise_is_still_so(leaning: Leaning) -> None:
    try:
        leaning.check()
    except Exception as error:
        raise AssertionError(f"{leaning.thing}: {leaning.by} lean on it: {leaning.why}") from error


@pytest.mark.parametrize("leaning", LEANINGS, ids=lambda leaning: leaning.check.__name__)
def test_each_names_modules_of_ours_that_are_there(leaning: Leaning) -> None:
    root = Path(lorajob_runtime.__file__).parent

    assert [name for name in leaning.by.split(", ") if not (root / name).is_file()] == []
