"""What a submit decides and prints before anything is created."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorajob import platform, preview, resolve, submission
from lorajob.errors import UsageError
from lorajob.platform import Platform
from lorajob.preview import Preview
from lorajob.submission import Prepared
from lorajob_runtime import catalog
from lorajob_runtime.exits import ModelError

ROWS = [{"input": "Who are you?", "output": f"Number {number}."} for number in range(7)]


def _platform(**values: Any) -> Platform:
    return platform.parse({"image": "registry.example/lorajob:9", "storage": {"uri": "s3://bucket/lora"}} | values, "p")


def _prepare(*, on: Platform | None = None, **flags: Any) -> Prepared:
    paths = {path.replace("__", "."): value for path, value in flags.items()}
    on = on or _platform()
    resolved = resolve.resolve(flags=paths, defaults=on.defaults)
    return submission.prepare(resolved.spec, on, namespace="team", rng=random.Random(1))


def _plan(prepared: Prepared) -> dict[str, str]:
    shown = Preview(
        spec=prepared.spec,
        platform=prepared.platform,
        job=prepared.manifests.job,
        local=prepared.local,
        uploaded_to=prepared.data_address,
        place="https://cluster:6443 (context team)",
        platform_source="ConfigMap lorajob-platform",
    )
    lines = [line.split(maxsplit=1) for line in preview.lines(shown)]
    return {name: value.strip() for name, value in lines}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_bare_command_has_a_whole_plan() -> None:
    plan = _plan(_prepare(model__name="glm-4.5-air", resources__gpus=4))

    assert plan["run"].startswith("glm-4-5-air-")
    assert plan["run"].endswith("in namespace team")
    assert plan["model"] == "glm-4.5-air: GLM-4.5 Air, 107B parameters, 13.4B of them active, MIT"
    assert plan["weights"] == (
        "modelscope:ZhipuAI/GLM-4.5-Air, else hf:zai-org/GLM-4.5-Air, 220.9 GB, "
        "unless they are in the cache (claim lorajob-cache)"
    )
    assert plan["data"] == "the example set that comes with lorajob"
    assert plan["compute"].startswith("4 GPUs, 32 CPU, ")
    assert plan["limits"] == "at most 7d 00h, 3 retries"
    assert plan["results"].startswith("s3://bucket/lora/glm-4-5-air-")
    assert plan["image"] == "registry.example/lorajob:9"


def test_the_plan_says_what_several_nodes_come_to() -> None:
    on = _platform(scheduling={"gpuTypes": {"h200": {"gpu": "h200"}}})

    plan = _plan(
        _prepare(
            on=on,
            model__name="qwen3-8b",
            resources__gpus=8,
            resources__nodes=2,
            resources__gpuType="h200",
            resources__queue="night",
            resources__priority="low",
            resources__timeout="90m",
            train__maxSteps=100,
        )
    )

    assert plan["compute"].startswith("8 h200 GPUs on each of 2 nodes, 16 in all, 64 CPU, ")
    assert plan["compute"].endswith(" a node")
    assert plan["limits"] == "at most 1h 30m, 3 retries, queue night, priority low"
    assert plan["steps"] == "3 epochs, at most 100 steps, 256 rows a step (4 x 4 x 16 GPUs)"


def test_a_small_dataset_is_counted_and_goes_with_the_run(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))

    prepared = _prepare(data__source="rows.json", data__evalRows=":2", name="mine")

    plan = _plan(prepared)
    assert plan["data"].startswith("rows.json (7 rows, ")
    assert plan["data"].endswith("held out :2, sent along with the run")
    assert [each["kind"] for each in prepared.manifests.all()] == ["Job", "ConfigMap"]
    assert prepared.spec.data.source == "rows.json"


def test_a_large_dataset_is_named_by_its_hash_in_storage(tmp_path: Path) -> None:
    text = random.Random(1).randbytes(1_500_000).hex()
    (tmp_path / "rows.json").write_text(json.dumps([{"text": text}]))

    prepared = _prepare(data__source="rows.json", name="mine", storage__uri="s3://other/place/")

    assert prepared.local is not None
    address = f"s3://other/place/.data/{prepared.local.sha256}/rows.json"
    assert _plan(prepared)["data"].endswith(f"uploaded to {address}")
    assert [each["kind"] for each in prepared.manifests.all()] == ["Job"]
    assert address in json.dumps(prepared.manifests.job)


def test_data_in_storage_is_passed_on_as_it_is() -> None:
    prepared = _prepare(data__source="s3://bucket/rows.parquet")

    assert prepared.local is None
    assert _plan(prepared)["data"] == "s3://bucket/rows.parquet"


@pytest.mark.parametrize("name", [name for name, entry in catalog.entries().items() if not entry.is_dense])
def test_a_mixture_of_experts_brings_one_line_of_warning(name: str) -> None:
    warnings = preview.warnings(_prepare(model__name=name).spec)

    assert len(warnings) == 1
    assert "trains dense models only" in warnings[0]
    assert preview.warnings(_prepare(model__name="qwen3-8b").spec) == []


@pytest.mark.parametrize("model", ["./model", "~/model", "/data/model"])
def test_a_model_in_a_folder_of_this_machine_is_refused(model: str) -> None:
    with pytest.raises(UsageError, match="pods see no folder of this machine"):
        _prepare(model__name=model)


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ModelError, match="did you mean qwen3-8b"):
        _plan(_prepare(model__name="qwen3-8"))


def test_results_must_go_to_s3() -> None:
    with pytest.raises(UsageError, match=r"storage\.uri is './runs': on a cluster it must be s3://BUCKET/PREFIX"):
        _prepare(storage__uri="./runs")


def test_the_platforms_defaults_lie_below_what_the_user_gives() -> None:
    on = _platform(defaults={"model": {"name": "qwen3-8b"}, "train": {"epochs": 1}, "resources": {"gpus": 2}})

    prepared = _prepare(on=on, resources__gpus=4)

    assert prepared.spec.model.name == "qwen3-8b"
    assert prepared.spec.train.epochs == 1
    assert prepared.spec.resources.gpus == 4


def test_manifests_as_yaml_read_back_as_what_is_sent() -> None:
    prepared = _prepare(name="on", data__system="1e3", resources__nodes=2)
    objects = prepared.manifests.all()
    objects[0]["metadata"]["annotations"] |= {
        "a": "1e3",
        "b": "0x1f",
        "c": "yes",
        "d": "12:30",
        "e": "两\n行 ",
        "f": "",
    }

    text = preview.manifests_text(objects, "yaml")

    assert list(yaml.safe_load_all(text)) == objects
    assert 'a: "1e3"' in text
    assert json.loads(preview.manifests_text(objects, "json"))["items"] == objects
