"""Progress and termination message: what one side writes the other reads, within the sizes that Kubernetes allows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lorajob_runtime.contract import kubernetes
from lorajob_runtime.contract.kubernetes import Progress, TerminationMessage


@given(st.text(max_size=300), st.text(max_size=100))
def test_a_termination_message_comes_back_as_it_was(message: str, hint: str) -> None:
    words = TerminationMessage(exit_code=11, failure="data", message=message, hint=hint)

    assert kubernetes.read_termination_message(words.dumps()) == words


@settings(deadline=None)
@given(st.text(min_size=1, max_size=20).map(lambda text: text * 1000))
def test_what_is_too_long_loses_its_end_and_nothing_else(message: str) -> None:
    words = TerminationMessage(exit_code=11, failure="data", message=message, hint="look")

    text = words.dumps()
    read = kubernetes.read_termination_message(text)

    assert len(text.encode()) <= kubernetes.TERMINATION_MESSAGE_MAX_BYTES
    assert read is not None
    assert (read.exit_code, read.failure, read.hint) == (11, "data", "look")
    assert message.startswith(read.message.removesuffix("…"))


def test_progress_with_every_text_too_long_fits_into_its_annotation() -> None:
    progress = Progress(
        pod="zhenhuan-0-abcde",
        attempt=3,
        time=1.5,
        phase="end",
        message="很长" * 500,
        note='"' * 900,
        hint="\\" * 900,
    )

    text = progress.dumps()
    read = kubernetes.read_progress(text)

    assert len(text.encode()) <= kubernetes.PROGRESS_MAX_BYTES
    assert read is not None
    assert read.attempt == 3


def test_what_a_newer_runtime_says_more_is_passed_over() -> None:
    read = kubernetes.read_progress('{"pod": "a-0-b", "attempt": 1, "time": 2, "phase": "train", "mood": "good"}')

    assert read == Progress(pod="a-0-b", attempt=1, time=2, phase="train")


def test_what_is_not_ours_is_nothing() -> None:
    for text in ("", "panic: out of luck", "[]", '{"phase": "train"}', '{"pod": 3}'):
        assert kubernetes.read_progress(text) is None
        assert kubernetes.read_termination_message(text) is None
