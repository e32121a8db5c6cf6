"""`lorajob plan`: what a run would take, without a cluster and without anything downloaded."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from calling import Call
from golden.said import Said
from lorajob.plan import gpus
from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.errors import DATA, MODEL
from lorajob_runtime.contract.spec import parse
from lorajob_runtime.models.gpu_sizes import GIBIBYTE, GPU_SIZES

EXAMPLES = Path(__file__).parents[3] / "examples"
PLATFORM = {
    "image": "registry.example/lorajob:9",
    "storage": {"uri": "s3://bucket/lora"},
    "scheduling": {
        "gpuTypes": {
            "big": {"nvidia.com/gpu.memory": "143771"},
            "a100": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"},
            "slice": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb"},
            "odd": {"pool": "seven"},
        }
    },
}


@pytest.fixture(autouse=True)
def _no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LORAJOB_PLATFORM", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.fixture
def platform_file(tmp_path: Path) -> str:
    (tmp_path / "platform.yaml").write_text(yaml.safe_dump(PLATFORM))
    return str(tmp_path / "platform.yaml")


def test_a_plan_says_what_takes_the_memory_and_how_many_gpus_would_do(said: Said, lorajob: Call) -> None:
    outcome = lorajob("plan", "--model", "glm-4.5-air", "--gpus", "4", "--gpu-memory", "80")

    assert (outcome.code, outcome.err) == (0, "")
    said(outcome.out)
    assert [line.split()[0] for line in outcome.out.splitlines()[-7:]] == [str(size) for size in GPU_SIZES]


@pytest.mark.parametrize(
    ("model", "target"), [("glm-4.5-air", "shared_experts.gate_proj"), ("hunyuan-a13b", "shared_mlp.down_proj")]
)
def test_a_name_of_shared_experts_alone_leaves_routed_ones_without_adapter(
    lorajob: Call, model: str, target: str
) -> None:
    shown = lorajob("plan", "-m", model, "--gpus", "4", "--gpu-memory", "80", "--targets", target).out

    assert re.search(r"^adapter: .* parameters, none on routed experts$", shown, re.MULTILINE)
    assert re.search(r"^GPUS OF +FEWEST$", shown, re.MULTILINE)


@pytest.mark.parametrize("model", catalog.entries())
def test_a_plan_for_programs_is_as_its_schema_says(lorajob: Call, model: str) -> None:
    schema = json.loads((resources.files("lorajob") / "schemas" / "plan.json").read_text("utf-8"))

    document = json.loads(lorajob("plan", "-m", model, "--gpus", "8", "--gpu-memory", "80GB", "-o", "json").out)

    Draft202012Validator(schema).validate(document)
    parts = dict(document["memory"])
    assert parts.pop("total") == sum(parts.values())
    assert document["fits"] is (model != "minimax-m2")
    assert document["model"]["parameters"] == catalog.get(model).parameters


@pytest.mark.parametrize(
    ("model", "all_of_it", "largest_layer", "ends"),
    [
        ("qwen3-8b", 16.4, 0.39, 2 * 151936 * 4096),
        ("qwen2.5-coder-7b", 15.2, 0.47, 2 * 152064 * 3584),
        ("hunyuan-a13b", 160.8, 4.99, 128167 * 4096),
        ("glm-4.5-air", 213.7, 4.68, 2 * 151552 * 4096),
        ("minimax-m2", 457.4, 7.34, 2 * 200064 * 3072),
    ],
)
def test_sharded_weights_are_what_the_published_sizes_give(
    lorajob: Call, model: str, all_of_it: float, largest_layer: float, ends: int
) -> None:
    """Gigabytes in bf16, measured on transformers' own models; embedding and head are vocabulary x width."""
    given = ("--gpus", "8", "--gpu-memory", "192", "--sharding", "fsdp", "--experts", "auto")

    memory = json.loads(lorajob("plan", "-m", model, *given, "-o", "json").out)["memory"]

    assert memory["weights"] * 8 / 1e9 == pytest.approx(all_of_it, rel=0.005)
    assert memory["gatheredLayers"] / 3 / 1e9 == pytest.approx(largest_layer, rel=0.02)
    assert memory["gatheredEnds"] == pytest.approx(ends * 2, rel=1e-4)


def test_a_plan_of_a_model_without_known_sizes_says_so_and_is_as_its_schema_says(lorajob: Call) -> None:
    schema = json.loads((resources.files("lorajob") / "schemas" / "plan.json").read_text("utf-8"))

    shown = lorajob("plan", "-m", "hf:acme/chat")
    document = json.loads(lorajob("plan", "-m", "hf:acme/chat", "-o", "json").out)

    Draft202012Validator(schema).validate(document)
    assert document["memory"] is None
    assert "the sizes of hf:acme/chat are not known here" in shown.out


