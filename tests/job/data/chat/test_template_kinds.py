"""Every kind of chat template with every kind of conversation: trained as it is, or what is not is said."""

from __future__ import annotations

from typing import Any

import pytest
from right_or_said import CALLS, TALKS, conversation, encoded, wrongs
from template_kinds import KINDS, tokenizer_of

from lorajob_runtime.contract.errors import ConfigError, ModelError
from lorajob_runtime.data.chat import adapt_messages, chat_template, lost_content
from lorajob_runtime.data.chat.chat_template import ChatTemplate
from lorajob_runtime.data.encode import Encoder
from lorajob_runtime.data.rows.conversation import Conversation, RowError


def _encoders(kind: str, chatml: Any) -> list[Encoder]:
    """One for each setting of data.thinking that a template has."""
    encoders = [Encoder(tokenizer_of(kind, chatml), thinking=thinking) for thinking in (False, True)]
    try:
        encoders[1].template  # noqa: B018 - asked for what it raises
    except ConfigError:
        return encoders[:1]
    return encoders


@pytest.mark.parametrize("kind", KINDS)
def test_every_conversation_is_trained_as_it_is_or_it_is_said_what_is_not(kind: str, smollm2: Any) -> None:
    found = {
        (name, thinking): wrong
        for thinking, encoder in enumerate(_encoders(kind, smollm2.tokenizer))
        for name in (*TALKS, *CALLS)
        if (wrong := wrongs(encoder, conversation(name)))
    }
    assert found == {}


