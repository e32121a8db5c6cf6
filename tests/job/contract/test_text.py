"""Values in words, and text from anywhere made safe for a terminal."""

from __future__ import annotations

import pytest

from lorajob_runtime.contract.text import (
    decimal_size,
    duration_seconds,
    error_line,
    escape_controls,
    one_line,
    plural,
    truncate,
)


@pytest.mark.parametrize(
    "steering",
    [
        "\x1b",
        "\x07",
        "\r",
        "\x7f",
        "\x9b",
        "\u061c",
        "\u200e",
        "\u200f",
        "\u202a",
        "\u202c",
        "\u202e",
        "\u2066",
        "\u2069",
    ],
)
def test_what_steers_a_terminal_is_made_visible(steering: str) -> None:
    shown = escape_controls(f"a{steering}b")

    assert steering not in shown
    assert (len(shown), shown[0], shown[-1]) == (3, "a", "b")


@pytest.mark.parametrize("joined", ["👩\u200d🔬", "می\u200cخواهم", "一行\n两行\t完", "café"])
def test_joiners_and_letters_of_any_script_stay(joined: str) -> None:
    assert escape_controls(joined) == joined


def test_a_line_of_anything_is_one_line_that_a_stream_can_take() -> None:
    assert one_line("a\r\n b\u2028c\ud83d") == "a b c?"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("four", "four"),
        ("fives", "fiv…"),
        (" a\nb ", "a b"),
        (None, "None"),
        (" " * 100 + "the end", "…"),
    ],
)
def test_what_is_cut_off_shows(value: object, shown: str) -> None:
    assert truncate(value, 4) == shown


def test_an_error_is_its_first_line_or_its_class() -> None:
    pages = ValueError("\nno \x1b[31mkey\nand a page of detail")

    assert error_line(pages) == "no ␛[31mkey"
    assert error_line(pages, with_class=True) == "ValueError: no ␛[31mkey"
    assert error_line(KeyError()) == error_line(KeyError(), with_class=True) == "KeyError"
    assert len(error_line(OSError("x" * 500))) == 200


def test_numbers_and_their_things_agree() -> None:
    assert [plural(number, "row") for number in (0, 1, 1200)] == ["0 rows", "1 row", "1,200 rows"]
    assert [plural(number, "retry", "retries") for number in (1, 2)] == ["1 retry", "2 retries"]
    assert [plural(number, "epoch") for number in (1.0, 0.5)] == ["1 epoch", "0.5 epochs"]


def test_sizes_have_a_fraction_where_it_tells_something() -> None:
    sizes = (12, 3_500, 1_200_000, 269_060_552, 16_381_470_720, 2.5e12)

    assert [decimal_size(size) for size in sizes] == ["12 bytes", "4 kB", "1.2 MB", "269 MB", "16.4 GB", "2.50 TB"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("90m", 5400),
        ("24h", 86400),
        ("3d", 259_200),
        ("0m", None),
        ("1h30m", None),
        ("5", None),
        ("", None),
    ],
)
def test_a_duration_is_one_number_and_one_unit(text: str, seconds: int | None) -> None:
    assert duration_seconds(text) == seconds
