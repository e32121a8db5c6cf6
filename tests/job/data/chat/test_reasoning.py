"""Thoughts and answers, told apart however the text is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorajob_runtime.data.chat.reasoning import MARKS, Reply, Splitter, apart, opens_thought, split


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("我是甄嬛", "", "我是甄嬛"),
        ("<think>\n\n</think>\n\n我是甄嬛", "", "我是甄嬛"),
        ("<think>\nwho am I?\n</think>\n\nYou are you.", "who am I?", "You are you."),
        ("<think>\na\n</think>\n<answer>\nb\n</answer>", "a", "b"),
        ("\n<answer>b</answer> and more", "", "b"),
        ("<answer>cut off at the", "", "cut off at the"),
        ("<think>never done", "never done", ""),
        (
            "The mark <think> opens, </think> closes, <answer> too.",
            "",
            "The mark <think> opens, </think> closes, <answer> too.",
        ),
        ("a < b and <answ", "", "a < b and <answ"),
        ("<think>a <think> b</think>c</think>d", "a <think> b", "c</think>d"),
        ("", "", ""),
    ],
)
def test_a_thought_comes_first_and_marks_go(text: str, thought: str, answer: str) -> None:
    assert split(text) == Reply(reasoning=thought, answer=answer)


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [("\n</think>\n\nA", "", "A"), ("hm\n</think>\n\nA", "hm", "A"), ("hm", "hm", "")],
)
def test_a_prompt_that_opens_the_thought_has_it_begin_at_once(text: str, thought: str, answer: str) -> None:
    assert split(text, thinking=True) == Reply(reasoning=thought, answer=answer)


@pytest.mark.parametrize(
    ("prompt", "opens"), [("]~b]ai\n<think>\n", True), ("\n<think></think>", False), ("<think>\n\n</think>\n\n", False)]
)
def test_a_prompt_tells_whether_it_opens_a_thought(prompt: str, opens: bool) -> None:
    assert opens_thought(prompt) is opens


@given(
    st.lists(st.sampled_from([*MARKS, "a", "<", "</", "\n", " ", "think>", "b c"]), max_size=9).map("".join),
    st.booleans(),
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
)
def test_pieces_of_any_size_say_what_the_whole_says(text: str, thinking: bool, sizes: list[int]) -> None:
    splitter, rest, parts = Splitter(thinking=thinking), text, []
    for index in range(len(text)):
        size = sizes[index % len(sizes)]
        parts += splitter.feed(rest[:size])
        rest = rest[size:]
    parts += splitter.end()

    whole = split(text, thinking=thinking)

    assert "".join(piece for kind, piece in parts if kind == "reasoning").strip() == whole.reasoning
    assert "".join(piece for kind, piece in parts if kind == "answer").strip() == whole.answer


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("It is seven.", "", "It is seven."),
        ("<think>\nBecause.\n</think>\n\nIt is seven.", "Because.", "It is seven."),
        ("\n <think>Because.</think>  It is\n", "Because.", "  It is\n"),
        ("<think>\n\n</think>\n\nIt is seven.", "", "It is seven."),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
        # the opening mark is the prompt's in some models, and left out in their answers
        ("Because.\n</think>\n\nIt is seven.", "Because.", "It is seven."),
        ("The tag </think> ends it. Then comes the answer.", "", "The tag </think> ends it. Then comes the answer."),
        ("`</think>`\n\nends it", "", "`</think>`\n\nends it"),
        ("Write <think> here\n</think>\nthere", "", "Write <think> here\n</think>\nthere"),
        ("<think>never done", "", "<think>never done"),
    ],
)
def test_only_a_thought_that_begins_an_answer_is_cut(text: str, thought: str, answer: str) -> None:
    assert apart(text) == Reply(reasoning=thought, answer=answer)
