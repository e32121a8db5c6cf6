"""Where each field of a run comes from: defaults < recipe < file < flags < --set."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calling import Call
from lorajob.errors import UsageError
from lorajob.spec import spec_file
from lorajob.spec.resolve import resolve
from lorajob.spec.spec_file import loads
from lorajob_runtime.contract import catalog, spec
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import RunSpec

ROOT = Path(__file__).resolve().parents[3]


def _dry_run(lorajob: Call, *arguments: str) -> dict[str, Any]:
    outcome = lorajob("run", "--dry-run", *arguments)
    assert outcome.code == 0, outcome.err
    return loads(outcome.out, "output").values


def test_each_layer_wins_over_the_one_below_it(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "lorajob.yaml").write_text("train: {batchSize: 3, seed: 1, epochs: 5, warmup: 10}\n")

    train = _dry_run(lorajob, "-m", "qwen2.5-coder-7b", "--epochs", "7", "--seed", "2", "--set", "train.seed=4")[
        "train"
    ]

    assert train["gradientAccumulation"] == 8, "from the recipe"
    assert train["maxGradNorm"] == 1, "from the defaults"
    assert train["batchSize"] == 3, "the file wins over the recipe"
    assert train["epochs"] == 7, "a flag wins over the file"
    assert train["seed"] == 4, "--set wins over a flag"
    assert train["warmup"] == 10


def test_the_recipe_is_that_of_the_model_whichever_layer_names_it(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "lorajob.yaml").write_text("model: {name: 'hf:Qwen/Qwen2.5-Coder-7B-Instruct'}\n")

    assert _dry_run(lorajob)["lora"]["rank"] == 64
    assert _dry_run(lorajob, "--model", "qwen3-8b")["lora"]["rank"] == 8
    assert _dry_run(lorajob, "--set", "model.name=qwen3-8b")["lora"]["rank"] == 8


def test_of_several_files_the_later_wins_field_by_field_and_the_default_file_is_not_read(
    lorajob: Call, tmp_path: Path
) -> None:
    (tmp_path / "lorajob.yaml").write_text("train: {seed: 99}\n")
    (tmp_path / "one.yaml").write_text("train: {epochs: 1, batchSize: 1}\n")
    (tmp_path / "two.yaml").write_text("train: {epochs: 2}\n")

    train = _dry_run(lorajob, "-f", "one.yaml", "-f", "two.yaml")["train"]

    assert (train["epochs"], train["batchSize"], train["seed"]) == (2, 1, 42)


def test_an_empty_section_in_a_file_says_nothing(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "lorajob.yaml").write_text("model: {name: qwen2.5-coder-7b}\ntrain:\nreport:\n  swanlab:\n")

    assert _dry_run(lorajob)["train"]["batchSize"] == 2


def test_columns_in_a_flag_replace_those_of_the_file_whole(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "lorajob.yaml").write_text("data: {columns: {system: instruction, output: answer}}\n")

    assert _dry_run(lorajob, "--columns", "instruction=q, output=a")["data"]["columns"] == {
        "instruction": "q",
        "output": "a",
    }


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        (["--learning-rate", "1e-4"], "train.learningRate", 1e-4),
        (["--rows", "5:50"], "data.rows", "5:50"),
        (["--set", "data.rows=5:50"], "data.rows", "5:50"),
        (["--set", "train.learningRate=2e-4"], "train.learningRate", 2e-4),
        (["--system", "yes: 1"], "data.system", "yes: 1"),
        (["--system", "null"], "data.system", "null"),
        (["--set", "data.system=null"], "data.system", None),
        (["--targets", "q_proj, v_proj"], "lora.targets", ["q_proj", "v_proj"]),
        (["--targets", "auto"], "lora.targets", "auto"),
        (["--set", "lora.targets=[q_proj]"], "lora.targets", ["q_proj"]),
        (["--experts", "false"], "lora.experts", False),
        (["--gradient-checkpointing", "true"], "train.gradientCheckpointing", True),
        (["-m", "qwen3-8b", "--thinking"], "data.thinking", True),
        (["--no-thinking"], "data.thinking", False),
        (["--max-steps", "8"], "train.maxSteps", 8),
        (["--max-steps", "null"], "train.maxSteps", None),
        (["--swanlab-mode", "offline"], "report.swanlab.mode", "offline"),
        (["--samples-count", "2"], "report.samples.count", 2),
        (["-d", "a.json"], "data.source", "a.json"),
        (["-s", "s3://b/p"], "storage.uri", "s3://b/p"),
        (["--name", "n0"], "name", "n0"),
    ],
)
def test_a_flag_is_read_as_the_type_of_its_field(lorajob: Call, arguments: list[str], path: str, value: object) -> None:
    found: Any = _dry_run(lorajob, *arguments)
    for key in path.split("."):
        found = found[key]

    assert found == value
    assert type(found) is type(value)


def test_a_flag_given_as_null_wins_over_the_file(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "lorajob.yaml").write_text("train: {maxSteps: 5}\n")

    assert _dry_run(lorajob, "--max-steps", "null")["train"]["maxSteps"] is None


def test_a_run_without_name_or_storage_gets_both(lorajob: Call) -> None:
    resolved = _dry_run(lorajob)

    assert resolved["name"].startswith("smollm2-135m-")
    assert resolved["storage"]["uri"] == "./runs"


def test_what_dry_run_prints_is_a_spec_file_of_the_same_run(lorajob: Call, tmp_path: Path) -> None:
    first = lorajob("run", "--dry-run", "-m", "qwen3-8b", "--system", "甄嬛: 'quoted'\n# no comment", "--rows", "5:")
    (tmp_path / "again.yaml").write_text(first.out)

    assert lorajob("run", "--dry-run", "-f", "again.yaml").out == first.out


def test_gpus_count_as_asked_for_only_when_somebody_asked() -> None:
    assert not resolve().gives("resources.gpus")
    assert resolve(flags={"resources.gpus": 1}).gives("resources.gpus")


EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))

RECIPES = {
    # model, system, max length, rank, alpha, targets, batch x accumulation, epochs, logging / save steps, columns, rows
    "qwen3-8b-zhenhuan": ("qwen3-8b", True, 1024, 8, 32, 4, 4, 3, 10, 100, {}, None),
    "qwen2.5-coder-7b-law": (
        *("qwen2.5-coder-7b", False, 384, 64, 16, 2, 8, 1, 10, 100),
        *({"system": "instruction", "instruction": "input", "output": "output"}, "5:5000"),
    ),
    "hunyuan-a13b-zhenhuan": ("hunyuan-a13b", True, 1024, 8, 32, 4, 4, 1, 10, 100, {}, None),
    "glm-4.5-air-zhenhuan": ("glm-4.5-air", True, 1024, 8, 32, 4, 4, 3, 2, 10, {}, None),
    "minimax-m2-medical": ("minimax-m2", False, 1024, 8, 32, 4, 4, 3, 10, 100, {}, None),
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_a_valid_spec_of_a_known_model(path: Path) -> None:
    resolved = resolve([path]).spec

    assert resolved.name
    assert catalog.find(resolved.model.name)


@pytest.mark.parametrize("name", RECIPES)
def test_the_five_recipes_are_as_their_tutorials_have_them(name: str) -> None:
    found = resolve([ROOT / "examples" / f"{name}.yaml"]).spec
    data, lora, train = found.data, found.lora, found.train

    assert RECIPES[name] == (
        *(found.model.name, data.system == "现在你要扮演皇帝身边的女人--甄嬛", data.max_length, lora.rank, lora.alpha),
        *(train.batch_size, train.gradient_accumulation, train.epochs, train.logging_steps, train.save_steps),
        *(data.columns, data.rows),
    )
    assert (lora.dropout, lora.targets, train.learning_rate) == (0.1, "auto", 1e-4)
    assert (train.scheduler, train.warmup, train.weight_decay, train.max_grad_norm) == ("linear", 0, 0, 1)
    assert not data.thinking


@pytest.mark.parametrize("name", RECIPES)
def test_the_catalog_alone_gives_the_recipe_of_a_model(name: str) -> None:
    written = resolve([ROOT / "examples" / f"{name}.yaml"]).spec
    bare = resolve(flags={"model.name": written.model.name}).spec

    assert (bare.lora, bare.train) == (written.lora, written.train)
    assert bare.data.max_length == written.data.max_length


_texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
_specs = st.builds(
    lambda data, lora, train, name: spec.parse({"name": name, "data": data, "lora": lora, "train": train}),
    st.fixed_dictionaries(
        {},
        optional={
            "system": _texts,
            "source": _texts.map("./{}".format),
            "rows": st.from_regex(r"-?[0-9]{0,4}:-?[0-9]{0,4}", fullmatch=True),
            "thinking": st.booleans(),
            "columns": st.dictionaries(st.sampled_from(spec.COLUMN_ROLES), _texts, max_size=3),
        },
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "rank": st.integers(1, 1024),
            "targets": st.lists(_texts, min_size=1, max_size=3),
            "experts": st.sampled_from(["auto", True, False]),
        },
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "learningRate": st.floats(1e-12, 0.999),
            "maxSteps": st.none() | st.integers(1, 10**9),
            "seed": st.integers(0, 2**32 - 1),
        },
    ),
    st.none() | st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(_specs, st.booleans())
def test_a_spec_written_as_yaml_reads_back_the_same(value: RunSpec, with_defaults: bool) -> None:
    text = spec_file.dumps(spec.to_dict(value, defaults=with_defaults))

    assert spec.parse(loads(text, "text").values) == value


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=200))
def test_any_text_is_either_a_mapping_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert isinstance(loads(text, "text").values, dict)


CODE_MESSAGE = "model.trustRemoteCode is true: it needs model.revision, the commit whose code you have read"


@pytest.mark.parametrize(
    "model",
    [
        {"name": "hf:acme/chat"},
        {"name": "qwen3-8b"},
        {"source": "s3://models/own"},
        {"name": "./own", "source": "hf:acme/chat"},
    ],
)
def test_code_of_a_repository_is_trusted_only_at_a_revision(model: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as raised:
        spec.parse({"model": model | {"trustRemoteCode": True}})

    assert raised.value.message == CODE_MESSAGE
    assert spec.parse({"model": model | {"trustRemoteCode": True, "revision": "abc123"}}).model.trust_remote_code


@pytest.mark.parametrize("folder", ["/models/own", "./own", "../own", "~/own", "models/own", "own"])
def test_code_in_a_folder_of_ones_own_needs_no_revision(folder: str) -> None:
    assert spec.parse({"model": {"name": folder, "trustRemoteCode": True}}).model.trust_remote_code
    assert spec.parse({"model": {"source": folder, "trustRemoteCode": True}}).model.trust_remote_code


def test_run_takes_code_of_a_folder_that_is_written_without_dots(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "models/tiny").mkdir(parents=True)
    (tmp_path / "models/tiny/config.json").write_text("{}")

    outcome = lorajob("run", "--dry-run", "--model", "models/tiny", "--trust-remote-code")

    assert outcome.code == 0, outcome.err
    assert "trustRemoteCode: true" in outcome.out
