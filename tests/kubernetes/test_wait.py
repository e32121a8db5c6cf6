"""Waiting for a run and following it to its end, on a real cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from made_runs import MadeRuns, lorajob, made, now

from calling import Call
from lorajob.cluster import NotFound
from lorajob.runs.follow import TimedOutError, follow

__all__ = ["lorajob", "made"]

Wait = Callable[..., Any]


def test_wait_ends_with_the_code_of_what_happened(made: MadeRuns, lorajob: Call) -> None:
    for name in ("done", "broken", "stopped"):
        made.run(name)
    made.succeed("done")
    made.fail("broken", "BackoffLimitExceeded")
    lorajob("cancel", "stopped")

    assert lorajob("wait", "done").code == 0
    assert lorajob("wait", "broken").code == 100
    assert lorajob("wait", "stopped").code == 103
    assert lorajob("wait", "done", "broken", "stopped").code == 100
    assert lorajob("wait", "absent").code == 102


def test_wait_goes_on_with_the_others_when_one_is_missing_or_late(made: MadeRuns, lorajob: Call) -> None:
    for name in ("done", "broken", "late"):
        made.run(name)
    made.succeed("done")
    made.fail("broken", "BackoffLimitExceeded")

    missing = lorajob("wait", "absent", "done", "broken")
    late = lorajob("wait", "late", "broken", "done", "--timeout", "1s")
    wrong = lorajob("wait", "done", "NO")

    assert missing.code == 102
    assert [line.partition(":")[0] for line in missing.out.splitlines() if line.startswith("run ")] == [
        "run done",
        "run broken",
    ]
    assert late.code == 124
    assert "run late has not ended within" in late.err
    assert "run broken: Failed" in late.out
    assert "run done: Succeeded" in late.out
    assert (wrong.code, "run done: Succeeded" in wrong.out) == (2, True)


def test_wait_ends_when_its_time_is_over_and_says_so(made: MadeRuns, lorajob: Call) -> None:
    made.run("first")

    outcome = lorajob("wait", "first", "--timeout", "1s")

    assert outcome.code == 124
    assert "run first has not ended within 1s: it is Pending" in outcome.err


def test_wait_sees_the_end_of_a_real_run(made: MadeRuns, lorajob: Call) -> None:
    made.run("first")
    made.start("first")
    timer = threading.Timer(1, made.succeed, args=("first",))
    timer.start()
    outcome = lorajob("wait", "first", "--timeout", "60s")
    timer.join()

    assert outcome.code == 0
    assert outcome.out == "run first: Succeeded\nadapter: s3://models/lora/first/adapter\n"


def test_following_tells_every_change_once_until_the_end(made: MadeRuns) -> None:
    job = made.run("first")
    seen: list[str] = []

    for status in follow(made.client, "first", timeout_seconds=60):
        seen.append(status.phase)
        if seen == ["Pending"]:
            pod = made.pod(job, {"running": {"startedAt": now()}}, phase="Running")
            made.start("first")
        elif status.phase == "Preparing" and len(seen) == 2:
            made.report("first", pod, "train", step=1, total_steps=4)
        elif status.phase == "Training":
            made.succeed("first")

    assert seen == ["Pending", "Preparing", "Training", "Succeeded"]


def test_following_goes_on_over_a_retry(made: MadeRuns, wait_until: Wait) -> None:
    job = made.live("first")
    following = follow(made.client, "first", timeout_seconds=60)
    next(following)
    made.client.delete(made.client.jobs("first"), propagation="Background")
    wait_until(lambda: not _there(made, "first"), what="the end of the Job")
    made.run("first")
    made.succeed("first")

    last = [*following][-1]

    assert (last.phase, last.uid != job["metadata"]["uid"]) == ("Succeeded", True)


def _there(made: MadeRuns, name: str) -> bool:
    try:
        made.client.get(made.client.jobs(name))
    except NotFound:
        return False
    return True


def test_a_run_that_is_deleted_ends_the_following(made: MadeRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorajob.runs.follow._REPLACED_WITHIN_SECONDS", 1.0)
    made.run("first")
    following = follow(made.client, "first", timeout_seconds=60)
    next(following)

    made.client.delete(made.client.jobs("first"), propagation="Background")

    with pytest.raises(NotFound, match="run first was deleted"):
        next(following)


def test_the_limit_of_following_holds(made: MadeRuns) -> None:
    made.run("first")

    with pytest.raises(TimedOutError, match="has not ended within 1s"):
        list(follow(made.client, "first", timeout_seconds=1))
