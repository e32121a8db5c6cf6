"""The JSON forms of list, status and watch, against their published schemas, for real objects in every phase."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from made_runs import MadeRuns, condition, lorajob, made, now
from referencing import Registry, Resource

from calling import Call
from lorajob.runs.run_status import PHASES
from lorajob_runtime.contract.kubernetes import CANCELLED_ANNOTATION, TerminationMessage

__all__ = ["lorajob", "made"]


def _schema(name: str) -> dict[str, Any]:
    text = (resources.files("lorajob") / "schemas" / f"{name}.json").read_text("utf-8")
    return dict(json.loads(text))


REGISTRY: Registry[Any] = Registry().with_resources(
    (_schema(name)["$id"], Resource.from_contents(_schema(name))) for name in ("run", "runlist")
)


def check(document: dict[str, Any], name: str) -> None:
    """Fails the test with the first place where the document is not as its schema says."""
    Draft202012Validator(_schema(name), registry=REGISTRY).validate(document)


def _pending(made: MadeRuns, name: str) -> None:
    made.pod(made.run(name), {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}})
    made.start(name, ready=0)


def _suspended(made: MadeRuns, name: str) -> None:
    made.run(name, suspend=True)
    made.set_status(name, {"conditions": [condition("Suspended", "JobSuspended", "Job suspended")]})
    made.report(name, f"{name}-0-abcde", step=3, total_steps=9, loss=1.5)


def _reporting(phase: str, **values: Any) -> Callable[[MadeRuns, str], None]:
    def make(made: MadeRuns, name: str) -> None:
        job = made.run(name, nodes=2, gpus=4)
        pods = [made.pod(job, {"running": {"startedAt": now()}}, node=node, phase="Running") for node in range(2)]
        made.start(name, ready=2)
        made.report(name, pods[0], phase, **values)

    return make


def _succeeded(made: MadeRuns, name: str) -> None:
    made.run(name)
    made.succeed(name)
    made.report(name, f"{name}-0-abcde", "end", step=9, total_steps=9, exit_code=0, failure="succeeded")


def _failed(made: MadeRuns, name: str) -> None:
    words = TerminationMessage(exit_code=11, failure="data", message="no row has an answer", hint="look at the columns")
    ended = {"exitCode": 11, "reason": "Error", "message": words.dumps(), "startedAt": now(), "finishedAt": now()}
    made.pod(made.run(name), {"terminated": ended}, phase="Failed")
    made.fail(name, "PodFailurePolicy")


def _cancelled(made: MadeRuns, name: str) -> None:
    made.run(name)
    body = {"metadata": {"annotations": {CANCELLED_ANNOTATION: now()}}, "spec": {"suspend": True}}
    made.client.patch(made.client.jobs(name), body)


STATES: dict[str, Callable[[MadeRuns, str], None]] = {
    "Pending": _pending,
    "Suspended": _suspended,
    "Downloading": _reporting("fetch", note="3.2 of 16.4 GB"),
    "Preparing": _reporting("data"),
    "Training": _reporting(
        "train", step=3, total_steps=9, loss=1.5, epoch=0.3, tokens_per_second=321.5, seconds_left=60.5, checkpoint=2
    ),
    "Publishing": _reporting("publish"),
    "Succeeded": _succeeded,
    "Failed": _failed,
    "Cancelled": _cancelled,
}


@pytest.mark.parametrize("phase", PHASES)
def test_status_and_list_agree_on_a_real_run_in_each_phase_and_keep_to_their_schemas(
    phase: str, made: MadeRuns, lorajob: Call
) -> None:
    STATES[phase](made, "first")

    shown, listed = lorajob("status", "first", "-o", "json"), lorajob("list", "-o", "json")

    one, several = json.loads(shown.out), json.loads(listed.out)
    check(one, "run")
    check(several, "runlist")
    assert one["phase"] == phase
    assert [each["phase"] for each in several["items"]] == [phase]
    assert "pods" in one
    assert (shown.code, listed.code, shown.err, listed.err) == (0, 0, "", "")


@pytest.mark.parametrize(
    ("phase", "code"), [("Succeeded", 0), ("Failed", 100), ("Training", 101), ("Pending", 101), ("Cancelled", 103)]
)
def test_the_exit_code_of_status_tells_how_a_run_is_where_it_is_asked_for(
    phase: str, code: int, made: MadeRuns, lorajob: Call
) -> None:
    STATES[phase](made, "first")

    assert lorajob("status", "first", "--exit-code").code == code
    assert lorajob("status", "first").code == 0


def test_watch_writes_one_run_a_line(made: MadeRuns, lorajob: Call) -> None:
    _succeeded(made, "first")

    watched = lorajob("watch", "first", "-o", "json")

    lines = [json.loads(line) for line in watched.out.splitlines()]
    assert [line["phase"] for line in lines] == ["Succeeded"]
    check(lines[0], "run")


def test_yaml_says_the_same_as_json(made: MadeRuns, lorajob: Call) -> None:
    from lorajob.spec import spec_file

    _failed(made, "first")

    assert spec_file.loads(lorajob("status", "first", "-o", "yaml").out, "out").values == json.loads(
        lorajob("status", "first", "-o", "json").out
    )
