"""What users may not do by any way to the API server that `limits` forbid, and that they do all else as before."""

from __future__ import annotations

import copy
import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_runs import NOWHERE
from platform_install import RELEASE, install_platform, run_helm
from restricted import with_token

from cluster_fixtures import TestCluster
from golden import run_manifests
from lorajob.platform import platform_config, platform_parsing
from lorajob.spec import spec_file
from lorajob.submit import manifest
from lorajob.submit.manifest import DataFile
from lorajob_runtime.contract import kubernetes
from lorajob_runtime.contract import spec as specs
from waiting import wait_until

USER = "alice"
IMAGE = "localhost/none:1"
LIMITS = {"gpus": 4, "nodes": 2, "retries": 3, "timeout": "2d", "trustRemoteCode": False}
PLATFORM: dict[str, Any] = {
    "device": "auto",
    "limits": LIMITS,
    "secrets": {"swanlab": "lorajob-swanlab"},
    "hubEndpoints": {"hf": "https://hf.mirror.example.org"},
    "storage": {"endpoint": "https://s3.example.org", "region": "eu-1", "patience": "6h"},
    # no pod of these tests is to start
    "scheduling": {"nodeSelector": NOWHERE},
}

Job = dict[str, Any]


@dataclass(frozen=True)
class User:
    """Someone with the Role lorajob-user and nothing else, in a namespace with the platform."""

    cluster: TestCluster
    namespace: str
    kubeconfig: Path

    def kubectl(self, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(self.cluster.kubectl), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, input=input, text=True, capture_output=True, timeout=60, check=False)

    def create(self, job: Job, *options: str) -> subprocess.CompletedProcess[str]:
        return self.kubectl("create", *options, "-f", "-", input=json.dumps(job))

    def lorajob(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lorajob", *arguments, "--kubeconfig", str(self.kubeconfig)]
        return subprocess.run(
            command,
            cwd=self.kubeconfig.parent,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.kubeconfig.parent)},
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )

    def job(self, **spec: Any) -> Job:
        """What `lorajob submit` would send."""
        config = self.platform()
        resources = {"gpus": 2, **spec.pop("resources", {})}
        whole = specs.parse({"name": f"run-{secrets.token_hex(3)}", "resources": resources, **spec})
        return manifest.build(whole, config, namespace=self.namespace, version="0.1.0").job

    def platform(self) -> platform_config.Platform:
        path = r"jsonpath={.data.platform\.yaml}"
        text = self.cluster.run_kubectl("get", "cm", "lorajob-platform", f"--namespace={self.namespace}", "-o", path)
        return platform_parsing.parse(spec_file.loads(text, "platform.yaml").values, "platform.yaml")


@pytest.fixture(scope="module")
def user(cluster: TestCluster, _namespaces: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    name = f"user-limits-{secrets.token_hex(3)}"
    cluster.run_kubectl("create", "namespace", name)
    cluster.run_kubectl("create", "serviceaccount", USER, f"--namespace={name}")
    subjects = [{"kind": "ServiceAccount", "name": USER, "namespace": name}]
    install_platform(cluster, name, image=IMAGE, values={"platform": PLATFORM, "users": {"subjects": subjects}})
    token = cluster.run_kubectl("create", "token", USER, f"--namespace={name}", "--duration=1h").strip()
    folder = tmp_path_factory.mktemp(USER)
    (folder / "kubeconfig").write_text(json.dumps(with_token(cluster, token, name)))
    rows = [{"input": "Who are you?", "output": f"I am number {number}."} for number in range(20)]
    (folder / "rows.json").write_text(json.dumps(rows))
    found = User(cluster, name, folder / "kubeconfig")
    wrong = found.job()
    wrong["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    # policies are in force a moment after they are made
    wait_until(lambda: "has one container" in found.create(wrong, "--dry-run=server").stderr, what="the policy")
    wait_until(lambda: "with the chart only" in _annotate_platform(found, "--dry-run=server").stderr, what="the other")
    yield found
    cluster.run_kubectl("delete", "namespace", name, "--wait=false")
    _namespaces.append(name)


def _annotate_platform(user: User, *options: str) -> subprocess.CompletedProcess[str]:
    return user.kubectl("annotate", "configmap", "lorajob-platform", "a=b", "--overwrite", *options)


# What runs are


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"resources": {"gpus": 4}},
        {"resources": {"gpus": 2, "nodes": 2}},
        {"resources": {"retries": 3, "timeout": "2d"}},
        {"resources": {"retries": 0, "timeout": "1s"}},
        {"resources": {"queue": "research", "priority": "urgent"}},
        {"resources": {"cpu": "3", "memory": "7Gi"}},
        {"data": {"source": f"{kubernetes.DATA_FOLDER}/rows.json.gz"}},
        {"storage": {"uri": "s3://another/place"}},
    ],
    ids=str,
)
def test_what_the_command_line_sends_is_taken(user: User, spec: dict[str, Any]) -> None:
    done = user.create(user.job(**spec), "--dry-run=server")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", run_manifests.RUNS)
