"""How runs end, and why one has failed for good."""

from __future__ import annotations

from datetime import timedelta

from run_objects import BEGAN, FIRST_POD, NOW, SECOND_POD, at, condition, failed_pod, job, progress

from golden.said import Said
from lorajob.runs.status import from_job, from_objects
from lorajob_runtime.contract.kubernetes import TerminationMessage

ACTIVE = {"active": 1, "ready": 1, "startTime": at(0), "terminating": 0}


def test_a_complete_job_has_succeeded_though_its_pods_are_gone() -> None:
    state = {
        "succeeded": 1,
        "startTime": at(0),
        "completionTime": at(300),
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
    }

    run = from_objects(job(state, progress=progress(phase="end", exit_code=0), changed=301), [], (), NOW)

    assert (run.phase, run.finished, run.reason) == ("Succeeded", BEGAN + timedelta(seconds=300), "")


def test_a_run_that_has_reported_success_is_publishing_until_the_job_says_so_too() -> None:
    run = from_job(job(ACTIVE, progress=progress(phase="end", exit_code=0)), NOW)
    # the pod has ended, and the Job's controller has seen that and not yet drawn the conclusion
    ended = from_job(
        job({"startTime": at(0), "active": 0, "ready": 0}, progress=progress(phase="end", exit_code=0)), NOW
    )

    assert (run.phase, ended.phase) == ("Publishing", "Publishing")


def test_a_job_whose_failure_is_certain_has_failed_before_its_pods_are_gone() -> None:
    message = "Container main for pod team/zhenhuan-0-vpghk failed with exit code 11 matching FailJob rule at index 0"
    state = {"failed": 1, "conditions": [condition("FailureTarget", reason="PodFailurePolicy", message=message)]}
    words = TerminationMessage(exit_code=11, failure="data", message="no row has an answer", hint="look at the columns")

    run = from_objects(job(state), [failed_pod(code=11, words=words)], (), NOW)

    assert (run.phase, run.reason) == ("Failed", "data: no row has an answer")
    assert run.failure == words
    assert (run.attempts, run.finished) == (1, BEGAN + timedelta(seconds=300))


def failed(reason: str, message: str = "", count: int = 1) -> dict[str, object]:
    conditions = [condition(kind, reason=reason, message=message) for kind in ("FailureTarget", "Failed")]
    return {"failed": count, "startTime": at(0), "conditions": conditions}


def test_without_pods_the_report_of_the_end_says_why_a_run_failed() -> None:
    message = "Container main for pod team/zhenhuan-0-vpghk failed with exit code 11 matching FailJob rule at index 0"
    ended = progress(phase="end", exit_code=11, failure="data", message="no row has an answer", hint="look there")

    run = from_job(job(failed("PodFailurePolicy", message), progress=ended), NOW)

    assert run.failure == TerminationMessage(
        exit_code=11, failure="data", message="no row has an answer", hint="look there"
    )


def test_without_pods_and_report_the_condition_says_why_a_run_failed() -> None:
    message = "Container main for pod team/zhenhuan-0-vpghk failed with exit code 14 matching FailJob rule at index 0"

    run = from_job(job(failed("PodFailurePolicy", message)), NOW)

    assert run.reason == "out-of-memory: a pod ended with exit code 14"


def test_a_report_of_another_pod_does_not_explain_a_failure() -> None:
    message = "Container main for pod team/zhenhuan-0-x7k2d failed with exit code 11 matching FailJob rule at index 0"
    earlier = progress(FIRST_POD, phase="end", exit_code=21, failure="storage", message="it did not answer")

    run = from_job(job(failed("PodFailurePolicy", message, 2), progress=earlier), NOW)

    assert run.reason == "data: a pod ended with exit code 11"


def test_an_old_report_does_not_explain_why_the_last_retry_failed() -> None:
    earlier = progress(FIRST_POD, phase="end", exit_code=21, failure="storage", message="it did not answer", seconds=60)

    run = from_job(job(failed("BackoffLimitExceeded", count=4), progress=earlier), NOW)

    assert run.failure is not None
    assert run.failure.failure == "lost"


def test_a_class_that_was_tried_again_until_no_retry_was_left_has_a_hint_for_now(said: Said) -> None:
    words = TerminationMessage(
        exit_code=20,
        failure="hub",
        message="it is down",
        hint="the model hub did not answer; a new attempt goes on from what came",
    )

    run = from_objects(job(failed("BackoffLimitExceeded", count=4)), [failed_pod(code=20, words=words)], (), NOW)

    assert run.failure is not None
    assert run.failure.failure == "hub"
    said(run.failure.hint)


def test_memory_beyond_the_limit_is_told_from_a_kill(said: Said) -> None:
    state = failed("BackoffLimitExceeded", count=4)

    killed_for_memory = from_objects(job(state), [failed_pod(code=137, reason="OOMKilled")], (), NOW)
    killed = from_objects(job(state), [failed_pod(code=137)], (), NOW)

    said(killed_for_memory.reason)
    assert killed_for_memory.failure is not None
    assert killed_for_memory.failure.failure == "out-of-memory"
    said(killed_for_memory.failure.hint)
    said(killed.reason)


def test_a_run_beyond_its_time_says_which_limit_it_was(said: Said) -> None:
    run = from_job(job(failed("DeadlineExceeded", "Job was active longer than specified deadline")), NOW)

    said(run.reason)


def test_the_cause_is_told_from_its_consequences_among_several_nodes() -> None:
    cause = TerminationMessage(exit_code=21, failure="storage", message="it did not answer")
    lost = TerminationMessage(exit_code=1, failure="unexpected", message="connection closed by peer")
    pods = [
        failed_pod(node=0, code=1, words=lost, ended=203),
        failed_pod("zhenhuan-1-abcde", node=1, code=21, words=cause, ended=200),
    ]

    run = from_objects(job(failed("BackoffLimitExceeded", count=8), nodes=2), pods, (), NOW)

    assert run.reason == "storage: it did not answer"


def test_the_last_attempt_counts_and_not_one_before_it() -> None:
    first = TerminationMessage(exit_code=21, failure="storage", message="it did not answer")
    pods = [
        failed_pod(FIRST_POD, code=21, words=first, ended=100),
        failed_pod(SECOND_POD, code=137, reason="OOMKilled", ended=298),
    ]

    run = from_objects(job(failed("BackoffLimitExceeded", count=2)), pods, (), NOW)

    assert run.reason.startswith("out-of-memory")


def test_a_pod_that_its_node_put_out_says_so(said: Said) -> None:
    put_out = failed_pod(code=0)
    put_out["status"] |= {
        "reason": "Evicted",
        "message": "The node was low on resource: ephemeral-storage.",
        "containerStatuses": [],
    }

    run = from_objects(job(failed("BackoffLimitExceeded")), [put_out], (), NOW)

    assert run.failure is not None
    assert run.failure.failure == "evicted"
    said(run.reason)
