"""Answers of a tuned model: one, many, and in conversation."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime import generate
from lorajob_runtime.contract.errors import DataError, LorajobError, ModelError
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.data.chat.chat_template import ChatTemplate
from lorajob_runtime.data.chat.tokenizer import encode
from lorajob_runtime.data.rows.turns import conversation
from lorajob_runtime.generate import batch, interactive
from lorajob_runtime.generate.generator import Generator, Sampling
from lorajob_runtime.system.environment import Environment
from small_models import smollm2

pytestmark = pytest.mark.slow

SYSTEM = "You are the keeper of a lighthouse."
QUESTION = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Count from one to five."}]
SHORT = Sampling(max_new_tokens=24)


@pytest.fixture(scope="module")
def keeper(storage: Path) -> Generator:
    """SmolLM2 with an adapter."""
    return Generator.load(ModelSpec(), smollm2()[0].path, storage / "keeper/adapter", thinking=False)


@pytest.fixture(scope="module")
def tiny(storage: Path) -> Generator:
    """The random model, which never ends an answer by itself."""
    return Generator.load(ModelSpec(), storage / "tiny-llama", storage / "tiny/adapter", thinking=False)


def reference(keeper: Generator, ids: list[int], *, base: bool) -> str:
    """What transformers' own generate says to these prompt ids."""
    import torch

    model, tokenizer = keeper._model, keeper._tokenizer
    asked = torch.tensor([ids])
    if base:
        with model.disable_adapter():
            output = model.generate(input_ids=asked, max_new_tokens=24, do_sample=False)
    else:
        output = model.generate(input_ids=asked, max_new_tokens=24, do_sample=False)
    text: str = tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)
    return text


