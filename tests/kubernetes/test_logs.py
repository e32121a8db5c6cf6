"""`lorajob logs` on a real cluster: of pods that run, that are gone, that are not there yet, and of every attempt."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_runs import PLATFORM_FILE, lorajob
from restricted import Rule, user_rules, without

from calling import Call
from cluster_fixtures import TestCluster
from lorajob.cluster import Cluster, connect
from lorajob.platform.platform_config import Platform, PlatformStorage
from lorajob.submit import manifest
from lorajob_runtime.contract.spec import ResourcesSpec, RunSpec
from lorajob_runtime.storage.appended_files import GrowingFile
from lorajob_runtime.storage.open import open_store
from lorajob_runtime.system.environment import Environment
from s3_servers import S3Server

__all__ = ["lorajob"]

Restricted = Callable[[str, Sequence[Rule]], Path]
Wait = Callable[..., Any]
Printing = Callable[..., dict[str, Any]]

TWO_RANKS = """
print("phase train")
for step in range(3):
    for rank in range(2):
        print(f"[rank {rank}] step {step}")
print("done")
"""
BY_NODE = """
import os, time
node = int(os.environ["JOB_COMPLETION_INDEX"])
for step in range(3):
    print(f"supervisor {step}")
    print(f"[rank {2 * node}] step {step}")
    time.sleep(0.2)
"""
FAILS = "print('tried'); raise SystemExit(1)"


@pytest.fixture
def client(cluster: TestCluster, namespace: str) -> Cluster:
    """The administrator's view of the test's own namespace."""
    return connect(str(cluster.kubeconfig), namespace=namespace)


@pytest.fixture
def printing(client: Cluster, image: str) -> Printing:
    """`printing(name, script)`: a run whose pods only run a script, from the image that there is."""

    def make(
        name: str, script: str, *, nodes: int = 1, gpus: int = 2, retries: int = 0, suspend: bool = False
    ) -> dict[str, Any]:
        platform = Platform(image=image, storage=PlatformStorage(uri="s3://nowhere/lora"), service_account="default")
        spec = RunSpec(name=name, resources=ResourcesSpec(nodes=nodes, gpus=gpus, retries=retries))
        job = manifest.build(spec, platform, namespace=client.namespace, version="0.1.0").job
        template = job["spec"]["template"]["spec"]
        [container] = template["containers"]
        for key in ("env", "envFrom", "resources", "volumeMounts", "args"):
            container.pop(key, None)
        container |= {"command": ["python", "-u", "-c", script], "imagePullPolicy": "Never"}
        template |= {"volumes": [], "terminationGracePeriodSeconds": 1}
        job["spec"]["suspend"] = suspend
        return client.post(client.jobs(), job)

    return make


def has_ended(client: Cluster, name: str) -> bool:
    conditions = client.get(client.jobs(name)).get("status", {}).get("conditions", [])
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)


def test_the_log_of_pods_that_have_ended_is_shown_whole_or_by_rank(
    printing: Printing, lorajob: Call, client: Cluster, wait_until: Wait
) -> None:
    printing("first", TWO_RANKS)
    wait_until(lambda: has_ended(client, "first"), seconds=60, what="the end of the run")

    everything = lorajob("logs", "first").out.splitlines()
    one = lorajob("logs", "first", "--rank", "1").out.splitlines()
    last = lorajob("logs", "first", "--rank", "1", "--tail", "1").out.splitlines()
    timed = lorajob("logs", "first", "--timestamps", "--tail", "1").out.split()

    assert everything == [
        "phase train",
        *(f"[rank {rank}] step {step}" for step in range(3) for rank in range(2)),
        "done",
    ]
    assert one == ["step 0", "step 1", "step 2"]
    assert last == ["step 2"]
    assert timed[1:] == ["done"]
    assert timed[0].startswith("20")
    assert timed[0][10] == "T"


def test_nodes_are_told_apart_and_their_lines_are_in_order(
    printing: Printing, lorajob: Call, client: Cluster, wait_until: Wait
) -> None:
    printing("wide", BY_NODE, nodes=2)
    wait_until(lambda: has_ended(client, "wide"), seconds=60, what="the end of the run")

    timed = lorajob("logs", "wide", "--timestamps").out.splitlines()
    second = lorajob("logs", "wide", "--node", "1").out.splitlines()
    rank = lorajob("logs", "wide", "--rank", "2").out.splitlines()

    assert timed == sorted(timed)
    assert {line.split(" ", 1)[1] for line in timed} == {
        *(f"[node {node}] supervisor {step}" for node in range(2) for step in range(3)),
        *(f"[rank {rank}] step {step}" for rank in (0, 2) for step in range(3)),
    }
    assert second == [line for step in range(3) for line in (f"supervisor {step}", f"[rank 2] step {step}")]
    assert rank == ["step 0", "step 1", "step 2"]


def test_following_begins_before_the_pod_and_ends_with_the_run(
    printing: Printing, client: Cluster, cluster: TestCluster, namespace: str
) -> None:
    printing("later", TWO_RANKS, suspend=True)
    program = [sys.executable, "-m", "lorajob", "logs", "later", "-f", "-n", namespace]
    with subprocess.Popen(
        [*program, "--kubeconfig", str(cluster.kubeconfig)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        client.patch(client.jobs("later"), {"spec": {"suspend": False}})
        out, _ = process.communicate(timeout=60)

    assert said.startswith("lorajob: Suspended: ")
    assert process.returncode == 0
    assert out.splitlines()[0] == "phase train"
    assert out.splitlines()[-1] == "done"
    assert len(out.splitlines()) == 8


def test_following_goes_on_with_the_pod_of_the_next_attempt(printing: Printing, lorajob: Call) -> None:
    printing("again", FAILS, retries=1)

    outcome = lorajob("logs", "again", "-f")

    assert outcome.code == 0
    assert outcome.out.splitlines() == ["tried", "tried"]
    assert outcome.err.count("following pod again-0-") >= 1
    previous = lorajob("logs", "again", "--previous")
    assert previous.out == "tried\n"


MANY = """
import sys, time
for part in range(4):
    sys.stdout.write("".join(f"line {part * 1000 + number}\\n" for number in range(1000)))
    sys.stdout.flush()
    time.sleep(0.7)
