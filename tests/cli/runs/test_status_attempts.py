"""Between two attempts: what ended the last one, whether it counts, and what comes."""

from __future__ import annotations

import pytest
from run_objects import (
    FIRST_POD,
    NOW,
    SECOND_POD,
    at,
    condition,
    disrupted,
    failed_pod,
    job,
    progress,
    running_pod,
    stopping_pod,
    uncounted,
    with_sidecar,
)

from golden.said import Said
from lorajob.runs.status import from_job, from_objects
from lorajob_runtime.contract.kubernetes import TerminationMessage

ACTIVE = {"active": 1, "ready": 1, "startTime": at(0), "terminating": 0}
STARTING = {**ACTIVE, "ready": 0}
BACK_OFF = {"failed": 1, "ready": 0, "startTime": at(0), "terminating": 0}
STORAGE = TerminationMessage(
    exit_code=21, failure="storage", message="s3://models does not answer", hint="look at the bucket"
)


def test_during_back_off_the_reason_says_what_failed_and_what_is_left(said: Said) -> None:
    run = from_objects(job(BACK_OFF), [failed_pod(code=21, words=STORAGE)], (), NOW)

    assert run.phase == "Pending"
    said(run.reason)


def test_a_final_failure_that_the_job_has_not_drawn_its_conclusion_from_promises_no_next_attempt(said: Said) -> None:
    words = TerminationMessage(exit_code=14, failure="out-of-memory", message="no memory was left")

    run = from_objects(job(BACK_OFF), [failed_pod(code=14, words=words)], (), NOW)

    said(run.reason)


def test_during_back_off_the_report_of_the_end_is_enough_where_the_pod_is_gone(said: Said) -> None:
    ended = progress(phase="end", exit_code=21, failure="storage", message="s3://models does not answer", seconds=200)

    run = from_job(job(BACK_OFF, progress=ended, changed=202), NOW)

    said(run.reason)
    assert run.progress is None


def test_a_failure_that_the_controller_has_not_counted_yet_counts() -> None:
    state = {"ready": 0, "startTime": at(0), "active": 0}

    run = from_objects(job(state), [failed_pod(code=21, words=STORAGE)], (), NOW)

    assert run.reason.startswith("attempt 1 failed (storage: ")


def test_a_pod_that_has_reported_its_failure_is_ending(said: Said) -> None:
    ended = progress(phase="end", exit_code=21, failure="storage", message="it does not answer", seconds=200)

    run = from_objects(job(ACTIVE, progress=ended), [running_pod()], (), NOW)

    assert run.phase == "Pending"
    said(run.reason)


def test_a_pod_that_someone_deleted_was_lost(said: Said) -> None:
    run = from_objects(job(BACK_OFF, progress=progress(), changed=205), [], (), NOW)

    said(run.reason)


def test_a_report_of_an_earlier_pod_is_not_shown_as_that_of_the_next() -> None:
    found = job({**ACTIVE, "failed": 1}, progress=progress(FIRST_POD, seconds=60), changed=230)

    assert from_objects(found, [failed_pod(), running_pod(SECOND_POD)], (), NOW).progress is None
    assert from_job(found, NOW).progress is None
    assert from_job(found, NOW).phase == "Preparing"


def test_a_report_of_the_end_of_the_attempt_before_does_not_end_the_next() -> None:
    ended = progress(phase="end", exit_code=21, failure="storage", seconds=200)

    run = from_job(job({**ACTIVE, "failed": 1}, progress=ended, changed=230), NOW)

    assert (run.phase, run.attempts) == ("Preparing", 2)


def test_a_pod_that_is_stopping_holds_up_its_replacement(said: Said) -> None:
    run = from_objects(job({**STARTING, "active": 0, "terminating": 1}), [stopping_pod()], (), NOW)

    assert run.phase == "Pending"
    said(run.reason)


# What does not count, and how attempts are counted


PREEMPTED = ("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod")
LOW_DISK = ("TerminationByKubelet", "The node was low on resource: ephemeral-storage.")


