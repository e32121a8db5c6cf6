"""Conversations rendered at once and tokenised in pieces: the same tokens as answer by answer, each prompt whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_kinds import tokenizer_of

from lorajob_runtime.data.chat.chat_template import ChatTemplate
from lorajob_runtime.data.chat.tokenizer import encode
from lorajob_runtime.data.encode import Encoder
from lorajob_runtime.data.rows.conversation import Conversation, Message, RowError
from lorajob_runtime.data.segments import Segments

Sequences = list[tuple[list[int], list[bool]]]


def answer_by_answer(tokenizer: Any, messages: list[Message], *, thinking: bool) -> Sequences:
    """What a conversation must become: every prompt rendered and tokenised whole, sequences joined by their tokens."""
    template = ChatTemplate(tokenizer, thinking=thinking)
    done: Sequences = []
    ids: list[int] = []
    targets: list[bool] = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        turn = template.turn(messages[: place + 1], None)
        prompt, answer = encode(tokenizer, [turn.prompt, turn.answer])
        if ids and prompt[: len(ids)] != ids:
            done.append((ids, targets))
            targets = []
        ids = prompt + answer
        targets = [*targets, *[False] * (len(prompt) - len(targets)), *[True] * len(answer)]
    return [*done, (ids, targets)]


def _encoded(tokenizer: Any, messages: list[Message], *, thinking: bool) -> Sequences:
    (result,) = Encoder(tokenizer, thinking=thinking).rows([Conversation(messages=messages)])
    assert not isinstance(result, RowError)
    return [(ids.tolist(), targets.tolist()) for ids, targets in result.sequences]


_said = st.text(st.sampled_from("a7 \n.，北x<|") | st.characters(codec="utf-8"), min_size=1, max_size=9).filter(
    str.strip
)


@pytest.mark.parametrize(
    ("name", "thinking"),
    [("smollm2", False), ("qwen25", False), ("qwen3", False), ("qwen3", True), ("glm", False), ("hunyuan", True)],
)
@settings(max_examples=40)
@given(
    rounds=st.lists(st.tuples(_said, _said), min_size=1, max_size=9),
    system=st.none() | _said,
)
def test_many_turns_are_the_same_tokens_as_one_by_one(
    name: str, thinking: bool, rounds: list[tuple[str, str]], system: str | None, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name).tokenizer
    messages = [{"role": "system", "content": system}] if system else []
    for question, answer in rounds:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    assert _encoded(tokenizer, messages, thinking=thinking) == answer_by_answer(tokenizer, messages, thinking=thinking)


_TURNS = [turn for n in range(9) for turn in (("user", f"Round {n}?"), ("assistant", f"It is {n}."))]
_LONG: list[Message] = [{"role": role, "content": content} for role, content in _TURNS]


def test_a_template_that_only_appends_renders_a_long_conversation_at_once(smollm2: Any) -> None:
    """As often as there are powers of two among its answers, and not twice for every one."""

    def shown(answers: int) -> int:
        template = ChatTemplate(smollm2.tokenizer, thinking=False)
        messages = [{"role": role, "content": f"{role} {n}"} for n in range(answers) for role in ("user", "assistant")]
        rendered: list[int] = []
        text = template.text
        template.text = lambda messages, **options: rendered.append(len(messages)) or text(messages, **options)  # type: ignore[method-assign, func-returns-value]
        template.conversation(Conversation(messages=messages))
        return sum(rendered)

    assert shown(128) < 12 * 128 * 2
    assert shown(512) < 4.2 * shown(128)


@pytest.mark.parametrize(
    "odd",
    [
        # one turn in the middle is shown otherwise until enough follow it
        "{{ m.content }}{% if loop.index == 8 and messages | length < 12 %}?{% endif %}",
        # answers are shown shorter once they are history
        "{{ m.content if loop.last or m.role == 'user' else m.content[:3] }}",
        # old turns are marked, those of the prompt one later than those of the finished text
        "{{ m.content }}{{ '~' if loop.revindex > 9 }}",
    ],
)
def test_a_template_that_rewrites_earlier_turns_gets_every_answer_by_itself(odd: str, smollm2: Any) -> None:
    tokenizer = tokenizer_of("plain", smollm2.tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ m.content }}", odd)

    assert _encoded(tokenizer, _LONG, thinking=False) == answer_by_answer(tokenizer, _LONG, thinking=False)


@pytest.mark.parametrize("control", ["<|im_end|>", "<|im_start|>assistant\n", "<|im_end|>\n<|im_start|>assistant\nX"])
def test_control_tokens_in_what_is_said_change_nothing_of_it(control: str, smollm2: Any) -> None:
    for place in (2, 3):
        messages = [
            message | {"content": message["content"] + control * (n == place)} for n, message in enumerate(_LONG)
        ]
        expected = answer_by_answer(smollm2.tokenizer, messages, thinking=False)
        assert _encoded(smollm2.tokenizer, messages, thinking=False) == expected


def test_a_tokenizer_whose_end_token_takes_the_blanks_behind_it_gets_every_prompt_whole(smollm2: Any) -> None:
    from tokenizers import AddedToken

    tokenizer = tokenizer_of("plain", smollm2.tokenizer)
    greedy = AddedToken("<|greedy|>", rstrip=True, normalized=False, special=True)
    tokenizer.add_special_tokens({"eos_token": greedy})
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", "<|greedy|>")

    assert Segments(tokenizer, ["<|greedy|>"]).split("a<|greedy|>\nb") == ["a<|greedy|>\nb"]
    assert Segments(smollm2.tokenizer, ["<|im_end|>"]).split("a<|im_end|>\nb") == ["a<|im_end|>", "\nb"]
    assert _encoded(tokenizer, _LONG, thinking=False) == answer_by_answer(tokenizer, _LONG, thinking=False)


def test_rows_are_tokenised_in_pieces_of_bounded_size(smollm2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lorajob_runtime.data import encode as encoding

    monkeypatch.setattr(encoding, "CHUNK_CHARACTERS", 3000)
    taken: list[int] = []

    def rows() -> Any:
        for number in range(40):
            taken.append(number)
            yield Conversation(
                messages=[{"role": "user", "content": "word " * 100}, {"role": "assistant", "content": "A"}]
            )

    encoder = Encoder(smollm2.tokenizer, thinking=False)
    ahead = [len(taken) - done for done, _ in enumerate(encoder.rows(rows()), start=1)]

    assert len(ahead) == 40
    assert max(ahead) <= 6
    assert all(np.diff(taken) == 1)
