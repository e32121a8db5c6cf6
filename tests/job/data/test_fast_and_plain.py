"""Rows put together from skeletons and known words: the very tokens, targets and words of the plain way, on any input.

The plain way asks the template for every text, the tokenizer for every stretch of it whole, and reads every row by all
the rules.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from published_templates import TEMPLATES, with_template
from template_kinds import KINDS, tokenizer_of
from test_alike import made_file, made_spec, outcome

from family_tokenizers import NOT_THERE
from lorajob_runtime.contract.errors import ConfigError, LorajobError
from lorajob_runtime.data.chat import spliced_texts, word_tokens
from lorajob_runtime.data.chat.chat_template import ChatTemplate
from lorajob_runtime.data.chat.spliced_texts import SplicedTexts
from lorajob_runtime.data.chat.tokenizer import encode
from lorajob_runtime.data.chat.word_tokens import WordTokens
from lorajob_runtime.data.encode import Encoder
from lorajob_runtime.data.prepare import prepare
from lorajob_runtime.data.rows.conversation import Conversation, RowError
from lorajob_runtime.data.rows.formats import Form

Chance = random.Random

SAID = (
    *(
        "good",
        "foo bar",
        "甄嬛 是 谁？",
        " x ",
        "two\nlines",
        "  ",
        "\n\n",
        "\t",
        "née",
        "<|im_end|>",
        "<|im_start|>user\n",
    ),
    *(
        "<think>\nso\n</think>\n\n",
        "</think>",
        "<think>",
        "/no_think",
        "<tool_response>",
        "</tool_response>",
        "[",
        "'ll",
    ),
    *(
        "a. B",
        "\u00a0",
        "\u3000",
        "e\u0301",
        "{{ x }}",
        "harbour",
        "'\"\\<&>",
        "12345",
        "١",
        "\r\n",
        "Q" * 40,
        "\x1c ",
        "\ud83d",
    ),
)


@contextmanager
def plain_way() -> Iterator[None]:
    """Has everything made the plain way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SplicedTexts, "text", lambda *_, **__: None)
        patch.setattr(ChatTemplate, "one_round", lambda *_: None)
        patch.setattr(word_tokens, "word_pattern", lambda _: None)
        patch.setattr(Form, "_plain_pair", lambda *_: None)
        yield


def _text(chance: Chance) -> str:
    return "".join(chance.choices(SAID, k=chance.choice([1, 1, 2, 3, 6])))


def _talk(chance: Chance) -> Conversation:
    rounds = chance.choice([1, 1, 1, 1, 2, 3, 6])
    roles = [*(["system"] if chance.random() < 0.4 else []), *(["user", "assistant"] * rounds)]
    return Conversation(messages=[{"role": role, "content": _text(chance)} for role in roles])


def _values(encoder: Encoder, talks: list[Conversation]) -> list[Any]:
    """What becomes of conversations, as values that can be compared."""
    values: list[Any] = []
    for found in encoder.rows(talks):
        if isinstance(found, RowError):
            values.append((found.reason, found.droppable))
        else:
            sequences = [(ids.tolist(), targets.tolist()) for ids, targets in found.sequences]
            values.append((sequences, found.notes, found.sample))
    return values


def _compare(tokenizer: Any, seed: int) -> int:
    """Compares both ways over many conversations; how many of them were rounds put together from a plan."""
    planned = 0
    for thinking in (False, True):
        chance = Chance(seed)
        # contents alone differ within a shape; few of all ways are taken in the first rows
        talks = [_talk(chance) for _ in range(120)]
        encoder = Encoder(tokenizer, thinking=thinking)
        try:
            found = _values(encoder, talks)
        except ConfigError:
            continue
        with plain_way():
            expected = _values(Encoder(tokenizer, thinking=thinking), talks)
        for talk, one, other in zip(talks, found, expected, strict=True):
            assert one == other, talk
        ends = encoder._segments.ends
        planned += sum(encoder.template.one_round(talk, ends) is not None for talk in talks)
    return planned


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_template_gives_the_same_both_ways(kind: str, smollm2: Any) -> None:
    planned = _compare(tokenizer_of(kind, smollm2.tokenizer), seed=1)

    assert planned > 0 or kind != "plain"


@pytest.mark.slow
@pytest.mark.skipif(not TEMPLATES, reason=NOT_THERE)
@pytest.mark.parametrize("name", TEMPLATES or ["none"])
def test_every_published_template_gives_the_same_both_ways(name: str, qwen25: Any) -> None:
    _compare(with_template(qwen25.tokenizer, TEMPLATES[name]), seed=2)