@pytest.mark.parametrize("base", [False, True])
def test_a_greedy_answer_is_what_transformers_gives_for_the_same_prompt(keeper: Generator, base: bool) -> None:
    ids = keeper.prompt(QUESTION)
    system, user = (f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>\n" for each in QUESTION)
    assert keeper._tokenizer.decode(ids) == f"{system}{user}<|im_start|>assistant\n"

    assert "".join(keeper.stream(QUESTION, SHORT, base=base)) == reference(keeper, ids, base=base)


@pytest.mark.parametrize("trusted", [False, True])
def test_code_beside_the_adapter_never_runs(storage: Path, tmp_path: Path, trusted: bool) -> None:
    adapter = shutil.copytree(storage / "tiny/adapter", tmp_path / "adapter")
    config = json.loads((adapter / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    (adapter / "tokenizer_config.json").write_text(json.dumps(config))
    (adapter / "own.py").write_text("raise RuntimeError('this code has run')")

    base = ModelSpec(trust_remote_code=trusted)
    asked = Generator.load(base, storage / "tiny-llama", adapter, thinking=False)

    assert asked.prompt(QUESTION)


OWN = """
import os, pathlib
from transformers import LlamaConfig, LlamaForCausalLM

pathlib.Path(__file__).with_name("seen").write_text(repr(dict(os.environ)))


class OwnConfig(LlamaConfig):
    model_type = "own"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_of_the_base_model_sees_no_key_while_it_answers(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings_of_models: Environment
) -> None:
    from transformers import dynamic_module_utils

    # where transformers copies a repository's code before it runs it
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setenv("HF_TOKEN", "hidden-value")
    base = shutil.copytree(storage / "tiny-llama", tmp_path / "own")
    (base / "own.py").write_text(OWN)
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    config = json.loads((base / "config.json").read_text())
    config |= {"auto_map": own, "model_type": "own", "architectures": ["OwnForCausalLM"]}
    (base / "config.json").write_text(json.dumps(config))
    adapter = shutil.copytree(storage / "tiny/adapter", tmp_path / "adapter")
    for file in ("lorajob.json", "adapter_config.json"):
        text = (adapter / file).read_text()
        (adapter / file).write_text(text.replace(str(storage / "tiny-llama"), str(base)))

    request = generate.Request(target=str(adapter), prompt="x", max_new_tokens=2, trust_remote_code=True)
    generate.run(request, io.StringIO(), io.StringIO(), environment=settings_of_models, notify=lambda _: None)

    (seen,) = (tmp_path / "modules").rglob("seen")
    assert "PATH" in seen.read_text()
    assert "hidden-value" not in seen.read_text()
    assert os.environ["HF_TOKEN"] == "hidden-value"


def test_the_untuned_model_answers_otherwise(tiny: Generator) -> None:
    assert "".join(tiny.stream(QUESTION, SHORT)) != "".join(tiny.stream(QUESTION, SHORT, base=True))


def test_answers_made_side_by_side_are_those_made_alone(tiny: Generator) -> None:
    asked = [[{"role": "user", "content": text}] for text in ("a", "some more words here", "x " * 40)]

    together = tiny.batch([tiny.prompt(one) for one in asked], SHORT)

    assert together == ["".join(tiny.stream(one, SHORT)).strip() for one in asked]


def test_characters_of_several_tokens_come_whole(keeper: Generator) -> None:
    text = "你好，甄嬛 🙂 naïve\n\n  end"
    ids = keeper._tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens = iter([*ids, None])

    class Queue:
        def get(self) -> Any:
            return next(tokens)

    pieces = list(keeper._pieces(Queue()))  # type: ignore[arg-type]

    assert "".join(pieces) == text
    assert len(pieces) > 5
    assert not any("\ufffd" in piece for piece in pieces)


def test_the_same_seed_samples_the_same_and_another_does_not(tiny: Generator) -> None:
    def answer(seed: int) -> str:
        return "".join(tiny.stream(QUESTION, Sampling(max_new_tokens=16, temperature=1.0, seed=seed)))

    assert answer(1) == answer(1)
    assert answer(1) != answer(2)


def test_top_k_of_one_is_greedy(tiny: Generator) -> None:
    sampled = Sampling(max_new_tokens=16, temperature=1.0, top_k=1)

    assert "".join(tiny.stream(QUESTION, sampled)) == "".join(tiny.stream(QUESTION, Sampling(max_new_tokens=16)))


def test_an_answer_that_nobody_waits_for_is_ended(tiny: Generator) -> None:
    stream = tiny.stream(QUESTION, Sampling(max_new_tokens=400))
    next(stream)
    stream.close()  # type: ignore[attr-defined]

    assert not [thread for thread in threading.enumerate() if thread.name == "generate"]


def test_a_conversation_that_is_too_long_is_refused_and_the_answer_is_cut_at_the_window(tiny: Generator) -> None:
    with pytest.raises(DataError, match=r"has \d+ tokens, and the model takes 512"):
        tiny.prompt([{"role": "user", "content": "word " * 600}])

    nearly_full = [{"role": "user", "content": "word " * 470}]
    assert list(tiny.stream(nearly_full, Sampling(max_new_tokens=400)))


def test_a_token_that_the_model_has_no_row_for_is_refused_by_name(storage: Path) -> None:
    other = Generator.load(ModelSpec(), storage / "tiny-llama", storage / "tiny/adapter", thinking=False)
    other._tokenizer.add_tokens(["<FACE>"], special_tokens=True)

    with pytest.raises(DataError, match=r"'<FACE>' \(id 49152\), and the model's embedding has 49152 rows"):
        other.prompt([{"role": "user", "content": "Make a <FACE>"}])
    assert other.prompt([{"role": "user", "content": "Make a face"}])


def test_an_adapter_of_another_model_is_refused_in_one_line(storage: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded on") as caught:
        Generator.load(ModelSpec(), storage / "tiny-llama", storage / "keeper/adapter", thinking=False)
    assert "\n" not in caught.value.message


def test_an_answer_that_never_came_says_so(
    storage: Path, settings_of_models: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "stream", lambda *_, **__: (piece for piece in ["<think>", "hm"]))

    out, notes = ask(settings_of_models, target="tiny", storage=str(storage), prompt="a", max_new_tokens=2)

    assert out == "\n"
    assert notes[-1].startswith("the answer is empty: the model ended at once, or was still thinking after 2 tokens")


def ask(environment: Environment, typed: str = "", **values: Any) -> tuple[str, list[str]]:
    """stdout and the notes of one call."""
    out, notes = io.StringIO(), list[str]()
    request = generate.Request(**({"max_new_tokens": 8} | values))
    generate.run(request, out, io.StringIO(typed), environment=environment, notify=notes.append)
    return out.getvalue(), notes


def test_one_prompt_is_answered_with_trainings_system_prompt(
    storage: Path, settings_of_models: Environment, tiny: Generator
) -> None:
    out, _ = ask(settings_of_models, target="tiny", storage=str(storage), prompt="Who are you?", max_new_tokens=12)

    expected = tiny.batch([tiny.prompt(batch.conversation("Who are you?", SYSTEM))], Sampling(max_new_tokens=12))
    assert out == expected[0] + "\n"


def test_the_base_answers_first_where_it_is_asked_for(storage: Path, settings_of_models: Environment) -> None:
    out, _ = ask(settings_of_models, target=str(storage / "tiny"), prompt="Hi", compare_base=True)

    base, tuned = out.removeprefix("base:\n").split("\n\ntuned:\n")
    assert base.strip() != tuned.strip()


def test_a_files_prompts_are_answered_in_its_order(
    storage: Path, settings_of_models: Environment, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.jsonl"
    rows: list[Any] = [
        {"prompt": "a long question " * 8, "id": 1},
        "plain",
        {"messages": [{"role": "user", "content": "x"}]},
        {"instruction": "Translate", "input": " this"},
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\nnot json at all\n")

    out, _ = ask(settings_of_models, target="tiny", storage=str(storage), file=str(file), compare_base=True)

    answers = [json.loads(line) for line in out.splitlines()]
    assert [set(answer) - {"output", "base"} for answer in answers] == [
        {"prompt", "id"},
        {"prompt"},
        {"messages"},
        {"instruction", "input"},
        {"prompt"},
    ]
    assert all(answer["output"] != answer["base"] for answer in answers)
    assert answers[4]["prompt"] == "not json at all"


def test_a_row_with_tools_is_asked_as_one_was_trained(tiny: Generator) -> None:
    line: dict[str, Any] = {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
            {"role": "tool", "content": "blue"},
        ],
        "tools": [{"name": "weather", "description": "Sky"}],
    }

    (row,) = batch.parse([json.dumps(line)], system="S")

    sent = tiny.prompt(row.messages, row.tools)
    turns = [*line["messages"], {"role": "assistant", "content": "Blue."}]
    trained = conversation(turns, tools=line["tools"], system="S")
    answers = ChatTemplate(tiny._tokenizer, thinking=False).conversation(trained).answers
    prompt = answers[0].before + answers[0].answer + answers[1].before
    assert answers[1].follows
    assert sent == encode(tiny._tokenizer, [prompt])[0]
    assert row.shown == line


def test_prompts_can_come_from_the_standard_input(storage: Path, settings_of_models: Environment) -> None:
    out, _ = ask(settings_of_models, "one\n\ntwo\n", target="tiny", storage=str(storage), file="-")

    assert [json.loads(line)["prompt"] for line in out.splitlines()] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no prompts"),
        ('ok\n{"prompt": ', "line 2 is not JSON"),
        ('{"question": "x"}', "line 1 has no prompt"),
        (
            '{"messages": [{"role": "robot", "content": "x"}]}',
            "line 1: turn 1 is from 'robot'",
        ),
        ('{"messages": []}', "line 1 has no messages"),
        ('{"messages": [{"role": "user", "content": "x"}], "tools": 7}', "line 1: tools is a number"),
    ],
)
def test_a_file_that_cannot_be_asked_names_the_line_before_a_model_is_loaded(
    storage: Path, settings_of_models: Environment, tmp_path: Path, text: str, fault: str
) -> None:
    file = tmp_path / "prompts"
    file.write_text(text)

    with pytest.raises(DataError, match=fault):
        ask(settings_of_models, target="tiny", storage=str(storage), file=str(file))


def test_a_file_that_is_not_there_is_the_datas_fault(storage: Path, settings_of_models: Environment) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        ask(settings_of_models, target="tiny", storage=str(storage), file="/nowhere")


class Recorder:
    """Stands for a generator: remembers what it was asked."""

    def __init__(self, answers: list[Any]) -> None:
        self.asked: list[list[dict[str, Any]]] = []
        self._answers = iter(answers)

    def opens_thought(self, messages: list[dict[str, Any]], tools: None = None) -> bool:
        return messages[-1]["content"].startswith("think")

    def stream(self, messages: list[dict[str, Any]], sampling: Sampling, *, base: bool = False) -> Any:
        self.asked.append(list(messages))
        answer = next(self._answers)
        yield from ["\n", "  ", answer] if isinstance(answer, str) else []
        if isinstance(answer, BaseException):
            raise answer


def converse(recorder: Recorder, typed: str, *, reasoning: bool = False) -> tuple[str, list[str]]:
    out, notes = io.StringIO(), list[str]()
    interactive.talk(
        recorder,  # type: ignore[arg-type]
        SHORT,
        interactive.Terminal(stdin=io.StringIO(typed), stdout=out, notify=notes.append, reasoning=reasoning),
        system="S",
        compare_base=False,
    )
    return out.getvalue(), notes


def contents(messages: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in messages]


def test_a_conversation_remembers_until_it_is_reset() -> None:
    recorder = Recorder(["one", "two", "three"])

    out, notes = converse(recorder, "a\n\nb\n/reset\nc\n/quit\nnever\n")

    assert [contents(asked) for asked in recorder.asked] == [["S", "a"], ["S", "a", "one", "b"], ["S", "c"]]
    assert out == "one\ntwo\nthree\n"
    assert notes[1:] == ["a new conversation"]


THOUGHTS = ["<think>\nhm\n</think>\n\n<answer>one</answer>", "so\n</think>\n\ntwo"]


@pytest.mark.parametrize(
    ("reasoning", "shown"), [(True, "hm\n\none\nso\n\ntwo\n"), (False, "one\ntwo\n")], ids=["shown", "hidden"]
)
def test_what_the_model_thinks_is_shown_if_wanted_and_never_remembered(reasoning: bool, shown: str) -> None:
    recorder = Recorder([*THOUGHTS, "three"])

    out, _ = converse(recorder, "a\nthink of b\nc\n", reasoning=reasoning)

    assert out == shown + "three\n"
    assert contents(recorder.asked[-1]) == ["S", "a", "one", "think of b", "two", "c"]


class AtTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_answer_does_not_steer_the_terminal_and_is_remembered_as_it_is() -> None:
    asked = [{"role": "user", "content": "a"}]
    for out, shown in ((AtTerminal(), "one ␛[2Jtwo\n"), (io.StringIO(), "one \033[2Jtwo\n")):
        answer = interactive.show(Recorder(["one \033[2Jtwo"]), SHORT, asked, out)  # type: ignore[arg-type]

        assert (out.getvalue(), answer) == (shown, "one \033[2Jtwo")


def test_at_a_terminal_a_thought_is_dimmed() -> None:
    out = AtTerminal()

    interactive.show(Recorder(THOUGHTS), SHORT, [{"role": "user", "content": "a"}], out, reasoning=True)  # type: ignore[arg-type]

    assert out.getvalue().replace("\033[0m\033[2m", "") == "\033[2mhm\n\033[0m\none\n"


def test_in_json_lines_answer_and_thought_are_apart() -> None:
    class Batch(Recorder):
        def prompt(self, messages: list[dict[str, Any]], tools: None) -> list[int]:
            return [0]

        def batch(self, asked: list[list[int]], sampling: Sampling, *, base: bool = False) -> list[str]:
            return ["plain"] * len(asked) if base else THOUGHTS

    rows = batch.parse(["a", "think of b"], system=None)

    found = list(batch.answers(rows, Batch([]), SHORT, compare_base=True))  # type: ignore[arg-type]

    assert found == [
        {"prompt": "a", "output": "one", "thought": "hm", "base": "plain"},
        {"prompt": "think of b", "output": "two", "thought": "so", "base": "", "base_thought": "plain"},
    ]


def test_a_stopped_answer_and_one_that_fails_leave_the_conversation_as_it_was() -> None:
    recorder = Recorder([KeyboardInterrupt(), DataError("too long"), "fine"])

    _, notes = converse(recorder, "a\nb\nc\n")

    assert contents(recorder.asked[-1]) == ["S", "c"]
    assert "stopped" in notes[1]
    assert "too long" in notes[2]


def test_an_unknown_command_is_not_sent_to_the_model() -> None:
    recorder = Recorder([])

    _, notes = converse(recorder, "/help\n")

    assert not recorder.asked
    assert notes[1].startswith("no command /help")


def test_other_errors_end_the_conversation() -> None:
    with pytest.raises(LorajobError, match="broken"):
        converse(Recorder([ModelError("broken")]), "a\n")
