"""What Kueue says of a run that waits in a queue, by the conditions of its Workload."""

from __future__ import annotations

from typing import Any

import pytest
from run_objects import NOW, condition, job

from fakes.api_server import ApiServer, Reply, api_server
from lorajob.cluster import Cluster
from lorajob.cluster.access import Access
from lorajob.runs import kueue, lookup
from lorajob.runs.status import from_job, from_objects
from lorajob_runtime.contract import kubernetes

QUOTA = (
    "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu in flavor default, "
    "request > maximum capacity (2 > 1)"
)
WAITS = job({}, suspend=True, labels={kubernetes.QUEUE_LABEL: "team"})


def _workload(*conditions: dict[str, Any], active: bool = True, **state: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "job-zhenhuan", "creationTimestamp": "2026-11-21T09:00:00Z"},
        "spec": {"active": active, "queueName": "team"},
        "status": {"conditions": list(conditions), **state},
    }


def _unreserved(reason: str, message: str) -> dict[str, Any]:
    return condition("QuotaReserved", "False", reason=reason, message=message)


PUT_BACK = "Preempted to accommodate a workload (UID: 7)"


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        (_workload(), ""),
        (_workload(_unreserved("Inadmissible", "LocalQueue nosuch doesn't exist")), "LocalQueue nosuch doesn't exist"),
        (_workload(_unreserved("Pending", QUOTA + ".")), QUOTA),
        (
            _workload(
                _unreserved("Pending", "no quota is left"),
                condition("Evicted", reason="Preempted", message=PUT_BACK),
                condition("Preempted", reason="InClusterQueue", message=PUT_BACK),
            ),
            f"no quota is left; it was put back into the queue (Preempted): {PUT_BACK}",
        ),
        (
            _workload(condition("Evicted", reason="ClusterQueueStopped", message="The ClusterQueue is stopped")),
            "it was put back into the queue (ClusterQueueStopped): The ClusterQueue is stopped",
        ),
        (
            _workload(
                _unreserved("Pending", "waits"), condition("Evicted", "False", reason="QuotaReserved", message="over")
            ),
            "waits",
        ),
        (
            _workload(
                condition("QuotaReserved", reason="QuotaReserved", message="Quota reserved in ClusterQueue team"),
                admissionChecks=[
                    {"name": "prov", "state": "Pending", "message": "no machines yet"},
                    {"name": "ok", "state": "Ready", "message": "done"},
                ],
            ),
            "it has its quota and waits for admission checks: prov: no machines yet",
        ),
        (
            _workload(condition("Evicted", reason="Deactivated", message="The workload is deactivated"), active=False),
            "it was removed from the queue: The workload is deactivated",
        ),
    ],
)
def test_a_workload_is_told_in_its_own_words(workload: dict[str, Any], said: str) -> None:
    run = from_objects(WAITS, [], (), NOW, queue_words=kueue.words(workload))

    assert (run.phase, run.reason) == ("Pending", "waits for its turn in queue team" + (f": {said}" if said else ""))
    assert from_job(WAITS, NOW).reason == "waits for its turn in queue team"


GROUP = Reply(200, {"preferredVersion": {"version": "v1beta2"}})
PODS = Reply(200, {"kind": "PodList", "metadata": {}, "items": []})
NONE = Reply(404, {"kind": "Status", "code": 404, "reason": "NotFound", "message": "the server could not find it"})
REFUSED = Reply(403, {"kind": "Status", "code": 403, "message": 'User "bob" cannot list resource "workloads"'})


def _read(server: ApiServer, *answers: Reply) -> lookup.Found:
    found = {**WAITS, "metadata": {**WAITS["metadata"], "resourceVersion": "7"}}
    server.answers += [Reply(200, found), PODS, *answers]
    with Cluster(Access(server=server.address, namespace="team", source="the test")) as client:
        return lookup.read(client, "zhenhuan")


def test_the_workload_of_the_job_is_asked_for() -> None:
    with api_server() as server:
        workload = _workload(_unreserved("Pending", QUOTA))
        found = _read(server, GROUP, Reply(200, {"kind": "WorkloadList", "metadata": {}, "items": [workload]}))

        assert found.status.reason == f"waits for its turn in queue team: {QUOTA}"
        assert server.requests[-1].path.startswith("/apis/kueue.x-k8s.io/v1beta2/namespaces/team/workloads?")
        assert f"job-uid%3D{WAITS['metadata']['uid']}" in server.requests[-1].path


def test_a_cluster_without_kueue_a_job_that_it_does_not_know_and_a_missing_right_are_said() -> None:
    with api_server() as server:
        without = _read(server, NONE)
        unknown = _read(server, GROUP, Reply(200, {"kind": "WorkloadList", "metadata": {}, "items": []}))
        refused = _read(server, GROUP, REFUSED)

    assert without.status.reason.endswith("in queue team: this cluster has no Kueue, and only Kueue would start it")
    assert unknown.status.reason.endswith("in queue team: Kueue has not accepted it yet")
    assert (refused.status.phase, refused.status.reason) == ("Pending", "waits for its turn in queue team")
    assert refused.notes == (
        "bob may not list workloads.kueue.x-k8s.io in namespace team: why it is not its turn may be unknown",
    )
