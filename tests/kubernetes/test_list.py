"""`lorajob list` and `status` on a real API server: what they show, of whom, and what they say when they may not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from made_runs import MadeRuns, lorajob, made, now
from restricted import Rule, user_rules, without

from calling import Call
from cluster_fixtures import TestCluster
from lorajob.__main__ import main
from lorajob.runs import lookup

__all__ = ["lorajob", "made"]

Users = Callable[[str, Sequence[Rule]], Path]


def names(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines()[1:]]


def test_a_list_shows_every_run_the_newest_last(made: MadeRuns, lorajob: Call) -> None:
    made.run("zuerst")
    made.succeed("zuerst")
    second = made.run("anfang", nodes=2, gpus=4)
    made.start("anfang", ready=2)
    made.report("anfang", made.pod(second, {"running": {"startedAt": now()}}), step=1, total_steps=4, loss=2.5)

    outcome = lorajob("list")

    assert outcome.code == 0
    head, *rows = [line.split() for line in outcome.out.splitlines()]
    assert head == ["NAME", "PHASE", "PROGRESS", "ETA", "LOSS", "AGE", "MODEL", "GPUS"]
    assert {tuple(row[:2]) for row in rows} == {("zuerst", "Succeeded"), ("anfang", "Training")}
    training = next(row for row in rows if row[0] == "anfang")
    assert (training[2], training[4], training[-1]) == ("25%", "2.5000", "2x4")


def test_a_list_takes_a_phase_labels_and_all_namespaces(made: MadeRuns, lorajob: Call) -> None:
    made.run("waiting")
    made.run("broken")
    made.fail("broken", "BackoffLimitExceeded")
    here = made.client.namespace

    assert names(lorajob("list", "--phase", "failed").out) == ["broken"]
    assert sorted(names(lorajob("list", "--phase", "Failed", "--phase", "Pending").out)) == ["broken", "waiting"]
    assert len(names(lorajob("list", "-l", "lorajob.dev/model=qwen3-8b").out)) == 2
    assert lorajob("list", "-l", "lorajob.dev/model=other").err == f"no such runs in namespace {here}\n"
    everywhere = lorajob("list", "-A", "-o", "name").out.splitlines()
    assert {f"{here}/waiting", f"{here}/broken"} <= set(everywhere)
    assert lorajob("list", "-o", "name").out.splitlines() == sorted(lorajob("list", "-o", "name").out.splitlines())


def test_jobs_of_others_are_not_listed(made: MadeRuns, lorajob: Call) -> None:
    made.run("other")
    body = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "someone"}}}
    made.client.patch(made.client.jobs("other"), body)

    outcome = lorajob("list")

    assert (outcome.code, outcome.out, outcome.err) == (0, "", f"no runs in namespace {made.client.namespace}\n")


def test_no_runs_are_an_empty_list_for_programs(lorajob: Call) -> None:
    assert json.loads(lorajob("list", "-o", "json").out) == {
        "apiVersion": "lorajob.dev/v1",
        "kind": "RunList",
        "items": [],
    }
    assert lorajob("list", "-o", "name").out == ""


@pytest.mark.parametrize("command", [("list",), ("status", "first"), ("cancel", "first"), ("wait", "first")])
def test_a_namespace_that_is_not_there_is_told(
    command: tuple[str, ...], cluster: TestCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*command, "--kubeconfig", str(cluster.kubeconfig), "-n", "nowhere"])

    said = capsys.readouterr().err.splitlines()
    assert code == 102
    assert said == [
        "lorajob: error: namespace nowhere does not exist",
        "hint: choose another one with -n NAMESPACE",
    ]


@pytest.mark.parametrize("command", [("list",), ("status", "first"), ("suspend", "first"), ("watch", "first")])
def test_a_cluster_that_does_not_answer_is_one_line(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "clusters": [{"name": "gone", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "me", "user": {"token": "secret-token"}}],
        "contexts": [{"name": "gone", "context": {"cluster": "gone", "user": "me"}}],
        "current-context": "gone",
    }
    (tmp_path / "config").write_text(json.dumps(config))

    code = main([*command, "--kubeconfig", str(tmp_path / "config")])

    said = capsys.readouterr().err
    assert code == 104
    assert len(said.splitlines()) == 2
    assert said.startswith("lorajob: error: 127.0.0.1:9 ")
    assert "secret-token" not in said


# Rights


@pytest.mark.parametrize(
    ("verb", "resource", "command"),
    [
        ("list", "jobs", ("list",)),
        ("get", "jobs", ("status", "first")),
        ("get", "jobs", ("watch", "first")),
        ("watch", "jobs", ("wait", "first")),
        ("patch", "jobs", ("cancel", "first")),
        ("patch", "jobs", ("suspend", "first")),
        ("patch", "jobs", ("resume", "sleeping")),
        ("create", "jobs", ("retry", "broken")),
        ("delete", "jobs", ("retry", "broken")),
        ("get", "configmaps", ("retry", "broken")),
        ("create", "configmaps", ("retry", "broken")),
    ],
)
def test_a_right_that_is_missing_is_named_in_one_line_and_nothing_is_half_done(
    verb: str,
    resource: str,
    command: tuple[str, ...],
    made: MadeRuns,
    lorajob: Call,
    cluster: TestCluster,
    restricted_kubeconfig: Users,
) -> None:
    made.run("first")
    made.run("sleeping", suspend=True)
    made.run("broken")
    made.fail("broken", "BackoffLimitExceeded")
    rules = without(user_rules(cluster), verb, resource)
    before = [status.uid for status in lookup.every(made.client)]

    outcome = lorajob(*command, user=restricted_kubeconfig(made.client.namespace, rules))

    said = outcome.err.splitlines()
    assert outcome.code == 13
    assert f"may not {verb} {resource}" in said[0]
    assert said[0].startswith("lorajob: error: ")
    assert said[1].startswith("hint: ")
    assert "lorajob-user" in said[1]
    assert len(said) == 2
    assert [status.uid for status in lookup.every(made.client)] == before


@pytest.mark.parametrize(("verb", "resource"), [("list", "pods"), ("list", "events")])
def test_status_leaves_out_what_the_user_may_not_see_and_says_so(
    verb: str,
    resource: str,
    made: MadeRuns,
    lorajob: Call,
    cluster: TestCluster,
    restricted_kubeconfig: Users,
) -> None:
    made.run("first")
    rules = without(user_rules(cluster), verb, resource)

    outcome = lorajob("status", "first", user=restricted_kubeconfig(made.client.namespace, rules))

    assert outcome.code == 0
    assert "Phase:      Pending" in click.unstyle(outcome.out)
    assert len(outcome.err.splitlines()) == 1
    assert f"may not {verb} {resource}" in outcome.err


def test_the_chart_s_role_is_enough_for_every_verb(
    made: MadeRuns, lorajob: Call, cluster: TestCluster, restricted_kubeconfig: Users
) -> None:
    made.run("first")
    user = restricted_kubeconfig(made.client.namespace, user_rules(cluster))

    outcomes = [
        lorajob(*words, user=user)
        for words in (
            ("list",),
            ("status", "first"),
            ("suspend", "first"),
            ("resume", "first"),
            ("cancel", "first"),
            ("retry", "first"),
            ("wait", "first", "--timeout", "1s"),
        )
    ]

    assert [outcome.code for outcome in outcomes] == [0, 0, 0, 0, 0, 0, 124]


# Completion of names


def test_a_shell_completes_the_names_of_runs(
    made: MadeRuns, cluster: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.run("zhenhuan")
    made.run("other")
    words = f"lorajob status --kubeconfig {cluster.kubeconfig} -n {made.client.namespace} zh"

    assert _completed(words) == ["zhenhuan"]


def test_a_shell_is_told_nothing_when_the_cluster_is_not_there(tmp_path: Path) -> None:
    assert _completed(f"lorajob status --kubeconfig {tmp_path / 'none'} zh") == []


def _completed(line: str) -> list[str]:
    variables = {
        "_LORAJOB_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    program = "from lorajob.main import cli; cli(prog_name='lorajob')"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


# Cost


@pytest.mark.parametrize("command", [("list",), ("status", "first"), ("cancel", "first")])
def test_a_command_that_reads_runs_loads_no_library_that_is_slow_to_import(
    command: tuple[str, ...], made: MadeRuns, cluster: TestCluster
) -> None:
    made.run("first")
    where = ("--kubeconfig", str(cluster.kubeconfig), "-n", made.client.namespace)

    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lorajob", *command, *where],
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "click" in loaded
    assert not loaded & {"kubernetes", "requests", "urllib3", "boto3", "rich", "ruamel", "pydantic", "torch"}


def test_a_list_holds_one_page_of_jobs_at_a_time(made: MadeRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        made.run(f"run-{number}")
    asked: list[dict[str, Any]] = []
    real = made.client.pages

    def pages(path: str, **query: Any) -> Any:
        asked.append({"path": path, **query})
        return real(path, limit=2, **query)

    monkeypatch.setattr(made.client, "pages", pages)
    found = list(lookup.every(made.client))

    assert [status.name for status in found] == [f"run-{number}" for number in range(5)]
    assert [each["path"] for each in asked] == [made.client.jobs()]
