"""Tables as spreadsheets, databases and pandas write them: read right, or refused with the line that does not fit."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_files import file_of, refused

from lorajob_runtime.data.rows.read import read

FRUIT = [{"instruction": "Name a fruit", "output": "Apple"}, {"instruction": "Name a tree", "output": "Oak"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", "instruction,output\nName a fruit,Apple\nName a tree,Oak\n"),
        ("no-line-end.csv", "instruction,output\nName a fruit,Apple\nName a tree,Oak"),
        ("carriage-returns.csv", "instruction,output\rName a fruit,Apple\rName a tree,Oak\r"),
        ("mark.csv", "\ufeffinstruction,output\r\nName a fruit,Apple\r\nName a tree,Oak\r\n"),
        ("blank-lines.csv", "\n\ninstruction,output\n\nName a fruit,Apple\n\n\nName a tree,Oak\n\n"),
        ("quotes.csv", '"instruction","output"\n"Name a fruit","Apple"\n"Name a tree",Oak\n'),
        ("numbers-of-rows.csv", ",instruction,output\n0,Name a fruit,Apple\n1,Name a tree,Oak\n"),
        ("blank-last-column.csv", "instruction,output,\nName a fruit,Apple,\nName a tree,Oak,\n"),
        ("blank-columns.csv", "instruction, ,output,,\nName a fruit,,Apple,,\nName a tree,,Oak,,\n"),
        ("excel.csv", "sep=,\ninstruction,output\nName a fruit,Apple\nName a tree,Oak\n"),
        ("excel-semicolon.csv", "\ufeffsep=;\r\ninstruction;output\r\nName a fruit;Apple\r\nName a tree;Oak\r\n"),
        ("excel-bar.csv", '"sep=|"\ninstruction|output\nName a fruit|Apple\nName a tree|Oak\n'),
        ("semicolons.csv", "instruction;output\nName a fruit;Apple\nName a tree;Oak\n"),
        ("tabs.csv", "instruction\toutput\nName a fruit\tApple\nName a tree\tOak\n"),
        ("tabs.tsv", "instruction\toutput\nName a fruit\tApple\nName a tree\tOak\n"),
        ("TABS.TSV", "instruction\toutput\nName a fruit\tApple\nName a tree\tOak\n"),
        ("commas.tsv", "instruction,output\nName a fruit,Apple\nName a tree,Oak\n"),
    ],
)
def test_the_ways_in_which_programs_write_one_table_are_one(name: str, content: str, tmp_path: Path) -> None:
    assert list(read(file_of(tmp_path, content, name))) == FRUIT


@pytest.mark.parametrize(
    ("content", "row"),
    [
        ("input;output\nRed, green;Blue, grey\nCyan;Teal\n", {"input": "Red, green", "output": "Blue, grey"}),
        ("input,output\nRed; green,Blue; grey\nCyan,Teal\n", {"input": "Red; green", "output": "Blue; grey"}),
        ("input\toutput\nRed, green; so\tBlue\n", {"input": "Red, green; so", "output": "Blue"}),
        ("a;b,output\nRed,Blue\n", {"a;b": "Red", "output": "Blue"}),
        ("text\nRed; green\n", {"text": "Red; green"}),
        ('text\n"Red, ""green"""\n', {"text": 'Red, "green"'}),
        ('input,output\n"two\r\nlines",a 5" nail\n', {"input": "two\r\nlines", "output": 'a 5" nail'}),
        ("input,output\n,\n", {"input": "", "output": ""}),
        ("input,output\n a , b\n", {"input": " a ", "output": " b"}),
        ("input,output\nnul\x00l,b\n", {"input": "nul\x00l", "output": "b"}),
    ],
)
def test_the_separator_is_the_one_that_fits_and_what_is_no_separator_is_text(
    content: str, row: dict[str, str], tmp_path: Path
) -> None:
    assert next(iter(read(file_of(tmp_path, content, "rows.csv")))) == row