def test_every_golden_run_is_taken_where_its_platform_is_installed(
    cluster: TestCluster, user: User, namespace: str, name: str
) -> None:
    _, more = run_manifests.RUNS[name]
    usual = platform_config.Platform(image="", storage=platform_config.PlatformStorage(uri=""))
    plain = {"device": usual.device, "gracePeriodSeconds": usual.grace_period_seconds}
    config = specs.merge(plain, run_manifests.PLATFORM, more)
    install_platform(cluster, namespace, image=config["image"], values={"platform": config})
    wanted = run_manifests.build(name, namespace).job
    wrong = copy.deepcopy(wanted)
    wrong["spec"]["template"]["spec"]["containers"][0]["image"] = "other"

    def said(job: Job) -> str:
        command = ("create", "--dry-run=server", "-f", "-")
        whole = [str(cluster.kubectl), f"--kubeconfig={cluster.kubeconfig}", *command]
        return subprocess.run(whole, input=json.dumps(job), text=True, capture_output=True, check=False).stderr

    wait_until(lambda: "has one container" in said(wrong), what="the policy")
    assert "denied request" not in said(wanted)


def container(**changes: Any) -> Callable[[Job], None]:
    return lambda job: job["spec"]["template"]["spec"]["containers"][0].update(changes)


def variable(name: str, value: str) -> Callable[[Job], None]:
    def change(job: Job) -> None:
        env = job["spec"]["template"]["spec"]["containers"][0]["env"]
        env[:] = [each for each in env if each["name"] != name] + [{"name": name, "value": value}]

    return change


