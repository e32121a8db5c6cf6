"""`lorajob delete` on a real cluster: what goes, what stays, and what is asked before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_runs import PLATFORM_FILE, MadeRuns, lorajob, made
from restricted import Rule, user_rules, without

from calling import Call
from cluster_fixtures import TestCluster
from lorajob.cluster import NotFound
from lorajob.runs import retry
from lorajob_runtime.contract.kubernetes import RUN_LABEL
from s3_servers import S3Server

__all__ = ["lorajob", "made"]

Wait = Callable[..., Any]
Restricted = Callable[[str, Sequence[Rule]], Path]


def names(made: MadeRuns) -> list[str]:
    return [each["metadata"]["name"] for each in made.client.pages(made.client.jobs())]


def test_a_run_goes_with_all_that_it_owns_and_the_name_is_free_again(
    made: MadeRuns, lorajob: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.json").write_text(json.dumps([{"input": "a", "output": "b"}]))
    submit = ("submit", "--name", "first", "-m", "qwen3-8b", "--nodes", "2", "-d", "rows.json")
    lorajob(*submit)

    outcome = lorajob("delete", "first", "--yes")

    assert outcome.code == 0, outcome.err
    assert outcome.out == "run first (Pending) deleted\n"
    assert names(made) == []
    again = lorajob(*submit)
    assert again.code == 0, again.err


def test_nothing_is_deleted_where_nobody_can_be_asked(made: MadeRuns, lorajob: Call) -> None:
    made.run("first")

    outcome = lorajob("delete", "first")

    assert outcome.code == 2
    assert "deleting needs --yes where there is no terminal to ask on" in outcome.err
    assert names(made) == ["first"]


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2)])
def test_on_a_terminal_it_asks_first(made: MadeRuns, lorajob: Call, namespace: str, answer: str, code: int) -> None:
    made.run("first")
    mine, theirs = os.openpty()
    program = [sys.executable, "-m", "lorajob", "delete", "first", "-n", namespace]
    with subprocess.Popen(program, stdin=theirs, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        os.close(theirs)
        os.write(mine, f"{answer}\n".encode())
        _, said = process.communicate(timeout=60)
    os.close(mine)

    assert process.returncode == code
    assert "run first (Pending)\nDelete this? [y/N]" in said
    assert names(made) == ([] if code == 0 else ["first"])


def test_of_several_the_others_go_when_one_is_not_there(made: MadeRuns, lorajob: Call, namespace: str) -> None:
    for name in ("first", "second", "third"):
        made.run(name)

    missing = lorajob("delete", "first", "nobody", "second", "--yes")
    wrong = lorajob("delete", "BAD", "third", "--yes")

    assert missing.code == 102
    assert f"there is no run nobody in namespace {namespace}" in missing.err
    assert sorted(missing.out.splitlines()) == ["run first (Pending) deleted", "run second (Pending) deleted"]
    assert (wrong.code, wrong.out) == (2, "run third (Pending) deleted\n")
    assert "'BAD' is not the name of a run" in wrong.err
    assert names(made) == []


def test_several_live_runs_go_by_one_command(made: MadeRuns, lorajob: Call, wait_until: Wait) -> None:
    for number in range(6):
        made.live(f"run-{number}")
    running = lambda: sum(  # noqa: E731 asked again and again below
        (job.get("status") or {}).get("ready") == 1 for job in made.client.pages(made.client.jobs())
    )
    wait_until(lambda: running() == 6, seconds=90, what="the pods of all runs")

    alone = lorajob("delete", "run-0", "--yes")
    rest = lorajob("delete", *(f"run-{number}" for number in range(1, 6)), "--yes")

    assert (alone.code, rest.code) == (0, 0)
    assert len(rest.out.splitlines()) == 5
    assert names(made) == []


@pytest.mark.parametrize("cut", ["before the old Job goes", "before there is a new Job"])
def test_what_an_interrupted_retry_left_goes_too(
    made: MadeRuns, lorajob: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.json").write_text(json.dumps([{"input": "a", "output": "b"}]))
    lorajob("submit", "--name", "first", "-m", "qwen3-8b", "--nodes", "2", "-d", "rows.json")
    lorajob("cancel", "first")

    step = "delete" if cut == "before the old Job goes" else "post"
    real = getattr(made.client, step)

    def fail(path: str, *rest: Any, **options: Any) -> Any:
        if path.startswith(made.client.jobs()) and not options.keys() & {"dryRun", "dry_run"}:
            raise KeyboardInterrupt
        return real(path, *rest, **options)

    monkeypatch.setattr(made.client, step, fail)
    with pytest.raises(KeyboardInterrupt):
        retry.retry(made.client, "first", build=made.built)

    outcome = lorajob("delete", "first", "--yes")

    said = "run first (Cancelled)" if step == "delete" else "what an interrupted retry left of run first"
    assert (outcome.code, outcome.out) == (0, f"{said} deleted\n"), outcome.err
    paths = (made.client.jobs(), made.client.services(), made.client.config_maps())
    assert [each for path in paths for each in made.client.pages(path, labelSelector=RUN_LABEL)] == []
    assert lorajob("delete", "first", "--yes").code == 102


def test_a_job_of_others_is_left_alone(made: MadeRuns, lorajob: Call) -> None:
    job = made.run("first")
    made.client.patch(made.client.jobs("first"), {"metadata": {"labels": {"app.kubernetes.io/managed-by": "helm"}}})

    outcome = lorajob("delete", "first", "--yes")

    assert outcome.code == 102
    assert "is not a run of lorajob" in outcome.err
    assert made.client.get(made.client.jobs("first"))["metadata"]["uid"] == job["metadata"]["uid"]


def test_without_the_right_to_delete_it_says_so_and_nothing_is_gone(
    made: MadeRuns, lorajob: Call, cluster: TestCluster, namespace: str, restricted_kubeconfig: Restricted
) -> None:
    made.run("first")
    user = restricted_kubeconfig(namespace, without(user_rules(cluster), "delete", "jobs"))

    outcome = lorajob("delete", "first", "--yes", user=user)

    assert outcome.code == 13
    assert "may not delete jobs.batch" in outcome.err
    assert names(made) == ["first"]


# Results


@pytest.fixture
def bucket(s3_keys: S3Server, tmp_path: Path, lorajob: Call) -> str:
    """A bucket with the results of `first`, and of others whose names begin alike."""
    name = s3_keys.make_bucket()
    endpoint = f"storage: {{uri: s3://{name}/lora, endpoint: '{s3_keys.endpoint}', addressing: path}}\n"
    lines = [line for line in PLATFORM_FILE.splitlines() if not line.startswith("storage")]
    (tmp_path / "platform.yaml").write_text("\n".join(lines) + "\n" + endpoint)
    for key in ("first/adapter/README.md", "first/spec.json", "first-2/spec.json", "firs/spec.json", ".data/a/b.json"):
        s3_keys.client().put_object(Bucket=name, Key=f"lora/{key}", Body=b"x" * 10)
    return name


def test_results_go_only_when_asked_and_only_those_of_the_run(
    made: MadeRuns, lorajob: Call, s3_keys: S3Server, bucket: str
) -> None:
    lorajob("submit", "--name", "first")

    outcome = lorajob("delete", "first", "--artifacts", "--yes")

    assert outcome.code == 0, outcome.err
    assert outcome.out == f"run first (Pending) and 2 files, 20 B, below s3://{bucket}/lora/first/ deleted\n"
    assert s3_keys.keys(bucket) == ["lora/.data/a/b.json", "lora/firs/spec.json", "lora/first-2/spec.json"]
    with pytest.raises(NotFound):
        made.client.get(made.client.jobs("first"))


def test_the_results_of_another_namespaces_run_of_that_name_are_not_removed(
    made: MadeRuns, lorajob: Call, s3_keys: S3Server, bucket: str
) -> None:
    owner = json.dumps({"namespace": "team-b"}).encode()
    s3_keys.client().put_object(Bucket=bucket, Key="lora/first/owner.json", Body=owner)
    lorajob("submit", "--name", "first")
    lorajob("submit", "--name", "second")
    before = s3_keys.keys(bucket)

    outcome = lorajob("delete", "first", "second", "--artifacts", "--yes")

    assert outcome.code == 10
    assert f"s3://{bucket}/lora/first holds the run of that name in namespace team-b" in outcome.err
    assert s3_keys.keys(bucket) == before
    assert names(made) == ["first"], "and the other went"


def test_folders_that_a_console_made_hinder_no_removal(
    made: MadeRuns, lorajob: Call, s3_keys: S3Server, bucket: str
) -> None:
    """A key with a slash at its end is no file of a run."""
    for marker in ("first/", "first/checkpoints/"):
        s3_keys.client().put_object(Bucket=bucket, Key=f"lora/{marker}", Body=b"")

    outcome = lorajob("delete", "first", "--artifacts", "--yes")

    assert (outcome.code, outcome.out) == (0, f"2 files, 20 B, below s3://{bucket}/lora/first/ deleted\n")
    assert not [key for key in s3_keys.keys(bucket) if key.startswith("lora/first/") and not key.endswith("/")]


def test_results_stay_with_a_plain_delete_and_can_go_later(
    made: MadeRuns, lorajob: Call, s3_keys: S3Server, bucket: str
) -> None:
    lorajob("submit", "--name", "first")

    lorajob("delete", "first", "--yes")
    kept = len(s3_keys.keys(bucket))
    outcome = lorajob("delete", "first", "--artifacts", "--yes")

    assert kept == 5
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"2 files, 20 B, below s3://{bucket}/lora/first/ deleted\n"
    assert lorajob("delete", "first", "--artifacts", "--yes").code == 102


@pytest.mark.parametrize("name", ["..", ".data", "first/../firs", "first/", ""])
def test_a_name_cannot_lead_to_the_results_of_others(
    made: MadeRuns, lorajob: Call, s3_keys: S3Server, bucket: str, name: str
) -> None:
    outcome = lorajob("delete", name, "--artifacts", "--yes")

    assert outcome.code == 2
    assert "is not the name of a run" in outcome.err
    assert len(s3_keys.keys(bucket)) == 5
