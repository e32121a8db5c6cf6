"""`lorajob generate`: its command line as the request that the runtime gets."""

from __future__ import annotations

import pytest

from lorajob.commands.generate import command, request_of


@pytest.mark.parametrize(
    ("flags", "reasoning"),
    [
        ([], "auto"),
        (["--reasoning", "show"], "show"),
        (["--thoughts", "hide"], "hide"),
        (["--thoughts", "hide", "--reasoning", "show"], "show"),
    ],
)
def test_reasoning_may_be_given_by_its_former_name(flags: list[str], reasoning: str) -> None:
    context = command.make_context("generate", ["zhenhuan", "--prompt", "Who are you?", *flags])

    assert request_of(**context.params).reasoning == reasoning
