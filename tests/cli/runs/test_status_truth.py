"""What holds of the status of a run in every situation: pods, reports, counters and conditions in all combinations."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from run_objects import (
    FIRST_POD,
    NOW,
    at,
    condition,
    disrupted,
    ended_pod,
    failed_pod,
    job,
    progress,
    running_pod,
    stopping_pod,
    uncounted,
    unreachable_pod,
    unscheduled_pod,
    waiting_pod,
    with_sidecar,
)

from golden.said import Said
from lorajob.runs.run_status import RUNNING, RunStatus
from lorajob.runs.status import LONGEST, from_job, from_objects
from lorajob_runtime.contract.kubernetes import PROGRESS_ANNOTATION, Progress, TerminationMessage

EVICTION = ("EvictionByEvictionAPI", "Eviction API: evicting")
STORAGE = TerminationMessage(exit_code=21, failure="storage", message="it does not answer")

Made = Callable[[str, int], dict[str, Any] | None]

PODS: dict[str, Made] = {
    "none": lambda name, node: None,
    "unscheduled": lambda name, node: unscheduled_pod(
        "0/9 nodes are available: 9 Insufficient x.", name=name, node=node
    ),
    "pulling": lambda name, node: waiting_pod("ImagePullBackOff", "not found", name=name, node=node),
    "running": lambda name, node: running_pod(name, node=node),
    "beside a sidecar": lambda name, node: with_sidecar(running_pod(name, node=node)),
    "unreachable": lambda name, node: unreachable_pod(name, node=node),
    "stopping": lambda name, node: stopping_pod(name, node=node),
    "evicted": lambda name, node: disrupted(stopping_pod(name, node=node), *EVICTION),
    "failed": lambda name, node: failed_pod(name, node=node, code=21, words=STORAGE, ended=550),
    "just failed": lambda name, node: uncounted(failed_pod(name, node=node, code=137, ended=550)),
    "was evicted": lambda name, node: disrupted(failed_pod(name, node=node, code=30, ended=550), *EVICTION),
    "failed beside a sidecar": lambda name, node: with_sidecar(failed_pod(name, node=node, code=21, words=STORAGE)),
    "ended": lambda name, node: ended_pod(name, node=node),
    "ended beside a sidecar": lambda name, node: with_sidecar(ended_pod(name, node=node)),
}
RUN = ("running", "beside a sidecar")

REPORTS: dict[str, Progress | None] = {
    "none": None,
    "trains": progress(),
    "fetches": progress(phase="fetch", note="3 of 16 GB"),
    "publishes": progress(phase="publish"),
    "is silent": progress(seconds=60),
    "stands still": progress(alive=progress(seconds=60).time),
    "slow steps": progress(seconds=240, step=600, seconds_left=100 * 120.0),
    "was another pod": progress("zhenhuan-0-older"),
    "failed": progress(phase="end", exit_code=21, failure="storage", message="it does not answer"),
    "lost a peer": progress(phase="end", exit_code=23, failure="peer", message="node 1 went away"),
    "succeeded": progress(phase="end", exit_code=0),
}
FRESH = ("trains", "fetches", "publishes", "slow steps")


@dataclass(frozen=True)
class Situation:
    """One combination."""

    pods: tuple[str, ...]
    report: str
    before: int
    """Pods that failed before these."""
    outcome: str

    @property
    def made(self) -> list[dict[str, Any]]:
        made = [
            failed_pod(f"zhenhuan-0-before{number}", code=21, words=STORAGE, ended=100 + number)
            for number in range(self.before)
        ]
        for each in made:
            each["metadata"]["creationTimestamp"] = at(-1)
        names = [FIRST_POD if node == 0 else f"zhenhuan-{node}-abcde" for node in range(len(self.pods))]
        found = [PODS[kind](name, node) for node, (kind, name) in enumerate(zip(self.pods, names, strict=True))]
        return [*made, *(each for each in found if each is not None)]

    @property
    def job(self) -> dict[str, Any]:
        """The Job as its controller writes it when it has seen all of that, but for what it has not counted yet."""
        count = lambda *kinds: sum(kind in kinds for kind in self.pods)  # noqa: E731 four times below
        state: dict[str, Any] = {
            "startTime": at(0),
            "active": count("unscheduled", "pulling", "unreachable", "just failed", "failed beside a sidecar", *RUN)
            + count("ended beside a sidecar"),
            "ready": count(*RUN),
            "terminating": count("stopping", "evicted"),
            "failed": self.before + count("failed"),
            "conditions": [condition(self.outcome)] if self.outcome else [],
        }
        if self.outcome == "Complete":
            state["succeeded"] = len(self.pods)
        # what becomes of the pod that reports shows in the Job's status after what it reported
        is_quiet = self.pods[0] in RUN and self.report != "was another pod"
        report = REPORTS[self.report]
        return job(state, progress=report, changed=5 if is_quiet else 560, nodes=len(self.pods))


def situations() -> Iterator[Situation]:
    for nodes in (1, 2):
        for pods in itertools.product(PODS, repeat=nodes):
            for report, before, outcome in itertools.product(REPORTS, (0, 2), ("", "Failed", "Complete")):
                if not outcome or nodes == 1:
                    yield Situation(pods, report, before, outcome)


ALL = list(situations())


def _told() -> Iterator[tuple[Situation, RunStatus]]:
    for each in ALL:
        yield each, from_objects(each.job, each.made, (), NOW)


@pytest.fixture(scope="module")
def told() -> list[tuple[Situation, RunStatus]]:
    return list(_told())


Told = list[tuple[Situation, RunStatus]]


def test_it_is_training_only_while_every_pod_can_be_seen_to_run(told: Told) -> None:
    for each, run in told:
        if run.phase == "Training":
            assert all(kind in RUN for kind in each.pods), (each, run.reason)
            assert each.report in ("trains", "is silent", "stands still", "slow steps"), (each, run.reason)


def test_it_progresses_only_by_a_report_of_now(told: Told) -> None:
    for each, run in told:
        if run.is_progressing:
            assert run.phase in RUNNING, (each, run)
            assert each.report in FRESH, (each, run.reason)
            assert each.pods[0] in RUN, (each, run.reason)
        elif run.phase in RUNNING and run.progress is not None:
            assert (run.progress.seconds_left, run.progress.tokens_per_second) == (None, None), (each, run)
        if not run.is_terminal and each.report not in (*FRESH, "is silent", "stands still"):
            assert run.progress is None or run.progress.seconds_left is None or run.phase == "Pending", (each, run)


def test_what_runs_and_reports_progresses() -> None:
    """The other way round: a run where all is well is not called silent, waiting or lost."""
    for report, pod in itertools.product(FRESH, RUN):
        each = Situation((pod, pod), report, 1, "")
        run = from_objects(each.job, each.made, (), NOW)

        assert run.is_progressing, (each, run.reason)
        assert run.reason == ("3 of 16 GB" if report == "fetches" else ""), each


def test_there_is_a_why_whenever_it_does_not_progress(told: Told) -> None:
    for each, run in told:
        if not run.is_progressing and run.phase != "Succeeded":
            assert run.reason, each
        assert "\n" not in run.reason, each
        assert len(run.reason) <= LONGEST, each


def test_attempts_are_at_most_as_many_as_there_may_be_and_at_least_those_that_failed(told: Told) -> None:
    for each, run in told:
        failed = each.before + sum(kind in ("failed", "just failed") for kind in each.pods)
        assert min(failed, run.retries + 1) <= run.attempts <= run.retries + 1, (each, run.attempts)
        if each.pods == ("was evicted",) and not each.outcome:
            assert run.attempts == each.before + 1, "an eviction is the same attempt"


def test_a_disruption_is_called_one_and_no_failure(told: Told) -> None:
    for each, run in told:
        if each.pods in (("was evicted",), ("evicted",)) and run.phase == "Pending":
            assert "evicted, as when its node is drained" in run.reason, (each, run.reason)
            assert "does not count" in run.reason or "stopped" in run.reason, (each, run.reason)


def test_nothing_is_missed_from_a_run_that_has_told_its_success(told: Told) -> None:
    for each, run in told:
        if each.report == "succeeded" and not each.outcome:
            assert run.phase == "Publishing", each
            assert run.reason.startswith("the run itself has ended"), (each, run.reason)


def test_a_list_and_a_status_agree_when_the_job_has_seen_its_pods(told: Told) -> None:
    """Only what the Job has not counted, and containers of others, are not to be known without the pods."""
    unseen = {"just failed", "failed beside a sidecar", "ended beside a sidecar", "ended"}
    for each, run in told:
        if not unseen & set(each.pods):
            listed = from_job(each.job, NOW)
            assert listed.phase == run.phase, (each, listed.reason, run.reason)
            assert listed.is_progressing == run.is_progressing, each
            if not each.outcome and not {"none", "was evicted"} & set(each.pods):
                assert listed.attempts == run.attempts, each


def test_the_reason_of_an_attempt_is_that_of_its_own_pods(said: Said) -> None:
    first = failed_pod("zhenhuan-0-before", code=137, ended=500)
    second = failed_pod(
        code=1, words=TerminationMessage(exit_code=1, failure="unexpected", message="signal 9"), ended=530
    )
    second["metadata"]["creationTimestamp"] = at(510)

    run = from_objects(job({"failed": 2, "ready": 0, "startTime": at(0)}), [second, first], (), NOW)

    said(run.reason)


@pytest.mark.parametrize("field", ["time", "alive", "secondsLeft"])
@pytest.mark.parametrize("number", [1e300, -1e300, float("nan"), 2**70])
def test_a_report_of_no_time_that_can_be_is_none_and_spoils_no_list(field: str, number: float) -> None:
    found = job({"active": 1, "ready": 1, "startTime": at(0)}, progress=progress(), changed=5)
    annotations = found["metadata"]["annotations"]
    annotations[PROGRESS_ANNOTATION] = json.dumps(json.loads(annotations[PROGRESS_ANNOTATION]) | {field: number})

    run = from_job(found, NOW)

    assert (run.phase, run.progress) == ("Preparing", None)


def test_an_end_without_its_time_is_an_end() -> None:
    ended = condition("Failed")
    del ended["lastTransitionTime"]

    run = from_job(job({"failed": 1, "startTime": at(0), "conditions": [ended]}), NOW)

    assert (run.phase, run.finished) == ("Failed", None)