def test_yaml_says_what_json_says(lorajob: Call) -> None:
    given = ("plan", "-m", "qwen3-8b", "--gpu-memory", "24")

    assert yaml.safe_load(lorajob(*given, "-o", "yaml").out) == json.loads(lorajob(*given, "-o", "json").out)


def test_a_folder_is_planned_by_its_own_config(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(catalog.get("qwen3-8b").config))

    document = json.loads(lorajob("plan", "-m", "./model", "-o", "json").out)

    assert document["model"]["parameters"] == catalog.get("qwen3-8b").parameters
    assert document["model"]["downloadBytes"] is None


def test_a_dataset_at_hand_gives_an_epoch_its_time(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"input": "a" * 350, "output": "b" * 350}] * 100))

    document = json.loads(lorajob("plan", "-m", "qwen3-8b", "-d", "rows.json", "--gpu-memory", "141", "-o", "json").out)

    assert 20_000 < document["pace"]["epochTokens"] < 24_000
    assert document["pace"]["epochSeconds"] == round(
        document["pace"]["epochTokens"] / document["pace"]["tokensPerSecond"]
    )


def test_short_rows_leave_sharded_weights_to_be_gathered_for_few_tokens(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"input": "a" * 90, "output": "b" * 90}] * 1000))
    given = ("plan", "-m", "hunyuan-a13b", "--gpus", "4", "--gpu-type", "h200", "-o", "json")

    full, short = (json.loads(lorajob(*given, *more).out)["pace"] for more in ((), ("-d", "rows.json")))

    shares = [pace["step"]["seconds"]["gathers"] / pace["step"]["seconds"]["total"] for pace in (full, short)]
    assert shares[0] < 0.4 < 0.6 < shares[1]
    assert short["step"]["tokens"] < full["step"]["tokens"]


@pytest.mark.parametrize("model", [name for name in catalog.entries() if name != "minimax-m2"])
@pytest.mark.parametrize("nodes", ["1", "2"])
def test_the_parts_of_a_step_add_up_to_the_pace(lorajob: Call, model: str, nodes: str) -> None:
    given = ("plan", "-m", model, "--gpus", "8", "--nodes", nodes, "--gpu-type", "h200", "-o", "json")

    pace = json.loads(lorajob(*given).out)["pace"]

    seconds = dict(pace["step"]["seconds"])
    total = seconds.pop("total")
    assert total == pytest.approx(sum(seconds.values()))
    assert pace["tokensPerSecond"] == pytest.approx(8 * int(nodes) * pace["step"]["tokens"] / total, abs=1)
    assert pace["network"] == (None if nodes == "1" else "infiniband")


@pytest.mark.parametrize(
    ("model", "nodes", "most", "over"), [("qwen3-8b", "1", 64, ""), ("minimax-m2", "4", 16, " over InfiniBand")]
)
def test_a_plan_says_when_more_gpus_stop_paying(lorajob: Call, model: str, nodes: str, most: int, over: str) -> None:
    """Of MiniMax-M2 no node of such GPUs holds the weights, so they go over the network for every micro-batch."""
    given = ("plan", "-m", model, "--gpus", "8", "--nodes", nodes, "--gpu-type", "h100")

    shown, document = lorajob(*given).out, json.loads(lorajob(*given, "-o", "json").out)

    assert f"each doubling gives at least 1.5 times the speed up to {most} GPUs\n" in shown
    assert set(document["pace"]["payingGpus"].values()) == {most}
    assert re.search(rf"^time: .* tokens a second{over}: matrix products \d+%", shown, re.MULTILINE)


def test_a_platform_of_cpus_is_promised_no_pace(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(PLATFORM | {"device": "cpu"}))

    document = json.loads(lorajob("plan", "-m", "smollm2-135m", "--platform", "p.yaml", "-o", "json").out)

    assert document["pace"] is None


def test_a_dataset_at_hand_gives_the_steps_and_what_they_leave_in_storage(
    said: Said, lorajob: Call, tmp_path: Path
) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"input": "a", "output": "b"}] * 3729))
    given = ("plan", "-m", "qwen3-8b", "-d", "rows.json", "--save-steps", "100", "--keep-checkpoints", "3")

    shown, document = lorajob(*given), json.loads(lorajob(*given, "-o", "json").out)

    # 8 checkpoints, of which the adapters of 5 stay, and the final adapter
    assert document["steps"] == 702
    assert document["storageBytes"] == 3 * document["checkpointBytes"] + 6 * document["adapterBytes"]
    said(shown.out)


