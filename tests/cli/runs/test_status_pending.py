"""What a pending run waits for."""

from __future__ import annotations

import pytest
from run_objects import FIRST_POD, IMAGE, NAME, NOW, at, event, job, progress, running_pod, unscheduled_pod, waiting_pod

from golden.said import Said
from lorajob.runs.status import LONGEST, from_job, from_objects

ACTIVE = {"active": 1, "ready": 1, "startTime": at(0), "terminating": 0}
STARTING = {**ACTIVE, "ready": 0}


def test_a_pod_that_no_node_takes_says_what_the_scheduler_says_in_short(said: Said) -> None:
    message = (
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: "
        "0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )

    run = from_objects(job(STARTING), [unscheduled_pod(message)], (), NOW)

    said(run.reason)


def test_a_quota_that_refuses_the_pods_shows_only_in_the_events_of_the_job(said: Said) -> None:
    message = (
        '(combined from similar events): Error creating: pods "zhenhuan-0-cnjr6" is forbidden: exceeded quota: gpus, '
        "requested: requests.nvidia.com/gpu=8, used: requests.nvidia.com/gpu=0, limited: requests.nvidia.com/gpu=4"
    )
    events = [event("Job", NAME, "FailedCreate", message)]

    run = from_objects(job({"startTime": at(0)}), [], events, NOW)

    said(run.reason)


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

    assert run.reason == f"the image {IMAGE} can't be pulled (ImagePullBackOff): not found"


def test_a_secret_that_is_not_there_is_named() -> None:
    run = from_objects(
        job(STARTING), [waiting_pod("CreateContainerConfigError", 'secret "lorajob-storage" not found')], (), NOW
    )

    assert run.reason == 'CreateContainerConfigError: secret "lorajob-storage" not found'


def test_a_volume_that_can_not_be_mounted_shows_only_in_the_events_of_the_pod() -> None:
    message = 'MountVolume.SetUp failed for volume "data" : configmap "zhenhuan-data" not found'

    run = from_objects(job(STARTING), [waiting_pod()], [event("Pod", FIRST_POD, "FailedMount", message)], NOW)

    assert run.reason == message


def test_of_two_nodes_one_that_hangs_keeps_the_run_pending(said: Said) -> None:
    message = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    pods = [running_pod(), unscheduled_pod(message, name="zhenhuan-1-abcde", node=1)]

    run = from_objects(job({**ACTIVE, "active": 2}, nodes=2), pods, (), NOW)

    assert run.phase == "Pending"
    said(run.reason)


def test_a_run_that_is_being_deleted_says_so() -> None:
    found = job(ACTIVE, progress=progress(phase="data"))
    found["metadata"]["deletionTimestamp"] = at(400)

    assert from_job(found, NOW).reason == "is being deleted"


WAY = (
    'Back-off pulling image "x": ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack image "x": '
)


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (
            WAY + 'failed to resolve reference "x": failed to do request: Head "https://registry.invalid/v2/x": '
            "dial tcp: lookup registry.invalid on 10.96.0.10:53: no such host",
            "dial tcp: lookup registry.invalid on 10.96.0.10:53: no such host",
        ),
        (
            WAY + 'failed to resolve reference "x": pull access denied, repository does not exist or may require '
            "authorization: server message: insufficient_scope: authorization failed",
            "pull access denied, repository does not exist or may require authorization: server message: "
            "insufficient_scope: authorization failed",
        ),
        (WAY + 'failed to resolve reference "x": x: not found', "x: not found"),
        (
            WAY + 'failed to resolve reference "x": unexpected status from HEAD request to https://r/v2/x: '
            "401 Unauthorized",
            "401 Unauthorized",
        ),
        ('Back-off pulling image "x"', 'Back-off pulling image "x"'),
        ("Error response from daemon: manifest unknown", "Error response from daemon: manifest unknown"),
        ("", ""),
    ],
)
def test_of_an_image_that_can_not_be_pulled_the_cause_is_shown(message: str, cause: str) -> None:
    run = from_objects(job(STARTING), [waiting_pod("ErrImagePull", message)], (), NOW)

    assert run.reason == f"the image {IMAGE} can't be pulled (ErrImagePull): {cause}".rstrip()


def test_a_reason_that_is_too_long_keeps_its_beginning_and_its_end() -> None:
    message = "the way there " * 100 + "no such host"

    run = from_objects(job(STARTING), [waiting_pod("CreateContainerError", message)], (), NOW)

    assert len(run.reason) == LONGEST
    assert run.reason.startswith("CreateContainerError: the way there")
    assert run.reason.endswith("the way there no such host")
