"""The objects of a run: what is in them, that nothing else is, and what is refused before anything is sent."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden import run_manifests
from lorajob.errors import UsageError
from lorajob.platform import platform_parsing, quantities
from lorajob.submit import manifest
from lorajob.submit.manifest import DataFile, DataTooLarge, Manifests
from lorajob_runtime.contract import errors, kubernetes
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.system import environment

STORAGE = {"uri": "s3://models/lora"}


def built(
    spec: dict[str, Any] | None = None, more: dict[str, Any] | None = None, data: DataFile | None = None
) -> Manifests:
    config = specs.merge({"image": "example/lorajob:1", "storage": STORAGE}, more or {})
    return manifest.build(
        specs.parse({"name": "poems", **(spec or {})}),
        platform_parsing.parse(config, "platform.yaml"),
        namespace="team-a",
        version="0.1.0",
        data=data,
    )


def pods_of(manifests: Manifests) -> dict[str, Any]:
    found: dict[str, Any] = manifests.job["spec"]["template"]["spec"]
    return found


def container_of(manifests: Manifests) -> dict[str, Any]:
    (container,) = pods_of(manifests)["containers"]
    return dict(container)


def variables_of(manifests: Manifests) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container_of(manifests)["env"] if "value" in each}


@pytest.mark.parametrize("name", run_manifests.RUNS)
def test_the_objects_of_a_run_are_as_the_golden_file_has_them(name: str) -> None:
    golden = json.loads((run_manifests.FOLDER / f"{name}.json").read_text("utf-8"))

    assert run_manifests.build(name).all() == golden, "run `make golden` and look at the difference"


def test_every_golden_file_belongs_to_a_run() -> None:
    assert {path.stem for path in run_manifests.FOLDER.glob("*.json")} == set(run_manifests.RUNS)


NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@st.composite
def any_spec(draw: st.DrawFn) -> RunSpec:
    resources = {
        "gpus": draw(st.integers(1, 64)),
        "nodes": draw(st.integers(1, 1024)),
        "retries": draw(st.integers(0, 100)),
        "timeout": draw(st.none() | st.sampled_from(["90m", "24h", "3d"])),
        "queue": draw(st.none() | st.just("research")),
    }
    return specs.parse(
        {
            "name": draw(NAMES),
            "model": {"name": draw(st.text(string.printable, min_size=1, max_size=90))},
            "data": {"system": draw(st.none() | TEXTS), "source": draw(st.none() | st.just("s3://b/x.json"))},
            "resources": resources,
        }
    )


PLATFORM = platform_parsing.parse({"image": "example/lorajob:1", "storage": STORAGE}, "platform.yaml")


@given(spec=any_spec())
def test_the_same_spec_makes_the_same_objects_and_neither_is_changed(spec: RunSpec) -> None:
    before, config = copy.deepcopy(spec), copy.deepcopy(PLATFORM)

    first = manifest.build(spec, PLATFORM, namespace="team-a", version="1")
    second = manifest.build(spec, PLATFORM, namespace="team-a", version="1")

    assert json.dumps(first.all()) == json.dumps(second.all())
    assert (spec, PLATFORM) == (before, config)


@given(spec=any_spec())
def test_a_job_gives_back_the_spec_that_it_was_made_from(spec: RunSpec) -> None:
    job = json.loads(json.dumps(manifest.build(spec, PLATFORM, namespace="team-a", version="1").job))

    assert manifest.spec_of(job) == dataclasses.replace(spec, storage=specs.StorageSpec(uri="s3://models/lora"))


@given(spec=any_spec())
def test_names_and_labels_are_what_kubernetes_takes(spec: RunSpec) -> None:
    manifests = manifest.build(spec, PLATFORM, namespace="team-a", version="1")

    longest_pod = f"{manifests.job['metadata']['name']}-{spec.resources.nodes - 1}-abcde"
    assert len(longest_pod) <= 63
    for each in manifests.all():
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", each["metadata"]["name"])
        for value in each["metadata"]["labels"].values():
            assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value)


@given(content=st.binary(max_size=2000))
def test_a_dataset_arrives_as_it_was(content: bytes) -> None:
    manifests = built(data=DataFile(name="poems.json", content=content))

    (config_map,) = manifests.owned
    assert base64.b64decode(config_map["binaryData"]["poems.json"]) == content
    assert manifest.spec_of(manifests.job).data.source == f"{kubernetes.DATA_FOLDER}/poems.json"


def test_the_runtime_reads_from_its_variables_what_the_platform_says() -> None:
    manifests = built(
        more={
            "device": "cpu",
            "hubs": ["hf"],
            "storage": {"endpoint": "http://s3:9000", "region": "eu-1", "addressing": "path"},
        }
    )

    settings = environment.read(variables_of(manifests))

    assert (str(settings.cache), str(settings.work)) == (kubernetes.CACHE_FOLDER, kubernetes.WORK_FOLDER)
    assert (settings.hubs, settings.device) == (("hf",), "cpu")
    assert (settings.s3_endpoint, settings.s3_region, settings.s3_addressing) == ("http://s3:9000", "eu-1", "path")


def test_the_runtime_waits_as_long_as_the_platform_says_and_else_as_it_thinks_right() -> None:
    said = environment.read(variables_of(built(more={"stallAfter": "1h", "storage": {"patience": "1d"}})))
    unsaid = environment.read(variables_of(built()))

    assert (said.stall_seconds, said.storage_patience_seconds) == (3600, 86400)
    assert (unsaid.stall_seconds, unsaid.storage_patience_seconds) == (None, None)


@pytest.mark.parametrize("allowed", [True, False])
def test_code_of_a_repository_runs_in_a_pod_only_where_the_platform_says_so(allowed: bool) -> None:
    made = built(more={"limits": {"trustRemoteCode": allowed}})

    assert environment.read(variables_of(made)).remote_code is allowed


def test_no_variable_holds_a_secret_or_an_empty_text() -> None:
    variables = variables_of(built(more={"secrets": {"swanlab": "s", "hub": "h"}}))

    assert not [name for name in variables if "KEY" in name or "TOKEN" in name]
    assert all(variables.values())


def test_secrets_come_by_reference_and_one_named_twice_comes_once() -> None:
    container = container_of(built(more={"secrets": {"storage": "keys", "swanlab": "swan", "hub": "keys"}}))

    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}, {"secretRef": {"name": "swan"}}]


def test_a_platform_without_secrets_refers_to_none() -> None:
    assert "envFrom" not in container_of(built(more={"secrets": {"storage": None}}))


def test_folders_that_libraries_write_to_are_on_volumes() -> None:
    manifests = built()

    mounts = [each["mountPath"] for each in container_of(manifests)["volumeMounts"] if not each.get("readOnly")]
    variables = variables_of(manifests)
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME", "MODELSCOPE_CACHE", "TRITON_CACHE_DIR"):
        assert any(variables[name] == mount or variables[name].startswith(f"{mount}/") for mount in mounts), name


def test_exactly_the_ends_that_no_retry_can_help_fail_the_job_at_once() -> None:
    fail, ignore = built().job["spec"]["podFailurePolicy"]["rules"]

    assert fail["onExitCodes"]["values"] == [10, 11, 12, 13, 14, 15]
    assert all(errors.from_code(code).final for code in fail["onExitCodes"]["values"])
    assert (fail["action"], ignore["action"]) == ("FailJob", "Ignore")
    assert ignore["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def test_retries_are_one_number_on_however_many_nodes() -> None:
    job = built({"resources": {"nodes": 4, "retries": 3}}).job

    assert job["spec"]["backoffLimit"] == 3


def test_one_node_needs_no_service_and_several_do() -> None:
    alone, four = built(), built({"resources": {"nodes": 4}})

    assert alone.owned == ()
    assert "subdomain" not in pods_of(alone)
    (service,) = four.owned
    assert (service["kind"], service["spec"]["clusterIP"]) == ("Service", "None")
    assert pods_of(four)["subdomain"] == service["metadata"]["name"] == "poems"
    assert {each["port"] for each in service["spec"]["ports"]} == {
        kubernetes.RENDEZVOUS_PORT,
        kubernetes.COORDINATOR_PORT,
    }


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_pods_of_a_run_know_the_uid_of_their_job(nodes: int) -> None:
    container = container_of(built({"resources": {"nodes": nodes}}))

    (uid,) = [each for each in container["env"] if each["name"] == kubernetes.JOB_UID_VARIABLE]
    assert uid["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/controller-uid']"}}


@pytest.mark.parametrize("gpus", [1, 3])
def test_a_run_on_the_cpu_asks_for_no_gpu_and_for_the_share_of_each_process(gpus: int) -> None:
    made = built({"resources": {"gpus": gpus}}, {"device": "cpu", "resources": {"cpuPerGpu": 2}})

    resources = container_of(made)["resources"]
    assert {name for each in resources.values() for name in each} == {"cpu", "memory", "ephemeral-storage"}
    assert resources["requests"]["cpu"] == str(2 * gpus)
    assert manifest.spec_of(made.job).resources.gpus == gpus


def test_a_queue_is_a_label_and_whether_the_run_is_suspended_is_left_to_it() -> None:
    queued, plain = built({"resources": {"queue": "research"}}).job, built().job

    assert queued["metadata"]["labels"][kubernetes.QUEUE_LABEL] == "research"
    assert "suspend" not in queued["spec"] | plain["spec"]
    assert kubernetes.QUEUE_LABEL not in plain["metadata"]["labels"]


def test_what_a_job_owns_names_it_as_its_owner() -> None:
    manifests = built({"resources": {"nodes": 2}})
    created = {"metadata": {"name": "poems", "uid": "1-2-3"}}

    owned = manifest.owned_by(manifests.owned[0], created)

    (owner,) = owned["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", "poems", "1-2-3")
    assert (owner["controller"], owner["blockOwnerDeletion"]) == (True, False)
    assert "ownerReferences" not in manifests.owned[0]["metadata"]


def test_a_retried_run_mounts_the_dataset_that_its_first_job_brought() -> None:
    first = built(data=DataFile(name="poems.json.gz", content=b"x"))

    again = manifest.build(manifest.spec_of(first.job), PLATFORM, namespace="team-a", version="0.1.0")

    assert again.owned == ()
    assert pods_of(again) == pods_of(first)
    assert {"name": "data", "configMap": {"name": manifest.data_name("poems")}} in pods_of(again)["volumes"]


@pytest.mark.parametrize(
    ("model", "gpus", "share", "memory"),
    [
        ("qwen3-8b", 1, "64Gi", "64Gi"),
        ("qwen3-8b", 8, "64Gi", "512Gi"),
        # 4 x (3 GiB of a process and twice its largest tensor), 16 GiB of /dev/shm, a checkpoint
        ("qwen3-8b", 4, "4Gi", "38Gi"),
        ("glm-4.5-air", 4, "4Gi", "57Gi"),
        ("hf:someone/unknown", 2, "250Mi", "500Mi"),
    ],
)
def test_memory_is_the_platforms_share_or_what_the_model_needs(model: str, gpus: int, share: str, memory: str) -> None:
    spec = {"model": {"name": model}, "resources": {"gpus": gpus}}

    resources = container_of(built(spec, {"resources": {"memoryPerGpu": share}}))["resources"]

    assert resources["requests"]["memory"] == resources["limits"]["memory"] == memory


def test_what_the_user_says_of_cpu_and_memory_wins() -> None:
    resources = container_of(built({"resources": {"cpu": "500m", "memory": "20G"}}))["resources"]

    assert resources["requests"]["cpu"] == "500m"
    assert quantities.amount(resources["limits"]["memory"]) == 20 * 10**9
    assert "cpu" not in resources["limits"]


def test_the_pods_have_the_platforms_runtime_class_or_none() -> None:
    assert pods_of(built({}, {"scheduling": {"runtimeClassName": "nvidia"}}))["runtimeClassName"] == "nvidia"
    assert "runtimeClassName" not in pods_of(built({}))


def test_a_run_over_several_nodes_wishes_to_be_near_itself() -> None:
    scheduling = {"scheduling": {"topologyKey": "rack"}}

    alone, two = built({}, scheduling), built({"resources": {"nodes": 2}}, scheduling)

    assert "affinity" not in pods_of(alone)
    (wish,) = pods_of(two)["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert wish["podAffinityTerm"]["topologyKey"] == "rack"
    assert wish["podAffinityTerm"]["labelSelector"]["matchLabels"] == {"batch.kubernetes.io/job-name": "poems"}


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"resources": {"timeout": "8d"}}, {}, "resources.timeout is 8d: this platform allows at most 7d"),
    ({"resources": {"nodes": 3}}, {"limits": {"nodes": 2}}, "resources.nodes is 3: this platform allows at most 2"),
    (
        {"resources": {"nodes": 2, "gpus": 8}},
        {"limits": {"gpus": 8}},
        "resources.gpus is 8 on each of 2 nodes: this platform allows at most 8 for a run",
    ),
    (
        {"resources": {"retries": 9}},
        {"limits": {"retries": 5}},
        "resources.retries is 9: this platform allows at most 5",
    ),
    (
        {"model": {"trustRemoteCode": True, "revision": "abc"}},
        {},
        "model.trustRemoteCode is true: this platform does not run code of model repositories",
    ),
    (
        {"resources": {"gpuType": "h100"}},
        {"scheduling": {"gpuTypes": {"h200": {"a": "b"}, "a10": {"a": "c"}}}},
        "resources.gpuType is 'h100': the platform knows h200, a10",
    ),
    ({"resources": {"gpuType": "h100"}}, {}, "resources.gpuType is 'h100': the platform names no types of GPU"),
    ({"resources": {"queue": "Team A"}}, {}, "resources.queue is 'Team A': it must be the name of a Kueue LocalQueue"),
    ({"resources": {"priority": "#1"}}, {}, "resources.priority is '#1': it must be the name of a PriorityClass"),
    (
        {"resources": {"cpu": "many"}},
        {},
        "resources.cpu is 'many': it must be a quantity above 0, like 8, 500m, 64Gi or 1.5T",
    ),
    (
        {"resources": {"memory": "0"}},
        {},
        "resources.memory is '0': it must be a quantity above 0, like 8, 500m, 64Gi or 1.5T",
    ),
    ({"resources": {"memory": "64"}}, {}, "resources.memory is '64', in bytes: it must be a size like 64Gi"),
    (
        {"storage": {"uri": "./runs"}},
        {},
        "storage.uri is './runs': on a cluster it must be s3://BUCKET/PREFIX, since a pod's folders end with it",
    ),
    (
        {"data": {"source": "poems.json"}},
        {},
        "data.source is 'poems.json': it must be s3://BUCKET/PATH, or a path in the pods",
    ),
    ({"data": {"system": "x" * 131_072}}, {}, "the spec has 131"),
]


@pytest.mark.parametrize(("spec", "config", "message"), REFUSED)
def test_what_cannot_run_here_is_refused_in_one_line(
    spec: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        built(spec, config)

    assert caught.value.message.startswith(message)
    assert "\n" not in caught.value.message


def test_a_dataset_that_no_config_map_holds_is_too_large() -> None:
    with pytest.raises(DataTooLarge, match=r"poems.json has 1048577 bytes: a ConfigMap holds at most 1048576"):
        built(data=DataFile(name="poems.json", content=b"x" * (2**20 + 1)))


def test_a_job_that_is_no_run_says_so() -> None:
    job = {"metadata": {"name": "backup"}, "spec": {"template": {"metadata": {}}}}

    with pytest.raises(ConfigError, match=r"job backup has no annotation lorajob.dev/spec: it is not a run of lorajob"):
        manifest.spec_of(job)


def test_a_job_of_a_newer_version_names_that_version() -> None:
    job = copy.deepcopy(built().job)
    job["metadata"]["annotations"][kubernetes.VERSION_ANNOTATION] = "9.0.0"
    job["spec"]["template"]["metadata"]["annotations"][kubernetes.SPEC_ANNOTATION] = '{"warp": 9}'

    with pytest.raises(ConfigError, match=r"run poems was submitted by lorajob 9.0.0: unknown field warp"):
        manifest.spec_of(job)


@given(count=st.integers(1, 10**6), unit=st.sampled_from("smhd"))
def test_a_duration_is_its_number_of_units(count: int, unit: str) -> None:
    assert quantities.seconds(f"{count}{unit}") == count * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


@given(value=st.integers(1, 10**15))
def test_a_size_reads_back_the_same(value: int) -> None:
    assert quantities.amount(quantities.size(value)) == value


@given(thousandths=st.integers(1, 10**6))
def test_cores_read_back_the_same(thousandths: int) -> None:
    value = quantities.amount(f"{thousandths}m")

    assert quantities.amount(quantities.cores(value)) == value
