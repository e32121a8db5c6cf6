"""A failed or cancelled run started again under its name, on a real cluster, whatever cuts the retry off."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from made_runs import PLATFORM, MadeRuns, lorajob, made, phase, uid

from calling import Call
from lorajob.cluster import NotFound
from lorajob.runs import lookup, retry
from lorajob.submit import manifest
from lorajob.submit.manifest import DataFile
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.kubernetes import CANCELLED_ANNOTATION

__all__ = ["lorajob", "made"]

Wait = Callable[..., Any]


@pytest.fixture
def failed_run(made: MadeRuns, lorajob: Call, wait_until: Wait) -> str:
    """A run of two nodes with a dataset whose Job has failed, with everything that it owns."""
    spec = specs.parse({"name": "first", "resources": {"nodes": 2, "retries": 0}})
    data = DataFile(name="rows.json", content=b'[{"instruction": "a", "output": "b"}]')
    built = manifest.build(spec, PLATFORM, namespace=made.client.namespace, version="0.1.0", data=data)
    built.job["spec"]["managedBy"] = "lorajob.dev/tests"
    job = made.client.post(made.client.jobs(), built.job)
    for each in built.owned:
        path = {"Service": made.client.services, "ConfigMap": made.client.config_maps}[each["kind"]]()
        made.client.post(path, manifest.owned_by(each, job))
    made.fail("first", "BackoffLimitExceeded")
    return "first"


def test_a_retried_run_is_a_new_job_of_the_same_spec_that_owns_what_the_old_one_did(
    failed_run: str, made: MadeRuns, lorajob: Call, wait_until: Wait
) -> None:
    before = made.client.get(made.client.jobs(failed_run))
    rows = made.client.get(made.client.config_maps("first-data"))["binaryData"]

    outcome = lorajob("retry", failed_run)

    assert outcome.err == ""
    assert outcome.code == 0
    after = made.client.get(made.client.jobs(failed_run))
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert manifest.spec_of(after) == manifest.spec_of(before)
    owned = [made.client.get(made.client.config_maps("first-data")), made.client.get(made.client.services("first"))]
    assert [each["metadata"]["ownerReferences"][0]["uid"] for each in owned] == [after["metadata"]["uid"]] * 2
    assert owned[0]["binaryData"] == rows
    with pytest.raises(NotFound):
        made.client.get(made.client.config_maps("first-retry"))
    assert phase(lorajob, failed_run) == "Pending"


def test_a_retry_may_change_what_leaves_the_result_as_it_is(failed_run: str, made: MadeRuns, lorajob: Call) -> None:
    outcome = lorajob("retry", failed_run, "--set", "resources.timeout=48h", "--set", "resources.retries=5")

    assert outcome.code == 0
    job = made.client.get(made.client.jobs(failed_run))
    assert job["spec"]["activeDeadlineSeconds"] == 48 * 3600
    assert manifest.spec_of(job).resources.retries == 5


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.learningRate=0.1", "train.learningRate can't change when a run resumes from its checkpoint"),
        ("name=second", "name can't change"),
        ("storage.uri=s3://other/place", "storage.uri can't change"),
        ("resources.gpus=many", "resources.gpus is 'many': it must be a whole number"),
        ("resources.gpu=2", "unknown field resources.gpu: did you mean gpus?"),
        ("resources", "it must be FIELD=VALUE"),
    ],
)
def test_a_retry_refuses_what_would_make_it_another_run(
    setting: str, said: str, failed_run: str, made: MadeRuns, lorajob: Call
) -> None:
    before = uid(made, failed_run)

    outcome = lorajob("retry", failed_run, "--set", setting)

    assert outcome.code == 2
    assert said in outcome.err
    assert uid(made, failed_run) == before


def test_only_a_run_that_failed_or_was_cancelled_is_retried(made: MadeRuns, lorajob: Call) -> None:
    made.run("running")
    made.start("running")
    made.run("done")
    made.succeed("done")
    made.run("sleeping", suspend=True)

    outcomes = {name: lorajob("retry", name) for name in ("running", "done", "sleeping")}

    assert {outcome.code for outcome in outcomes.values()} == {2}
    assert "`lorajob cancel running` stops it first" in outcomes["running"].err
    assert "its adapter exists" in outcomes["done"].err
    assert "`lorajob resume sleeping`" in outcomes["sleeping"].err


def test_a_dry_run_of_a_retry_changes_nothing(failed_run: str, made: MadeRuns, lorajob: Call) -> None:
    before = made.client.get(made.client.jobs(failed_run))

    outcome = lorajob("retry", failed_run, "--dry-run")

    assert outcome.code == 0
    assert made.client.get(made.client.jobs(failed_run)) == before


def test_a_run_whose_dataset_is_gone_is_not_deleted(failed_run: str, made: MadeRuns, lorajob: Call) -> None:
    made.client.delete(made.client.config_maps("first-data"))

    outcome = lorajob("retry", failed_run)

    assert outcome.code == 2
    assert "the dataset of run first is gone" in outcome.err
    assert phase(lorajob, failed_run) == "Failed"


STEPS = ("post", "patch", "delete")


class Cut(BaseException):
    """Stands in for the end of a process at any moment."""


@pytest.mark.parametrize("after", range(9))
def test_a_retry_that_was_cut_off_anywhere_is_taken_up_by_the_same_command(
    after: int, failed_run: str, made: MadeRuns, lorajob: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = uid(made, failed_run)
    changed = iter(range(after))
    for step in STEPS:
        _cut_after(made, step, changed, monkeypatch)

    with pytest.raises(Cut):
        retry.retry(made.client, failed_run, build=made.built)
    monkeypatch.undo()
    retry.retry(made.client, failed_run, build=made.built)

    job = made.client.get(made.client.jobs(failed_run))
    owners = [
        made.client.get(path)["metadata"]["ownerReferences"][0]["uid"]
        for path in (made.client.config_maps("first-data"), made.client.services("first"))
    ]
    assert job["metadata"]["uid"] != before
    assert owners == [job["metadata"]["uid"]] * 2
    assert "deletionTimestamp" not in job["metadata"]
    with pytest.raises(NotFound):
        made.client.get(made.client.config_maps("first-retry"))


def _cut_after(made: MadeRuns, step: str, changed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(made.client, step)

    def cut(*arguments: Any, **query: Any) -> Any:
        if not query.keys() & {"dryRun", "dry_run"} and next(changed, None) is None:
            raise Cut
        return real(*arguments, **query)

    monkeypatch.setattr(made.client, step, cut)


def test_a_run_is_retried_beside_one_that_is_named_like_its_retry(
    failed_run: str, made: MadeRuns, lorajob: Call
) -> None:
    other = made.run("first-retry")
    before = uid(made, failed_run)

    tried, outcome = lorajob("retry", failed_run, "--dry-run"), lorajob("retry", failed_run)

    assert (tried.code, tried.err, outcome.code, outcome.err) == (0, "", 0, "")
    assert uid(made, failed_run) != before
    assert uid(made, "first-retry") == other["metadata"]["uid"]


def test_a_name_that_is_taken_is_not_the_last_that_a_retry_tries(
    failed_run: str, made: MadeRuns, lorajob: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.run("first-bbbbb")
    letters = iter(["bbbbb", "ccccc"])
    monkeypatch.setattr(random.SystemRandom, "choices", lambda *_, **__: next(letters))

    outcome = lorajob("retry", failed_run, "--dry-run")

    assert (outcome.code, outcome.err) == (0, "")
    assert next(letters, None) is None


@pytest.fixture
def left_record(failed_run: str, made: MadeRuns, monkeypatch: pytest.MonkeyPatch) -> str:
    """A retry that has made the new Job and was cut off before it deleted its record. The name of the run."""
    real = made.client.delete

    def cut(path: str, **options: Any) -> Any:
        if path == made.client.config_maps("first-retry"):
            raise Cut
        return real(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(made.client, "delete", cut)
        with pytest.raises(Cut):
            retry.retry(made.client, failed_run, build=made.built)
    return failed_run


def has_record(made: MadeRuns) -> bool:
    try:
        made.client.get(made.client.config_maps("first-retry"))
    except NotFound:
        return False
    return True


def made_anew(made: MadeRuns, wait_until: Wait) -> None:
    """Another run of the same name, after its Job was deleted past lorajob."""
    made.client.delete(made.client.jobs("first"), propagation="Background")
    wait_until(lambda: not list(made.client.pages(made.client.jobs())), what="the end of the old Job")
    made.run("first")


def test_a_record_of_a_job_that_is_gone_does_not_pass_for_a_retry_of_another(
    left_record: str, made: MadeRuns, lorajob: Call, wait_until: Wait
) -> None:
    made_anew(made, wait_until)
    lorajob("cancel", left_record)
    before = uid(made, left_record)

    tried = lorajob("retry", left_record, "--dry-run")
    was_kept = has_record(made)
    outcome = lorajob("retry", left_record, "--set", "resources.timeout=48h")

    assert (tried.code, was_kept) == (0, True)
    assert (outcome.code, outcome.err) == (0, "")
    job = made.client.get(made.client.jobs(left_record))
    assert (job["metadata"]["uid"] != before, job["spec"]["suspend"]) == (True, False)
    assert job["metadata"]["annotations"][lookup.REPLACES_ANNOTATION] == before
    assert job["spec"]["activeDeadlineSeconds"] == 48 * 3600
    assert not has_record(made)


def test_a_record_that_is_out_of_date_goes_though_the_run_is_not_retried(
    left_record: str, made: MadeRuns, lorajob: Call, wait_until: Wait
) -> None:
    made_anew(made, wait_until)
    before = uid(made, left_record)

    outcome = lorajob("retry", left_record)

    assert outcome.code == 2
    assert "only a failed or cancelled run can be retried" in outcome.err
    assert (uid(made, left_record), has_record(made)) == (before, False)


def test_a_retried_run_that_has_ended_is_retried_again_though_the_record_is_left(
    left_record: str, made: MadeRuns, lorajob: Call
) -> None:
    lorajob("cancel", left_record)
    before = uid(made, left_record)

    outcome = lorajob("retry", left_record)

    assert outcome.code == 0, outcome.err
    assert uid(made, left_record) != before
    assert phase(lorajob, left_record) == "Pending"
    assert not has_record(made)


def test_a_dry_run_leaves_an_interrupted_retry_as_it_is(left_record: str, made: MadeRuns, lorajob: Call) -> None:
    before = uid(made, left_record)

    outcome = lorajob("retry", left_record, "--dry-run")

    assert outcome.out == "an interrupted retry of run first would continue (dry run: nothing was changed)\n"
    assert (uid(made, left_record), has_record(made)) == (before, True)


def test_a_delete_takes_the_record_along_with_another_run_of_the_name(
    left_record: str, made: MadeRuns, lorajob: Call, wait_until: Wait
) -> None:
    made_anew(made, wait_until)

    outcome = lorajob("delete", left_record, "--yes")

    assert outcome.code == 0, outcome.err
    assert not has_record(made)


def test_a_cancelled_run_is_retried(made: MadeRuns, lorajob: Call, wait_until: Wait) -> None:
    made.live("first")
    wait_until(lambda: phase(lorajob, "first") == "Preparing", what="the pod")
    before = uid(made, "first")
    lorajob("cancel", "first")

    outcome = lorajob("retry", "first")

    assert outcome.code == 0
    assert uid(made, "first") != before
    job = made.client.get(made.client.jobs("first"))
    assert job["spec"]["suspend"] is False
    assert CANCELLED_ANNOTATION not in job["metadata"].get("annotations", {})
