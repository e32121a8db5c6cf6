"""What a real API server says to the wrong person, place or object, and what a user reads of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from restricted import Rule, rights, user_rules, with_token, without

from calling import Call, Outcome
from cluster_fixtures import TestCluster
from lorajob.__main__ import main
from lorajob.cluster import (
    AlreadyExists,
    Cluster,
    ClusterError,
    Forbidden,
    NotFound,
    QuotaExceeded,
    Refused,
    Unauthenticated,
    Unreachable,
    connect,
)
from lorajob.cluster.access import Access, in_cluster
from lorajob.cluster.kubeconfig import find
from waiting import wait_until

Restricted = Callable[[str, Sequence[Rule]], Path]

JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "one"},
    "spec": {
        "suspend": True,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}},
    },
}
CONFIG_MAP: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "one"},
    "spec": {"clusterIP": "None", "selector": {"a": "b"}},
}


@pytest.fixture
def lorajob(capsys: pytest.CaptureFixture[str]) -> Call:
    """`lorajob("list")` in this process."""

    def call(*arguments: str) -> Outcome:
        code = main(arguments)
        captured = capsys.readouterr()
        return Outcome(code=code, out=captured.out, err=captured.err)

    return call


@pytest.fixture
def access(cluster: TestCluster, namespace: str) -> Access:
    """The administrator's."""
    return find(str(cluster.kubeconfig), namespace=namespace)


@pytest.fixture
def client(access: Access) -> Cluster:
    return Cluster(access)


