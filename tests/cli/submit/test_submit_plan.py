"""What a submit decides and prints before anything is created."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from golden.said import Said
from lorajob.errors import UsageError
from lorajob.plan import plan_text
from lorajob.platform import platform_parsing
from lorajob.platform.platform_config import Platform
from lorajob.spec import resolve
from lorajob.submit import preview, submission
from lorajob.submit.preview import Preview
from lorajob.submit.submission import Prepared
from lorajob_runtime.contract.errors import ModelError

ROWS = [{"input": "Who are you?", "output": f"Number {number}."} for number in range(7)]


def _platform(**values: Any) -> Platform:
    return platform_parsing.parse(
        {"image": "registry.example/lorajob:9", "storage": {"uri": "s3://bucket/lora"}} | values, "p"
    )


def _prepare(*, on: Platform | None = None, **flags: Any) -> Prepared:
    paths = {path.replace("__", "."): value for path, value in flags.items()}
    on = on or _platform()
    resolved = resolve.resolve(flags=paths, defaults=on.defaults)
    return submission.prepare(resolved.spec, on, namespace="team", rng=random.Random(1))


def _lines(prepared: Prepared) -> list[str]:
    shown = Preview(
        spec=prepared.spec,
        platform=prepared.platform,
        plan=prepared.plan,
        job=prepared.manifests.job,
        local=prepared.local,
        uploaded_to=prepared.data_address,
        place="https://cluster:6443 (context team)",
        platform_source="ConfigMap lorajob-platform",
    )
    return preview.lines(shown)


def _plan(prepared: Prepared) -> dict[str, str]:
    lines = [line.split(maxsplit=1) for line in _lines(prepared)]
    return {name: value.strip() for name, value in lines}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_bare_command_has_a_whole_plan(said: Said) -> None:
    shown = _lines(_prepare(name="zhenhuan", model__name="glm-4.5-air", resources__gpus=4))

    said("\n".join(shown))


def test_the_plan_says_what_several_nodes_come_to(said: Said) -> None:
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

    for name in ("compute", "limits", "steps"):
        said(f"{name}: {plan[name]}")


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


H100 = {"scheduling": {"gpuTypes": {"h100": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}}}}


def test_the_plan_shows_the_memory_of_the_platforms_gpu_type(said: Said) -> None:
    prepared = _prepare(on=_platform(**H100), model__name="glm-4.5-air", resources__gpus=8, resources__gpuType="h100")

    plan = _plan(prepared)

    for name in ("spread", "adapter", "memory", "time"):
        said(f"{name}: {plan[name]}")
    assert plan_text.warnings(prepared.plan) == []


def test_gpus_that_cannot_hold_the_model_are_refused_in_one_line(said: Said) -> None:
    on = _platform(**H100)

    with pytest.raises(UsageError) as raised:
        _prepare(on=on, model__name="glm-4.5-air", resources__gpus=2, resources__gpuType="h100")

    said(raised.value.message)
    said(raised.value.hint)


def test_what_does_not_fit_goes_with_a_warning_where_its_user_says_so() -> None:
    prepared = _prepare(
        on=_platform(**H100),
        model__name="glm-4.5-air",
        resources__gpuType="h100",
        resources__allowOversize=True,
    )

    (warning,) = plan_text.warnings(prepared.plan)
    assert warning.startswith("glm-4.5-air does not fit: training takes ")
    assert _plan(prepared)["memory"].endswith(": does not fit")


def test_gpus_of_unknown_memory_bring_a_warning_and_no_refusal(said: Said) -> None:
    prepared = _prepare(model__name="minimax-m2")

    assert prepared.plan.placement is not None
    [warning] = plan_text.warnings(prepared.plan)
    said(warning)


def test_a_platform_of_cpus_is_not_warned_of() -> None:
    assert plan_text.warnings(_prepare(on=_platform(device="cpu"), model__name="qwen3-8b").plan) == []


@pytest.mark.parametrize(
    ("field", "flags"),
    [
        ("lora.targets", {"lora__targets": ("query",)}),
        ("lora.experts", {"lora__experts": True}),
        ("lora.router", {"lora__router": True}),
        ("data.thinking", {"model__name": "qwen2.5-coder-7b", "data__thinking": True}),
        ("model.quantize", {"model__quantize": "nf4", "train__sharding": "fsdp"}),
        ("model.quantize", {"model__name": "glm-4.5-air", "model__quantize": "nf4"}),
    ],
)
def test_what_a_model_has_not_is_refused_before_anything_is_created(
    said: Said, field: str, flags: dict[str, Any]
) -> None:
    with pytest.raises(UsageError) as raised:
        _prepare(**{"model__name": "qwen3-8b"} | flags)

    assert raised.value.message.startswith(field)
    said(raised.value.message)


@pytest.mark.parametrize("model", ["./model", "~/model", "/data/model", "model"])
def test_a_model_in_a_folder_of_this_machine_is_refused(model: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()

    with pytest.raises(UsageError, match="pods can't see a folder of this machine"):
        _prepare(model__name=model)


def test_a_model_in_the_clusters_cache_is_taken_as_it_is() -> None:
    plan = _plan(_prepare(model__name="mine", model__source="/cache/shared/mine"))

    assert plan["weights"] == "/cache/shared/mine in the cache (claim lorajob-cache)"


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
