"""Stopping runs and going on, on a real cluster: cancel, suspend and resume."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_runs import MadeRuns, lorajob, made, phase
from restricted import Rule, user_rules, without

from calling import Call
from cluster_fixtures import TestCluster
from lorajob.cluster import NotFound
from lorajob_runtime.contract.kubernetes import CANCELLED_ANNOTATION

__all__ = ["lorajob", "made"]

Wait = Callable[..., Any]


def test_a_running_run_is_suspended_and_resumed(made: MadeRuns, lorajob: Call, wait_until: Wait) -> None:
    made.live("first")
    wait_until(lambda: phase(lorajob, "first") == "Preparing", what="the pod")

    suspended = lorajob("suspend", "first")
    wait_until(lambda: not made.client.get(made.client.pods())["items"], what="the end of its pod")
    then, attempts = phase(lorajob, "first"), json.loads(lorajob("status", "first", "-o", "json").out)["attempts"]
    resumed = lorajob("resume", "first")
    wait_until(lambda: phase(lorajob, "first") == "Preparing", what="the next pod")

    assert (suspended.code, then, attempts, resumed.code) == (0, "Suspended", 1, 0)
    assert suspended.out == (
        "run first suspended: `lorajob resume first` continues from the checkpoint that it saves now\n"
    )
    conditions = made.client.get(made.client.jobs("first"))["status"]["conditions"]
    assert [(each["type"], each["status"]) for each in conditions] == [("Suspended", "False")]


def test_what_is_so_already_is_said_and_is_no_error(made: MadeRuns, lorajob: Call) -> None:
    made.run("sleeping", suspend=True)
    made.run("awake")
    made.run("done")
    made.succeed("done")

    assert lorajob("suspend", "sleeping").out == "run sleeping is already suspended\n"
    assert lorajob("resume", "awake").out == "run awake is not suspended: it is Pending\n"
    assert lorajob("cancel", "done").out == "run done has already succeeded\n"
    assert [lorajob("suspend", "sleeping").code, lorajob("resume", "awake").code, lorajob("cancel", "done").code] == [
        0,
        0,
        0,
    ]


def test_a_run_that_has_ended_is_neither_suspended_nor_resumed(made: MadeRuns, lorajob: Call) -> None:
    made.run("broken")
    made.fail("broken", "BackoffLimitExceeded")

    for verb, participle in (("suspend", "suspended"), ("resume", "resumed")):
        outcome = lorajob(verb, "broken")
        assert outcome.code == 2
        assert outcome.err == (
            f"lorajob: error: run broken has failed: it can't be {participle}\n"
            "hint: `lorajob retry broken` starts it again\n"
        )


def test_a_run_of_a_queue_is_not_suspended_by_hand(made: MadeRuns, lorajob: Call) -> None:
    job = made.run("queued", suspend=True)
    labels = {"kueue.x-k8s.io/queue-name": "team-a"}
    made.client.patch(made.client.jobs("queued"), {"metadata": {"labels": labels}})

    outcome = lorajob("resume", "queued")

    assert outcome.code == 2
    assert "queue team-a, which alone decides when it runs" in outcome.err
    assert made.client.get(made.client.jobs("queued"))["spec"]["suspend"] is job["spec"]["suspend"]


def test_a_cancelled_run_stops_and_keeps_its_record(made: MadeRuns, lorajob: Call, wait_until: Wait) -> None:
    made.live("first")
    wait_until(lambda: phase(lorajob, "first") == "Preparing", what="the pod")

    cancelled, again = lorajob("cancel", "first"), lorajob("cancel", "first")
    wait_until(lambda: not made.client.get(made.client.pods())["items"], what="the end of its pod")

    job = made.client.get(made.client.jobs("first"))
    assert (cancelled.code, again.code, again.out) == (0, 0, "run first has already been cancelled\n")
    assert job["spec"]["suspend"] is True
    assert CANCELLED_ANNOTATION in job["metadata"]["annotations"]
    assert phase(lorajob, "first") == "Cancelled"
    assert lorajob("resume", "first").code == 2


def test_one_run_that_is_not_there_does_not_keep_the_others_from_being_cancelled(made: MadeRuns, lorajob: Call) -> None:
    made.run("first")
    made.run("second")

    outcome = lorajob("cancel", "first", "absent", "second")

    assert outcome.code == 102
    assert f"there is no run absent in namespace {made.client.namespace}" in outcome.err
    assert [phase(lorajob, name) for name in ("first", "second")] == ["Cancelled", "Cancelled"]


def test_a_dry_run_changes_nothing(made: MadeRuns, lorajob: Call) -> None:
    before = made.run("first")

    outcomes = [lorajob(verb, "first", "--dry-run") for verb in ("suspend", "cancel")]

    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert all("(dry run: nothing was changed)" in outcome.out for outcome in outcomes)
    after = made.client.get(made.client.jobs("first"))
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_a_job_that_is_no_run_is_left_alone(made: MadeRuns, lorajob: Call) -> None:
    made.run("other")
    labels = {"app.kubernetes.io/managed-by": "someone"}
    made.client.patch(made.client.jobs("other"), {"metadata": {"labels": labels}})

    outcome = lorajob("cancel", "other")

    assert outcome.code == 102
    assert "is not a run of lorajob" in outcome.err


@pytest.fixture
def workloads(made: MadeRuns, wait_until: Wait) -> Iterator[str]:
    """The path of Kueue's Workloads, of which this cluster knows the kind for as long as the test goes."""
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    group, names = "kueue.x-k8s.io", {"plural": "workloads", "singular": "workload", "kind": "Workload"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [{"name": "v1beta1", "served": True, "storage": True, "schema": schema}]
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"workloads.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": versions},
    }
    path = f"/apis/{group}/v1beta1/namespaces/{made.client.namespace}/workloads"

    def is_served() -> bool:
        try:
            made.client.get(f"/apis/{group}")
            made.client.get(path)
        except NotFound:
            return False
        return True

    made.client.post(definitions, definition)
    try:
        wait_until(is_served, what="the kind Workload")
        yield path
    finally:
        made.client.delete(f"{definitions}/workloads.{group}")