def test_one_of_a_thing_is_no_plural(said: Said, lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"input": "a", "output": "b"}]))
    alone = ("--batch-size", "1", "--gradient-accumulation", "1", "--epochs", "1", "--max-steps", "1")

    shown = lorajob("plan", "-m", "qwen3-8b", "-d", "rows.json", *alone).out

    said(next(line for line in shown.splitlines() if line.startswith("steps:")))


def test_a_recipe_is_planned_without_its_dataset(said: Said, lorajob: Call, tmp_path: Path) -> None:
    shown = lorajob("plan", "-f", str(EXAMPLES / "glm-4.5-air-zhenhuan.yaml"), "--gpus", "4", "--gpu-memory", "80")

    assert shown.code == 0
    said(shown.err)
    said(shown.out)


def test_a_dataset_that_is_there_and_no_use_is_refused_by_a_plan_too(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[]")

    outcome = lorajob("plan", "-m", "qwen3-8b", "-d", "rows.json")

    assert outcome.code == DATA.code


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("-m", "qwen3-8b", "--targets", "query"), "lora.targets has 'query'"),
        (("-m", "qwen3-8b", "--experts", "true"), "lora.experts is true"),
        (("-m", "qwen3-8b", "--gpu-memory", "many"), "--gpu-memory is 'many'"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    said: Said, lorajob: Call, arguments: tuple[str, ...], field: str
) -> None:
    outcome = lorajob("plan", *arguments)

    assert outcome.code == 2
    assert f"lorajob: error: {field}" in outcome.err
    said(outcome.err)


def test_adapters_on_experts_alone_leave_nothing_to_weigh(lorajob: Call) -> None:
    outcome = lorajob("plan", "-m", "minimax-m2", "--targets", "w1,w2,w3", "--gpus", "8", "--gpu-memory", "192")

    assert (outcome.code, outcome.err) == (0, "")
    assert re.search(r"^GPUS OF +FEWEST$", outcome.out, re.MULTILINE)


def test_a_plan_that_does_not_fit_is_shown_and_says_what_would_do(said: Said, lorajob: Call) -> None:
    outcome = lorajob("plan", "-m", "glm-4.5-air", "--gpus", "2", "--gpu-memory", "80")

    assert outcome.code == 0
    said(outcome.err)


@pytest.mark.parametrize(
    ("arguments", "gibibytes", "source"),
    [
        (("--gpu-memory", "80"), 79.1, "--gpu-memory 80"),
        (("--gpu-memory", "31.5GiB"), 31.5, "--gpu-memory 31.5GiB"),
        (("--gpu-type", "big"), 143771 / 1024, "the platform's GPU type big"),
        (("--gpu-type", "a100"), 79.1, "the platform's GPU type a100"),
        (("--gpu-type", "slice"), 39.3, "the platform's GPU type slice"),
        (("--gpu-type", "odd"), None, "not known"),
        ((), None, "not known"),
    ],
)
def test_the_memory_of_a_gpu_is_what_its_labels_or_its_name_say(
    lorajob: Call, platform_file: str, arguments: tuple[str, ...], gibibytes: float | None, source: str
) -> None:
    document = json.loads(lorajob("plan", "-m", "qwen3-8b", "--platform", platform_file, *arguments, "-o", "json").out)

    size = document["gpuMemory"]["bytes"]
    assert size is None if gibibytes is None else size == pytest.approx(gibibytes * GIBIBYTE, rel=1e-4)
    assert document["gpuMemory"]["source"] == source


@pytest.mark.parametrize(
    ("name", "gigabytes", "teraflops"),
    [
        ("h200", 141, 989),
        ("H100-SXM", 80, 989),
        ("a800", 80, 312),
        ("A100-40GB", 40, 312),
        ("h20", 96, 148),
        ("L4", 24, 121),
        ("l40s", 48, 362),
        ("rtx-4090", 24, 165),
        ("RTX4090", 24, 165),
        ("RTX-A6000", 48, 155),
        ("b200", 192, 2250),
        ("mi300x", 192, 1307),
        ("H100-MIG-3g.40gb", 40, 312),
        ("rtx-a1000", None, None),
        ("a1000", None, None),
        ("h1000", None, None),
        ("l400", None, None),
        ("a100", None, None),
        ("x", None, None),
    ],
)
def test_gpu_types_are_known_by_the_names_of_their_makers(
    name: str, gigabytes: int | None, teraflops: int | None
) -> None:
    found = gpus.find(parse({"resources": {"gpuType": name}}), None)

    assert found.size == (None if gigabytes is None else round(GPU_SIZES[gigabytes] * GIBIBYTE))
    assert (None if found.speed is None else found.speed.teraflops) == teraflops


