"""The requests of a retry in their order: all of it is tried and written down before the old Job goes."""

from __future__ import annotations

import json
from typing import Any

from run_objects import NAME, at, condition, job

from fakes.api_server import Reply, api_server
from lorajob.cluster import Cluster
from lorajob.cluster.access import Access
from lorajob.platform import platform_parsing
from lorajob.runs import retry
from lorajob.submit import manifest
from lorajob.submit.manifest import Manifests
from lorajob_runtime.contract.kubernetes import RUN_LABEL
from lorajob_runtime.contract.spec import RunSpec

CONFIG = {"image": "registry/lorajob:0.1.0", "storage": {"uri": "s3://models/lora"}}
PLATFORM = platform_parsing.parse(CONFIG, "platform.yaml")
JOBS = "/apis/batch/v1/namespaces/team/jobs"
CONFIG_MAPS = "/api/v1/namespaces/team/configmaps"
SERVICE = f"/api/v1/namespaces/team/services/{NAME}"
NOT_THERE = Reply(404, {"kind": "Status", "reason": "NotFound", "details": {"name": NAME}, "message": "not found"})
DATA = Reply(200, {"metadata": {"name": f"{NAME}-data", "labels": {RUN_LABEL: NAME}}})


def test_a_retry_is_tried_and_written_down_before_the_old_job_is_deleted() -> None:
    failed = job({"failed": 1, "startTime": at(0), "conditions": [condition("Failed", reason="BackoffLimitExceeded")]})
    replaced_uid = failed["metadata"]["uid"]
    created: dict[str, Any] = {"metadata": {"name": NAME, "uid": "new"}}
    tried = [NOT_THERE, Reply(200, failed), DATA, Reply(201, created), Reply(200, failed), Reply(201, {})]
    taken_over = [NOT_THERE, DATA, Reply(200, {})]

    with api_server() as server, Cluster(Access(server=server.address, namespace="team", source="test")) as client:
        server.answers += [*tried, *taken_over, Reply(200, failed), NOT_THERE, Reply(201, created)]
        server.answers += [*taken_over, Reply(200, {})]
        retry.retry(client, NAME, build=_built)

    asked = [(each.method, each.path.partition("?")[0]) for each in server.requests]
    data, record = f"{CONFIG_MAPS}/{NAME}-data", f"{CONFIG_MAPS}/{NAME}-retry"
    give, take = (json.loads(server.requests[at].body)["metadata"]["ownerReferences"] for at in (8, 14))
    written = json.loads(json.loads(server.requests[5].body)["data"]["retry.json"])
    assert asked == [
        ("GET", record),
        ("GET", f"{JOBS}/{NAME}"),
        ("GET", data),
        ("POST", JOBS),
        ("DELETE", f"{JOBS}/{NAME}"),
        ("POST", CONFIG_MAPS),
        ("GET", SERVICE),
        ("GET", data),
        ("PATCH", data),
        ("DELETE", f"{JOBS}/{NAME}"),
        ("GET", f"{JOBS}/{NAME}"),
        ("POST", JOBS),
        ("GET", SERVICE),
        ("GET", data),
        ("PATCH", data),
        ("DELETE", record),
    ]
    assert [json.loads(server.requests[at].body).get("dryRun") for at in (4, 9)] == [["All"], None]
    assert (give, take[0]["uid"]) == (None, "new")
    assert (written["was"], [each["kind"] for each in written["manifests"]]) == (replaced_uid, ["Job"])
    assert written["manifests"][0] == json.loads(server.requests[11].body)
    assert written["manifests"][0]["metadata"]["annotations"]["lorajob.dev/replaces"] == replaced_uid


def _built(spec: RunSpec) -> Manifests:
    return manifest.build(spec, PLATFORM, namespace="team", version="0.1.0")