@pytest.mark.parametrize(
    ("reason", "message", "said"),
    [
        ("EvictionByEvictionAPI", "Eviction API: evicting", "evicted, as when its node is drained"),
        (*PREEMPTED, "preempted by a pod of higher priority"),
        ("PreemptionByScheduler", "preempted by pod team-b/urgent", "higher priority: preempted by pod team-b/urgent"),
        (*LOW_DISK, "evicted by its node: The node was low on resource: ephemeral-storage"),
        ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", "its node is lost or was tainted"),
        ("DeletionByPodGC", "PodGC: node no longer exists", "lost with its node, which is gone"),
        ("SomethingNew", "it was time", "stopped by the cluster (SomethingNew): it was time"),
    ],
)
def test_a_disruption_is_named_and_does_not_count(reason: str, message: str, said: str) -> None:
    stopped = TerminationMessage(exit_code=30, failure="stopped", message="stopped with a checkpoint")
    gone = disrupted(failed_pod(code=30, words=stopped), reason, message)
    state = {"failed": 0, "ready": 0, "startTime": at(0)}

    over = from_objects(job(state), [gone], (), NOW)
    going = from_objects(job({**state, "terminating": 1}), [disrupted(stopping_pod(), reason, message)], (), NOW)

    for run in (over, going):
        assert run.phase == "Pending"
        assert said in run.reason
        assert "does not count" in run.reason
        assert "failed" not in run.reason
        assert run.attempts == 1
    assert over.reason.startswith("attempt 1 was interrupted (")


def test_what_was_disrupted_before_changes_no_number_and_no_reason_of_a_later_failure(said: Said) -> None:
    evicted = disrupted(failed_pod("zhenhuan-0-evict", code=30), "EvictionByEvictionAPI", "Eviction API: evicting")
    evicted["metadata"]["creationTimestamp"] = at(-3)

    run = from_objects(job(BACK_OFF), [evicted, failed_pod(code=21, words=STORAGE)], (), NOW)

    assert run.attempts == 1
    said(run.reason)


def test_a_final_exit_code_counts_also_where_the_pod_was_disrupted(said: Said) -> None:
    """The Job looks at its rules one after another, and the one on exit codes comes first."""
    words = TerminationMessage(exit_code=11, failure="data", message="no row has an answer")
    both = disrupted(failed_pod(code=11, words=words), "EvictionByEvictionAPI", "Eviction API: evicting")

    run = from_objects(job({"ready": 0, "startTime": at(0)}), [both], (), NOW)

    said(run.reason)


def test_files_beyond_the_limit_of_a_volume_count_and_say_what_to_do(said: Said) -> None:
    full = failed_pod(code=137)
    full["status"] |= {"reason": "Evicted", "message": 'Usage of EmptyDir volume "work" exceeds the limit "20Mi". '}
    state = {"failed": 4, "startTime": at(0), "conditions": [condition("Failed", reason="BackoffLimitExceeded")]}

    between = from_objects(job(BACK_OFF), [full], (), NOW)
    over = from_objects(job(state), [full], (), NOW)

    said(between.reason)
    assert over.failure is not None
    said(over.failure.hint)


def test_a_pod_that_has_failed_and_is_not_counted_yet_is_no_attempt_more(said: Said) -> None:
    """The Job still calls it active."""
    first = failed_pod("zhenhuan-0-first", code=21, words=STORAGE, ended=100)
    first["metadata"]["creationTimestamp"] = at(-2)
    found = job({"failed": 1, "active": 1, "ready": 0, "startTime": at(0)})
    found["spec"]["backoffLimit"] = 1

    run = from_objects(found, [first, uncounted(failed_pod(code=21, words=STORAGE))], (), NOW)

    assert (run.attempts, run.retries) == (2, 1)
    said(run.reason)


def test_a_failed_pod_that_others_keep_says_which_containers_do(said: Said) -> None:
    run = from_objects(job(ACTIVE), [with_sidecar(failed_pod(code=21, words=STORAGE))], (), NOW)

    said(run.reason)


def test_a_leader_that_lost_another_node_stays(said: Said) -> None:
    lost = progress(phase="end", exit_code=23, failure="peer", message="node 1 went away")
    pods = [running_pod(), failed_pod("zhenhuan-1-abcde", node=1, code=137)]

    run = from_objects(job({**ACTIVE, "failed": 1}, progress=lost, nodes=2), pods, (), NOW)

    assert (run.phase, run.attempts) == ("Pending", 2)
    said(run.reason)


def test_an_old_report_explains_no_later_failure_in_a_list() -> None:
    """Only the report of just before the Job saw its pod fail is that of this attempt."""
    earlier = progress(phase="end", exit_code=21, failure="storage", message="it does not answer", seconds=100)

    run = from_job(job({**BACK_OFF, "failed": 2}, progress=earlier, changed=400), NOW)

    assert run.reason.startswith("attempt 2 was lost; ")
