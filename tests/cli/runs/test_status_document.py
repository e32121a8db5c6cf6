"""A run whose texts others wrote, and its JSON form."""

from __future__ import annotations

import json

import pytest
from run_objects import FIRST_POD, NOW, at, condition, failed_pod, job, progress, running_pod

from lorajob.runs.document import to_dict
from lorajob.runs.status import from_job, from_objects
from lorajob_runtime.contract import kubernetes
from lorajob_runtime.contract.kubernetes import TerminationMessage

ACTIVE = {"active": 1, "ready": 1, "startTime": at(0), "terminating": 0}


def failed(reason: str, message: str = "", count: int = 1) -> dict[str, object]:
    conditions = [condition(kind, reason=reason, message=message) for kind in ("FailureTarget", "Failed")]
    return {"failed": count, "startTime": at(0), "conditions": conditions}


def test_text_from_a_pod_can_not_steer_the_terminal() -> None:
    words = TerminationMessage(exit_code=1, failure="unexpected", message="\x1b[2Jgone\nand more")

    run = from_objects(job(failed("BackoffLimitExceeded")), [failed_pod(words=words)], (), NOW)

    assert run.reason == "unexpected: ␛[2Jgone and more"


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "no json", '{"pod": 3}', '{"model": 1, "resources": [], "data": {}}']
)
def test_a_job_with_an_unreadable_spec_or_report_still_has_a_status(text: str) -> None:
    found = job(ACTIVE, annotations={kubernetes.PROGRESS_ANNOTATION: text})
    found["spec"]["template"]["metadata"]["annotations"][kubernetes.SPEC_ANNOTATION] = text

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
        "created": at(0),
        "disruption": None,
    }
    assert (listed["progress"]["percent"], listed["progress"]["isCurrent"]) == (42.9, True)
    assert (listed["apiVersion"], listed["kind"], listed["created"]) == ("lorajob.dev/v1", "Run", at(-5))
