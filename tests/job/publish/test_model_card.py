"""The model card: facts in, Markdown out."""

from __future__ import annotations

import dataclasses

import pytest
from card_example import DATA_REPORT, GOLDEN, SPEC, events, example
from ruamel.yaml import YAML

from lorajob_runtime.contract import spec
from lorajob_runtime.models.provenance import describe
from lorajob_runtime.publish import facts, loss_curve, model_card


def front_matter(text: str) -> dict[str, object]:
    loaded: dict[str, object] = YAML(typ="safe").load(text.split("---\n")[1])
    return loaded


def test_the_card_is_as_its_golden_file_says() -> None:
    assert model_card.render(example()) == GOLDEN.read_text(encoding="utf-8"), (
        "run `python tests/job/publish/card_example.py` and read the difference"
    )


def test_the_metadata_is_what_the_hub_reads() -> None:
    assert front_matter(model_card.render(example())) == {
        "base_model": "Qwen/Qwen3-8B",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "license": "apache-2.0",
        "tags": ["lora", "sft", "transformers", "lorajob", "base_model:adapter:Qwen/Qwen3-8B"],
    }


def test_a_licence_that_the_hub_does_not_know_is_named_as_it_is() -> None:
    hunyuan = dataclasses.replace(
        example(), base=describe("modelscope:Tencent-Hunyuan/Hunyuan-A13B-Instruct", "master")
    )

    found = front_matter(model_card.render(hunyuan))

    assert found["license"] == "other"
    assert str(found["license_name"]).startswith("Tencent Hunyuan")


def test_no_path_of_the_machine_gets_into_the_card() -> None:
    for source in ("modelscope:Qwen/Qwen3-8B", "/data/private/own-model", "s3://secret-bucket/models/own"):
        text = model_card.render(dataclasses.replace(example(), base=describe(source, "folder-1234")))
        for hidden in ("/home", "someone", "secret", "/data", "private"):
            assert hidden not in text


def test_a_folders_model_is_no_hub_id_in_the_metadata() -> None:
    text = model_card.render(dataclasses.replace(example(), base=describe("/models/own", "folder-1234")))

    assert "base_model" not in front_matter(text)
    assert 'from_pretrained("own"' in text


def test_a_model_whose_code_was_trusted_is_asked_with_that_code_at_its_commit() -> None:
    trusted = spec.parse({"name": "own", "model": {"name": "hf:acme/own", "revision": "abc", "trustRemoteCode": True}})
    text = model_card.render(dataclasses.replace(example(), spec=trusted, base=describe("hf:acme/own", "abc")))

    assert 'from_pretrained("acme/own", dtype="auto", trust_remote_code=True, revision="abc")' in text
    assert "lorajob generate . --trust-remote-code --prompt 'Who are you?'" in text


def test_text_from_the_data_can_neither_end_a_code_block_nor_a_table() -> None:
    spoiled = DATA_REPORT | {"source": "a|b`c`<img>.json", "rows_dropped": {"x | y": 1}}
    lines = model_card.render(dataclasses.replace(example(), data=spoiled)).splitlines()

    assert "| file | a\\|b\\`c\\`\\<img\\>.json |" in lines
    assert "| dropped | 1 (x \\| y) |" in lines
    index = lines.index("`````text")
    assert lines[index : index + 3] == ["`````text", "````", "`````"]


def test_the_batch_is_the_rows_a_step_that_were_decided_at_the_first_start() -> None:
    # resumed by one process: each step still has the 32 rows of two
    resumed = {"event": "report", "name": "decided", "precision": "bf16", "processes": 1, "global_batch": 32}
    decided = facts.gather(
        [*events(), resumed],
        spec=spec.parse(SPEC),
        base=example().base,
        data=DATA_REPORT,
        versions={},
        thinking_switch=True,
    )

    assert "| batch | 32 rows a step |" in model_card.render(decided).splitlines()


def test_a_run_without_evaluation_or_samples_has_no_empty_sections() -> None:
    quiet = [event for event in events() if event["event"] in ("step", "phase")]
    text = model_card.render(
        facts.gather(
            quiet,
            spec=spec.parse(SPEC),
            base=describe("hf:acme/chat", "abc"),
            data=DATA_REPORT,
            versions={},
            thinking_switch=False,
        )
    )

    assert "Before and after" not in text
    assert "evaluation loss" not in text
    assert "Hugging Face, commit abc" in text
    assert "enable_thinking" not in text


@pytest.mark.parametrize("count", [1, 7, 400])
def test_the_smoothed_line_of_a_steady_loss_is_the_loss(count: int) -> None:
    assert loss_curve.smooth([2.5] * count) == pytest.approx([2.5] * count)


def test_smoothing_takes_out_noise() -> None:
    noisy = [2 + (-1) ** step * 0.5 for step in range(400)]

    smoothed = loss_curve.smooth(noisy)

    assert max(abs(value - 2) for value in smoothed[50:]) < 0.05
