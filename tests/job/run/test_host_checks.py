"""What is looked at before a run starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from golden.said import Said
from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.errors import ConfigError, DataError, LorajobError, ModelError
from lorajob_runtime.contract.spec import DataSpec, parse
from lorajob_runtime.models import architecture
from lorajob_runtime.run.host_checks import (
    Inspection,
    Machine,
    check_data,
    check_memory,
    check_trainable,
    choose_machine,
    inspector,
    localize,
)
from lorajob_runtime.system import cgroup
from lorajob_runtime.system import gpus as gpu_driver
from waiting import wait_until


@pytest.mark.parametrize(
    ("processes", "gpus", "device", "visible", "expected"),
    [
        (None, 4, "auto", 4, Machine(processes=4, device="auto")),
        (None, 2, "auto", 8, Machine(processes=2, device="auto")),
        (None, 2, "cpu", 0, Machine(processes=2, device="cpu")),
        (None, 2, "cpu", 8, Machine(processes=2, device="cpu")),
        (2, 1, "auto", 0, Machine(processes=2, device="cpu")),
        (2, 1, "auto", 4, Machine(processes=2, device="auto")),
    ],
)
def test_a_process_a_gpu_or_as_many_as_are_asked_for(processes, gpus, device, visible, expected) -> None:
    assert choose_machine(processes=processes, gpus=gpus, device=device, visible=visible) == expected


@pytest.mark.parametrize(
    ("processes", "gpus", "visible", "message"),
    [
        (None, 1, 0, "resources.gpus is 1, but no GPU is visible here"),
        (None, 4, 2, "resources.gpus is 4, but only 2 are visible here"),
        (4, 1, 1, "processes is 4, but only 1 is visible here"),
    ],
)
def test_gpus_that_are_not_there_are_a_config_error(processes, gpus, visible, message) -> None:
    with pytest.raises(ConfigError) as raised:
        choose_machine(processes=processes, gpus=gpus, device="auto", visible=visible)

    assert raised.value.message == message


@pytest.mark.parametrize(("capability", "works"), [((7, 0), False), ((6, 1), False), ((7, 5), True), ((10, 0), True)])
def test_gpus_that_torch_has_no_kernels_for_are_refused_by_their_capability(
    capability: tuple[int, int], works: bool
) -> None:
    if works:
        assert choose_machine(processes=None, gpus=1, device="auto", visible=1, capability=capability).device == "auto"
        return
    with pytest.raises(ConfigError, match=f"capability {capability[0]}.{capability[1]}, and torch needs at least 7.5"):
        choose_machine(processes=None, gpus=1, device="auto", visible=1, capability=capability)
    assert choose_machine(processes=None, gpus=1, device="cpu", visible=1, capability=capability).device == "cpu"


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (
            {"model": {"name": "glm-4.5-air"}, "lora": {"targets": ["q_proj", "w4"]}},
            ConfigError,
            "lora.targets has 'w4': no weight of glm-4.5-air is called so; "
            "it has down_proj, gate, gate_proj, gate_up_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj",
        ),
        (
            {"model": {"source": "modelscope:Qwen/Qwen3-8B"}, "lora": {"experts": True}},
            ConfigError,
            "lora.experts is true: qwen3-8b has no experts, so it must be false or left out",
        ),
        (
            {"model": {"name": "qwen2.5-coder-7b"}, "data": {"thinking": True}},
            ConfigError,
            "data.thinking is true: qwen2.5-coder-7b has no thinking mode, so it must be false or left out",
        ),
    ],
)
def test_what_this_version_cannot_train_is_refused_by_its_spec_alone(values, kind, message) -> None:
    with pytest.raises(LorajobError) as raised:
        check_trainable(parse(values))

    assert (type(raised.value), raised.value.message) == (kind, message)


@pytest.mark.parametrize(
    ("name", "gpus", "allowed", "expected"),
    [("qwen3-8b", 1, False, (False, True)), ("glm-4.5-air", 2, True, (True, False))],
)
def test_gpus_that_can_hold_the_model_or_must_try_are_let_through(
    name: str, gpus: int, allowed: bool, expected: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_driver, "gpu_bytes", lambda: 22 * 2**30)
    spec = parse({"model": {"name": name}, "resources": {"allowOversize": allowed}})

    placed = check_memory(spec, Machine(processes=gpus, device="auto"), nodes=1)

    assert placed is not None
    assert (placed.sharded, placed.fits) == expected


def test_four_bits_without_their_library_are_refused_before_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = parse({"model": {"name": "qwen3-8b", "quantize": "nf4"}})
    check_trainable(spec)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)

    with pytest.raises(ConfigError) as caught:
        check_trainable(spec)
    assert caught.value.path == "model.quantize"


def test_gpus_that_cannot_hold_the_model_are_refused_before_it_is_fetched(monkeypatch) -> None:
    monkeypatch.setattr(gpu_driver, "gpu_bytes", lambda: 22 * 2**30)

    with pytest.raises(ConfigError, match=r"^qwen3-8b does not fit: .* on the GPU, which has 22\.0 GiB; larger ones"):
        check_memory(
            parse({"model": {"name": "qwen3-8b"}, "lora": {"rank": 512}}),
            Machine(processes=1, device="auto"),
            nodes=1,
        )


def test_a_cpu_is_not_held_against_a_gpus_memory(monkeypatch) -> None:
    monkeypatch.setattr(gpu_driver, "gpu_bytes", lambda: 1)

    placed = check_memory(parse({"model": {"name": "minimax-m2"}}), Machine(processes=1, device="cpu"), nodes=1)

    assert placed is None


@pytest.mark.parametrize(("gibibytes", "nodes", "oversize"), [(500, 1, False), (250, 2, False), (24, 1, True)])
def test_a_host_that_can_hold_the_weights_or_must_try_is_let_through(
    gibibytes: int, nodes: int, oversize: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "host_bytes", lambda: gibibytes * 2**30)

    found = _inspect_minimax(tmp_path, nodes=nodes, oversize=oversize)

    assert found.host_bytes is not None
    assert oversize == (found.host_bytes > gibibytes * 2**30)
    assert found.placement is None


def test_a_host_without_gpus_that_cannot_hold_the_weights_does_not_fetch_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    monkeypatch.setattr(cgroup, "host_bytes", lambda: 24 * 2**30)

    with pytest.raises(ConfigError) as caught:
        _inspect_minimax(tmp_path, nodes=1, oversize=False)

    said(caught.value.message)


def _inspect_minimax(folder: Path, *, nodes: int, oversize: bool) -> Inspection:
    (folder / "config.json").write_text(json.dumps(catalog.get("minimax-m2").config))
    spec = parse({"model": {"name": "minimax-m2"}, "resources": {"allowOversize": oversize}})
    return inspector(spec, Machine(processes=1, device="cpu"), nodes=nodes)(folder / "config.json")


def test_another_models_config_is_held_against_the_spec(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(catalog.get("qwen3-8b").config))
    spec = parse({"model": {"name": "hf:acme/chat"}, "lora": {"targets": ["query"]}})
    inspect = inspector(spec, Machine(processes=1, device="cpu"), nodes=1)

    with pytest.raises(ConfigError, match=r"^lora\.targets has 'query': no weight of hf:acme/chat is called so"):
        inspect(tmp_path / "config.json")


@pytest.mark.parametrize(
    "files",
    [
        {"chat_template.jinja": "{{ messages }}"},
        {"tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"})},
    ],
)
def test_thinking_asked_of_a_template_without_it_is_refused_before_the_weights(
    files: dict[str, str], tmp_path: Path
) -> None:
    for name, text in {"config.json": json.dumps(catalog.get("qwen3-8b").config), **files}.items():
        (tmp_path / name).write_text(text)
    spec = parse({"model": {"name": "hf:acme/chat"}, "data": {"thinking": True}})

    with pytest.raises(ConfigError, match=r"^data\.thinking is true: hf:acme/chat has no thinking mode"):
        inspector(spec, Machine(processes=1, device="cpu"), nodes=1)(tmp_path / "config.json")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"chat_template.jinja": "{% if enable_thinking %}"},
        {"chat_template.jinja": "{% if add_generation_prompt %}<think>\n"},
        {"tokenizer_config.json": "no"},
        {"tokenizer_config.json": json.dumps({"chat_template": [{"name": "default", "template": "?"}]})},
    ],
)
def test_thinking_is_let_through_where_a_template_may_have_it(files: dict[str, str], tmp_path: Path) -> None:
    for name, text in {"config.json": json.dumps(catalog.get("qwen3-8b").config), **files}.items():
        (tmp_path / name).write_text(text)
    spec = parse({"model": {"name": "hf:acme/chat"}, "data": {"thinking": True}})

    found = inspector(spec, Machine(processes=1, device="cpu"), nodes=1)(tmp_path / "config.json")

    assert found.shapes == architecture.read(catalog.get("qwen3-8b").config)


WITH_CODE = {
    "model_type": "own",
    "architectures": ["Own"],
    "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"},
}


@pytest.mark.parametrize("type_it_says", [{}, catalog.get("qwen3-8b").config], ids=["its own", "a known one"])
def test_a_model_that_only_its_own_code_knows_is_refused_before_its_weights(
    type_it_says: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(WITH_CODE | type_it_says))
    inspect = inspector(parse({"model": {"name": "hf:acme/chat"}}), Machine(processes=1, device="cpu"), nodes=1)

    with pytest.raises(ModelError) as caught:
        inspect(tmp_path / "config.json")

    message = "hf:acme/chat: transformers has no class for 'Own', and its repository's code may not run"
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, {}),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, {"trustRemoteCode": True}),
        ({"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"]}, {}),
        ({"model_type": "llava", "text_config": catalog.get("qwen3-8b").config}, {}),
    ],
    ids=["T5", "T5 trusted", "Qwen2.5-VL", "pictures before a known decoder"],
)
def test_a_model_that_is_no_causal_language_model_is_refused_before_its_weights(
    config: dict[str, Any], code: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = parse({"model": {"name": "hf:acme/chat", "revision": "0123abc", **code}})

    with pytest.raises(ModelError) as caught:
        inspector(spec, Machine(processes=1, device="cpu"), nodes=1)(tmp_path / "config.json")

    kind = config["model_type"]
    assert caught.value.message == f"hf:acme/chat: transformers has no causal language model of type {kind!r}"


def test_an_installation_that_cannot_tell_is_found_out_before_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "transformers.py").write_text("raise ImportError('libtorch.so: undefined symbol')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "architectures": ["T5"]}))
    inspect = inspector(parse({"model": {"name": "hf:acme/chat"}}), Machine(processes=1, device="cpu"), nodes=1)

    with pytest.raises(LorajobError, match=r"'hf:acme/chat': ImportError: libtorch\.so: undefined symbol"):
        inspect(tmp_path / "config.json")


def test_what_asks_transformers_ends_with_who_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asks = "import os, pathlib, time; pathlib.Path('asked').write_text(str(os.getpid())); time.sleep(60)"
    (tmp_path / "transformers.py").write_text(asks)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "architectures": ["T5"]}))
    inspects = (
        "from pathlib import Path; from lorajob_runtime.run.host_checks import Machine, inspector; "
        "from lorajob_runtime.contract.spec import parse; "
        "inspect = inspector(parse({'model': {'name': 'hf:acme/chat'}}), Machine(processes=1, device='cpu'), nodes=1); "
        "inspect(Path('config.json'))"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    caller = subprocess.Popen([sys.executable, "-c", inspects], cwd=tmp_path)
    asked = tmp_path / "asked"
    wait_until(lambda: asked.exists() and asked.read_text(), what="the question")

    caller.terminate()
    caller.wait()

    wait_until(lambda: not Path("/proc", asked.read_text()).exists(), what="its end")


@pytest.mark.parametrize(
    ("config", "code"),
    [({"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]}, {}), (WITH_CODE, {"trustRemoteCode": True})],
    ids=["known", "trusted"],
)
def test_a_model_whose_shapes_are_not_known_here_is_let_through(
    config: dict[str, Any], code: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = parse({"model": {"name": "hf:acme/chat", "revision": "0123abc", **code}})

    found = inspector(spec, Machine(processes=1, device="cpu"), nodes=1)(tmp_path / "config.json")

    assert (found.shapes, found.placement, found.host_bytes) == (None, None, None)


def test_a_config_that_is_no_json_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("no")
    inspect = inspector(parse({}), Machine(processes=1, device="cpu"), nodes=1)

    with pytest.raises(ModelError, match="is no configuration of a model"):
        inspect(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("name", "is_known"),
    [
        ("smollm2-135m", True),
        ("qwen2.5-coder-7b", True),
        ("qwen3-8b", True),
        ("hf:acme/chat", False),
        ("./own", False),
    ],
)
def test_dense_and_unknown_models_are_let_through(name: str, is_known: bool) -> None:
    shapes = check_trainable(parse({"model": {"name": name}, "train": {"sharding": "ddp"}}))

    assert (shapes is not None) == is_known


def test_a_dataset_in_s3_is_downloaded_and_one_that_is_not_there_is_a_data_error(
    s3_keys, settings, tmp_path: Path
) -> None:
    bucket = s3_keys.make_bucket()
    s3_keys.client().put_object(Bucket=bucket, Key="sets/rows.json", Body=b"[]")
    environment = settings(s3_endpoint=s3_keys.endpoint)
    data = DataSpec(source=f"s3://{bucket}/sets/rows.json")

    check_data(data, environment)
    local = localize(data, tmp_path, environment)

    assert local.source is not None
    assert Path(local.source).read_bytes() == b"[]"
    with pytest.raises(DataError, match="there is no such file"):
        check_data(DataSpec(source=f"s3://{bucket}/sets/row"), environment)
    with pytest.raises(DataError, match="names a bucket but no file"):
        check_data(DataSpec(source=f"s3://{bucket}"), environment)


def test_a_local_dataset_stays_where_it_is(settings, tmp_path: Path) -> None:
    data = DataSpec(source="rows.json")

    assert localize(data, tmp_path, settings()) is data


def test_importing_the_supervisor_loads_nothing_heavy() -> None:
    script = "import sys, lorajob_runtime.run.supervisor, lorajob_runtime.__main__; print(*sys.modules)"

    loaded = set(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.split())

    assert "lorajob_runtime.run.supervisor" in loaded
    heavy = {"torch", "transformers", "boto3", "botocore", "datasets", "swanlab", "modelscope", "numpy", "peft"}
    assert loaded & heavy == set()


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "the spec is not JSON"), ('{"data": {"rosw": 1}}', "did you mean rows?"), (None, "cannot be read")],
)
def test_a_spec_file_that_is_no_spec_ends_the_container_with_10_and_one_line(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "spec.json"
    if content is not None:
        path.write_text(content)

    ended = subprocess.run([sys.executable, "-m", "lorajob_runtime", path], capture_output=True, text=True)

    assert ended.returncode == 10
    error, hint = ended.stderr.splitlines()
    assert message in error
    assert hint.startswith("hint: ")


def test_a_container_without_the_gpus_it_was_asked_for_ends_with_10(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(f'{{"name": "n", "resources": {{"gpus": 64}}, "storage": {{"uri": "{tmp_path}/runs"}}}}')

    ended = subprocess.run([sys.executable, "-m", "lorajob_runtime", path], capture_output=True, text=True)

    assert ended.returncode == 10
    assert "resources.gpus is 64" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "runs").exists()