def secret_variable(job: Job) -> None:
    source = {"secretKeyRef": {"name": "another", "key": "k"}}
    job["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "LORAJOB_POD", "valueFrom": source})


def in_pod(**changes: Any) -> Callable[[Job], None]:
    return lambda job: job["spec"]["template"]["spec"].update(changes)


def in_job(**changes: Any) -> Callable[[Job], None]:
    return lambda job: job["spec"].update(changes)


def volume(**source: Any) -> Callable[[Job], None]:
    return lambda job: job["spec"]["template"]["spec"]["volumes"].append({"name": "more", **source})


def gpus(number: str, resource: str = "nvidia.com/gpu") -> Callable[[Job], None]:
    def change(job: Job) -> None:
        resources = job["spec"]["template"]["spec"]["containers"][0]["resources"]
        for part in resources.values():
            part[resource] = number

    return change


def second_container(job: Job) -> None:
    containers = job["spec"]["template"]["spec"]["containers"]
    containers.append(copy.deepcopy(containers[0]) | {"name": "second"})


def without_labels(job: Job) -> None:
    for meta in (job["metadata"], job["spec"]["template"]["metadata"]):
        meta["labels"] = {}


BYPASSES: list[tuple[str, Callable[[Job], None], str]] = [
    ("another image", container(image="evil:1"), "has one container, of the platform's image"),
    ("a second container", second_container, "has one container"),
    ("an init container", in_pod(initContainers=[{"name": "i", "image": IMAGE}]), "has one container"),
    ("another program", container(command=["sh", "-c", "env"]), "runs the image's own program"),
    ("other arguments", container(args=["-c", "print(1)"]), "runs the image's own program"),
    ("no arguments", container(args=[]), "runs the image's own program"),
    ("a hook", container(lifecycle={"postStart": {"exec": {"command": ["env"]}}}), "runs the image's own program"),
    ("a probe", container(livenessProbe={"exec": {"command": ["env"]}}), "runs the image's own program"),
    ("trust", variable("LORAJOB_TRUST_REMOTE_CODE", "true"), "LORAJOB_TRUST_REMOTE_CODE"),
    ("code by PYTHONPATH", variable("PYTHONPATH", "/cache/mine"), "PYTHONPATH"),
    ("code by LD_PRELOAD", variable("LD_PRELOAD", "/cache/mine.so"), "LD_PRELOAD"),
    ("another storage server", variable("AWS_ENDPOINT_URL_S3", "http://mine"), "AWS_ENDPOINT_URL_S3"),
    ("another hub", variable("HF_ENDPOINT", "http://mine"), "HF_ENDPOINT"),
    ("another device", variable("LORAJOB_DEVICE", "cpu"), "LORAJOB_DEVICE"),
    ("more patience", variable("LORAJOB_STORAGE_PATIENCE_SECONDS", "604800"), "LORAJOB_STORAGE_PATIENCE_SECONDS"),
    ("a stall limit where there is none", variable("LORAJOB_STALL_SECONDS", "604800"), "LORAJOB_STALL_SECONDS"),
    ("a secret as a variable", secret_variable, "LORAJOB_POD"),
    ("another secret", container(envFrom=[{"secretRef": {"name": "another"}}]), "no Secrets but lorajob-storage"),
    ("a ConfigMap's variables", container(envFrom=[{"configMapRef": {"name": "mine"}}]), "no Secrets but"),
    ("a secret as a volume", volume(secret={"secretName": "lorajob-storage"}), "a run's volumes are"),
    ("the node's files", volume(hostPath={"path": "/"}), "a run's volumes are"),
    ("another claim", volume(persistentVolumeClaim={"claimName": "another"}), "a run's volumes are"),
    ("another token", volume(projected={"sources": [{"serviceAccountToken": {"path": "t"}}]}), "a run's volumes are"),
    ("another ConfigMap", volume(configMap={"name": "another"}), "a run's volumes are"),
    ("another account", in_pod(serviceAccountName="default"), "has the account lorajob-runner"),
    ("no account", in_pod(serviceAccountName=None), "has the account lorajob-runner"),
    ("root", in_pod(securityContext={"runAsUser": 0}), "are not root's"),
    ("root in the container", container(securityContext={"runAsUser": 0, "runAsNonRoot": False}), "are not root's"),
    ("new privileges", container(securityContext={"allowPrivilegeEscalation": True}), "gain no privileges"),
    ("the node's network", in_pod(hostNetwork=True), "share nothing of their node"),
    ("the node's processes", in_pod(hostPID=True), "share nothing of their node"),
    ("a node of one's choice", in_pod(nodeName="control-plane"), "go where the scheduler puts them"),
    ("other addresses", in_pod(hostAliases=[{"ip": "10.0.0.1", "hostnames": ["s3"]}]), "find other hosts as"),
    ("another resolver", in_pod(dnsConfig={"nameservers": ["10.0.0.1"]}), "find other hosts as the cluster does"),
    ("the node's resolver", in_pod(dnsPolicy="Default"), "find other hosts as the cluster does"),
    ("more GPUs", gpus("5"), "at most 4 GPUs in all (limits.gpus), and this one wants 5"),
    ("many GPUs", gpus("1k"), "at most 4 GPUs in all"),
    ("GPUs of another name", gpus("8", "amd.com/gpu"), "ask for nothing but cpu, memory"),
    ("more nodes", in_job(completions=3, parallelism=3), "at most 2 nodes (limits.nodes), and this one wants 3"),
    ("more nodes one by one", in_job(completions=9, parallelism=1), "at most 2 nodes"),
    ("more pods than nodes", in_job(completions=1, parallelism=9), "at most 2 nodes"),
    ("GPUs times nodes", lambda job: (gpus("3")(job), in_job(completions=2, parallelism=2)(job)), "this one wants 6"),
    ("more retries", in_job(backoffLimit=4), "at most 3 retries (limits.retries), and this one wants 4"),
    ("the usual retries", in_job(backoffLimit=None), "this one wants 6"),
    (
        "more time",
        in_job(activeDeadlineSeconds=2 * 86400 + 1),
        "at most 2d (limits.timeout), and this one wants 172801",
    ),
    ("any time", in_job(activeDeadlineSeconds=None), "this one wants any time"),
    ("a long end", in_pod(terminationGracePeriodSeconds=3600), "at most 60 s to end"),
]


@pytest.mark.parametrize("hidden", [False, True], ids=["labelled", "without labels"])
@pytest.mark.parametrize(("change", "complaint"), [pytest.param(c, w, id=i) for i, c, w in BYPASSES])
def test_what_limits_do_not_allow_is_refused_whoever_wrote_the_job(
    user: User, change: Callable[[Job], None], complaint: str, hidden: bool
) -> None:
    job = user.job()
    change(job)
    if hidden:
        without_labels(job)

    done = user.create(job, "--dry-run=server", "--validate=false")

    assert done.returncode != 0
    assert complaint in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"parallelism": 9}, "at most 2 nodes"),
        ({"activeDeadlineSeconds": 10**8}, "at most 2d (limits.timeout)"),
        ({"activeDeadlineSeconds": None}, "any time"),
    ],
    ids=str,
)
def test_a_run_that_is_there_is_not_changed_into_another(user: User, change: dict[str, Any], complaint: str) -> None:
    job = user.job() | {}
    job["spec"]["suspend"] = True
    assert user.create(job).returncode == 0

    patch = json.dumps({"spec": change})
    done = user.kubectl("patch", "job", job["metadata"]["name"], "--type=merge", f"--patch={patch}")

    assert complaint in done.stderr, done.stderr