@pytest.mark.parametrize(
    ("content", "said"),
    [
        # one value more than the header in the first row, which tables without a header for their index have
        (
            "instruction,output\nName two fruits,Apple, pear\nName three, Apple, plum\n",
            "line 2 has 3 values, the header 2",
        ),
        # a separator at the end of every line but the header's
        ("a,input,output\nx,good morning,bonjour,\nx,good night,bonne nuit,\n", "line 2 has 4 values, the header 3"),
        ('id,input,output\n1,"Translate, please",chat,\n2,dog,chien\n', "line 2 has 4 values, the header 3"),
        ("text\nHello, world, again\nGood, evening, all\n", "line 2 has 3 values, the header 1"),
        ("text\nHello\nGood, evening\n", "line 3 has 2 values, the header 1"),
        ('input,output\n"a\n\nb",c\n\nd,e,f\n', "line 6 has 3 values, the header 2"),
        ("input,output\na,b\nc\n", "line 3 has 1 value, the header 2"),
        ("input;output\na;b\nc;d;e\n", "line 3 has 3 values, the header 2"),
        ("sep=;\ninput;output\na;b;c\n", "line 3 has 3 values, the header 2"),
        ('instruction,output\n"Quote her","She said \\"hi, all\\" and left"\n', "line 2 cannot be read as csv"),
        ('instruction,output\n"Quote her","She said \\"hi\\" and left"\n', "and not with a backslash"),
        ('input,output\na,b\n"c"d,e\n', "line 3 cannot be read as csv: there is text behind the quote"),
        ('input,output\na,b\n"c,d\ne,f\n', "line 3 cannot be read as csv: a quote opens a value there and is never"),
        ("instruction, output\nName a fruit, Apple\n", "line 1 names a column ' output': write it without the spaces"),
        ("input,output,input\na,b,c\n", "has the column 'input' twice"),
        (",input,output\nfirst,a,b\n", "line 2 has 'first' in column 1, which has no name"),
        ("input,output,\na,b,\nc,d,e\n", "line 3 has 'e' in column 3, which has no name"),
        ('[{"input": "a", "output": "b"}]', "is JSON: give it a name that ends in .json"),
        ('{"input": "a", "output": "b"}\n', "is JSON: give it a name that ends in .json"),
        ("input,output\n", "has no rows"),
        ("sep=,\n", "has no rows"),
        ("\ufeff\n", "is empty"),
        ("a,b\n1,2\n中,文\n".encode("gbk"), "line 3 is not UTF-8: save the file as UTF-8"),
        (b"a,b\r1,2\r\xe9,4\r", "line 3 is not UTF-8"),
        (b"a,b\n" + b"1,2\n" * 400_000 + b"\xff,1\n", "line 400002 is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "line 1 is not UTF-8 but UTF-16"),
        ("instruction,output\n1,2\n".encode("utf-16-le"), "line 1 is not UTF-8 but UTF-16"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_line(content: str | bytes, said: str, tmp_path: Path) -> None:
    assert said in refused(file_of(tmp_path, content, "rows.csv")).message


@pytest.mark.parametrize(
    ("content", "hint"),
    [(",input,output\n0.0,a,b\n", "leave it out with to_csv"), ("input,,output\na,0.0,b\n", "")],
)
def test_an_index_that_is_no_row_number_is_said_to_be_left_out(content: str, hint: str, tmp_path: Path) -> None:
    error = refused(file_of(tmp_path, content, "rows.csv"))
    assert "which has no name: name it" in error.message
    assert hint in error.hint
    assert bool(error.hint) == bool(hint)


_text = st.text(st.characters(codec="utf-8"), max_size=8)
_named = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=6)


@given(
    names=st.lists(_named, min_size=2, max_size=4, unique=True),
    values=st.lists(st.lists(_text, min_size=4, max_size=4), min_size=1, max_size=5),
    separator=st.sampled_from([",", ";", "\t"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_is_written_with_all_values_in_quotes_is_read_as_it_was(
    names: list[str], values: list[list[str]], separator: str, end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [dict(zip(names, row, strict=False)) for row in values]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    assert list(read(file_of(tmp_path_factory.mktemp("csv"), text.getvalue(), "rows.csv"))) == rows
