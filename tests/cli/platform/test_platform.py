"""The platform's config: where it comes from, what it may hold, what is said of a broken one; and versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calling import Call
from fakes.api_server import ApiServer, Reply, api_server
from lorajob.cluster import Cluster, Forbidden, NotFound
from lorajob.cluster.access import Access
from lorajob.commands.version import image_version, skew
from lorajob.errors import UsageError
from lorajob.platform import platform_lookup, platform_parsing
from lorajob.spec import spec_file
from lorajob.spec.resolve import resolve
from lorajob_runtime import __version__
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError

SMALL: dict[str, Any] = {"image": "registry.example/lorajob:0.1.0", "storage": {"uri": "s3://bucket/lora"}}
PLACE = "ConfigMap lorajob-platform in namespace team, platform.yaml"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as started:
        yield started


@pytest.fixture
def cluster(server: ApiServer) -> Iterator[Cluster]:
    with Cluster(Access(server=server.address, namespace="team", source="the test")) as made:
        yield made


def _config_map(text: str, key: str = "platform.yaml") -> Reply:
    return Reply(200, {"kind": "ConfigMap", "data": {key: text}})


def _missing() -> Reply:
    return Reply(404, {"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found"})


def test_two_fields_make_a_platform_and_the_rest_has_defaults() -> None:
    made = platform_parsing.parse(SMALL, PLACE)

    assert made.storage.uri == "s3://bucket/lora"
    assert (made.service_account, made.cache.claim, made.secrets.storage) == (
        "lorajob-runner",
        "lorajob-cache",
        "lorajob-storage",
    )
    assert made.limits.timeout == "7d"
    assert not made.limits.trust_remote_code


def test_what_is_printed_reads_back_as_the_same_platform() -> None:
    made = platform_parsing.parse(
        SMALL
        | {
            "imagePullSecrets": ["pull"],
            "storage": {"uri": "s3://bucket/lora", "patience": "90m"},
            "stallAfter": "1h",
            "hubs": ["hf"],
            "defaults": {"train": {"epochs": 2}, "resources": {"queue": "tuning"}},
            "scheduling": {
                "gpuTypes": {"h200": {"nvidia.com/gpu.product": "NVIDIA-H200"}},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                "nodeSelector": {"pool": "gpu"},
            },
            "resources": {"cpuPerGpu": 0.5},
        },
        PLACE,
    )

    printed = spec_file.loads(spec_file.dumps(platform_parsing.to_dict(made)), "printed").values

    assert platform_parsing.parse(printed, PLACE) == made


def test_the_example_of_the_docs_and_the_values_of_the_chart_are_platforms() -> None:
    root = Path(__file__).resolve().parents[3]
    example = (root / "docs/platform.md").read_text("utf-8").partition("```yaml\n")[2].partition("```")[0]
    values = spec_file.load(root / "charts/lorajob/values.yaml").values["platform"]

    documented = platform_parsing.parse(spec_file.loads(example, "docs/platform.md").values, "docs/platform.md")
    platform_parsing.parse(values | SMALL, "the chart")

    assert platform_parsing.to_dict(documented).keys() == spec_file.loads(example, "example").values.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "image is null: it must be text"),
        ({"image": ""}, "image is '': it must be an image like"),
        ({"storage": {}}, "storage.uri is missing"),
        ({"storage": {"uri": "/data"}}, "storage.uri is '/data': it must be s3://BUCKET/PREFIX"),
        ({"storage": {"uri": "s3://bucket", "endpoint": "minio:9000"}}, "it must be an address like https://host:port"),
        ({"storage": {"uri": "s3://bucket", "addressing": "dns"}}, "one of auto, path, virtual"),
        ({"imge": "x"}, "unknown field imge: did you mean image?"),
        ({"limits": {"gpu": 8}}, "unknown field limits.gpu: did you mean gpus?"),
        ({"limits": {"gpus": 0}}, "limits.gpus is 0: it must be at least 1, or null"),
        ({"limits": {"timeout": "1w"}}, "limits.timeout is '1w': it must be a duration"),
        ({"limits": "none"}, "limits is 'none': it must be a mapping of fields"),
        ({"keepFinished": "long"}, "keepFinished is 'long': it must be a duration"),
        ({"gracePeriodSeconds": 0}, "gracePeriodSeconds is 0"),
        ({"stallAfter": "59s"}, "stallAfter is '59s': it must be a duration from 1m to 7d, like 30m or 2h"),
        ({"stallAfter": 1800}, "stallAfter is 1800: it must be text"),
        (
            {"storage": {"uri": "s3://bucket", "patience": "8d"}},
            "storage.patience is '8d': it must be a duration from 1m to 7d, like 30m or 2h",
        ),
        ({"hubs": ["huggingface"]}, "it must be a list of modelscope and hf"),
        (
            {"cache": {"claim": "Shared Cache"}},
            "cache.claim is 'Shared Cache': it must be the name of a Kubernetes object",
        ),
        ({"secrets": {"storage": "a/b"}}, "secrets.storage is 'a/b'"),
        (
            {"resources": {"memoryPerGpu": "64GB"}},
            "resources.memoryPerGpu is '64GB': it must be a size of at least 1Mi, like 64Gi",
        ),
        ({"resources": {"cpuPerGpu": 0}}, "resources.cpuPerGpu is 0: it must be a quantity above 0"),
        ({"imagePullSecrets": "pull"}, "imagePullSecrets is 'pull': it must be a list of names of Secrets"),
        ({"scheduling": {"gpuTypes": {"h200": "x"}}}, "it must be a mapping of names to labels of nodes"),
        ({"scheduling": {"tolerations": {"key": "x"}}}, "it must be a list of tolerations"),
        ({"scheduling": {"tolerations": [{"key": "x"}, {"kye": "x"}]}}, "unknown field scheduling.tolerations[1].kye"),
        ({"scheduling": {"tolerations": [{"key": 1}]}}, "scheduling.tolerations[0].key is 1: it must be text"),
        (
            {"scheduling": {"tolerations": [{"operator": "In"}]}},
            "[0].operator is 'In': it must be one of Exists, Equal",
        ),
        (
            {"scheduling": {"tolerations": [{"tolerationSeconds": "long"}]}},
            "scheduling.tolerations[0].tolerationSeconds is 'long': it must be a whole number",
        ),
        ({"defaults": {"train": {"epoch": 2}}}, "unknown field defaults.train.epoch: did you mean epochs?"),
        ({"defaults": {"name": "one"}}, "defaults.name is set: every run needs a name of its own"),
        ({"apiVersion": "lorajob.dev/v9"}, "apiVersion is 'lorajob.dev/v9': this version of lorajob reads"),
    ],
)
def test_what_is_wrong_in_a_platform_is_one_line_that_names_the_place_and_the_field(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        platform_parsing.parse(SMALL | changes, PLACE)

    assert caught.value.message.startswith(f"{PLACE}: ")
    assert message in caught.value.message
    assert caught.value.failure.code == 10
    assert caught.value.hint


def test_a_field_of_a_newer_chart_is_told_as_that() -> None:
    with pytest.raises(ConfigError) as caught:
        platform_parsing.parse(SMALL | {"prefetch": True}, PLACE)

    assert "newer lorajob" in caught.value.hint


def test_a_file_that_is_named_wins_over_the_namespace_and_that_over_the_users_own(
    server: ApiServer, cluster: Cluster, tmp_path: Path
) -> None:
    def written(name: str) -> Path:
        path = tmp_path / f"{name}/lorajob/platform.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(SMALL | {"image": name}))
        return path

    flag, variable = written("flag"), written("variable")
    written("own")
    server.answers += [_config_map(json.dumps(SMALL | {"image": "namespace"})), _missing()]
    home = {"XDG_CONFIG_HOME": str(tmp_path / "own")}
    named = home | {"LORAJOB_PLATFORM": str(variable)}

    found = [
        platform_lookup.load(cluster, flag, named),
        platform_lookup.load(cluster, None, named),
        platform_lookup.load(cluster, None, home),
        platform_lookup.load(cluster, None, home),
    ]

    assert [each.platform.image for each in found] == ["flag", "variable", "namespace", "own"]
    assert [each.source for each in found] == [
        str(flag),
        str(variable),
        PLACE,
        str(tmp_path / "own" / platform_lookup.OWN_FILE),
    ]
    assert len(server.requests) == 2, "a file that is named needs no cluster"


def test_without_any_platform_the_error_says_where_it_was_looked_for(
    server: ApiServer, cluster: Cluster, tmp_path: Path
) -> None:
    server.answers += [_missing(), Reply(200, {"kind": "Namespace"})]

    with pytest.raises(ConfigError) as caught:
        platform_lookup.load(cluster, None, {"HOME": str(tmp_path)})

    assert "no ConfigMap lorajob-platform in namespace team" in caught.value.message
    assert f"{tmp_path}/.config/lorajob/platform.yaml" in caught.value.message


def test_a_namespace_that_does_not_exist_is_told_before_a_missing_platform(
    server: ApiServer, cluster: Cluster, tmp_path: Path
) -> None:
    server.answers += [_missing(), _missing()]

    with pytest.raises(NotFound, match="namespace team does not exist") as caught:
        platform_lookup.load(cluster, None, {"HOME": str(tmp_path)})

    assert caught.value.failure.code == 102


def test_without_the_right_to_see_namespaces_the_platform_is_what_is_missing(
    server: ApiServer, cluster: Cluster, tmp_path: Path
) -> None:
    answer = 'namespaces "team" is forbidden: User "eve" cannot get resource "namespaces"'
    server.answers += [_missing(), Reply(403, {"kind": "Status", "reason": "Forbidden", "message": answer})]

    with pytest.raises(ConfigError, match="no platform is configured"):
        platform_lookup.load(cluster, None, {"HOME": str(tmp_path)})


@pytest.mark.parametrize("named", ["flag", "variable"])
def test_a_platform_file_that_is_named_and_missing_is_a_fault_of_the_command_line(tmp_path: Path, named: str) -> None:
    missing = tmp_path / "missing.yaml"

    with pytest.raises(UsageError, match=r"the platform file .*/missing\.yaml does not exist") as caught:
        platform_lookup.load(None, missing if named == "flag" else None, {"LORAJOB_PLATFORM": str(missing)})

    assert caught.value.failure.code == 2
    assert caught.value.hint == "correct --platform or LORAJOB_PLATFORM"


@pytest.mark.parametrize(
    ("text", "message"), [("- image: x", ":1: a platform is a mapping of fields"), ("image: [x", "platform.yaml:1: ")]
)
def test_a_broken_platform_file_is_the_platforms_fault(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "platform.yaml").write_text(text)

    with pytest.raises(ConfigError) as caught:
        platform_lookup.load(None, tmp_path / "platform.yaml")

    assert message in caught.value.message
    assert caught.value.failure.code == 10
    assert "spec" not in caught.value.message


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (_config_map("image: x", "config.yaml"), "has no key platform.yaml: it has config.yaml"),
        (Reply(200, {"kind": "ConfigMap"}), "has no key platform.yaml: it is empty"),
        (_config_map("image: [x"), "platform.yaml:"),
        (_config_map(""), "image is missing"),
        (_config_map("- image: x"), "a platform is a mapping of fields"),
    ],
)
def test_a_broken_config_map_is_one_line_that_names_it(
    server: ApiServer, cluster: Cluster, tmp_path: Path, reply: Reply, message: str
) -> None:
    server.answers += [reply]

    with pytest.raises(ConfigError) as caught:
        platform_lookup.load(cluster, None, {"HOME": str(tmp_path)})

    assert caught.value.message.startswith("ConfigMap lorajob-platform in namespace team")
    assert message in caught.value.message
    assert caught.value.failure.code == 10


def test_a_config_map_that_may_not_be_read_is_no_missing_one(server: ApiServer, cluster: Cluster) -> None:
    answer = 'configmaps "lorajob-platform" is forbidden: User "eve" cannot get resource "configmaps"'
    server.answers += [Reply(403, {"kind": "Status", "code": 403, "reason": "Forbidden", "message": answer})]

    with pytest.raises(Forbidden, match="eve may not get configmaps in namespace team"):
        platform_lookup.load(cluster)


def test_the_platforms_defaults_lie_between_the_recipe_and_what_the_user_says(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("train: {seed: 2}\n")
    defaults = {"model": {"name": "qwen2.5-coder-7b"}, "train": {"seed": 1, "epochs": 9, "batchSize": 3}}

    resolved = resolve([file], {"train.batchSize": 5}, (), defaults=defaults)

    assert resolved.spec.model.name == "qwen2.5-coder-7b"
    assert resolved.spec.train.gradient_accumulation == 8, "from the recipe of the platform's model"
    assert resolved.spec.train.epochs == 9, "the platform wins over the recipe"
    assert resolved.spec.train.seed == 2, "a file wins over the platform"
    assert resolved.spec.train.batch_size == 5
    assert not resolved.gives("train.epochs"), "what the platform says is not given by the user"


def test_a_default_that_is_out_of_range_is_the_platforms_fault_and_a_users_own_value_mends_it() -> None:
    defaults = {"train": {"epochs": -1}}

    with pytest.raises(ConfigError, match=r"the platform's defaults: train\.epochs is -1") as caught:
        resolve(defaults=defaults)

    assert not isinstance(caught.value, UsageError)
    assert resolve((), {"train.epochs": 2.0}, defaults=defaults).spec.train.epochs == 2


def test_platform_show_prints_what_is_in_force_and_says_where_it_comes_from(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(json.dumps(SMALL))

    shown = lorajob("platform", "show", "--platform", "p.yaml")
    again = lorajob("platform", "show", "--platform", "p.yaml", "-o", "json")

    assert shown.code == 0
    assert shown.err == "platform: p.yaml\n"
    assert json.loads(again.out) == spec_file.loads(shown.out, "shown").values
    assert json.loads(again.out)["secrets"] == {"storage": "lorajob-storage", "swanlab": None, "hub": None}


def test_version_without_a_cluster_says_why_and_is_no_error(lorajob: Call, tmp_path: Path) -> None:
    shown = lorajob("version", "--kubeconfig", "missing")
    document = json.loads(lorajob("version", "--kubeconfig", "missing", "-o", "json").out)
    client = json.loads(lorajob("version", "--client", "-o", "json").out)

    assert shown.code == 0
    assert "the kubeconfig missing does not exist" in shown.out
    assert document["cluster"] == {"error": "the kubeconfig missing does not exist"}
    assert document["skew"] == []
    assert "cluster" not in client


def test_versions_that_do_not_fit_together_are_told() -> None:
    assert skew({"version": "v1.31.0-gke.7"}, {"imageVersion": __version__}) == []
    assert skew({"error": "unreachable"}, {"image": "x@sha256:1", "imageVersion": None}) == []
    (old,) = skew({"version": "v1.29.3"}, {"error": "none"})
    (newer,) = skew({"version": "v1.35.4"}, {"imageVersion": "9.0.0"})

    assert "1.31 or newer" in old
    assert "runs use lorajob 9.0.0" in newer


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("registry:5000/lorajob:0.1.0", "0.1.0"),
        ("registry/lorajob:v0.1.0-cuda13@sha256:abc", "0.1.0"),
        ("registry:5000/lorajob", None),
        ("lorajob:latest", None),
        ("lorajob:1", None),
        ("lorajob@sha256:0123", None),
    ],
)
def test_an_images_tag_tells_its_version_or_nothing(image: str, version: str | None) -> None:
    assert image_version(image) == version


@pytest.mark.parametrize(
    ("limit", "said", "given"),
    [(1, None, 1), (0, None, 0), (5, None, 3), (None, None, 3), (2, 1, 1), (4, 4, 4)],
)
def test_a_limit_below_the_usual_number_of_retries_is_what_a_run_gets_that_says_nothing(
    limit: int | None, said: int | None, given: int
) -> None:
    defaults = {} if said is None else {"resources": {"retries": said}}

    found = platform_parsing.parse(SMALL | {"limits": {"retries": limit}, "defaults": defaults}, PLACE)

    assert specs.parse(specs.merge(found.defaults, {"name": "poems"})).resources.retries == given
    assert platform_parsing.parse(platform_parsing.to_dict(found), PLACE) == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduling": {"gpuResource": "gpu"}}, "scheduling.gpuResource is 'gpu': it must be the name of an extended"),
        ({"scheduling": {"topologyKey": "a b"}}, "scheduling.topologyKey is 'a b': it must be the key of a label"),
        ({"defaults": {"resources": {"gpus": 0}}}, "defaults.resources.gpus is 0: it must be from 1 to 64"),
        (
            {"defaults": {"resources": {"gpuType": "x"}}},
            "defaults.resources.gpuType is 'x': the platform names no types",
        ),
        ({"defaults": {"storage": {"uri": "/x"}}}, "defaults.storage.uri is '/x': on a cluster it must be s3://"),
        ({"resources": {"work": "5"}}, "resources.work is '5': it must be a size of at least 1Mi, like 64Gi"),
    ],
)
def test_what_no_submit_could_use_is_refused_where_the_platform_is_read(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        platform_parsing.parse(SMALL | changes, PLACE)

    assert message in caught.value.message
