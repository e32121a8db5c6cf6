"""The phase and reason of a run from what Kubernetes keeps of it, also where Jobs and annotations mislead."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from run_objects import (
    BEGAN,
    FIRST_POD,
    NAME,
    NOW,
    SECOND_POD,
    at,
    condition,
    event,
    failed_pod,
    job,
    progress,
    running_pod,
    stopping_pod,
    unscheduled_pod,
    waiting_pod,
)

from lorajob.status import from_job, from_objects, to_dict
from lorajob_runtime import pod
from lorajob_runtime.pod import LastWords

ACTIVE = {"active": 1, "ready": 1, "startTime": at(0), "terminating": 0}
STARTING = {**ACTIVE, "ready": 0}
BACK_OFF = {"failed": 1, "ready": 0, "startTime": at(0), "terminating": 0}
STORAGE = LastWords(exit_code=21, failure="storage", message="s3://models does not answer", hint="look at the bucket")


def test_a_run_that_reports_is_in_the_phase_of_its_report_with_its_numbers() -> None:
    run = from_job(job(ACTIVE, progress=progress(), changed=5), NOW)

    assert (run.phase, run.model, run.gpus, run.storage) == ("Training", "qwen3-8b", 4, "s3://models/lora/zhenhuan")
    assert run.progress is not None
    assert (run.progress.step, run.progress.loss) == (300, 1.25)
    assert (run.attempts, run.retries, run.finished) == (1, 3, None)


@pytest.mark.parametrize(
    ("reported", "shown"),
    [("fetch", "Downloading"), ("data", "Preparing"), ("train", "Training"), ("publish", "Publishing")],
)
def test_every_phase_of_the_event_log_has_its_name(reported: str, shown: str) -> None:
    found = job(ACTIVE, progress=progress(phase=reported))

    assert from_job(found, NOW).phase == shown
    assert from_objects(found, [running_pod()], (), NOW).phase == shown


def test_what_a_phase_is_busy_with_is_its_reason() -> None:
    run = from_job(job(ACTIVE, progress=progress(phase="fetch", note="3.2 of 16.4 GB")), NOW)

    assert run.reason == "3.2 of 16.4 GB"


def test_a_job_without_pods_or_conditions_is_pending() -> None:
    run = from_job(job({}, changed=None), NOW)

    assert (run.phase, run.reason, run.attempts) == ("Pending", "waits for its pod to be created", 0)


def test_an_active_job_whose_pod_hangs_is_pending() -> None:
    assert from_job(job(STARTING), NOW).phase == "Pending"


def test_a_container_that_runs_and_has_not_reported_is_preparing() -> None:
    run = from_objects(job(ACTIVE), [running_pod()], (), BEGAN + timedelta(seconds=8))

    assert (run.phase, run.reason) == ("Preparing", "has started and not reported yet")


def test_a_container_that_never_reports_is_told_so() -> None:
    run = from_objects(job(ACTIVE), [running_pod()], (), NOW)

    assert run.reason == "has not reported since it started at 09:00:03 UTC: see `lorajob logs zhenhuan`"


# After a resume


def test_a_resumed_job_is_not_suspended_though_the_condition_is_still_there() -> None:
    resumed = {
        **ACTIVE,
        "startTime": at(400),
        "conditions": [condition("Suspended", "False", reason="JobResumed", seconds=400)],
    }

    run = from_job(job(resumed, progress=progress(seconds=420), changed=405), NOW)

    assert run.phase == "Training"


def test_a_report_from_before_the_resume_is_not_shown() -> None:
    resumed = {**STARTING, "startTime": at(400)}

    run = from_job(job(resumed, progress=progress(seconds=390), changed=395), NOW)

    assert (run.phase, run.progress) == ("Pending", None)


def test_a_suspended_run_says_how_far_it_came_and_how_to_go_on() -> None:
    state = {"conditions": [condition("Suspended", reason="JobSuspended")], "ready": 0}

    run = from_job(job(state, progress=progress(), changed=310, suspend=True), NOW)

    assert (run.phase, run.reason) == ("Suspended", "`lorajob resume zhenhuan` goes on")
    assert run.progress is not None
    assert not run.is_terminal


@pytest.mark.parametrize("cancelled", [{}, {pod.CANCELLED_ANNOTATION: at(250)}])
@pytest.mark.parametrize(
    ("state", "report", "count"),
    [
        pytest.param({}, None, 0, id="never started"),
        pytest.param({"startTime": at(0)}, None, 1, id="started and not reported"),
        pytest.param({"startTime": at(0), "terminating": 1}, progress(), 1, id="stopping"),
        pytest.param({"startTime": at(0)}, progress(), 1, id="trained"),
        pytest.param({}, progress(phase="end", exit_code=30), 1, id="said that it was stopped"),
        pytest.param({"failed": 1}, progress(), 2, id="trained again after a failure"),
        pytest.param({"failed": 1}, progress(phase="end", exit_code=21), 1, id="failed and waited for the next"),
        pytest.param({"failed": 1, "startTime": at(0)}, None, 1, id="failed without a report"),
    ],
)
def test_an_attempt_that_was_stopped_with_its_run_counts(
    cancelled: dict[str, str], state: dict[str, object], report: pod.Progress | None, count: int
) -> None:
    found = job({**state, "ready": 0}, progress=report, suspend=True, annotations=cancelled)

    assert from_job(found, NOW).attempts == from_objects(found, [], (), NOW).attempts == count


def test_a_run_that_a_queue_has_put_back_has_begun_an_attempt() -> None:
    run = from_job(job({}, progress=progress(), suspend=True, labels={pod.QUEUE_LABEL: "team-a"}), NOW)

    assert (run.phase, run.attempts, run.progress) == ("Pending", 1, None)


def test_a_run_that_is_being_suspended_still_saves() -> None:
    run = from_job(job({**ACTIVE, "terminating": 1}, suspend=True), NOW)

    assert (run.phase, run.reason) == ("Suspended", "stops, with a checkpoint")


def test_a_suspended_run_of_a_queue_waits_for_its_turn() -> None:
    run = from_job(job({}, suspend=True, labels={pod.QUEUE_LABEL: "team-a"}), NOW)

    assert (run.phase, run.reason, run.queue) == ("Pending", "waits for its turn in queue team-a", "team-a")


def test_a_cancelled_run_has_ended_when_it_was_cancelled() -> None:
    run = from_job(job({}, suspend=True, annotations={pod.CANCELLED_ANNOTATION: at(250)}), NOW)

    assert (run.phase, run.is_terminal, run.finished) == ("Cancelled", True, BEGAN + timedelta(seconds=250))


def test_a_cancelled_run_that_someone_started_again_runs() -> None:
    run = from_job(job(ACTIVE, progress=progress(), annotations={pod.CANCELLED_ANNOTATION: at(2)}), NOW)

    assert run.phase == "Training"


# During back-off


def test_during_back_off_the_reason_says_what_failed_and_what_is_left() -> None:
    run = from_objects(job(BACK_OFF), [failed_pod(code=21, words=STORAGE)], (), NOW)

    assert run.phase == "Pending"
    assert run.reason == (
        "attempt 1 failed (storage: s3://models does not answer); the next starts soon, 2 of 3 retries left after it"
    )


def test_a_final_failure_that_the_job_has_not_drawn_its_conclusion_from_promises_no_next_attempt() -> None:
    words = LastWords(exit_code=14, failure="out-of-memory", message="no memory was left")

    run = from_objects(job(BACK_OFF), [failed_pod(code=14, words=words)], (), NOW)

    assert run.reason == "attempt 1 failed (out-of-memory: no memory was left); it is not tried again"


def test_during_back_off_the_report_of_the_end_is_enough_where_the_pod_is_gone() -> None:
    ended = progress(phase="end", exit_code=21, failure="storage", message="s3://models does not answer", seconds=200)

    run = from_job(job(BACK_OFF, progress=ended, changed=202), NOW)

    assert run.reason.startswith("attempt 1 failed (storage: s3://models does not answer); the next starts soon")
    assert run.progress is None


def test_a_failure_that_the_controller_has_not_counted_yet_counts() -> None:
    state = {"ready": 0, "startTime": at(0), "active": 0}

    run = from_objects(job(state), [failed_pod(code=21, words=STORAGE)], (), NOW)

    assert run.reason.startswith("attempt 1 failed (storage: ")


def test_a_pod_that_has_reported_its_failure_is_ending() -> None:
    ended = progress(phase="end", exit_code=21, failure="storage", message="it does not answer", seconds=200)

    run = from_objects(job(ACTIVE, progress=ended), [running_pod()], (), NOW)

    assert (run.phase, run.reason) == (
        "Pending",
        "its attempt has failed (storage: it does not answer) and its pod is ending",
    )


def test_a_pod_that_someone_deleted_was_lost() -> None:
    run = from_objects(job(BACK_OFF, progress=progress(), changed=205), [], (), NOW)

    assert run.reason == "attempt 1 was lost; the next starts soon, 2 of 3 retries left after it"


def test_a_report_of_an_earlier_pod_is_not_shown_as_that_of_the_next() -> None:
    found = job({**ACTIVE, "failed": 1}, progress=progress(FIRST_POD), changed=230)

    assert from_objects(found, [failed_pod(), running_pod(SECOND_POD)], (), NOW).progress is None
    assert from_job(found, NOW).progress is None
    assert from_job(found, NOW).phase == "Preparing"


def test_a_report_of_the_end_of_the_attempt_before_does_not_end_the_next() -> None:
    ended = progress(phase="end", exit_code=21, failure="storage", seconds=200)

    run = from_job(job({**ACTIVE, "failed": 1}, progress=ended, changed=230), NOW)

    assert (run.phase, run.attempts) == ("Preparing", 2)


def test_a_pod_that_is_stopping_holds_up_its_replacement() -> None:
    run = from_objects(job({**STARTING, "active": 0, "terminating": 1}), [stopping_pod()], (), NOW)

    assert (run.phase, run.reason) == ("Pending", "its pod is stopping; the next one starts when it has")


# The end


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
    words = LastWords(exit_code=11, failure="data", message="no row has an answer", hint="look at the columns")

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

    assert run.failure == LastWords(exit_code=11, failure="data", message="no row has an answer", hint="look there")


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


def test_a_class_that_was_tried_again_until_no_retry_was_left_has_a_hint_for_now() -> None:
    words = LastWords(
        exit_code=20,
        failure="hub",
        message="it is down",
        hint="the model hub did not answer; a new attempt goes on from what came",
    )

    run = from_objects(job(failed("BackoffLimitExceeded", count=4)), [failed_pod(code=20, words=words)], (), NOW)

    assert run.failure is not None
    assert run.failure.hint == "`lorajob retry zhenhuan` goes on from the last checkpoint"


def test_memory_beyond_the_limit_is_told_from_a_kill() -> None:
    state = failed("BackoffLimitExceeded", count=4)

    killed_for_memory = from_objects(job(state), [failed_pod(code=137, reason="OOMKilled")], (), NOW)
    killed = from_objects(job(state), [failed_pod(code=137)], (), NOW)

    assert killed_for_memory.reason == "out-of-memory: the container used more memory than it may (OOMKilled)"
    assert killed_for_memory.failure is not None
    assert "resources.memory" in killed_for_memory.failure.hint
    assert killed.reason == "killed: the container was killed (SIGKILL)"


def test_a_run_beyond_its_time_says_which_limit_it_was() -> None:
    run = from_job(job(failed("DeadlineExceeded", "Job was active longer than specified deadline")), NOW)

    assert run.reason == "timeout: ran longer than its limit of 1d 00h"


def test_the_cause_is_told_from_its_consequences_among_several_nodes() -> None:
    cause = LastWords(exit_code=21, failure="storage", message="it did not answer")
    lost = LastWords(exit_code=1, failure="unexpected", message="connection closed by peer")
    pods = [
        failed_pod(node=0, code=1, words=lost, ended=203),
        failed_pod("zhenhuan-1-abcde", node=1, code=21, words=cause, ended=200),
    ]

    run = from_objects(job(failed("BackoffLimitExceeded", count=8), nodes=2), pods, (), NOW)

    assert run.reason == "storage: it did not answer"


def test_the_last_attempt_counts_and_not_one_before_it() -> None:
    first = LastWords(exit_code=21, failure="storage", message="it did not answer")
    pods = [
        failed_pod(FIRST_POD, code=21, words=first, ended=100),
        failed_pod(SECOND_POD, code=137, reason="OOMKilled", ended=298),
    ]

    run = from_objects(job(failed("BackoffLimitExceeded", count=2)), pods, (), NOW)

    assert run.reason.startswith("out-of-memory")


def test_a_pod_that_its_node_put_out_says_so() -> None:
    put_out = failed_pod(code=0)
    put_out["status"] |= {
        "reason": "Evicted",
        "message": "The node was low on resource: ephemeral-storage.",
        "containerStatuses": [],
    }

    run = from_objects(job(failed("BackoffLimitExceeded")), [put_out], (), NOW)

    assert run.reason == "evicted: Evicted: The node was low on resource: ephemeral-storage."


# What a pending run waits for


def test_a_pod_that_no_node_takes_says_what_the_scheduler_says_in_short() -> None:
    message = (
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: "
        "0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )

    run = from_objects(job(STARTING), [unscheduled_pod(message)], (), NOW)

    assert run.reason == "not scheduled: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu"


def test_a_quota_that_refuses_the_pods_shows_only_in_the_events_of_the_job() -> None:
    message = (
        '(combined from similar events): Error creating: pods "zhenhuan-0-cnjr6" is forbidden: exceeded quota: gpus, '
        "requested: requests.nvidia.com/gpu=8, used: requests.nvidia.com/gpu=0, limited: requests.nvidia.com/gpu=4"
    )
    events = [event("Job", NAME, "FailedCreate", message)]

    run = from_objects(job({"startTime": at(0)}), [], events, NOW)

    assert run.reason == (
        "its pods are refused: exceeded quota: gpus, requested: requests.nvidia.com/gpu=8, "
        "used: requests.nvidia.com/gpu=0, limited: requests.nvidia.com/gpu=4"
    )


def test_a_refusal_that_is_over_is_not_told() -> None:
    events = [
        event("Job", NAME, "SuccessfulCreate", "Created pod: zhenhuan-0-vpghk", seconds=60),
        event("Job", NAME, "FailedCreate", "Error creating: it is forbidden", seconds=30),
    ]

    run = from_objects(job(STARTING), [], events, NOW)

    assert run.reason == "its pod has not started yet"


def test_an_image_that_can_not_be_pulled_is_named() -> None:
    message = 'Back-off pulling image "registry.example/none:1": ErrImagePull: not found'

    run = from_objects(job(STARTING), [waiting_pod("ImagePullBackOff", message)], (), NOW)

    assert run.reason == f"the image can't be pulled (ImagePullBackOff): {message}"


def test_a_secret_that_is_not_there_is_named() -> None:
    run = from_objects(
        job(STARTING), [waiting_pod("CreateContainerConfigError", 'secret "lorajob-storage" not found')], (), NOW
    )

    assert run.reason == 'CreateContainerConfigError: secret "lorajob-storage" not found'


def test_a_volume_that_can_not_be_mounted_shows_only_in_the_events_of_the_pod() -> None:
    message = 'MountVolume.SetUp failed for volume "data" : configmap "zhenhuan-data" not found'

    run = from_objects(job(STARTING), [waiting_pod()], [event("Pod", FIRST_POD, "FailedMount", message)], NOW)

    assert run.reason == message


def test_of_two_nodes_one_that_hangs_keeps_the_run_pending() -> None:
    message = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    pods = [running_pod(), unscheduled_pod(message, name="zhenhuan-1-abcde")]

    run = from_objects(job({**ACTIVE, "active": 2}, nodes=2), pods, (), NOW)

    assert run.phase == "Pending"
    assert run.reason == "not scheduled: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu (1 of 2 pods run)"


def test_a_run_that_is_being_deleted_says_so() -> None:
    found = job(ACTIVE, progress=progress(phase="data"))
    found["metadata"]["deletionTimestamp"] = at(400)

    assert from_job(found, NOW).reason == "is being deleted"


# What others write is not trusted


def test_text_from_a_pod_can_not_steer_the_terminal() -> None:
    words = LastWords(exit_code=1, failure="unexpected", message="\x1b[2Jgone\nand more")

    run = from_objects(job(failed("BackoffLimitExceeded")), [failed_pod(words=words)], (), NOW)

    assert run.reason == "unexpected: [2Jgone and more"


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "no json", '{"pod": 3}', '{"model": 1, "resources": [], "data": {}}']
)
def test_a_job_with_an_unreadable_spec_or_report_still_has_a_status(text: str) -> None:
    found = job(ACTIVE, annotations={pod.PROGRESS_ANNOTATION: text})
    found["spec"]["template"]["metadata"]["annotations"][pod.SPEC_ANNOTATION] = text

    run = from_job(found, NOW)

    assert (run.phase, run.gpus, run.progress) == ("Preparing", 1, None)


def test_the_json_form_is_json_and_leaves_out_pods_that_nobody_looked_at() -> None:
    found = job(ACTIVE, progress=progress())

    listed, seen = to_dict(from_job(found, NOW)), to_dict(from_objects(found, [running_pod()], (), NOW))

    assert json.loads(json.dumps(seen)) == seen
    assert "pods" not in listed
    assert seen["pods"][0] == {
        "name": FIRST_POD,
        "node": 0,
        "state": "Running",
        "reason": "",
        "host": "test-node",
        "started": at(3),
        "finished": None,
        "exitCode": None,
    }
    assert listed["progress"]["percent"] == 42.9
    assert (listed["apiVersion"], listed["kind"], listed["created"]) == ("lorajob.dev/v1", "Run", at(-5))