def _other_authority(folder: Path) -> str:
    """A certificate authority that has signed nothing here."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-days", "1"]
    if shutil.which("openssl") is None:
        pytest.fail("no openssl, which makes the other authority")
    subprocess.run(
        [*command, "-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem")], check=True, capture_output=True
    )
    return (folder / "ca.pem").read_text()


def test_a_token_that_is_expired_or_made_up_ends_with_13_and_says_to_log_in(
    cluster: TestCluster, namespace: str, tmp_path: Path, lorajob: Call
) -> None:
    path = tmp_path / "config"
    path.write_text(json.dumps(with_token(cluster, "made-up", namespace)))

    with pytest.raises(Unauthenticated, match="does not accept your credentials"):
        connect(str(path)).get("/api/v1/nodes")
    shown = lorajob("list", "--kubeconfig", str(path))

    assert shown.code == 13
    assert shown.err.count("\n") == 2
    assert "log in to the cluster again" in shown.err


def test_a_token_of_an_account_that_is_gone_is_no_longer_accepted(
    cluster: TestCluster, namespace: str, restricted_kubeconfig: Restricted
) -> None:
    path = restricted_kubeconfig(namespace, [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list"]}])
    client = connect(str(path))
    assert list(client.pages(client.jobs())) == []

    cluster.run_kubectl("delete", "serviceaccounts", "--all", f"--namespace={namespace}")

    def refused() -> bool:
        # the server remembers for some seconds that the token was good
        try:
            client.get(client.jobs())
        except Unauthenticated:
            return True
        return False

    wait_until(refused, seconds=60, what="the end of the token")


def test_nobody_is_nobody(access: Access) -> None:
    stranger = dataclasses.replace(access, client_certificate=None, client_key=None, token=None)

    with pytest.raises(Unauthenticated, match=r"does not know who asks to list nodes|not accept") as caught:
        Cluster(stranger).get("/api/v1/nodes")

    assert caught.value.failure.code == 13


def test_a_client_certificate_of_another_authority_is_not_accepted(access: Access, tmp_path: Path) -> None:
    certificate = _other_authority(tmp_path)
    stranger = dataclasses.replace(
        access, client_certificate=certificate, client_key=(tmp_path / "key.pem").read_text(), token=None
    )

    with pytest.raises(Unauthenticated):
        Cluster(stranger).get("/api/v1/nodes")


def test_in_a_pod_the_service_account_gets_in(
    access: Access, namespace: str, restricted_kubeconfig: Restricted, tmp_path: Path
) -> None:
    rule = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list"]}
    token = find(str(restricted_kubeconfig(namespace, [rule]))).token
    for name, text in (("token", token), ("ca.crt", access.authority), ("namespace", namespace)):
        (tmp_path / name).write_text(text or "")
    server = urlsplit(access.server)
    variables = {"KUBERNETES_SERVICE_HOST": str(server.hostname), "KUBERNETES_SERVICE_PORT": str(server.port or 443)}

    inside = in_cluster(variables, tmp_path)

    assert inside is not None
    with Cluster(inside) as client:
        assert client.get(client.jobs())["items"] == []


def test_another_clusters_authority_is_not_trusted_and_the_way_out_is_told(access: Access, tmp_path: Path) -> None:
    wrong = dataclasses.replace(access, authority=_other_authority(tmp_path))

    with pytest.raises(Unreachable, match="is not signed by the authority in your kubeconfig") as caught:
        Cluster(wrong).get("/version")

    assert "get a new kubeconfig" in caught.value.hint
    assert caught.value.failure.code == 104
    assert Cluster(dataclasses.replace(wrong, insecure=True)).get("/version")["major"] == "1"


def test_a_server_under_another_name_is_not_trusted_unless_the_kubeconfig_names_it(access: Access) -> None:
    named = dataclasses.replace(access, tls_server_name="kubernetes.default.svc")
    wrong = dataclasses.replace(access, tls_server_name="other.example")

    assert Cluster(named).get("/version")["major"] == "1"
    with pytest.raises(Unreachable, match="is for another name"):
        Cluster(wrong).get("/version")


def test_client_certificates_need_no_file_that_stays(
    access: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if access.client_certificate is None:
        pytest.fail("the administrator of the test cluster has no client certificate")
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    Cluster(access).get("/version")
    monkeypatch.delattr("os.memfd_create")
    monkeypatch.setattr("tempfile.tempdir", None)
    Cluster(access).get("/version")

    assert list(tmp_path.iterdir()) == []


def test_a_login_by_another_program_gets_in_and_is_made_anew_when_its_token_has_run_out(
    cluster: TestCluster, namespace: str, tmp_path: Path, restricted_kubeconfig: Restricted, monkeypatch: Any
) -> None:
    rule = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list"]}
    config = json.loads(restricted_kubeconfig(namespace, [rule]).read_text())
    token = tmp_path / "token"
    token.write_text("expired")
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    script = (
        f"import json; t = open({str(token)!r}).read(); print(json.dumps({answer!r} | {{'status': {{'token': t}}}}))"
    )
    plugin = {"apiVersion": answer["apiVersion"], "command": sys.executable, "args": ["-c", script]}
    good = config["users"][0]["user"]["token"]
    config["users"] = [{"name": "user", "user": {"exec": plugin | {"interactiveMode": "Never"}}}]
    path = tmp_path / "config"
    path.write_text(json.dumps(config))
    client = connect(str(path))

    with pytest.raises(Unauthenticated):
        client.get(client.jobs())
    token.write_text(good)
    monkeypatch.setattr("lorajob.cluster.transport._FRESH_SECONDS", 0)

    assert client.get(client.jobs())["kind"] == "JobList"


GROUPS = {"jobs": "batch/v1", "workloads": "kueue.x-k8s.io/v1beta1"}
"""API group and version of what is not in the core group."""


def _asked(client: Cluster, verb: str, resource: str) -> None:
    """One request that needs the right; what is not there is no matter."""
    api = f"apis/{GROUPS[resource]}" if resource in GROUPS else "api/v1"
    collection = f"/{api}/namespaces/{client.namespace}/{resource.partition('/')[0]}"
    one = f"{collection}/one"
    body = {"jobs": JOB, "configmaps": CONFIG_MAP, "services": SERVICE}.get(resource, {})
    requests: dict[str, Callable[[], object]] = {
        "create": lambda: client.post(collection, body, dryRun="All"),
        "get": lambda: client.text(f"{one}/log") if resource == "pods/log" else client.get(one),
        "list": lambda: client.get(collection),
        "watch": lambda: list(client.watch(collection, timeout_seconds=1, resourceVersion="0")),
        "patch": lambda: client.patch(one, {"metadata": {"labels": {"a": "b"}}}, dryRun="All"),
        "delete": lambda: client.delete(one, dry_run=True),
    }
    try:
        requests[verb]()
    except NotFound:
        return


def test_each_right_of_the_charts_role_is_enough_and_without_it_the_error_names_it(
    cluster: TestCluster, namespace: str, restricted_kubeconfig: Restricted
) -> None:
    rules = user_rules(cluster)
    whole = connect(str(restricted_kubeconfig(namespace, rules)))

    for verb, resource in rights(rules):
        _asked(whole, verb, resource)
        less = connect(str(restricted_kubeconfig(namespace, without(rules, verb, resource))))
        with pytest.raises(Forbidden) as caught:
            _asked(less, verb, resource)
        group = f".{GROUPS[resource].partition('/')[0]}" if resource in GROUPS else ""
        assert f"may not {verb} {resource}{group} in namespace {namespace}" in caught.value.message
        assert caught.value.hint == f"ask for the Role lorajob-user of namespace {namespace}, which the chart installs"
        assert caught.value.failure.code == 13


def test_a_namespace_that_does_not_exist_says_so(access: Access) -> None:
    client = Cluster(dataclasses.replace(access, namespace="lj-never-made"))

    with pytest.raises(NotFound, match="namespace lj-never-made does not exist") as caught:
        client.post(client.jobs(), JOB)

    assert caught.value.failure.code == 102


def test_a_name_that_is_taken_says_what_can_be_done(client: Cluster) -> None:
    client.post(client.jobs(), JOB)

    with pytest.raises(AlreadyExists, match="run one exists already in namespace") as caught:
        client.post(client.jobs(), JOB)

    assert caught.value.failure.code == 2
    assert "lorajob retry one" in caught.value.hint


def test_an_exceeded_quota_says_what_is_used_and_what_is_allowed(client: Cluster) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}}
    quotas = f"/api/v1/namespaces/{client.namespace}/resourcequotas"
    client.post(quotas, quota | {"spec": {"hard": {"count/jobs.batch": "0"}}})

    def counted() -> bool:
        seen = client.get(f"{quotas}/small")
        return bool(seen.get("status", {}).get("hard"))

    wait_until(counted, what="the quota")
    with pytest.raises(QuotaExceeded) as caught:
        client.post(client.jobs(), JOB)

    assert "exceeded quota: small, requested: count/jobs.batch=1, used: count/jobs.batch=0" in caught.value.message
    assert caught.value.failure.code == 10


def test_an_object_that_is_invalid_is_told_in_the_servers_words(client: Cluster) -> None:
    wrong = JOB | {"spec": JOB["spec"] | {"completions": -1}}

    with pytest.raises(Refused, match=r"spec\.completions: Invalid value: -1: must be greater than or equal to 0"):
        client.post(client.jobs(), wrong)


def test_what_an_admission_policy_says_is_passed_on(client: Cluster, namespace: str) -> None:
    rules = [{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}]
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {"resourceRules": rules},
            "validations": [{"expression": "false", "message": "every Job needs a cost centre"}],
        },
    }
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": namespace},
        "spec": {"policyName": namespace, "validationActions": ["Deny"], "matchResources": here},
    }
    base = "/apis/admissionregistration.k8s.io/v1"
    client.post(f"{base}/validatingadmissionpolicies", policy)
    client.post(f"{base}/validatingadmissionpolicybindings", binding)

    def refusal() -> ClusterError | None:
        # a new policy is not in force at once
        try:
            client.post(client.jobs(), JOB, dryRun="All")
        except Refused as error:
            return error
        return None

    try:
        error = wait_until(refusal, what="the policy")
    finally:
        client.delete(f"{base}/validatingadmissionpolicybindings/{namespace}")
        client.delete(f"{base}/validatingadmissionpolicies/{namespace}")

    assert "every Job needs a cost centre" in error.message
    assert error.failure.code == 10


def test_the_platforms_config_map_is_read_and_a_broken_one_named(
    cluster: TestCluster,
    client: Cluster,
    namespace: str,
    lorajob: Call,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("LORAJOB_PLATFORM", raising=False)
    where = ("--kubeconfig", str(cluster.kubeconfig), "-n", namespace)

    missing = lorajob("platform", "show", *where)
    config = {"image": "registry.example/lorajob:9.9.9", "storage": {"uri": "s3://bucket"}, "prefetch": True}
    body = CONFIG_MAP | {"metadata": {"name": "lorajob-platform"}, "data": {"platform.yaml": json.dumps(config)}}
    client.post(client.config_maps(), body)
    broken = lorajob("platform", "show", *where)
    del config["prefetch"]
    client.patch(client.config_maps("lorajob-platform"), {"data": {"platform.yaml": json.dumps(config)}})
    shown = lorajob("platform", "show", *where, "-o", "json")
    version = lorajob("version", *where)

    assert missing.code == 10
    assert f"there is no ConfigMap lorajob-platform in namespace {namespace}" in missing.err
    assert broken.code == 10
    assert f"ConfigMap lorajob-platform in namespace {namespace}, platform.yaml: unknown field prefetch" in broken.err
    assert shown.code == 0, shown.err
    assert json.loads(shown.out)["image"] == "registry.example/lorajob:9.9.9"
    assert "runs use lorajob 9.9.9" in version.err


def test_kubectl_finds_lorajob_as_a_command_of_its_own(
    cluster: TestCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))

    shown = subprocess.run(
        [str(cluster.kubectl), "lorajob", "list", "-n", namespace, "-o", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["kind"] == "RunList"
