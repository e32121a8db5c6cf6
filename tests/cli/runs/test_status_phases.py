"""The phase of a run from what Kubernetes keeps of it, also where Jobs and annotations mislead."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from run_objects import (
    BEGAN,
    NOW,
    at,
    condition,
    ended_pod,
    job,
    progress,
    running_pod,
    unreachable_pod,
    unscheduled_pod,
    waiting_pod,
    with_sidecar,
)

from golden.said import Said
from lorajob.runs.status import from_job, from_objects
from lorajob_runtime.contract import kubernetes

ACTIVE = {"active": 1, "ready": 1, "startTime": at(0), "terminating": 0}
STARTING = {**ACTIVE, "ready": 0}


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

    assert (run.phase, run.reason) == ("Preparing", "has started and has not reported yet")


def test_a_container_that_never_reports_is_told_so(said: Said) -> None:
    run = from_objects(job(ACTIVE), [running_pod()], (), NOW)

    assert run.phase == "Preparing"
    said(run.reason)


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

    assert (run.phase, run.reason) == ("Suspended", "`lorajob resume zhenhuan` continues it")
    assert run.progress is not None
    assert not run.is_terminal


@pytest.mark.parametrize("cancelled", [{}, {kubernetes.CANCELLED_ANNOTATION: at(250)}])
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
    cancelled: dict[str, str], state: dict[str, object], report: kubernetes.Progress | None, count: int
) -> None:
    found = job({**state, "ready": 0}, progress=report, suspend=True, annotations=cancelled)

    assert from_job(found, NOW).attempts == from_objects(found, [], (), NOW).attempts == count


def test_a_run_that_a_queue_has_put_back_has_begun_an_attempt() -> None:
    run = from_job(job({}, progress=progress(), suspend=True, labels={kubernetes.QUEUE_LABEL: "team-a"}), NOW)

    assert (run.phase, run.attempts, run.progress) == ("Pending", 1, None)


def test_a_run_that_is_being_suspended_still_saves() -> None:
    run = from_job(job({**ACTIVE, "terminating": 1}, suspend=True), NOW)

    assert (run.phase, run.reason) == ("Suspended", "is stopping, after a checkpoint")


def test_a_suspended_run_of_a_queue_waits_for_its_turn() -> None:
    run = from_job(job({}, suspend=True, labels={kubernetes.QUEUE_LABEL: "team-a"}), NOW)

    assert (run.phase, run.reason, run.queue) == ("Pending", "waits for its turn in queue team-a", "team-a")


def test_a_cancelled_run_has_ended_when_it_was_cancelled() -> None:
    run = from_job(job({}, suspend=True, annotations={kubernetes.CANCELLED_ANNOTATION: at(250)}), NOW)

    assert (run.phase, run.is_terminal, run.finished) == ("Cancelled", True, BEGAN + timedelta(seconds=250))


def test_a_cancelled_run_that_someone_started_again_runs() -> None:
    run = from_job(job(ACTIVE, progress=progress(), annotations={kubernetes.CANCELLED_ANNOTATION: at(2)}), NOW)

    assert run.phase == "Training"


# What only looks as if it trained


def test_a_run_of_two_nodes_trains_only_when_both_pods_run(said: Said) -> None:
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available."
    second = unscheduled_pod(message, name="zhenhuan-1-abcde", node=1)
    found = job({**ACTIVE, "active": 2}, progress=progress(), changed=530, nodes=2)

    seen, listed = from_objects(found, [running_pod(), second], (), NOW), from_job(found, NOW)

    assert (seen.phase, listed.phase) == ("Pending", "Pending")
    said(seen.reason)
    said(listed.reason)


def test_weights_come_to_the_first_node_while_the_second_waits_and_it_says_so(said: Said) -> None:
    second = waiting_pod(name="zhenhuan-1-abcde", node=1)

    run = from_objects(job(ACTIVE, progress=progress(phase="fetch"), nodes=2), [running_pod(), second], (), NOW)

    assert run.phase == "Downloading"
    said(run.reason)


def test_training_that_stands_still_says_so_and_expects_nothing(said: Said) -> None:
    stopped = progress(alive=progress(seconds=-900).time)

    run = from_objects(job(ACTIVE, progress=stopped), [running_pod()], (), NOW)

    assert run.phase == "Training"
    said(run.reason)
    assert run.progress is not None
    assert (run.progress.step, run.progress.seconds_left, run.progress.tokens_per_second) == (300, None, None)
    assert not run.is_progressing


def test_a_report_that_is_old_is_no_news(said: Said) -> None:
    for run in (
        from_objects(job(ACTIVE, progress=progress(seconds=60)), [running_pod()], (), NOW),
        from_job(job(ACTIVE, progress=progress(seconds=60)), NOW),
    ):
        said(run.reason)
        assert (run.progress and run.progress.seconds_left, run.is_progressing) == (None, False)


def test_a_long_step_is_no_silence() -> None:
    """Four minutes since the last report, where a step takes two."""
    slow = progress(seconds=360, step=600, seconds_left=100 * 120.0)

    assert from_objects(job(ACTIVE, progress=slow), [running_pod()], (), NOW).is_progressing


def test_a_pod_whose_node_is_lost_does_not_run_whatever_its_container_says() -> None:
    found = job({**ACTIVE, "ready": 0}, progress=progress(), changed=580)

    seen, listed = from_objects(found, [unreachable_pod()], (), NOW), from_job(found, NOW)

    assert (seen.phase, listed.phase) == ("Pending", "Pending")
    assert seen.reason == "its node test-node does not answer"
    assert (seen.progress, listed.progress) == (None, None)


def test_containers_and_gates_of_others_that_are_not_ready_say_nothing_of_the_node() -> None:
    for gates, ready in (([], "False"), ([{"conditionType": "mesh/ready"}], "True")):
        found = with_sidecar(running_pod())
        found["status"]["conditions"] = [condition("ContainersReady", ready), condition("Ready", "False")]
        found["spec"]["readinessGates"] = gates

        assert from_objects(job(ACTIVE, progress=progress()), [found], (), NOW).phase == "Training"


# At its end


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        ([running_pod()], "the run itself has ended; its pod is ending"),
        ([ended_pod()], "the run itself has ended"),
        ([], "the run itself has ended"),
        (
            [waiting_pod()],
            "the run itself has ended; its Job ends when another pod has seen that: ContainerCreating",
        ),
        (None, "the run itself has ended"),
    ],
)
@pytest.mark.parametrize("seconds", [10, 500])
def test_a_run_that_has_told_its_end_is_not_waited_for_to_report(pods: Any, said: str, seconds: float) -> None:
    found = job({**ACTIVE, "ready": 0}, progress=progress(phase="end", exit_code=0, seconds=seconds))

    run = from_objects(found, pods, (), NOW)

    assert (run.phase, run.reason) == ("Publishing", said)


def test_an_injected_container_that_keeps_the_pod_is_named(said: Said) -> None:
    found = job(ACTIVE, progress=progress(phase="end", exit_code=0))

    run = from_objects(found, [with_sidecar(ended_pod())], (), NOW)
    unreported = from_objects(job(ACTIVE), [with_sidecar(ended_pod())], (), NOW)

    for each in (run, unreported):
        assert each.phase == "Publishing"
        said(each.reason)


def test_a_run_that_waits_has_not_started() -> None:
    waits = from_objects(job({"active": 1, "ready": 0, "startTime": at(0)}), [waiting_pod()], (), NOW)
    runs = from_objects(job(ACTIVE), [running_pod()], (), NOW)

    assert (waits.started, runs.started) == (None, BEGAN)