def _queued(made: MadeRuns, workloads: str, **status: Any) -> None:
    """A run that waits in a queue, and its Workload as Kueue would keep it."""
    job = made.run("queued", suspend=True)
    labels = {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "team-a"}}}
    made.client.patch(made.client.jobs("queued"), labels)
    workload = {
        "apiVersion": "kueue.x-k8s.io/v1beta1",
        "kind": "Workload",
        "metadata": {"name": "job-queued", "labels": {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}},
        "spec": {"active": True, "queueName": "team-a"},
        "status": status,
    }
    made.client.post(workloads, workload)


def test_why_it_is_not_the_turn_of_a_run_is_said_in_the_words_of_its_queue(
    workloads: str,
    made: MadeRuns,
    lorajob: Call,
    cluster: TestCluster,
    namespace: str,
    restricted_kubeconfig: Callable[[str, Sequence[Rule]], Path],
) -> None:
    message = "LocalQueue team-a doesn't exist"
    waits = {"type": "QuotaReserved", "status": "False", "reason": "Inadmissible", "message": message}
    _queued(made, workloads, conditions=[waits])
    user = restricted_kubeconfig(namespace, without(user_rules(cluster), "list", "workloads"))

    shown = json.loads(lorajob("status", "queued", "-o", "json").out)
    refused = lorajob("status", "queued", "-o", "json", user=user)

    assert (shown["phase"], shown["reason"]) == ("Pending", f"waits for its turn in queue team-a: {message}")
    assert json.loads(refused.out)["reason"] == "waits for its turn in queue team-a"
    assert "may not list workloads.kueue.x-k8s.io" in refused.err


def test_a_cancelled_run_is_taken_out_of_its_queue(workloads: str, made: MadeRuns, lorajob: Call) -> None:
    job = made.run("queued", suspend=True)
    labels = {"kueue.x-k8s.io/queue-name": "team-a"}
    made.client.patch(made.client.jobs("queued"), {"metadata": {"labels": labels}})
    for name, uid_of_job in (("job-queued", job["metadata"]["uid"]), ("job-other", "another")):
        workload = {
            "apiVersion": "kueue.x-k8s.io/v1beta1",
            "kind": "Workload",
            "metadata": {"name": name, "labels": {"kueue.x-k8s.io/job-uid": uid_of_job}},
            "spec": {"active": True, "queueName": "team-a"},
        }
        made.client.post(workloads, workload)

    outcome = lorajob("cancel", "queued")

    assert (outcome.code, outcome.err) == (0, "")
    active = {each["metadata"]["name"]: each["spec"]["active"] for each in made.client.pages(workloads)}
    assert active == {"job-queued": False, "job-other": True}
    assert phase(lorajob, "queued") == "Cancelled"
