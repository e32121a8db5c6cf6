"""Calls of tools and what follows them: trained as each model writes them, behind what inference sends."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from family_texts import Expect

from lorajob_runtime.data.chat.chat_template import ChatTemplate
from lorajob_runtime.data.chat.tokenizer import encode
from lorajob_runtime.data.rows.turns import conversation

TOOL_ROW: dict[str, Any] = {
    "conversations": [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "北京"}}'},
        {"from": "observation", "value": '{"sky": "blue"}'},
        {"from": "gpt", "value": "Blue."},
    ],
    "tools": '[{"name": "weather", "description": "Sky", "parameters": {}}]',
}


def test_tool_calls_are_trained_in_the_templates_own_form(qwen25: Any, prepared: Any, expect_sequences: Expect) -> None:
    expect_sequences(
        qwen25,
        prepared(qwen25, [TOOL_ROW]).train,
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.\n\n# Tools\n\n"
        "You may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        '{"type": "function", "function": {"name": "weather", "description": "Sky", "parameters": {}}}\n</tools>\n\n'
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> "
        'XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n"
        '⟦<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call><|im_end|>⟧\n'
        '<|im_start|>user\n<tool_response>\n{"sky": "blue"}\n</tool_response><|im_end|>\n'
        "<|im_start|>assistant\n⟦Blue.<|im_end|>⟧",
    )


CHATML_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call><|im_end|>'

TOOL_ANSWERS = {
    "smollm2": (CHATML_CALL, "Blue.<|im_end|>"),
    "qwen25": (CHATML_CALL, "Blue.<|im_end|>"),
    "qwen3": (CHATML_CALL, "Blue.<|im_end|>"),
    "glm": (
        "\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>北京</arg_value>\n</tool_call><|observation|>",
        "\nBlue.<|user|>",
    ),
    "minimax": (
        '\n</think>\n\n<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">北京</parameter>\n'
        "</invoke>\n</minimax:tool_call>[e~[",
        "\n</think>\n\nBlue.[e~[",
    ),
    # its template puts a word for the assistant before an answer wherever there are tools
    "hunyuan": (
        '<tool_calls>[{"name": "weather", "arguments": {"city": "北京"}}]</tool_calls><|eos|>',
        "助手：Blue.<|eos|>",
    ),
}


@pytest.mark.parametrize("name", TOOL_ANSWERS)
def test_a_call_and_the_answer_to_its_result_are_trained_behind_what_inference_sends(
    name: str, request: pytest.FixtureRequest, prepared: Any
) -> None:
    tokenizer = request.getfixturevalue(name).tokenizer
    asked = conversation(TOOL_ROW["conversations"], tools=TOOL_ROW["tools"], system=None)
    # at the moment of training, since one of the templates shows the time
    template = ChatTemplate(tokenizer, thinking=False)
    prompts = [template.prompt(asked.messages[:turns], asked.tools) for turns in (1, 3)]

    rows = prepared(request.getfixturevalue(name), [TOOL_ROW]).train

    found = []
    for ids, targets in (rows.row(index) for index in range(len(rows))):
        edges = [0, *(np.flatnonzero(np.diff(targets)) + 1).tolist(), len(ids)]
        found += [(ids[:a].tolist(), tokenizer.decode(ids[a:b].tolist())) for a, b in pairwise(edges) if targets[a]]
    assert [said for _, said in found] == list(TOOL_ANSWERS[name])
    assert [before for before, _ in found] == encode(tokenizer, prompts)


def test_a_glm_tool_call_ends_in_the_token_that_asks_for_its_result(glm: Any, prepared: Any) -> None:
    rows = prepared(glm, [TOOL_ROW]).train
    text = glm.tokenizer.decode(rows.row(0)[0].tolist())
    assert len(rows) == 1
    assert text.endswith(
        "<|user|>\nWeather?/nothink<|assistant|>\n<think></think>\n<tool_call>weather\n<arg_key>city</arg_key>\n"
        '<arg_value>北京</arg_value>\n</tool_call><|observation|>\n<tool_response>\n{"sky": "blue"}\n</tool_response>'
        "<|assistant|>\n<think></think>\nBlue.<|user|>"
    )
    observation = glm.tokenizer.convert_tokens_to_ids("<|observation|>")
    ids, targets = rows.row(0)
    assert targets[ids.tolist().index(observation)]


def test_a_template_without_tools_has_them_told_in_the_system_prompt(smollm2: Any, prepared: Any) -> None:
    result = prepared(smollm2, [TOOL_ROW])
    text = smollm2.tokenizer.decode(result.train.row(0)[0].tolist())
    assert '{"type": "function", "function": {"name": "weather"' in text.partition("<|im_start|>user")[0]
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call><|im_end|>' in text
    assert "tools are described in the system prompt" in result.report.notes[0]


def test_a_template_with_a_clock_gives_the_same_tokens_every_time(hunyuan: Any, prepared: Any) -> None:
    first = prepared(hunyuan, [TOOL_ROW])
    text = hunyuan.tokenizer.decode(first.train.row(0)[0].tolist())
    assert "当前时间：2025-01-01 00:00:00 星期三" in text
    assert prepared(hunyuan, [TOOL_ROW]).report.fingerprint == first.report.fingerprint
