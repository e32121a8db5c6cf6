"""Writes the golden files of the command line's help and of what it says, and the pages of the docs that are made.

`make golden` runs it; a test compares what it would write with what is there, and each test of a sentence its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from lorajob.__main__ import main
from lorajob.errors import CLI_FAILURES, USAGE
from lorajob.main import cli
from lorajob_runtime.contract import errors, schema, spec
from lorajob_runtime.contract.spec import SpecField

ROOT = Path(__file__).resolve().parents[2]
# started as a program, this file has only its own folder to import from
sys.path.append(str(ROOT / "tests"))
COLUMNS = "100"

_SPEC_HEAD = """\
<!-- made by `make golden` from the spec itself -->
# The spec

A spec says everything about a run. It is a YAML 1.2 file (`1e-4` is a number, `5:50` is text), of which every field is
optional; `apiVersion: lorajob.dev/v1` may stand on top. `lorajob init` writes a commented one, `examples/` has one for
each known recipe, and `lorajob run --dry-run` prints the whole of what a command line comes to.

Field by field, the later of these wins: the defaults below, the recipe of the model (`lorajob models -o yaml`),
`./lorajob.yaml` or else the files given by `-f`, flags, `--set FIELD=VALUE`. Relative paths start at the folder in
which the command runs. A field that is unknown, of the wrong type or out of range is an error that names the place it
stands at, and nothing is started.
"""

_EXITS_HEAD = """\
<!-- made by `make golden` from the failure classes themselves -->
# Exit codes

What is wrong with the command line or a spec file itself ends with 2 before anything is started; `lorajob: error: …`
names the flag, or the file and line. After that `lorajob run`, `lorajob data check`, `lorajob artifacts convert` and
`lorajob generate` end with the code of what happened; a run's pods end with the same codes, by which its Job decides
whether to try again. Codes from 100 on are of commands on a cluster: what `wait`, `watch` and `submit --wait` say of a
run, and a run or a cluster that is not there. Such a command ends with 13 when the cluster does not know you or you may
not do it, and with 10 when a quota, a rule of the cluster or the platform's config is against it. Every error is one
line on stderr, and most have a second one that begins with `hint:`.

| code | class | running it again can help | what to do |
|---|---|---|---|
| 0 | succeeded | | |
"""

_EXITS_TAIL = """\
| 141 | | | none: whoever read the output went away, as in `lorajob models \\| head -1` |

Ctrl-C or SIGTERM during training finishes the step, writes a checkpoint, brings it to storage and ends with 30; a
second Ctrl-C ends at once with 130. SwanLab never changes the code: when it can't be reached, one warning says so.
"""


def documents() -> dict[Path, str]:
    """Every file that is made from the program, with its text."""
    from golden import chart_documents, run_manifests

    made = {ROOT / "tests/golden/help" / f"{name}.txt": help_text(words) for name, words in command_lines()}
    made[ROOT / "docs/spec.md"] = spec_page()
    made |= run_manifests.documents()
    made |= chart_documents.documents()
    made[ROOT / "docs/exit-codes.md"] = exits_page()
    return made


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(file name, words) of every command there is, groups too."""
    yield "lorajob", []
    context = click.Context(cli)
    for name in cli.list_commands(context):
        yield name, [name]
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            for inner in command.list_commands(click.Context(command)):
                yield f"{name}-{inner}", [name, inner]


def help_text(words: list[str]) -> str:
    """What `lorajob … --help` prints in a terminal of fixed width."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS
    try:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            main([*words, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return output.getvalue()


def spec_page() -> str:
    """docs/spec.md: a table of fields for each section."""
    lines = [_SPEC_HEAD]
    headed: set[str] = set()
    for field in spec.every_field():
        section = field.path.partition(".")[0] if "." in field.path else ""
        if section not in headed:
            headed.add(section)
            title = f"`{section}`: {field.group.heading}" if section else "Top level"
            lines += ["", f"## {title}", "", "| field | flag | may be | without it | |", "|---|---|---|---|---|"]
        lines.append("| " + " | ".join(_cells(field)) + " |")
    return "\n".join(lines) + "\n"


def _cells(field: SpecField) -> tuple[str, ...]:
    flag = f"`{field.flag}`"
    if field.option.only_in_cluster:
        flag += " of `submit`"
    if field.option.short is not None:
        flag += f", `{field.option.short}`"
    kinds = schema.describe(field.type).replace(" or null", "")
    return f"`{field.path}`", flag, kinds, field.without_it(), field.option.help.replace("|", "\\|")


def exits_page() -> str:
    """docs/exit-codes.md: every failure class."""
    usage = dataclasses.replace(USAGE, hint="correct the flag, the argument or the spec file")
    rows = [
        f"| {each.code} | {each.name} | {'no' if each.final else 'yes'} | {each.hint} |"
        for each in sorted((*errors.ALL, *CLI_FAILURES, usage), key=lambda each: each.code)
        if each is not errors.SUCCEEDED
    ]
    return _EXITS_HEAD + "\n".join(rows) + "\n" + _EXITS_TAIL


def renew() -> None:
    """Writes every document that is not as it should be, and removes help of commands that are gone."""
    made = documents()
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    for path in (ROOT / "tests/golden/help").glob("*.txt"):
        if path not in made:
            path.unlink()
            print(f"removed {path.relative_to(ROOT)}")


if __name__ == "__main__":
    from golden import said

    renew()
    said.renew()
