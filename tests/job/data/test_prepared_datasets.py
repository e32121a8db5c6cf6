"""What `prepare` leaves in the run's data folder, and what the real datasets come to."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden.said import Said
from lorajob_runtime.contract.errors import DataError, ModelError, StorageError
from lorajob_runtime.contract.spec import RunSpec, parse
from lorajob_runtime.data.chat.inference import prompt_ids
from lorajob_runtime.data.prepare import prepare, tokenise
from lorajob_runtime.data.tokens import TokenRows

ROWS = [{"instruction": f"Question {number}", "input": "?", "output": f"Answer {number}."} for number in range(6)]


def _spec(source: Path, samples: int = 2, **data: Any) -> RunSpec:
    return parse({"data": {"source": str(source)} | data, "report": {"samples": {"count": samples}}})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS), encoding="utf-8")
    return path


def test_the_folder_holds_tokens_samples_and_the_report(smollm2: Any, source: Path, tmp_path: Path) -> None:
    report = prepare(_spec(source, evalRows=":2"), model_path=smollm2.path, folder=tmp_path / "data")

    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "eval.safetensors",
        "report.json",
        "samples.json",
        "train.safetensors",
    ]
    train, held_out = (TokenRows.load(tmp_path / "data" / f"{name}.safetensors") for name in ("train", "eval"))
    assert (len(train), len(held_out)) == (4, 2)
    assert json.loads((tmp_path / "data" / "report.json").read_text("utf-8")) == report.to_dict()
    assert (report.rows_read, report.rows_selected, report.rows_used, report.eval_rows) == (6, 4, 4, 2)
    assert (report.tokens, report.target_tokens) == (len(train.input_ids), train.target_tokens)
    assert report.template_family == "smollm2"


def test_samples_come_from_the_held_out_rows_as_inference_sends_them(
    smollm2: Any, source: Path, tmp_path: Path
) -> None:
    prepare(_spec(source, evalRows="-2:", samples=1), model_path=smollm2.path, folder=tmp_path / "data")

    found = json.loads((tmp_path / "data" / "samples.json").read_text("utf-8"))
    asked = [{"role": "user", "content": "Question 4?"}]
    assert found["samples"] == [
        {"prompt": "Question 4?", "prompt_ids": prompt_ids(smollm2.tokenizer, asked, False), "reference": "Answer 4."}
    ]
    assert found["stop_ids"][0] == smollm2.tokenizer.eos_token_id


def test_without_held_out_rows_samples_are_the_first_training_rows(smollm2: Any, prepared: Any) -> None:
    result = prepared(smollm2, ROWS, samples=2, rows="3:")
    assert [sample.prompt for sample in result.samples] == ["Question 3?", "Question 4?"]
    assert result.evaluation is None


def test_the_same_input_gives_the_same_bytes_and_another_gives_another_fingerprint(
    smollm2: Any, source: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    first, second = (prepare(_spec(source), model_path=smollm2.path, folder=folder) for folder in folders)
    other = prepare(_spec(source, system="S"), model_path=smollm2.path, folder=tmp_path / "c")

    assert first == second
    assert first.fingerprint != other.fingerprint
    for name in ("train.safetensors", "samples.json", "report.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_folder_from_an_earlier_attempt_is_replaced_whole(smollm2: Any, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    prepare(_spec(source, evalRows=":2"), model_path=smollm2.path, folder=folder)
    (folder.with_name(".data.new")).mkdir()
    prepare(_spec(source), model_path=smollm2.path, folder=folder)

    assert not (folder / "eval.safetensors").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "rows.json"]


def test_a_run_without_a_dataset_takes_the_example_set(smollm2: Any, tmp_path: Path) -> None:
    report = prepare(parse({}), model_path=smollm2.path, folder=tmp_path / "data")
    assert report.source.endswith("lighthouse.json")
    assert (report.rows_dropped, report.rows_truncated) == ({}, 0)


def test_a_row_without_the_needed_keys_is_named_with_its_number(smollm2: Any, prepared: Any, said: Said) -> None:
    with pytest.raises(DataError) as caught:
        prepared(smollm2, [*ROWS, {"instruction": "Q", "ouput": "A"}, {"question": "Q", "output": "A"}])
    said(caught.value.message.partition("rows.json: ")[2])


def test_rows_outside_the_selection_may_be_at_fault(smollm2: Any, prepared: Any) -> None:
    assert prepared(smollm2, [*ROWS, 7], rows=":6").report.rows_used == 6


def test_empty_rows_are_counted_by_reason(smollm2: Any, prepared: Any) -> None:
    rows = [
        *ROWS,
        {"instruction": "Q", "output": ""},
        {"instruction": "", "output": "A"},
        {"instruction": "Q", "output": ""},
    ]
    report = prepared(smollm2, rows).report
    assert report.rows_dropped == {"empty output": 2, "empty instruction": 1}
    assert (report.rows_selected, report.rows_used) == (9, 6)


def test_half_a_character_drops_its_row(smollm2: Any, prepared: Any, tmp_path: Path) -> None:
    path = tmp_path / "half.json"
    path.write_text('[{"input": "Q", "output": "\\ud83d"}, {"input": "Q", "output": "A"}]', encoding="utf-8")
    reason = "has text with half of a character in it, which is not valid Unicode"
    assert prepared(smollm2, path, maxDropped="50%").report.rows_dropped == {reason: 1}
    with pytest.raises(DataError, match=f"row 1 .counted from 1. {reason}$"):
        prepared(smollm2, path)


def test_control_tokens_in_the_text_are_noted(smollm2: Any, prepared: Any) -> None:
    report = prepared(smollm2, [{"input": "Q<|im_end|>", "output": "A"}]).report
    assert report.notes == ("1 row: control tokens are in the text",)


def test_a_row_that_the_template_refuses_is_dropped_with_the_turn_and_the_templates_words(
    minimax: Any, prepared: Any
) -> None:
    turns = [{"from": "human", "value": "Q"}, {"from": "observation", "value": "R"}, {"from": "gpt", "value": "A"}]
    fine = [{"conversations": [turns[0], turns[2]]}] * 30

    report = prepared(minimax, [{"conversations": turns}, *fine]).report

    assert report.rows_used == 30
    ((reason, rows),) = report.rows_dropped.items()
    words = "Message has tool role, but there was no previous assistant message with a tool call!"
    assert (rows, reason) == (1, f"is refused by the model's chat template in a turn: {words}")
    with pytest.raises(DataError, match=r"row 1 .* is refused by the model's chat template in turn 3: Mess"):
        prepared(minimax, [{"conversations": turns}])


def test_texts_need_no_chat_template(smollm2: Any, tmp_path: Path) -> None:
    base = copy.copy(smollm2.tokenizer)
    base.chat_template = None
    for row, fails in (({"text": "Once upon a time"}, False), ({"input": "Q", "output": "A"}, True)):
        path = tmp_path / "rows.json"
        path.write_text(json.dumps([row]), encoding="utf-8")
        if fails:
            with pytest.raises(ModelError, match="no chat template"):
                tokenise(_spec(path), base, tmp_path)
        else:
            assert tokenise(_spec(path), base, tmp_path).stop_ids == (base.eos_token_id,)


def test_a_folder_without_a_tokenizer_is_a_model_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tokenizer can be loaded from"):
        prepare(_spec(source), model_path=tmp_path, folder=tmp_path / "data")


def test_a_folder_that_cannot_be_written_is_a_storage_error(smollm2: Any, source: Path) -> None:
    with pytest.raises(StorageError, match="cannot write the tokenised dataset"):
        prepare(_spec(source), model_path=smollm2.path, folder=source / "data")


def test_huanhuan_comes_to_its_known_counts(qwen3: Any, shared: Path, prepared: Any) -> None:
    result = prepared(qwen3, shared / "datasets" / "huanhuan.json", system="现在你要扮演皇帝身边的女人--甄嬛")
    report = result.report
    assert (report.format, report.rows_read, report.rows_used, report.sequences) == ("alpaca", 3729, 3729, 3729)
    assert (report.rows_dropped, report.rows_truncated, report.notes) == ({}, 0, ())
    # The whole rows have a median of 66 and at most 253 tokens, one of them a line break that is never trained.
    assert (int(np.median(result.train.lengths)), report.max_tokens) == (65, 252)
    assert report.target_tokens / 3729 == pytest.approx(20.8 + 1, abs=0.1)


REAL: dict[str, dict[str, Any]] = {
    "huanhuan.json": {},
    "alpaca_en_demo.json": {},
    "alpaca_zh_demo.json": {},
    "identity.json": {},
    "disc-law-qa-short-answer.json": {},
    "disc-law-mcq-mult-nje.csv": {},
    "medical_sft_1K_format.jsonl": {},
    "glaive_toolcall_en_demo.json": {},
    "hunyuan-car_train.jsonl": {"rows": ":500"},
    "hunyuan-example_data.jsonl": {},
    "huatuo2-inst-answers.json": {"columns": {"instruction": "query", "output": "model_output"}},
    "grpo-sample.jsonl": {},
    "c4_demo.jsonl": {"rows": ":100"},
}


@pytest.mark.parametrize("model", ["qwen25", "hunyuan"])
@pytest.mark.parametrize("name", REAL)
def test_every_real_dataset_can_be_trained_on(
    name: str, model: str, shared: Path, prepared: Any, request: pytest.FixtureRequest
) -> None:
    report = prepared(
        request.getfixturevalue(model), shared / "datasets" / name, **({"rows": ":200"} | REAL[name])
    ).report
    assert report.target_tokens > 0
    assert report.rows_used >= 0.99 * report.rows_selected


def test_a_real_dataset_with_other_column_names_says_what_to_map(smollm2: Any, shared: Path, prepared: Any) -> None:
    with pytest.raises(DataError, match=r"no row has a known form: the first row has the keys .*data\.columns"):
        prepared(smollm2, shared / "datasets" / "huatuo2-inst-answers.json")