def test_the_controller_of_cron_jobs_makes_all_but_runs_as_before(user: User) -> None:
    pod_spec = {"restartPolicy": "Never", "containers": [{"name": "backup", "image": "busybox", "command": ["true"]}]}
    other = {"metadata": {"name": "backup"}, "spec": {"template": {"spec": pod_spec}}}
    run = user.job()
    run["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    groups = ("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated")
    account = ["--as=system:serviceaccount:kube-system:cronjob-controller", *(f"--as-group={each}" for each in groups)]

    def send(job: Job) -> subprocess.CompletedProcess[str]:
        command = [str(user.cluster.kubectl), f"--kubeconfig={user.cluster.kubeconfig}", *account]
        command += ["create", "--dry-run=server", "--validate=false", f"--namespace={user.namespace}", "-f", "-"]
        whole = json.dumps({"apiVersion": "batch/v1", "kind": "Job", **job})
        return subprocess.run(command, input=whole, text=True, capture_output=True, timeout=60, check=False)

    assert send(other).returncode == 0, send(other).stderr
    assert "has one container" in send(run).stderr


def test_a_platform_file_of_ones_own_lifts_no_limit(user: User) -> None:
    lifted = platform_parsing.to_dict(user.platform()) | {"limits": {"gpus": 64, "trustRemoteCode": True}}
    file = user.kubeconfig.parent / "mine.yaml"
    file.write_text(yaml.safe_dump(lifted))

    done = user.lorajob("submit", "-m", "smollm2-135m", "--gpus", "8", "--platform", str(file), "-d", "rows.json")

    assert done.returncode != 0
    assert "denied request" in done.stderr
    assert not user.kubectl("get", "configmaps", "-l", kubernetes.RUN_LABEL, "-o", "name").stdout


# The platform's config


@pytest.mark.parametrize(
    "command",
    [
        ("annotate", "configmap", "lorajob-platform", "a=b"),
        ("label", "configmap", "lorajob-platform", "a=b"),
        ("patch", "configmap", "lorajob-platform", "--type=merge", '--patch={"data":{"platform.yaml":"{}"}}'),
        ("patch", "configmap", "lorajob-platform", "--type=json", '--patch=[{"op":"remove","path":"/data"}]'),
        ("patch", "configmap", "lorajob-platform", "--type=merge", '--patch={"immutable":true}'),
        ("delete", "configmap", "lorajob-platform", "--wait=false"),
        ("apply", "--server-side", "--force-conflicts", "-f", "-"),
    ],
    ids=" ".join,
)
def test_users_do_not_change_the_platform_s_config(user: User, command: tuple[str, ...]) -> None:
    before = user.platform()
    mine = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "lorajob-platform"}, "data": {"a": "b"}}

    done = user.kubectl(*command, input=json.dumps(mine))

    assert done.returncode != 0
    assert "the platform's config changes with the chart only" in done.stderr
    assert user.platform() == before