def test_generated_files_give_the_same_bytes_and_reports_both_ways(
    smollm2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorajob_runtime.data.prepare.load_tokenizer", lambda *_, **__: smollm2.tokenizer)

    def prepared(spec: Any) -> Any:
        done = outcome(lambda: prepare(spec, model_path=smollm2.path, folder=tmp_path / "data"))
        if isinstance(done, LorajobError):
            return done.failure.name, done.message, done.hint
        return done, {path.name: path.read_bytes() for path in sorted((tmp_path / "data").iterdir())}

    for seed in range(200):
        chance = Chance(10_000 + seed)
        path = made_file(chance, tmp_path)
        spec = made_spec(chance, path)
        found = prepared(spec)
        with plain_way():
            assert found == prepared(spec), f"seed {seed}: {path.name}, {spec.data}"
        path.unlink()


@pytest.mark.parametrize("name", ["smollm2", "qwen25", "qwen3", "hunyuan", "glm"])
def test_words_are_the_tokens_of_their_text(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name).tokenizer
    words, chance = WordTokens(tokenizer), Chance(3)
    pattern = word_tokens.word_pattern(tokenizer)
    assert pattern is not None

    for _ in range(40):
        texts = [_text(chance).replace("\ud83d", "é") for _ in range(100)]
        expected = encode(tokenizer, texts)
        assert [list(memoryview(ids).cast("i")) for ids in words.tokens(texts)] == expected
        for text, whole in zip(texts, expected, strict=True):
            apart = encode(tokenizer, pattern.findall(text))
            assert [token for ids in apart for token in ids] == whole, text


@pytest.mark.parametrize(
    "change",
    [
        lambda backend, t: setattr(backend, "normalizer", t.normalizers.Lowercase()),
        lambda backend, t: setattr(backend, "pre_tokenizer", t.pre_tokenizers.Metaspace()),
        lambda backend, t: setattr(backend, "pre_tokenizer", t.pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda backend, t: backend.add_special_tokens([t.AddedToken("<|greedy|>", rstrip=True, normalized=False)]),
        lambda backend, t: backend.add_special_tokens([t.AddedToken("two words", normalized=False)]),
    ],
)
def test_a_tokenizer_of_another_kind_gets_its_texts_whole(change: Callable[[Any, Any], Any], smollm2: Any) -> None:
    import tokenizers

    tokenizer = tokenizer_of("plain", smollm2.tokenizer)
    change(tokenizer.backend_tokenizer, tokenizers)

    assert word_tokens.word_pattern(tokenizer) is None
    (ids,) = WordTokens(tokenizer).tokens(["two words of it"])
    assert list(memoryview(ids).cast("i")) == encode(tokenizer, ["two words of it"])[0]


@pytest.mark.parametrize(
    "looks",
    [
        "{{ m.content | length }}",
        "{{ m.content[:3] }}",
        "{{ m.content | tojson }}",
        "{{ m.content | upper }}",
        "{% if m.content in 'a good day' %}!{% endif %}",
        "{{ ' '.join([m.content]) }}",
        "{{ m.content.split() | last }}",
        "{% for c in m.content %}{{ c }}.{% endfor %}",
        "{{ '%s' | format(m.content) }}",
        "{% set x = {m.content: 1} %}{{ x | length }}",
        "{{ m.content.replace('o', '0') }}",
    ],
)
def test_a_template_that_does_more_than_to_write_a_content_is_always_asked(looks: str, smollm2: Any) -> None:
    tokenizer = tokenizer_of("plain", smollm2.tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ m.content }}", "{{ m.content }}" + looks)

    assert _compare(tokenizer, seed=4) == 0


@pytest.mark.parametrize(
    "writes",
    [
        "{{ m.content | trim }}",
        "{{ m.content.strip() + '!' }}",
        "{{ '' ~ m.content ~ '' }}",
        "{{ m.content.split('</x>')[-1] }}",
        "{{ m.content }}{% if 'foo' in m.content %}~{% endif %}",
        "{% macro said(c) %}{{ c }}{% endmacro %}{{ said(m.content) }}",
        "{% set c = m.content %}{% if c.startswith('good') %}{{ c }}{% else %}{{ c }}.{% endif %}",
    ],
)
def test_a_template_that_only_writes_contents_and_asks_about_them_is_put_together(writes: str, smollm2: Any) -> None:
    tokenizer = tokenizer_of("plain", smollm2.tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ m.content }}", writes)

    assert _compare(tokenizer, seed=5) > 0


def test_a_shape_that_comes_once_is_not_traced(smollm2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[int] = []
    trace = spliced_texts.SplicedTexts._trace
    monkeypatch.setattr(SplicedTexts, "_trace", lambda *given: traced.append(1) or trace(*given))
    template = ChatTemplate(smollm2.tokenizer, thinking=False)
    first = Conversation(
        messages=[{"role": role, "content": f"{role} {n}"} for n in range(3) for role in ("user", "assistant")]
    )
    traced.clear()

    template.conversation(first)
    assert traced == []
    template.conversation(replace(first, messages=[message | {"content": "else"} for message in first.messages]))
    assert traced