"""


def test_every_line_of_a_large_log_comes_once_and_its_end_is_asked_for_alone(
    printing: Printing, lorajob: Call, client: Cluster, wait_until: Wait
) -> None:
    expected = [f"line {number}" for number in range(4000)]
    printing("many", MANY)

    followed = lorajob("logs", "many", "-f").out.splitlines()
    wait_until(lambda: has_ended(client, "many"), seconds=60, what="the end of the run")
    last = lorajob("logs", "many", "--tail", "7").out.splitlines()
    most = lorajob("logs", "many", "--tail", "3990", "-f").out.splitlines()

    assert followed == expected
    assert last == expected[-7:]
    assert most == expected[-3990:]


def test_ctrl_c_leaves_the_run_alone(printing: Printing, client: Cluster, cluster: TestCluster, namespace: str) -> None:
    import signal

    printing("long", "import time; print('began'); time.sleep(600)")
    program = [sys.executable, "-m", "lorajob", "logs", "long", "-f", "-n", namespace]
    with subprocess.Popen(
        [*program, "--kubeconfig", str(cluster.kubeconfig)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)

    assert process.returncode == 0, said
    assert "detached: run long keeps running" in said
    assert not has_ended(client, "long")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rank", "2"], "--rank is 2: the run has ranks 0 to 1"),
        (["--rank", "x"], "--rank is 'x': it must be a number from 0, or all"),
        (["--node", "1"], "--node is 1: the run has nodes 0 to 0"),
        (["-f", "--previous"], "--follow shows the last attempt"),
        (["--attempt", "1", "--previous"], "both name an attempt"),
        (["--since", "soon"], "--since is 'soon': it must be a duration like 90m, 24h or 3d"),
    ],
)
def test_what_cannot_be_shown_is_said(printing: Printing, lorajob: Call, arguments: list[str], said: str) -> None:
    printing("first", TWO_RANKS, suspend=True)

    outcome = lorajob("logs", "first", *arguments)

    assert outcome.code == 2
    assert said in outcome.err.splitlines()[0]


def test_without_the_right_to_logs_it_says_so(
    printing: Printing,
    lorajob: Call,
    client: Cluster,
    cluster: TestCluster,
    namespace: str,
    restricted_kubeconfig: Restricted,
    wait_until: Wait,
) -> None:
    printing("first", TWO_RANKS)
    wait_until(lambda: has_ended(client, "first"), seconds=60, what="the end of the run")
    user = restricted_kubeconfig(namespace, without(user_rules(cluster), "get", "pods/log"))

    for arguments in (["first"], ["first", "-f"]):
        outcome = lorajob("logs", *arguments, user=user)

        assert outcome.code == 13
        assert "may not get pods/log" in outcome.err.splitlines()[-2]


def test_of_a_first_attempt_without_a_log_nothing_is_said_of_keys(
    printing: Printing, lorajob: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    printing("first", TWO_RANKS, suspend=True)

    outcome = lorajob("logs", "first")

    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith("lorajob: run first has no log yet: Suspended: ")
    assert "key" not in outcome.err


def test_a_run_that_is_not_there_ends_with_102(lorajob: Call, namespace: str) -> None:
    for arguments in (["nobody"], ["nobody", "-f"], ["nobody", "--attempt", "1"]):
        outcome = lorajob("logs", *arguments)

        assert outcome.code == 102
        assert f"there is no run nobody in namespace {namespace}" in outcome.err


# What storage keeps


@pytest.fixture
def stored(s3_keys: S3Server, tmp_path: Path, lorajob: Call) -> str:
    """The platform's storage address, with the logs of two attempts of the run `gone`."""
    bucket = s3_keys.make_bucket()
    endpoint = f"storage: {{uri: s3://{bucket}/lora, endpoint: '{s3_keys.endpoint}', addressing: path}}\n"
    lines = [line for line in PLATFORM_FILE.splitlines() if not line.startswith("storage")]
    (tmp_path / "platform.yaml").write_text("\n".join(lines) + "\n" + endpoint)
    files = {
        "logs/attempt-1/supervisor.log.gz": "phase train\n",
        "logs/attempt-1/rank-0.log.gz": "step 1\nstep 2\n",
        "logs/attempt-1/rank-1.log.gz": "other\n",
        "logs/attempt-2/supervisor.log.gz": "phase publish\n",
    }
    for key, text in files.items():
        s3_keys.client().put_object(Bucket=bucket, Key=f"lora/gone/{key}", Body=gzip.compress(text.encode()))
    spec = {"name": "gone", "resources": {"gpus": 2}}
    s3_keys.client().put_object(Bucket=bucket, Key="lora/gone/spec.json", Body=json.dumps(spec).encode())
    return f"s3://{bucket}/lora"