_REFUSED = {
    "says nothing beside a call": {"two calls": "one call at a time"},
    "writes the first call": {"two calls": "has a call beside another that the chat template leaves out, in turn 2"},
    "has no system role and wants turns to alternate": {
        "two answers": "in turn 3: roles must alternate",
        "greeting": "roles must alternate",
        "greeting behind a system prompt": "roles must alternate",
        "late system turn": "roles must alternate",
        "one call after the other": "roles must alternate",
        "words, then a call": "roles must alternate",
    },
    "wants a question": {"late system turn": "in turn 5: System message must be at the beginning."},
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_template_refuses_is_dropped_with_its_own_words_and_nothing_else_is(kind: str, smollm2: Any) -> None:
    for encoder in _encoders(kind, smollm2.tokenizer):
        results = {name: encoded(encoder, conversation(name)) for name in (*TALKS, *CALLS)}
        dropped = {name: result.reason for name, result in results.items() if isinstance(result, RowError)}
        expected = _REFUSED.get(kind, {})
        assert dropped.keys() == expected.keys()
        assert [name for name, reason in dropped.items() if expected[name] not in reason] == []


def _shown(kind: str, name: str, chatml: Any, *, thinking: bool = False) -> tuple[list[str], tuple[str, ...]]:
    """The sequences of a conversation, the trained part between ⟦ and ⟧, and the notes."""
    tokenizer = tokenizer_of(kind, chatml)
    result = encoded(Encoder(tokenizer, thinking=thinking), conversation(name))
    assert not isinstance(result, RowError)
    texts = []
    for ids, targets in result.sequences:
        text, inside = "", False
        for token, on in zip(ids.tolist(), targets.tolist(), strict=True):
            text += ("⟦" if on and not inside else "⟧" if inside and not on else "") + tokenizer.decode([token])
            inside = on
        texts.append(text + ("⟧" if inside else ""))
    return texts, result.notes


_HOW_MANY = "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("name", ["thought", "thought in a field"])
def test_a_thought_that_the_template_drops_is_put_where_its_prompt_opens_one(name: str, smollm2: Any) -> None:
    for thinking in (False, True):
        assert _shown("opens and drops thoughts", name, smollm2.tokenizer, thinking=thinking) == (
            [_HOW_MANY + "<think>\n⟦Because seven.\n</think>\n\nIt is seven.<|im_end|>⟧"],
            (),
        )


def test_a_thought_that_no_prompt_opens_is_opened(smollm2: Any) -> None:
    on = _shown("drops thoughts that no prompt opens", "thought", smollm2.tokenizer, thinking=True)
    off = _shown("drops thoughts that no prompt opens", "thought", smollm2.tokenizer)
    assert on == ([_HOW_MANY + "⟦<think>\nBecause seven.\n</think>\n\nIt is seven.<|im_end|>⟧"], ())
    assert off == ([_HOW_MANY + "⟦It is seven.<|im_end|>⟧"], (adapt_messages.SWITCHED_OFF,))


def test_an_answer_without_a_thought_ends_one_empty_thought(smollm2: Any) -> None:
    (text,), _ = _shown("shows an empty thought", "single", smollm2.tokenizer, thinking=True)
    assert text == _HOW_MANY + "<think>\n⟦</think>It is seven.<|im_end|>⟧"


def test_an_answer_behind_an_answer_stands_behind_what_inference_sends(smollm2: Any) -> None:
    (first, second, _), _ = _shown("shows the last thought", "two answers", smollm2.tokenizer)
    empty = "<think>\n\n</think>\n\n"
    assert first == _HOW_MANY + f"{empty}⟦It is seven.<|im_end|>⟧"
    assert second == (_HOW_MANY + f"{empty}It is seven.<|im_end|>\n<|im_start|>assistant\n{empty}⟦Or eight.<|im_end|>⟧")


def test_a_thought_goes_into_the_field_that_the_template_reads(smollm2: Any) -> None:
    (text,), _ = _shown("keeps thoughts in a field of another name", "thought", smollm2.tokenizer, thinking=True)
    assert text == _HOW_MANY + "⟦<|think_start|>Because seven.<|think_end|>It is seven.<|im_end|>⟧"


def test_abilities_that_are_only_named_are_none(smollm2: Any) -> None:
    tokenizer = tokenizer_of("names features in a comment", smollm2.tokenizer)
    with pytest.raises(ConfigError, match="no thinking mode"):
        ChatTemplate(tokenizer, thinking=True)
    template = ChatTemplate(tokenizer, thinking=False)
    assert template.thinking_mode == "none"
    assert '"name": "weather"' in template.prompt(CALLS["call"][:1], conversation("call").tools)
    _, notes = _shown("names features in a comment", "call", smollm2.tokenizer)
    assert notes == (adapt_messages.TOOLS_TOLD,)


def test_calls_that_a_template_writes_only_beside_tools_are_written_as_text(smollm2: Any) -> None:
    encoder = Encoder(tokenizer_of("writes calls beside tools", smollm2.tokenizer), thinking=False)
    without = Conversation(messages=CALLS["call"])
    result = encoded(encoder, without)
    assert not isinstance(result, RowError)
    assert result.notes == (adapt_messages.CALLS_TOLD,)
    assert '<tool_call>\n{"name": "weather"' in encoder.tokenizer.decode(result.sequences[0][0].tolist())
    assert wrongs(encoder, without) == []


@pytest.mark.parametrize(
    ("kind", "name", "note"),
    [
        ("lists tools and writes no calls", "call", adapt_messages.TOOLS_TOLD),
        ("says nothing beside a call", "words and a call", lost_content.SAID_BESIDE_CALL),
        ("leaves out results of tools", "call", adapt_messages.RESULTS_ASKED),
        ("has no system role and wants turns to alternate", "system", adapt_messages.SYSTEM_ASKED),
        ("has no system role and wants turns to alternate", "two questions", adapt_messages.QUESTIONS_JOINED),
        ("has no system role and wants turns to alternate", "blanks", lost_content.BLANKS_CUT),
        ("plain", "greeting", chat_template.GREETING),
        ("plain", "greeting behind a system prompt", chat_template.GREETING),
        (
            "leaves out system turns that come later",
            "late system turn",
            "system turns are left out by the chat template",
        ),
        ("opens and drops thoughts", "single", chat_template.EMPTY_THOUGHT),
    ],
)
def test_what_is_changed_or_lost_is_said(kind: str, name: str, note: str, smollm2: Any) -> None:
    assert note in _shown(kind, name, smollm2.tokenizer)[1]
    assert note not in _shown("plain", "single", smollm2.tokenizer)[1]


def test_a_system_prompt_without_a_place_stands_in_the_first_question(smollm2: Any) -> None:
    (text,), _ = _shown("has no system role and wants turns to alternate", "system", smollm2.tokenizer)
    assert text.startswith("<|im_start|>user\nBe brief.\n\nHow many?<|im_end|>\n")


def test_a_masked_answer_stays_and_is_not_trained(smollm2: Any) -> None:
    (text,), _ = _shown("plain", "masked", smollm2.tokenizer)
    assert text == (
        _HOW_MANY + "It is seven.<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n"
        "<|im_start|>assistant\n⟦Eight then.<|im_end|>⟧"
    )


def test_a_conversation_with_every_answer_masked_is_dropped(smollm2: Any) -> None:
    messages = [message | {"trained": message["role"] != "assistant"} for message in TALKS["multi"]]
    result = encoded(Encoder(smollm2.tokenizer, thinking=False), Conversation(messages=messages))
    assert isinstance(result, RowError)
    assert (result.droppable, result.reason) == (True, "no answer that is to be trained")


def test_a_greeting_alone_is_an_answer_without_a_question(smollm2: Any) -> None:
    messages = TALKS["greeting behind a system prompt"][:2]
    result = encoded(Encoder(smollm2.tokenizer, thinking=False), Conversation(messages=messages))
    assert isinstance(result, RowError)
    assert (result.droppable, result.reason) == (True, "an answer without a question")


def test_the_date_in_a_prompt_stands_still_in_training(smollm2: Any) -> None:
    (text,), _ = _shown("shows the date", "single", smollm2.tokenizer)
    assert text.startswith("<|im_start|>system\nToday is 2025-01-01.<|im_end|>\n")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", "what is answered"),
        ("{% for m in messages %}{% if m.role != 'user' %}{{ m.content }}{% endif %}{% endfor %}", "what is asked"),
    ],
)
def test_a_template_that_shows_no_answer_or_no_question_is_refused_up_front(
    template: str, reason: str, smollm2: Any
) -> None:
    tokenizer = tokenizer_of("plain", smollm2.tokenizer)
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=reason):
        Encoder(tokenizer, thinking=False).template  # noqa: B018 - asked for what it raises
