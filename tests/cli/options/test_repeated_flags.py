"""An option that takes one value is refused when it is given several times, in every command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import pytest

from calling import Call
from lorajob.main import cli
from lorajob_runtime.contract.errors import LorajobError


def _commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            yield from _commands(inner, (*words, name))


def _options() -> list[tuple[tuple[str, ...], click.Option]]:
    return [
        (words, option)
        for words, command in _commands(cli)
        for option in command.params
        if isinstance(option, click.Option) and not option.is_eager
    ]


def _spellings(option: click.Option) -> list[str]:
    return [*option.opts, *option.secondary_opts]


def _given(option: click.Option, flag: str, value: str) -> list[str]:
    return [flag] if option.is_flag else [flag, value]


def _named(*, multiple: bool) -> list[Any]:
    return [
        pytest.param(words, option, id="-".join([*words, option.name or ""]))
        for words, option in _options()
        if option.multiple is multiple
    ]


SINGLE, MULTIPLE = _named(multiple=False), _named(multiple=True)
COMMANDS = dict(_commands(cli))


def _refusal(words: tuple[str, ...], *arguments: str) -> str:
    """What the command line is refused with, before anything is done; "" where it parses."""
    try:
        COMMANDS[words].make_context("lorajob", list(arguments))
    except (click.UsageError, LorajobError) as error:
        return error.message
    return ""


@pytest.mark.parametrize(("words", "option"), SINGLE)
def test_an_option_with_one_value_is_refused_when_it_is_given_twice_in_any_spelling(
    words: tuple[str, ...], option: click.Option
) -> None:
    for spelling in _spellings(option):
        refused = _refusal(words, *_given(option, option.opts[0], "one"), *_given(option, spelling, "two"))

        assert "is given twice" in refused
        assert max(option.opts, key=len) in refused
        assert option.is_flag or refused.endswith(": one, two; it takes one value")


@pytest.mark.parametrize(("words", "option"), MULTIPLE)
def test_an_option_that_takes_several_values_still_takes_them(words: tuple[str, ...], option: click.Option) -> None:
    assert "is given" not in _refusal(words, option.opts[0], "one", option.opts[0], "two")


def test_there_are_options_of_both_kinds_to_look_at() -> None:
    assert len(SINGLE) > 200
    assert {param.values[1].opts[-1] for param in MULTIPLE} >= {"--set", "--file"}


def test_values_of_a_flag_with_an_equals_sign_or_glued_to_its_letter_are_seen_too(lorajob: Call) -> None:
    for arguments in (("--data=a", "--data=b"), ("-da", "-db"), ("-d", "a", "--data=b")):
        outcome = lorajob("run", *arguments)

        assert (outcome.code, outcome.out) == (2, "")
        assert "--data is given twice: a, b; it takes one value" in outcome.err


def test_a_flags_text_that_is_the_value_of_another_flag_is_none(lorajob: Call) -> None:
    outcome = lorajob("run", "--dry-run", "--system", "--data", "--data", "poems.json")

    assert outcome.code == 0, outcome.err


def test_a_role_that_columns_names_twice_is_refused(lorajob: Call) -> None:
    outcome = lorajob("run", "--dry-run", "--columns", "output=a,output=b")

    assert outcome.code == 2
    assert "--columns is 'output=a,output=b': it must name each role once" in outcome.err
