"""The chart, installed by Helm into a real cluster: what is there after install, upgrade and removal."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from platform_install import CHART, RELEASE, SMALL, install_platform, run_helm

from cluster_fixtures import TestCluster
from lorajob.cluster import connect
from lorajob.platform import platform_lookup
from lorajob.platform.platform_config import PlatformToleration
from lorajob_runtime.contract import spec as specs
from waiting import wait_until

IMAGE = "localhost/none:1"
NEEDED: dict[str, Any] = {"platform": {"image": IMAGE, "storage": {"uri": "s3://bucket/prefix"}}}


@pytest.fixture
def release(cluster: TestCluster, namespace: str) -> Iterator[str]:
    """A namespace with the chart in it."""
    install_platform(cluster, namespace, image=IMAGE)
    yield namespace
    run_helm(cluster, namespace, "uninstall", RELEASE, "--ignore-not-found")


def names(cluster: TestCluster, namespace: str, kinds: str) -> set[str]:
    """Objects of the release, as kind/name; of kinds outside of namespaces too."""
    selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/managed-by=Helm"
    found = cluster.run_kubectl("get", kinds, f"--namespace={namespace}", "-l", selector, "-o", "name")
    return {
        name for name in found.split() if name.split("/")[0] not in OF_THE_CLUSTER or name.endswith(f".{namespace}")
    }


INSIDE = "serviceaccount,role,rolebinding,configmap,persistentvolumeclaim"
OUTSIDE = "validatingadmissionpolicy,validatingadmissionpolicybinding"
OF_THE_CLUSTER = [f"{kind}.admissionregistration.k8s.io" for kind in OUTSIDE.split(",")]


def test_an_installed_chart_is_all_that_a_run_needs(cluster: TestCluster, release: str) -> None:
    assert names(cluster, release, INSIDE) == {
        "serviceaccount/lorajob-runner",
        "role.rbac.authorization.k8s.io/lorajob-runner",
        "role.rbac.authorization.k8s.io/lorajob-user",
        "rolebinding.rbac.authorization.k8s.io/lorajob-runner",
        "configmap/lorajob-platform",
        "persistentvolumeclaim/lorajob-cache",
    }
    assert names(cluster, release, OUTSIDE) == {
        f"{kind}/lorajob-{what}.{release}" for kind in OF_THE_CLUSTER for what in ("runner", "users", "platform")
    }


def test_the_command_line_reads_the_platform_that_the_values_say(cluster: TestCluster, release: str) -> None:
    loaded = platform_lookup.load(connect(kubeconfig=str(cluster.kubeconfig), namespace=release), None, {})

    assert (loaded.platform.image, loaded.platform.device) == (IMAGE, "cpu")
    assert loaded.platform.storage.uri == f"s3://{release}/runs"
    assert loaded.platform.resources.cpu_per_gpu == "250m"
    assert loaded.platform.scheduling.tolerations == (
        PlatformToleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"),
    )


def test_an_upgrade_changes_the_platform_and_a_null_leaves_a_secret_out(cluster: TestCluster, release: str) -> None:
    secrets = {"platform": {"secrets": {"storage": None}, "limits": {"gpus": 4}}}

    install_platform(cluster, release, image="localhost/none:2", values=secrets)

    loaded = platform_lookup.load(connect(kubeconfig=str(cluster.kubeconfig), namespace=release), None, {})
    assert (loaded.platform.image, loaded.platform.limits.gpus) == ("localhost/none:2", 4)
    assert loaded.platform.secrets.storage is None


def test_what_is_removed_leaves_nothing_but_the_downloaded_weights(cluster: TestCluster, release: str) -> None:
    done = run_helm(cluster, release, "uninstall", RELEASE, "--wait")

    assert done.returncode == 0, done.stderr
    assert names(cluster, release, INSIDE) == {"persistentvolumeclaim/lorajob-cache"}
    assert names(cluster, release, OUTSIDE) == set()


def test_a_chart_that_is_installed_again_takes_the_cache_up(cluster: TestCluster, release: str) -> None:
    before = cluster.run_kubectl("get", "pvc/lorajob-cache", f"--namespace={release}", "-o", "jsonpath={.metadata.uid}")
    run_helm(cluster, release, "uninstall", RELEASE, "--wait")

    install_platform(cluster, release, image=IMAGE)

    after = cluster.run_kubectl("get", "pvc/lorajob-cache", f"--namespace={release}", "-o", "jsonpath={.metadata.uid}")
    assert after == before


def test_two_namespaces_have_a_platform_each(cluster: TestCluster, release: str) -> None:
    other = f"{release[:40]}-b"
    cluster.run_kubectl("create", "namespace", other)
    try:
        install_platform(cluster, other, image=IMAGE)
        run_helm(cluster, other, "uninstall", RELEASE, "--wait")

        assert len(names(cluster, release, OUTSIDE)) == 6
    finally:
        cluster.run_kubectl("delete", "namespace", other, "--wait=false")


def test_a_second_release_in_one_namespace_is_refused(cluster: TestCluster, release: str) -> None:
    done = run_helm(cluster, release, "install", "another", str(CHART), "--values=-", values=NEEDED)

    assert done.returncode != 0
    assert "cannot be imported into the current release" in done.stderr


def test_a_run_without_the_right_to_progress_has_no_rights_at_all(cluster: TestCluster, namespace: str) -> None:
    install_platform(cluster, namespace, image=IMAGE, values={"runner": {"progress": False}})

    assert not [name for name in names(cluster, namespace, OUTSIDE) if "lorajob-runner" in name]
    assert "rolebinding.rbac.authorization.k8s.io/lorajob-runner" not in names(cluster, namespace, INSIDE)


def test_whom_the_values_name_may_submit(cluster: TestCluster, namespace: str) -> None:
    subjects = [{"kind": "User", "name": "ana"}, {"kind": "Group", "name": "research"}]

    install_platform(cluster, namespace, image=IMAGE, values={"users": {"subjects": subjects}})

    # the server's authorizer learns of a new Role a moment later
    wait_until(lambda: may(cluster, namespace, "create", "jobs.batch", "--as=ana"), what="the rights of ana")
    for who in (["--as=ana"], ["--as=ben", "--as-group=research"]):
        assert may(cluster, namespace, "create", "jobs.batch", *who)
        assert may(cluster, namespace, "get", "pods/log", *who)
        assert not may(cluster, namespace, "get", "secrets/lorajob-storage", *who)
        assert not may(cluster, namespace, "create", "pods", *who)
    assert not may(cluster, namespace, "create", "jobs.batch", "--as=eve")


def test_users_read_one_secret_where_the_values_let_them(cluster: TestCluster, namespace: str) -> None:
    users = {"subjects": [{"kind": "User", "name": "ana"}], "readStorageSecret": True}

    install_platform(cluster, namespace, image=IMAGE, values={"users": users})

    wait_until(lambda: may(cluster, namespace, "get", "secrets/lorajob-storage", "--as=ana"), what="the rights of ana")
    assert not may(cluster, namespace, "get", "secrets/another", "--as=ana")
    assert not may(cluster, namespace, "list", "secrets", "--as=ana")


def may(cluster: TestCluster, namespace: str, verb: str, what: str, *who: str) -> bool:
    """Whether someone has a right."""
    command = [str(cluster.kubectl), f"--kubeconfig={cluster.kubeconfig}", f"--namespace={namespace}"]
    done = subprocess.run([*command, "auth", "can-i", verb, what, *who], text=True, capture_output=True, timeout=60)
    return done.stdout.strip() == "yes"


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"platform": {"storage": {"uri": "my-bucket/lora"}}},
        'platform.storage.uri is "my-bucket/lora": it must be s3://BUCKET/PREFIX',
    ),
    (
        {"platform": {"storage": {"endpoint": "s3:9000"}}},
        'platform.storage.endpoint is "s3:9000": it must be an address like https://host:port',
    ),
    ({"platform": {"device": "tpu"}}, "at '/platform/device': value must be one of 'auto', 'cpu'"),
    ({"platform": {"hubs": []}}, "at '/platform/hubs': minItems: got 0, want 1"),
    (
        {"platform": {"limits": {"timeout": "a week"}}},
        'platform.limits.timeout is "a week": it must be a duration like 90m, 24h or 3d',
    ),
    ({"platform": {"limits": {"gpus": 0}}}, "at '/platform/limits/gpus': minimum: got 0, want 1"),
    ({"platform": {"limits": {"gpu": 4}}}, "at '/platform/limits': additional properties 'gpu' not allowed"),
    (
        {"platform": {"resources": {"memoryPerGpu": "64GB"}}},
        'platform.resources.memoryPerGpu is "64GB": it must be a size of at least 1Mi, like 64Gi',
    ),
    (
        {"platform": {"storage": {"patience": "8d"}}},
        'platform.storage.patience is "8d": it must be a duration from 1m to 7d, like 30m or 2h',
    ),
    ({"platform": {"stallAfter": 1800}}, "at '/platform/stallAfter': got number, want null or string"),
    ({"platform": {"gracePeriodSeconds": "2m"}}, "at '/platform/gracePeriodSeconds': got string, want integer"),
    (
        {"platform": {"defaults": {"train": {"epoch": 1}}}},
        "at '/platform/defaults/train': additional properties 'epoch' not allowed",
    ),
    ({"cache": {"accessModes": ["RWX"]}}, "at '/cache/accessModes/0': value must be one of 'ReadWriteMany'"),
    ({"runner": {"progress": "yes"}}, "at '/runner/progress': got string, want boolean"),
    ({"users": {"subjects": [{"name": "ana"}]}}, "at '/users/subjects/0': missing property 'kind'"),
]


@pytest.mark.parametrize(("values", "complaint"), WRONG)
def test_a_wrong_value_is_refused_in_one_line(cluster: TestCluster, values: dict[str, Any], complaint: str) -> None:
    given = specs.merge(NEEDED, values)

    done = run_helm(cluster, "default", "template", RELEASE, str(CHART), "--values=-", values=given)

    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("- ")]
    assert complaint in line


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({}, "platform.image is empty: it must be the image of the runs"),
        ({"platform": {"image": IMAGE}}, "platform.storage.uri is empty: it must be s3://BUCKET/PREFIX"),
    ],
)
def test_a_value_that_has_no_default_is_asked_for(cluster: TestCluster, values: dict[str, Any], complaint: str) -> None:
    done = run_helm(cluster, "default", "template", RELEASE, str(CHART), "--values=-", values=values)

    assert done.returncode != 0
    assert complaint in done.stderr


def test_a_cluster_that_is_too_old_is_refused(cluster: TestCluster) -> None:
    old = ("--kube-version=1.30.0", "--values=-")

    done = run_helm(cluster, "default", "template", RELEASE, str(CHART), *old, values=NEEDED)

    assert done.returncode != 0
    assert "chart requires kubeVersion: >=1.31.0-0" in done.stderr


def test_helm_finds_nothing_to_complain_of(cluster: TestCluster) -> None:
    given = specs.merge(SMALL, NEEDED)

    done = run_helm(cluster, "default", "lint", "--strict", str(CHART), "--values=-", values=given)

    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


def test_the_notes_name_what_is_missing_and_how_to_bring_it(cluster: TestCluster, namespace: str) -> None:
    run_helm(cluster, namespace, "install", RELEASE, str(CHART), "--values=-", values=specs.merge(SMALL, NEEDED))

    notes = run_helm(cluster, namespace, "get", "notes", RELEASE).stdout

    run_helm(cluster, namespace, "uninstall", RELEASE)
    assert "MISSING: the Secret lorajob-storage (platform.secrets.storage)" in notes
    assert f"kubectl -n {namespace} create secret generic lorajob-storage --from-literal=AWS_ACCESS_KEY_ID=…" in notes
    assert f"lorajob platform show -n {namespace}" in notes
    assert "reported to SwanLab offline" in notes
    assert "does not enforce the restricted" not in notes
    assert json.dumps(NEEDED["platform"]["storage"]["uri"]).strip('"') in notes


@pytest.mark.parametrize(
    ("values", "said", "unsaid"),
    [
        ({"platform": {"device": "cpu"}}, "--model smollm2-135m\n", "qwen3-8b"),
        ({"platform": {"device": "auto"}}, "--model qwen3-8b --gpus 1\n", "smollm2"),
        (
            {"cache": {"accessModes": ["ReadWriteOncePod"]}},
            "a run of several nodes never starts",
            "go to the node that",
        ),
        ({"cache": {"accessModes": ["ReadWriteOnce"]}}, "go to the node that has it", "never starts"),
        ({"cache": {"accessModes": ["ReadWriteMany"]}}, "is ready in namespace", "ADVICE: the cache"),
        ({"users": {"enforceLimits": False}}, "bind `lorajob` only", "MISSING: the claim"),
    ],
    ids=str,
)
def test_the_notes_fit_the_values(cluster: TestCluster, values: dict[str, Any], said: str, unsaid: str) -> None:
    given = specs.merge(SMALL, NEEDED, values)

    done = run_helm(cluster, "default", "install", "notes", str(CHART), "--values=-", "--dry-run=client", values=given)

    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert said in notes, notes
    assert unsaid not in notes