def test_a_run_whose_job_is_gone_has_its_log_in_storage(lorajob: Call, stored: str) -> None:
    last = lorajob("logs", "gone")
    first = lorajob("logs", "gone", "--attempt", "1")
    rank = lorajob("logs", "gone", "--attempt", "1", "--rank", "0", "--tail", "1", "--since", "5m")
    previous = lorajob("logs", "gone", "-p")

    assert last.code == 0
    assert last.out == "phase publish\n"
    assert f"run gone is no longer in the cluster: this is the log of attempt 2 in {stored}/gone" in last.err
    assert first.out.splitlines() == ["phase train", "[rank 0] step 1", "[rank 0] step 2", "[rank 1] other"]
    assert rank.out == "step 2\n"
    assert "--since can't be applied" in rank.err
    assert previous.out == first.out


def test_the_end_of_a_log_in_storage_is_that_of_each_process_also_while_it_grows(
    lorajob: Call, s3_keys: S3Server, stored: str, tmp_path: Path, settings: Callable[..., Environment]
) -> None:
    bucket = stored.removeprefix("s3://").partition("/")[0]
    store = open_store(stored, "gone", settings(s3_endpoint=s3_keys.endpoint))
    path = tmp_path / "rank-1.log"
    growing = GrowingFile(store, "logs/attempt-2/rank-1.log.gz", path)
    for number in range(1, 4):
        with path.open("a") as file:
            file.write(f"{number} of 3\n")
        growing.add()

    last = lorajob("logs", "gone", "--tail", "1")
    two = lorajob("logs", "gone", "--attempt", "2", "--rank", "1", "--tail", "2")

    assert any(".parts/" in key for key in s3_keys.keys(bucket)), "it was not consolidated"
    assert last.out.splitlines() == ["phase publish", "[rank 1] 3 of 3"]
    assert "--tail shows the last 1 line of each process" in last.err
    assert (two.out.splitlines(), "--tail" in two.err) == (["2 of 3", "3 of 3"], False)


def test_an_attempt_that_storage_does_not_have_is_said(lorajob: Call, client: Cluster, stored: str) -> None:
    platform = Platform(image="none", storage=PlatformStorage(uri=stored))
    spec = RunSpec(name="gone", resources=ResourcesSpec(gpus=2))
    job = manifest.build(spec, platform, namespace=client.namespace, version="0.1.0").job
    job["spec"]["suspend"] = True
    client.post(client.jobs(), job)

    outcome = lorajob("logs", "gone", "--attempt", "7")

    assert outcome.code == 2
    assert f"{stored}/gone has no log of attempt 7: it has those of 1, 2" in outcome.err.splitlines()[0]
    assert lorajob("logs", "gone").out == "phase publish\n"