@pytest.mark.parametrize(
    ("gpu", "refused"), [("a100-80gb", True), ("a10", True), ("h100", False), ("l4", False), (None, False)]
)
def test_products_in_fp8_are_warned_of_on_gpus_that_are_known_not_to_have_them(
    lorajob: Call, gpu: str | None, refused: bool
) -> None:
    kind = ["--gpu-type", gpu] if gpu else ["--gpu-memory", "80"]
    done = lorajob("plan", "-m", "qwen3-8b", "--gpus", "1", "--base-compute", "fp8", *kind)
    assert done.code == 0, done.err
    assert ("do not multiply FP8" in done.err) is refused


def test_a_size_that_is_said_keeps_what_its_gpu_type_can_compute() -> None:
    found = gpus.find(parse({"resources": {"gpuType": "a100"}}), None, "40")

    assert found.size == round(GPU_SIZES[40] * GIBIBYTE)
    assert found.speed is not None
    assert found.speed.teraflops == 312


def test_the_platform_can_say_what_gpus_without_a_type_have(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(PLATFORM | {"resources": {"gpuMemory": "44Gi"}}))

    document = json.loads(lorajob("plan", "-m", "qwen3-8b", "--platform", "p.yaml", "-o", "json").out)

    assert document["gpuMemory"] == {"bytes": 44 * GIBIBYTE, "source": "the platform's resources.gpuMemory"}


def test_a_run_here_is_refused_what_its_model_has_not_before_anything_starts(lorajob: Call) -> None:
    outcome = lorajob("run", "-m", "qwen3-8b", "--targets", "query", "--dry-run")

    assert outcome.code == 2
    assert "lorajob: error: lora.targets has 'query': no weight of qwen3-8b is called so" in outcome.err


@pytest.mark.parametrize("model", ["qwen3", "./nowhere", "hf:alone"])
def test_a_run_here_of_a_model_that_nobody_knows_starts_nothing(lorajob: Call, tmp_path: Path, model: str) -> None:
    outcome = lorajob("run", "-m", model, "--name", "first")

    assert outcome.code == MODEL.code
    assert outcome.err.startswith("lorajob: error: ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [("plan",), ("run", "--name", "first")])
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "the model folder made has no config.json: it is not a model that transformers can load"),
        ("[]", "made/config.json is no configuration of a model: it must hold a mapping"),
        ('{"model_type": "qwen3"}', "config.json of a qwen3 model has no vocab_size"),
    ],
)
def test_a_folder_that_is_no_model_starts_nothing(
    lorajob: Call, tmp_path: Path, command: tuple[str, ...], config: str | None, message: str
) -> None:
    (tmp_path / "made").mkdir()
    if config is not None:
        (tmp_path / "made/config.json").write_text(config)

    outcome = lorajob(*command, "-m", "./made")

    assert (outcome.code, outcome.out) == (MODEL.code, "")
    assert outcome.err.startswith(f"lorajob: error: {message}")
    assert not (tmp_path / "runs").exists()


def test_thinking_asked_of_a_folder_whose_template_has_none_is_refused_here(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(catalog.get("qwen3-8b").config))
    (tmp_path / "model/chat_template.jinja").write_text("{{ messages }}")

    outcome = lorajob("plan", "-m", "model", "--thinking")

    assert outcome.code == 2
    assert "lorajob: error: data.thinking is true: model has no thinking mode" in outcome.err


@pytest.mark.parametrize("model", ["qwen2.5-coder-7b", "folder"])
def test_rows_longer_than_the_models_window_are_said(lorajob: Call, tmp_path: Path, model: str) -> None:
    config = catalog.get("qwen2.5-coder-7b").config
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/config.json").write_text(json.dumps({**config}))
    window = config["max_position_embeddings"]
    given = ("plan", "-m", model if model != "folder" else "./folder", "--gpu-memory", "80")

    beyond = lorajob(*given, "--max-length", str(window + 1), "--allow-oversize")

    assert f"data.maxLength {window + 1} is more than the model's window of {window} tokens" in beyond.err + beyond.out
    within = lorajob(*given, "--max-length", str(window), "--allow-oversize")
    assert "window" not in within.err + within.out