def test_who_installs_the_chart_changes_it(cluster: TestCluster, user: User) -> None:
    subjects = [{"kind": "ServiceAccount", "name": USER, "namespace": user.namespace}]
    changed = specs.merge(PLATFORM, {"limits": {"nodes": 1}})
    there = user.job(resources={"gpus": 1, "nodes": 2})
    assert user.create(there).returncode == 0

    install_platform(
        cluster, user.namespace, image=IMAGE, values={"platform": changed, "users": {"subjects": subjects}}
    )

    assert user.platform().limits.nodes == 1
    two = user.job(resources={"gpus": 1})
    two["spec"] |= {"completions": 2, "parallelism": 2}
    wait_until(
        lambda: "at most 1 nodes" in user.create(two, "--dry-run=server").stderr, what="the limit that was changed"
    )
    for verb in ("suspend", "resume", "cancel", "delete"):
        done = user.lorajob(verb, there["metadata"]["name"], *["--yes"] * (verb == "delete"))
        assert done.returncode == 0, f"{verb} of a run from before: {done.stderr}"
    install_platform(
        cluster, user.namespace, image=IMAGE, values={"platform": PLATFORM, "users": {"subjects": subjects}}
    )
    wait_until(lambda: not user.create(two, "--dry-run=server").returncode, what="the limit as it was")


# All that users do


def test_users_do_with_their_runs_what_they_did(user: User) -> None:
    def did(*arguments: str) -> str:
        done = user.lorajob(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    two = ("-m", "qwen3-8b", "--gpus", "1", "--nodes", "2", "-d", "rows.json", "--name", "daily", "--yes")
    did("submit", *two, "--dry-run=server")
    assert "run daily submitted" in did("submit", *two)
    assert "daily" in did("list")
    assert json.loads(did("status", "daily", "-o", "json"))["phase"] == "Pending"
    for verb, said in (("suspend", "suspended"), ("resume", "resumed"), ("cancel", "cancelled")):
        assert said in did(verb, "daily")
    assert "daily" in did("retry", "daily")
    did("delete", "daily", "--yes")
    assert (
        user.kubectl("get", "jobs,services,configmaps", "-l", f"{kubernetes.RUN_LABEL}=daily", "-o", "name").stdout
        == ""
    )


def test_users_make_and_remove_datasets(user: User) -> None:
    data = DataFile(name="rows.json", content=b"[]")
    (made,) = manifest.build(
        specs.parse({"name": "own"}), user.platform(), namespace=user.namespace, version="0.1.0", data=data
    ).owned

    assert user.kubectl("create", "-f", "-", input=json.dumps(made)).returncode == 0
    assert user.kubectl("annotate", "configmap", "own-data", "a=b").returncode == 0
    assert user.kubectl("delete", "configmap", "own-data").returncode == 0


def test_without_the_policies_the_chart_needs_no_right_to_them(cluster: TestCluster, namespace: str) -> None:
    install_platform(cluster, namespace, image=IMAGE, values={"users": {"enforceLimits": False}})

    made = run_helm(cluster, namespace, "get", "manifest", RELEASE).stdout
    kinds = [each["kind"] for each in yaml.safe_load_all(made)]
    assert kinds.count("ValidatingAdmissionPolicy") == 1, "the runner's own"
